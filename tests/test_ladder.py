"""The ladder of effort: channels of like width, corrected biases, learnt rounding and steps, weights of few bits."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto
from shared_fixtures import write_recipe
from torch import Tensor, nn
from zoo import C, body, conv, example, image, made, written

from compress.editing.calibration import calibrated
from compress.editing.integers import effort
from compress.editing.integers.effort import with_weights
from compress.editing.integers.equalization import equalized, joined
from compress.editing.integers.regions import MOST_LAYERS, regions
from compress.editing.integers.rounding import Rounding, rounded
from compress.editing.integers.simulated import Simulated
from compress.editing.integers.training import LearnSteps
from compress.errors import PassError
from compress.measure.complexity import bit_operations
from compress.passes.int8 import Int8
from compress.passes.low_bit import LowBit
from compress.recipe import load
from compress.storage.description import Description
from compress.storage.weights import load_net, save_net
from compress.task import Task
from compress.train.learned_steps import SAFE, LearnedSteps
from export.artifact import Artifact
from export.backends import onnxruntime, openvino, tensorrt
from export.backends.onnxruntime import OnnxRuntime
from export.backends.openvino import OpenVino
from export.capture import folded_graph
from export.graph import CONVS, TRANSPOSED, convolutions
from export.packed import packed_in
from export.quantization.carriers import source_of
from export.quantization.learnt import Learnt, weight_path
from export.quantization.observers import Channels
from export.quantization.quantized import Quantized
from export.quantization.saturation import pair_sums
from export.quantization.weight_grids import integer_layers, weight_grids
from export.to_onnx import Style, to_onnx

NAMES = ("unet", "residual", "projection", "depthwise", "grouped", "volume")


def calibration(name: str) -> tuple[Any, dict[str, tuple[float, float]], Channels]:
    """A network of the zoo, its ranges and its channels on three random images."""
    graph = folded_graph(made(name), example(name), ())
    watched = [node for node in convolutions(graph) if node.target in (*CONVS, *TRANSPOSED)]
    channels = Channels({source_of(node.args[0]).name for node in watched} | joined(graph), 3)
    ranges = calibrated(graph, (example(name, seed) for seed in (1, 2, 3)), None, 3, channels)
    return graph, ranges, channels


@pytest.fixture
def task(tmp_path: Path, recipe: dict[str, Any]) -> Task:
    """The tiny trained U-Net and its data."""
    return load(write_recipe(tmp_path, recipe)).task()


def noted(task: Task) -> tuple[Task, list[str]]:
    notes: list[str] = []
    return dataclasses.replace(task, note=notes.append), notes


@pytest.mark.parametrize("name", NAMES)
def test_a_network_answers_the_same_after_its_channels_were_brought_to_like_widths(name: str) -> None:
    graph, _, channels = calibration(name)
    after, count = equalized(graph, channels.sizes)
    x = example(name, 5)
    with torch.no_grad():
        assert torch.allclose(after(x), graph(x), rtol=1e-3, atol=1e-4 * float(graph(x).abs().max()))
    assert count > 0 or name == "grouped"


def test_a_loud_channel_is_brought_down_and_costs_no_more() -> None:
    net = nn.Sequential(conv(3, C), nn.ReLU(), conv(C, C), nn.ReLU(), conv(C, 2, 1)).eval()
    with torch.no_grad():
        net[0].weight[:2] *= 300
        net[2].weight[:, :2] /= 300
    graph = folded_graph(net, image(), ())
    channels = Channels({source_of(node.args[0]).name for node in convolutions(graph)}, 1)
    calibrated(graph, [image(1)], None, 1, channels)
    after, _ = equalized(graph, channels.sizes)

    @torch.no_grad()
    def error(of: Any) -> float:
        found = Quantized(of, calibrated(of, [image(1)], None, 1)).placed(openvino.RULES)
        return float((found(image(1)) - graph(image(1))).square().mean())

    assert error(after) < 0.05 * error(graph)


@pytest.mark.parametrize("name", NAMES)
def test_every_layer_is_in_one_region_and_only_its_end_is_read_by_others(name: str) -> None:
    graph, _, _ = calibration(name)
    layers = integer_layers(graph, ())
    found = regions(graph, layers)
    assert sorted(node.name for region in found for node in region.layers) == sorted(node.name for node in layers)
    for region in found:
        inside = set(region.nodes)
        assert 1 <= len(region.layers) <= MOST_LAYERS
        assert all(user in inside for node in region.nodes[:-1] for user in node.users)
        read = {source for node in region.nodes for source in node.all_input_nodes if source.op != "get_attr"}
        assert read - inside == {region.entry}


def test_a_residual_block_is_one_region() -> None:
    graph, _, _ = calibration("residual")
    (region,) = (region for region in regions(graph, integer_layers(graph, ())) if len(region.layers) > 1)
    assert any(node.target is torch.ops.aten.add.Tensor for node in region.nodes)


@pytest.mark.parametrize("name", ["residual", pytest.param("unet", marks=pytest.mark.slow)])
def test_learnt_rounding_of_4_bits_is_better_than_the_nearest_points(name: str) -> None:
    graph, ranges, _ = calibration(name)
    layers = integer_layers(graph, ())
    grids = weight_grids(graph, layers, ranges, lambda _: 4, openvino.RULES)
    before = Quantized(graph, ranges, learnt=Learnt(grids=grids))
    simulated = Simulated(graph, layers, ranges, openvino.RULES)
    learn, held = [image(seed) for seed in (1, 2, 3)], [image(4)]
    after = with_weights(before, grids, rounded(simulated, grids, learn, held, Rounding(steps=150, seed=0)))

    @torch.no_grad()
    def error(of: Quantized) -> float:
        return float((of.placed(openvino.RULES)(held[0]) - graph(held[0])).square().mean())

    assert error(after) < 0.95 * error(before)
    first, again = (rounded(simulated, grids, learn, held, Rounding(steps=3, seed=0)) for _ in range(2))
    assert all(torch.equal(first[path], again[path]) for path in first)


def test_8_bit_weights_that_were_rounded_leave_no_sum_outside_16_bits(tmp_path: Path) -> None:
    graph, ranges, _ = calibration("unet")
    layers = integer_layers(graph, ())
    grids = weight_grids(graph, layers, ranges, lambda _: 8, onnxruntime.RULES)
    simulated = Simulated(graph, layers, ranges, onnxruntime.RULES)
    fitted = rounded(simulated, grids, [image(1), image(2)], [image(3)], Rounding(steps=10, seed=0))
    after = with_weights(Quantized(graph, ranges), grids, fitted)
    artifact = to_onnx(after.placed(onnxruntime.RULES), image(), tmp_path / "net.onnx")
    sums = pair_sums(onnx.load(artifact.path))
    assert sums is not None and sums.layers > 0 and not sums.unsafe


def test_a_corrected_bias_takes_back_what_rounding_adds_on_average() -> None:
    torch.manual_seed(0)
    net = body(conv(C, C), nn.ReLU()).eval()
    graph = folded_graph(net, image(), ())
    # Three positive inputs, as behind a ReLU: what rounding adds to their products does not average out.
    images = [image(seed).abs() for seed in (1, 2)]
    channels = Channels({source_of(node.args[0]).name for node in convolutions(graph)}, 2)
    ranges = calibrated(graph, images, None, 2, channels)
    grids = weight_grids(graph, integer_layers(graph, ()), ranges, lambda _: 4, openvino.RULES)
    plain = Quantized(graph, ranges, learnt=Learnt(grids=grids))
    corrected = plain.changed(learnt=Learnt(grids=grids, means=channels.means))

    def bias(of: Quantized) -> float:
        return float((of.placed(openvino.RULES)(images[0]) - graph(images[0])).detach().mean((0, 2, 3)).abs().max())

    assert bias(corrected) < 0.6 * bias(plain)


def test_what_was_learnt_is_kept_with_the_network(tmp_path: Path, task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(effort, "Rounding", lambda steps, seed: Rounding(steps=20, seed=seed))
    asked = effort.Ladder._better

    def taken(self: effort.Ladder, before: Quantized, after: Quantized, what: str) -> Quantized:
        # Whether so few steps help differs with the processor's sums.
        asked(self, before, after, what)
        return after

    monkeypatch.setattr(effort.Ladder, "_better", taken)
    task, notes = noted(task)
    net = Int8(effort="best")(task.net, task)
    assert isinstance(net, Quantized)
    told = [note for note in notes if "cases held back" in note]
    assert len(told) >= 2 and all("times that before" in note for note in told)
    assert net.learnt.grids, "rounding was learnt"
    save_net(net, Description(network=net.description), tmp_path / "net.safetensors")
    again = load_net(tmp_path / "net.safetensors")
    assert isinstance(again, Quantized)
    for rules in (onnxruntime.RULES, openvino.RULES, tensorrt.RULES):
        assert torch.equal(again.placed(rules)(task.example + 0.3), net.placed(rules)(task.example + 0.3))


def test_a_rung_that_does_not_help_is_left_out_and_said_so(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    def spoiled(*_: Any) -> dict[str, Tensor]:
        graph = folded_graph(task.net, task.example, ())
        return {
            weight_path(node): torch.zeros_like(graph.get_parameter(weight_path(node))) for node in convolutions(graph)
        }

    monkeypatch.setattr(effort, "rounded", spoiled)
    task, notes = noted(task)
    net = Int8(effort="best")(task.net, task)
    (note,) = (note for note in notes if "rounded block by block" in note)
    assert note.endswith("so that is not done")
    assert net(task.example).abs().max() > 0.1


@pytest.fixture(scope="module")
def eight_bits(tmp_path_factory: pytest.TempPathFactory) -> int:
    """Bytes of the integers of a file with weights of 8 bits."""
    whole = written("unet", tmp_path_factory.mktemp("whole") / "whole.onnx", openvino.RULES)
    return bytes_of_integers(whole)


def bytes_of_integers(artifact: Artifact) -> int:
    return sum(tensor.ByteSize() for tensor in onnx.load(artifact.path).graph.initializer if "int" in tensor.name)


@pytest.mark.parametrize(("bits", "opset"), [pytest.param(4, 18, marks=pytest.mark.slow), (2, 21)])
def test_a_file_with_weights_of_few_bits_opens_everywhere_and_is_smaller(
    bits: int, opset: int, eight_bits: int, tmp_path: Path
) -> None:
    graph, ranges, _ = calibration("unet")
    grids = weight_grids(graph, integer_layers(graph, ()), ranges, lambda _: bits, openvino.RULES)
    net = Quantized(graph, ranges, learnt=Learnt(grids=grids))
    for rules, runtime in ((onnxruntime.RULES, OnnxRuntime(threads=1)), (openvino.RULES, OpenVino(threads=1))):
        placed = net.placed(rules)
        artifact = to_onnx(placed, image(), tmp_path / "few.onnx", Style(opset=opset))
        built = runtime.build(artifact, tmp_path)
        with runtime.open(built) as infer:
            flipped = infer(image(3).numpy()).argmax(1) != placed(image(3)).argmax(1).numpy()
        assert flipped.mean() < 0.01
        layers = net.layers(rules)
        ran = runtime.executed_precisions(built)
        assert (ran["INT8"], ran.get("FP32", 0)) == (layers["integer"], layers["float"])
        assert {each.coding.bits for each in packed_in(onnx.load(artifact.path).graph).values()} == {bits}
    assert bytes_of_integers(artifact) < 0.75 * eight_bits
    assert artifact.made["opset"] == opset


def test_tensorrt_gets_weights_of_few_bits_as_int8(tmp_path: Path) -> None:
    graph, ranges, _ = calibration("unet")
    grids = weight_grids(graph, integer_layers(graph, ()), ranges, lambda _: 4, openvino.RULES)
    net = Quantized(graph, ranges, learnt=Learnt(grids=grids))
    artifact = to_onnx(net.placed(tensorrt.RULES), image(), tmp_path / "few.onnx", Style(opset=21))
    model = onnx.load(artifact.path)
    assert not packed_in(model.graph) and TensorProto.INT8 in {each.data_type for each in model.graph.initializer}


def test_low_bit_keeps_8_bits_in_the_first_layer_and_the_logits(tmp_path: Path, task: Task) -> None:
    task, notes = noted(task)
    net = LowBit(bits=4, steps=10, calibrate=6)(task.net, task)
    assert isinstance(net, Quantized)
    bits = {path: grid.bits for path, grid in net.learnt.grids.items()}
    assert bits.pop("encoder.0.0.weight", 8) == 8 and bits.pop("head.weight", 8) == 8
    assert set(bits.values()) == {4}
    assert any("have 4 bits" in note for note in notes)
    with pytest.raises(PassError, match="in 8-bit integers already; give low_bit in the place of int8 or half"):
        LowBit()(net, task)
    with pytest.raises(PassError, match="no layer is left"):
        LowBit(keep=("*",))(task.net, task)


def agree(first: Callable[[Tensor], Tensor], second: Callable[[Tensor], Tensor], x: Tensor) -> float:
    return float((first(x).argmax(1) == second(x).argmax(1)).float().mean())


@pytest.mark.parametrize("name", ["unet", "depthwise"])
def test_learned_steps_begin_where_calibration_ended_and_reach_their_gradients(name: str) -> None:
    graph, ranges, _ = calibration(name)
    grids = weight_grids(graph, integer_layers(graph, ()), ranges, lambda _: 4, onnxruntime.RULES)
    steps = LearnedSteps(graph, grids, ranges, onnxruntime.RULES)
    x = example(name, 3)
    simulated = Quantized(graph, ranges, learnt=Learnt(grids=grids))
    assert agree(steps, simulated.placed(onnxruntime.RULES), x) > 0.97
    steps(x).square().mean().backward()
    assert all(parameter.grad is not None for parameter in steps.parameters())
    assert steps.factors.grad is not None and steps.factors.grad.abs().max() > 0
    with torch.no_grad():
        steps.factors += 0.1
    learnt, found, spans = steps.learnt(ranges)
    after = Quantized(learnt, spans, learnt=Learnt(grids=found)).placed(onnxruntime.RULES)
    assert agree(steps, after, x) > 0.97


def test_8_bit_weights_with_learned_steps_fit_16_bits() -> None:
    graph, ranges, _ = calibration("residual")
    grids = weight_grids(graph, integer_layers(graph, ()), ranges, lambda _: 8, onnxruntime.RULES)
    _, found, _ = LearnedSteps(graph, grids, ranges, onnxruntime.RULES).learnt(ranges)
    learnt, _, _ = LearnedSteps(graph, grids, ranges, onnxruntime.RULES).learnt(ranges)
    for node in integer_layers(learnt, ()):
        weight = learnt.get_parameter(weight_path(node))
        ones = [1] * (weight.dim() - 2)
        scale = found[weight_path(node)].scale_O.reshape(*((1, -1) if node.target in TRANSPOSED else (-1, 1)), *ones)
        codes = weight / scale
        assert float((codes - codes.round()).abs().max()) < 1e-3 and float(codes.abs().max()) <= SAFE + 1e-3
    coarser = Quantized(learnt, ranges, learnt=Learnt(grids=found)).coarser(onnxruntime.RULES)
    assert not coarser


def test_training_with_rounding_brings_2_bits_back(task: Task) -> None:
    task, notes = noted(task)
    net = LowBit(bits=2, steps=5, train=LearnSteps(epochs=6, rate=3e-3, augment="flips"))(task.net, task)
    (note,) = (note for note in notes if "learned steps took" in note)
    assert isinstance(net, Quantized)
    assert {grid.bits for grid in net.learnt.grids.values()} == {2, 8}
    for path, grid in net.learnt.grids.items():
        codes = net.graph.get_parameter(path) / grid.scale_O.max()
        assert np.isfinite(codes.numpy()).all()
    assert "validation Dice" in note


def test_weights_of_few_bits_count_as_few_bit_operations() -> None:
    graph, ranges, _ = calibration("residual")
    counted = []
    for bits in (8, 4, 2):
        grids = weight_grids(graph, integer_layers(graph, ()), ranges, lambda _, bits=bits: bits, openvino.RULES)
        net = Quantized(graph, ranges, learnt=Learnt(grids=grids))
        counted.append(bit_operations(net.placed(openvino.RULES), image()))
    assert counted[0] == 2 * counted[1] == 4 * counted[2]


@pytest.mark.parametrize("name", ["unet", "bottleneck", "attention"])
def test_learned_steps_answer_several_cases_as_each_alone_however_they_lie(name: str) -> None:
    graph, ranges, _ = calibration(name)
    grids = weight_grids(graph, integer_layers(graph, ()), ranges, lambda _: 8, onnxruntime.RULES)
    steps = LearnedSteps(graph, grids, ranges, onnxruntime.RULES)
    images = torch.cat([example(name, 1), example(name, 2)])
    with torch.no_grad():
        alone = torch.cat([steps(images[:1]), steps(images[1:])])
        for parameter in steps.parameters():
            if parameter.dim() == 4:
                parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
        together = steps(images.contiguous(memory_format=torch.channels_last))
    assert float((together - alone).abs().max()) < 0.05 * float(alone.abs().max())


def loud(task: Task) -> Task:
    """The task of a network with a channel so loud that integers see nothing of the others."""
    first = next(layer for layer in task.net.decoder[-1] if isinstance(layer, nn.BatchNorm2d))  # type: ignore[union-attr, index]
    second = [layer for layer in task.net.decoder[-1] if isinstance(layer, nn.Conv2d)][1]  # type: ignore[union-attr, index]
    with torch.no_grad():
        # A ReLU between them passes the factor on: the network answers as before.
        first.weight[:2] *= 3000
        first.bias[:2] *= 3000
        second.weight[:, :2] /= 3000
    return task


@torch.no_grad()
def lost(net: nn.Module, task: Task) -> float:
    some = task.data.cases["test"][:12]

    def dice(one: Callable[[Tensor], Tensor]) -> float:
        return task.measure(lambda image: one(torch.from_numpy(image)).numpy(), cases=some).mean("dice")

    assert isinstance(net, Quantized)
    return dice(task.net) - dice(net.placed(onnxruntime.RULES))


@pytest.mark.slow
@pytest.mark.parametrize(
    "how",
    [Int8(method="min_max", effort="best"), Int8(method="min_max", train=LearnSteps(epochs=2, rate=1e-4))],
    ids=["best", "trained"],
)
def test_at_least_half_of_what_plain_integers_lose_is_won_back(how: Int8, task: Task) -> None:
    task = loud(task)
    plain = lost(Int8(method="min_max", effort="fast")(task.net, task), task)
    assert plain > 0.05
    assert lost(how(task.net, task), task) < plain / 2
