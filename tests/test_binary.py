"""Convolutions in one bit: which take it, what is stored, and that every runtime computes the same."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from pydantic import ValidationError
from shared_fixtures import tiny_task
from torch import Tensor, nn

from compress.errors import PassError, WeightsError
from compress.measure.complexity import bit_operations, cost_of
from compress.networks.blocks.signed_conv import SignedConv
from compress.passes.binary import Binary
from compress.passes.distill import Distill
from compress.passes.int8 import Int8
from compress.storage.bits import in_bits, out_of_bits
from compress.storage.description import Description, build_net
from compress.storage.weights import load_net, save_net
from compress.task import Task
from compress.train import bits
from compress.train.losses.sum import DiceCrossEntropy
from compress.train.objective import Supervised
from compress.train.plan import Plan
from compress.train.state import State
from export.backends.onnxruntime import OnnxRuntime
from export.backends.openvino import OpenVino
from export.backends.torch import infer_from_module
from export.capture import folded_graph
from export.graph import convolutions, layer_name, reads_signs
from export.layers import layers_of
from export.modules import copy_of
from export.packed import SIGNS, SIGNS_AND_ZEROS, bits_of, packed
from export.to_onnx import parity, to_onnx

STEP = Distill(steps=1, rate=1e-3, augment="none")


def signs(*shape: int, zeros: bool = False, seed: int = 0) -> Tensor:
    """Weights of two values an output channel, or of three."""
    drawn = torch.Generator().manual_seed(seed)
    weight = torch.randn(shape, generator=drawn)
    size = torch.rand(shape[0], generator=drawn).reshape(-1, *[1] * (len(shape) - 1)) + 0.1
    return torch.sign(weight) * size * ((weight.abs() > 0.5) if zeros else 1.0)


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory, folder: Path, weights: Path) -> Task:
    return tiny_task(tmp_path_factory.mktemp("recipe"), folder, weights, "binary")


Made = dict[tuple[int, bool], tuple[nn.Module, list[str]]]


@pytest.fixture(scope="module")
def made(task: Task) -> Made:
    """The network with weights in bits, and with activations as signs too; each with what the pass said."""
    found: Made = {}
    for activations, zero in ((32, False), (1, True)):
        said: list[str] = []
        net = Binary(activations=activations, zero=zero, recover=STEP)(task.net, replace(task, note=said.append))
        found[activations, zero] = net, said
    return found


both = pytest.mark.parametrize("which", [(32, False), (1, True)], ids=["weights", "weights-and-activations"])


# --- what is stored ---


@pytest.mark.parametrize("zeros", [False, True])
@pytest.mark.parametrize("shape", [(4, 3, 3, 3), (5, 8, 1, 1), (3, 2, 3, 3, 3), (2, 7, 5)])
def test_what_is_packed_comes_back_to_the_last_bit(shape: tuple[int, ...], zeros: bool) -> None:
    weight = signs(*shape, zeros=zeros)
    found = packed(weight)
    assert found is not None and found.coding is (SIGNS_AND_ZEROS if zeros else SIGNS)
    assert np.array_equal(found.values(), weight.numpy())
    assert found.codes.nbytes == -(-weight.numel() // (5 if zeros else 8))
    stored = in_bits({"x.weight": weight, "y": torch.ones(3)})
    assert torch.equal(out_of_bits(stored, Path("net"))["x.weight"], weight)


@pytest.mark.parametrize(
    "weight",
    [
        torch.randn(4, 3, 3, 3),
        torch.ones(4, 1, 1, 1),
        signs(4, 3, 3, 3).double(),
        torch.full((2, 8, 1, 1), torch.inf),
        torch.full((2, 8, 1, 1), torch.nan),
        signs(8, 16),
    ],
    ids=["real", "few", "double", "infinite", "nan", "matrix"],
)
def test_other_weights_are_not_packed(weight: Tensor) -> None:
    assert packed(weight) is None and bits_of(weight) is None


def test_a_channel_of_zeros_alone_takes_no_third_value() -> None:
    weight = signs(4, 3, 3, 3)
    weight[1] = 0
    found = packed(weight)
    assert found is not None and found.coding is SIGNS and np.array_equal(found.values(), weight.numpy())


@pytest.mark.parametrize("part", ["bits", "size", "shape"])
def test_bits_that_do_not_belong_together_are_refused(part: str) -> None:
    stored = in_bits({"x.weight": signs(4, 3, 3, 3)})
    stored[f"x.weight.{part}"] = stored[f"x.weight.{part}"][:-1]
    with pytest.raises(WeightsError, match=r"net: what is stored of x\.weight in bits does not belong together"):
        out_of_bits(stored, Path("net"))


def test_bits_whose_size_is_missing_are_unknown_tensors_of_the_file(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Conv2d(8, 8, 3))
    net[0].weight.data = signs(8, 8, 3, 3)
    stored = in_bits(dict(net.state_dict()))
    del stored["0.weight.size"]
    assert "0.weight" not in out_of_bits(stored, tmp_path)


# --- the pass ---


def fitted(net: nn.Module) -> nn.Module:
    """The network after two steps of training, whatever its score."""
    net = copy_of(net)
    supervised = Supervised(DiceCrossEntropy())
    state = State.fresh(net, supervised, Plan(steps=2, rate=1e-2, augment="none"))
    images = torch.randn(2, 1, 32, 32)
    for _ in range(2):
        supervised.of(net(images), torch.zeros(2, 32, 32).long()).backward()
        state.optimizer.step()
    return net


@both
def test_the_first_and_last_layers_and_transposed_ones_stay_wide_and_it_is_said(
    which: tuple[int, bool], made: Made
) -> None:
    net, said = made[which]
    convs = {name: layer for name, layer in net.named_modules() if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d)}
    wide = {
        name for name, layer in convs.items() if bits_of(layer.weight) is None or isinstance(layer, nn.ConvTranspose2d)
    }
    assert wide == {"encoder.0.0", "up.0", "up.1", "head"}
    told = "\n".join(said)
    for reason in ("kept encoder.0.0: the first", "kept up.0, up.1: transposed", "kept head: the last"):
        assert reason in told
    assert all(bits_of(layer.weight) == (2 if which[1] else 1) for name, layer in convs.items() if name not in wide)


def test_what_reads_a_concatenation_keeps_real_activations(made: Made) -> None:
    net, said = made[1, True]
    signed = {name for name, layer in net.named_modules() if isinstance(layer, SignedConv)}
    assert signed == {
        "encoder.0.3",
        "encoder.1.0",
        "encoder.1.3",
        "encoder.2.0",
        "encoder.2.3",
        "decoder.0.3",
        "decoder.1.3",
    }
    assert any("kept decoder.0.0, decoder.1.0: it reads a concatenation" in line for line in said)


@both
def test_saved_it_is_small_and_loaded_it_is_the_same(which: tuple[int, bool], made: Made, tmp_path: Path) -> None:
    net, _ = made[which]
    path = tmp_path / "net.safetensors"
    save_net(net, Description(network=net.description), path)  # type: ignore[arg-type]
    again = load_net(path)
    ours, loaded = net.state_dict(), again.state_dict()
    assert ours.keys() == loaded.keys() and all(torch.equal(loaded[name], ours[name]) for name in ours)
    # Trained weights lie channels last, and on some CPUs kernels of another layout round otherwise.
    alike = copy.deepcopy(net)
    for parameter in alike.parameters():
        parameter.data = parameter.data.contiguous()
    x = torch.randn(1, 1, 32, 32)
    with torch.no_grad():
        assert torch.equal(alike(x), again(x))
    assert bits.marked(again).keys() == bits.marked(net).keys() != set()
    assert path.stat().st_size < 0.6 * 4 * sum(parameter.numel() for parameter in net.parameters())


@both
def test_later_training_leaves_the_bits_alone(which: tuple[int, bool], made: Made) -> None:
    net, _ = made[which]
    # Enough that its end, and not its start, is the best state.
    after = fitted(net)
    for name, layer in bits.marked(net).items():
        assert torch.equal(after.get_submodule(name).weight, layer.weight)
    assert not torch.equal(after.encoder[0][0].weight, net.encoder[0][0].weight)


def test_layers_named_in_keep_stay(task: Task) -> None:
    net = Binary(keep=("encoder", "decoder.0"), recover=STEP)(task.net, task)
    assert set(bits.marked(net)) == {"decoder.1.0", "decoder.1.3"}
    with pytest.raises(PassError, match="binary: keep 'encodr' names no layer; did you mean"):
        Binary(keep=("encodr",), recover=STEP)(task.net, task)


def test_a_network_with_nothing_to_do_is_told_why(task: Task) -> None:
    with pytest.raises(PassError, match=r"binary: no layer can take bits; .*named in keep"):
        Binary(keep=("encoder", "decoder", "up", "head"), recover=STEP)(task.net, task)


@pytest.mark.parametrize("options", [{"weights": 2}, {"activations": 8}, {"recover": {"epoch": 3}}])
def test_options_that_it_does_not_have_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Binary(**options)


@pytest.mark.parametrize(
    ("conv", "size"),
    [
        (nn.Conv2d(8, 8, 3, padding=1), (6, 6)),
        (nn.Conv2d(8, 16, 3, padding="same"), (6, 6)),
        (nn.Conv2d(16, 8, 1), (6, 6)),
        (nn.Conv2d(8, 8, 3, padding=1, stride=2), (6, 6)),
        (nn.Conv2d(8, 12, 3, padding=1), (6, 6)),
        (nn.Conv2d(8, 8, 3), (6, 6)),
        (nn.Conv3d(8, 8, 3, padding=1), (4, 4, 4)),
        (nn.Conv1d(8, 8, 3, padding=1), (9,)),
    ],
    ids=["same", "wider", "narrower", "strides", "no multiple", "unpadded", "volume", "line"],
)
def test_a_convolution_of_signs_has_the_shape_of_the_one_it_replaces(conv: Any, size: tuple[int, ...]) -> None:
    x = torch.randn(2, conv.in_channels, *size)
    layer = SignedConv(conv)
    assert layer(x).shape == conv(x).shape
    assert layer.shortcut == ((conv.out_channels != 12 and conv.padding != (0, 0)) or conv.kernel_size == (1, 1))


def test_a_sign_is_plus_one_at_its_threshold_and_gradients_flow_near_it() -> None:
    layer = SignedConv(nn.Conv2d(1, 1, 1, bias=False))
    layer.conv.weight.data.fill_(1.0)
    layer.shortcut = False
    x = torch.tensor([-3.0, -0.5, 0.0, 0.5, 3.0, torch.nan]).reshape(1, 1, 1, -1).requires_grad_()
    answer = layer(x)
    assert answer.flatten().tolist() == [-1, -1, 1, 1, 1, -1]
    answer[..., :5].sum().backward()
    assert x.grad is not None
    assert x.grad.flatten()[:5].tolist() == [0, 1, 2, 1, 0]


# --- what leaves torch ---


@both
def test_every_runtime_unpacks_the_bits_and_computes_the_network(
    which: tuple[int, bool], made: Made, tmp_path: Path
) -> None:
    net, _ = made[which]
    torch.manual_seed(0)
    image = torch.randn(1, 1, 32, 32).numpy()
    artifact = to_onnx(net, torch.zeros(1, 1, 32, 32), tmp_path / "model.onnx")
    assert artifact.made["weights_in_bits"] == 9
    for backend in (OnnxRuntime(), OpenVino()):
        with backend.open(backend.build(artifact, tmp_path)) as infer:
            assert parity(infer_from_module(net), infer, [image]).mean_error < 1e-2
    assert {layer.bits for layer in layers_of(artifact.path, (1, 1, 32, 32)) if layer.kind == "Conv 3x3"} == {
        32,
        2 if which[1] else 1,
    }


@both
def test_bit_operations_count_the_bits_that_are_stored(which: tuple[int, bool], made: Made, task: Task) -> None:
    net, _ = made[which]
    whole, now = bit_operations(task.net, task.example), bit_operations(net, task.example)
    assert now < whole / 3
    assert cost_of(net, task.example).dead == {}


@pytest.mark.slow
def test_int8_behind_it_keeps_the_bits_and_signs_stay_exact(made: Made, task: Task, tmp_path: Path) -> None:
    for (activations, _), (net, _) in made.items():
        quantized = Int8(calibrate=2, method="min_max")(net, task)
        rules = OnnxRuntime.rules
        assert rules is not None
        artifact = to_onnx(quantized.placed(rules), task.example, tmp_path / f"{activations}.onnx")
        # A weight whose inputs are stretched is no longer of two values.
        assert artifact.made["weights_in_bits"] >= 7
        with OnnxRuntime().open(artifact) as infer:
            assert np.isfinite(infer(task.example.numpy())).all()
        floats = OnnxRuntime().executed_precisions(artifact).get("FP32", 0)
        assert floats == 1 + (7 if activations == 1 else 0)
        path = tmp_path / f"{activations}.safetensors"
        save_net(quantized, Description(network=quantized.description), path)  # type: ignore[arg-type]
        assert load_net(path)(task.example).shape == (1, 3, 32, 32)


def test_what_reads_signs_is_told_from_the_graph(made: Made, task: Task) -> None:
    graph = folded_graph(made[1, True][0], task.example, ())
    named = [layer_name(node) for node in convolutions(graph) if reads_signs(node)]
    assert len(named) == 7 and all(name.endswith(".conv") for name in named)


def test_a_file_with_bits_has_no_node_that_only_one_runtime_has(made: Made, task: Task, tmp_path: Path) -> None:
    artifact = to_onnx(made[32, False][0], task.example, tmp_path / "model.onnx")
    model = onnx.load(artifact.path)
    assert {entry.domain for entry in model.opset_import} == {""}
    assert artifact.path.stat().st_size < 60_000 < 4 * sum(each.numel() for each in task.net.parameters())


def test_an_unchanged_network_is_stored_as_before(weights: Path) -> None:
    net = build_net({"unet": {"classes": 3, "in_channels": 1, "width": 8, "depth": 2}})
    assert set(in_bits(dict(net.state_dict()))) == set(net.state_dict())
    assert not any(name.endswith(".bits") for name in load_net(weights).state_dict())
