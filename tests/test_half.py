"""16 bits: what they cannot hold is found on data and stays in 32, and the file has the types itself."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from shared_fixtures import write_recipe
from torch import Tensor, nn
from whole_run import Done, gone_on
from zoo import FAST, C, body, conv, example, image, made

from compress.errors import MissingExtra, PassError, RecipeError
from compress.measure.complexity import bit_operations
from compress.passes.half import Half as HalfPass
from compress.recipe import load
from compress.storage.description import Description
from compress.storage.weights import load_net, save_net
from compress.task import Task
from export.artifact import Artifact
from export.backends.onnxruntime import OnnxRuntime
from export.backends.openvino import OpenVino
from export.backends.reference import Reference
from export.backends.tensorrt import TensorRt
from export.capture import folded_graph
from export.devices.rtx_40 import RTX_40
from export.engines.module import is_rtx
from export.graph import bias_of, convolutions, weight_of
from export.half.formats import FORMATS
from export.half.network import Half, plain
from export.half.reasons import Reasons
from export.half.statistics import statistics
from export.instruction_set import cpu_flags
from export.modules import precision_of
from export.rewrites import in_float32
from export.sessions.tensorrt import python_module
from export.to_onnx import Style, to_onnx

Network = Callable[[Tensor], Tensor]


def in_half(net: nn.Module, images: list[Tensor], word: str = "float16") -> Half:
    """The network in 16 bits, with what these images show in 32."""
    graph = plain(folded_graph(net, images[0], ()))
    format = FORMATS[word]
    seen = statistics(graph, format, images)
    return Half(graph, format.word, Reasons(graph=graph, seen=seen, format=format).found()).eval()


def naive(net: nn.Module, example: Tensor) -> Half:
    """All of it in float16, as a converter does that looks at no data."""
    return Half(plain(folded_graph(net, example, ())), "float16", {}).eval()


def written(half: Half, example: Tensor, path: Path) -> Artifact:
    return to_onnx(half.typed(), example, path, Style(opset=max(20, half.format.least_opset)))


def alike(net: Network, other: Network, images: list[Tensor]) -> float:
    """The share of pixels that have the same class."""
    with torch.no_grad():
        return float(np.mean([(net(each).argmax(1) == other(each).argmax(1)).float().mean() for each in images]))


def answers(backend: OnnxRuntime | OpenVino | Reference, artifact: Artifact) -> Network:
    def infer(image: Tensor) -> Tensor:
        with backend.open(artifact) as opened:
            return torch.from_numpy(opened(image.numpy()))

    return infer


def casts(path: Path) -> list[onnx.NodeProto]:
    return [node for node in onnx.load(path).graph.node if node.op_type == "Cast"]


@pytest.fixture
def task(tmp_path: Path, recipe: dict[str, object]) -> Task:
    return load(write_recipe(tmp_path, {**recipe, "passes": ["half"]})).task()


def images_of(task: Task, count: int = 4) -> list[Tensor]:
    return [torch.from_numpy(each) for each in task.data.images(task.data.cases["test"][:count])]


@pytest.fixture
def reaching_far(task: Task) -> nn.Module:
    """The trained U-Net with a first layer that reaches 1e5 and a second that takes that back: the same answers."""
    graph = folded_graph(task.net, task.example, ())
    first, second, *_ = convolutions(graph)
    seen = statistics(graph, FORMATS["float16"], images_of(task))
    factor = 1.2e5 / seen[first.name].largest
    bias = bias_of(graph, first)
    assert bias is not None
    with torch.no_grad():
        weight_of(graph, first).mul_(factor)
        bias.mul_(factor)
        weight_of(graph, second).div_(factor)
    return graph


def test_what_reaches_beyond_float16_stays_in_float32_by_name_and_the_answer_is_right(
    reaching_far: nn.Module, task: Task, tmp_path: Path
) -> None:
    images = images_of(task)
    half = in_half(reaching_far, images)
    assert half.layers()["float32"] == 2 and half.layers()["float16"] > 4
    first, *_ = half.reasons().values()
    assert "reach" in first or "adds up products" in first
    assert next(iter(half.reasons())) == "encoder.0.0" and "encoder.0.3" in half.reasons()
    artifact = written(half, images[0], tmp_path / "half.onnx")
    for other in (half, answers(OnnxRuntime(), artifact), answers(Reference(), artifact)):
        assert alike(reaching_far, other, images) >= 0.999
    assert artifact.input.dtype == artifact.output.dtype == "float"


def test_a_conversion_that_looks_at_no_data_is_wrong_on_the_same_network(
    reaching_far: nn.Module, task: Task, tmp_path: Path
) -> None:
    images = images_of(task, 2)
    all_of_it = naive(reaching_far, images[0])
    artifact = written(all_of_it, images[0], tmp_path / "naive.onnx")
    with np.errstate(all="ignore"):
        for other in (all_of_it, answers(Reference(), artifact)):
            assert alike(reaching_far, other, images) < 0.999


def test_an_engine_is_built_from_it(reaching_far: nn.Module, task: Task, tmp_path: Path) -> None:
    try:
        TensorRt.check_installed()
    except MissingExtra as error:
        pytest.skip(str(error))
    images = images_of(task, 1)
    float32 = TensorRt(device=RTX_40).build(to_onnx(reaching_far, images[0], tmp_path / "float.onnx"), tmp_path)
    artifact = written(in_half(reaching_far, images), images[0], tmp_path / "half.onnx")
    engine = TensorRt(device=RTX_40).build(artifact, tmp_path)
    assert engine.made["flags"]["strongly_typed"]
    assert engine.path != float32.path


def test_an_engine_in_bfloat16_has_its_transposed_convolutions_in_float32(tmp_path: Path) -> None:
    """TensorRT-RTX refuses them in bfloat16, so that no U-Net could be built."""
    try:
        TensorRt.check_installed()
    except MissingExtra as error:
        pytest.skip(str(error))
    module = python_module()
    if module is None or not is_rtx(module):
        pytest.skip("an RTX card's engines are built on any host by TensorRT-RTX alone")
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ConvTranspose2d(8, 8, 2, 2), nn.Conv2d(8, 2, 1)).eval()
    images = [torch.randn(1, 1, 16, 16)]
    artifact = written(in_half(net, images, word="bfloat16"), images[0], tmp_path / "bfloat16.onnx")
    engine = TensorRt(device=RTX_40).build(artifact, tmp_path)
    (reason,) = engine.made["half"]["float32"].values()
    assert "no transposed convolution in bfloat16" in reason
    assert engine.made["onnx_sha256"] == artifact.made["sha256"]


@pytest.mark.parametrize("operator", ["ConvTranspose", "Conv"])
def test_an_operator_is_taken_out_of_bfloat16_with_its_types_right(operator: str, tmp_path: Path) -> None:
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ConvTranspose2d(4, 2, 2, 2, bias=False)).eval()
    images = [torch.randn(1, 1, 8, 8)]
    artifact = written(in_half(net, images, word="bfloat16"), images[0], tmp_path / "bfloat16.onnx")
    model, found = in_float32(onnx.load(artifact.path), operator)
    onnx.checker.check_model(model, full_check=True)
    typed = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
    types = {value.name: value.type.tensor_type.elem_type for value in typed.graph.value_info}
    for node in model.graph.node:
        if node.op_type in ("Conv", "ConvTranspose"):
            wide = types[node.output[0]] == onnx.TensorProto.FLOAT
            assert wide == (node.op_type == operator) == (node.name in found)
    assert in_float32(model, operator) == (model, [])


def test_a_bias_that_is_left_out_is_not_cast() -> None:
    bits = onnx.TensorProto.BFLOAT16
    x, y = (onnx.helper.make_tensor_value_info(name, bits, [1, 2, None, None]) for name in "xy")
    weight = onnx.helper.make_tensor("w", bits, [2, 2, 2, 2], np.ones(16))
    node = onnx.helper.make_node("ConvTranspose", ["x", "w", ""], ["y"], name="up", strides=[2, 2])
    opset = onnx.helper.make_opsetid("", 22)
    model = onnx.helper.make_model(onnx.helper.make_graph([node], "g", [x], [y], [weight]), opset_imports=[opset])
    wide, found = in_float32(model, "ConvTranspose")
    assert found == ["up"] and [each.op_type for each in wide.graph.node] == ["Cast", "Cast", "ConvTranspose", "Cast"]
    onnx.checker.check_model(wide, full_check=True)


@pytest.mark.parametrize("name", FAST)
def test_a_network_of_each_kind_is_written_in_types_that_its_simulation_has(name: str, tmp_path: Path) -> None:
    net, images = made(name), [example(name, seed) for seed in (1, 2)]
    half = in_half(net, images)
    artifact = written(half, images[0], tmp_path / "half.onnx")
    with torch.no_grad():
        expected, found = half(images[1]), answers(OnnxRuntime(), artifact)(images[1])
        assert float((expected - found).abs().max() / expected.abs().max()) < 1e-2
        assert float((expected - net(images[1])).abs().max() / expected.abs().max()) < 1e-2
    makers = {name: node.op_type for node in onnx.load(artifact.path).graph.node for name in node.output}
    assert all(makers.get(node.input[0]) != "Cast" for node in casts(artifact.path))


class Divided(nn.Module):
    """Each pixel's channels over their norm, as F.normalize does it: an eps of 1e-12."""

    def forward(self, x: Tensor) -> Tensor:
        return F.normalize(x, dim=1)


class Scaled(nn.Module):
    def __init__(self, by: float) -> None:
        super().__init__()
        self.by = by

    def forward(self, x: Tensor) -> Tensor:
        return x * self.by


class Attending(nn.Module):
    """Every pixel looks at every other."""

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.flatten(2).transpose(1, 2)
        seen = torch.softmax(tokens @ tokens.transpose(1, 2), -1) @ tokens
        return seen.transpose(1, 2).reshape(x.shape)


def tiny_weights() -> nn.Module:
    layer = conv(C, C)
    nn.init.normal_(layer.weight, std=1e-7)
    return body(layer, Scaled(1e5))


TRAPS: dict[str, tuple[Callable[[], nn.Module], float, str]] = {
    "eps": (lambda: body(Divided()), 1.0, "1.0e-12 is below what float16 holds"),
    "constant": (lambda: body(Scaled(1e-6), Scaled(1e6)), 1.0, "1.0e-06 is below"),
    "tiny weights": (tiny_weights, 1.0, "vanish in float16"),
    "squares of CT values": (lambda: nn.Sequential(nn.InstanceNorm2d(3), conv(3, 2)), 1000.0, "adds up squares"),
    "a long sum": (lambda: body(nn.Upsample(scale_factor=2), nn.AdaptiveAvgPool2d(1)), 1.0, "adds up 4,096 values"),
    "attention to a thousand": (
        lambda: body(nn.Upsample((48, 48)), conv(C, 4), Attending(), conv(4, C)),
        0.1,
        "adds up 2,304 values, and float16 counts to 2,048",
    ),
    "an image far from zero": (lambda: body(nn.ReLU()), 0.0, "would change"),
}


@pytest.mark.parametrize("trap", TRAPS)
def test_what_goes_wrong_in_16_bits_is_told_with_its_reason_and_left_in_32(trap: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    build, scale, reason = TRAPS[trap]
    net = build().eval()
    images = [image(seed) * scale if scale else image(seed) + 5000 for seed in (1, 2)]
    half = in_half(net, images)
    assert any(reason in told for told in half.reasons().values()), half.reasons()
    found = answers(OnnxRuntime(), written(half, images[0], tmp_path / "half.onnx"))(images[1])
    with torch.no_grad():
        expected = net(images[1])
        for other in (found, half(images[1])):
            assert float((expected - other).abs().max() / expected.abs().max()) < 5e-3


def test_ct_values_without_normalization_are_right_behind_an_instance_norm(tmp_path: Path) -> None:
    torch.manual_seed(0)
    norms = [nn.InstanceNorm2d(C, affine=True) for _ in range(2)]
    net = body(norms[0], nn.LeakyReLU(0.01), conv(C, C), norms[1], nn.LeakyReLU(0.01)).eval()
    images = [
        torch.randint(-1000, 3000, (1, 3, 32, 32), generator=torch.Generator().manual_seed(s)).float() for s in (1, 2)
    ]
    half = in_half(net, images)
    assert half.layers() == {"float16": 3, "float32": 0}
    # Into the first norm and out of it: what is between two norms in 32 bits is cast nowhere.
    path = written(half, images[0], tmp_path / "half.onnx").path
    assert len(casts(path)) == 4
    with torch.no_grad():
        assert float((half(images[1]) - net(images[1])).abs().max() / net(images[1]).abs().max()) < 5e-3


def test_a_bias_that_nothing_taught_keeps_no_layer_in_32_bits() -> None:
    """Behind it a norm takes the mean off, and weight decay has left 1e-8 of it, as in nnU-Net's networks."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(C, C, 3, padding=1) for _ in range(2)]
    net = body(layers[0], nn.InstanceNorm2d(C, affine=True), nn.LeakyReLU(0.01), layers[1]).eval()
    for layer in layers:
        nn.init.normal_(layer.bias, std=1e-8)
    assert in_half(net, [image(seed) for seed in (1, 2)]).layers()["float32"] == 0
    # Where the answers are as small there is something to lose.
    nn.init.normal_(layers[1].weight, std=1e-8)
    assert "vanish" in str(in_half(net, [image(seed) for seed in (1, 2)]).reasons())


def test_between_two_operations_in_32_bits_nothing_is_cast() -> None:
    net = nn.Sequential(conv(3, C), nn.InstanceNorm2d(C), nn.ReLU(), nn.MaxPool2d(2), nn.InstanceNorm2d(C), conv(C, 2))
    half = in_half(net.eval(), [image(1, 1, 3, 128, 128) * 1e3])
    assert {"relu", "max_pool2d"}.isdisjoint(half.halves)
    assert {"conv2d", "conv2d_1"} <= half.halves


def test_a_network_in_16_bits_is_stored_in_half_the_room_and_loaded_as_it_was(task: Task, tmp_path: Path) -> None:
    half = HalfPass(calibrate=4, keep=("head",))(task.net, task)
    assert precision_of(half) == "half"
    assert half.reasons() == {"head": "the recipe keeps it"}  # type: ignore[operator]
    path = tmp_path / "net.safetensors"
    save_net(half, Description(network=half.description), path)  # type: ignore[arg-type]
    assert {tensor.dtype for name, tensor in load_net(path).state_dict().items() if "head" not in name} == {
        torch.float16
    }
    with torch.no_grad():
        assert torch.equal(load_net(path)(task.example + 1), half(task.example + 1))
    whole, halved = bit_operations(task.net, task.example), bit_operations(half, task.example)
    assert 0.5 < halved / whole < 0.53


def test_a_layer_that_nobody_has_cannot_be_kept(task: Task) -> None:
    with pytest.raises(PassError, match=r"half: keep 'tail' names no layer"):
        HalfPass(keep=("tail",))(task.net, task)


@pytest.mark.parametrize(
    ("passes", "told"),
    [
        (["half", "int8"], "int8): takes a network in float, and half made it 16-bit float; leave one of them out"),
        (["int8", "half"], "half): takes a network in float, and int8 made it integers; leave one of them out"),
        (["half", {"prune": {"ratio": 0.5}}], "prune): takes a network in float, and half made it 16-bit float; give"),
        (["half", "half"], "half): takes a network in float, and half made it 16-bit float; give it once"),
    ],
)
def test_nothing_follows_half(passes: list[object], told: str, recipe: dict[str, object], tmp_path: Path) -> None:
    with pytest.raises(RecipeError) as refused:
        load(write_recipe(tmp_path, {**recipe, "passes": passes}))
    assert told in str(refused.value)


def test_a_network_in_16_bits_is_refused_by_other_passes(task: Task) -> None:
    half = HalfPass(calibrate=2)(task.net, task)
    with pytest.raises(PassError, match="in 16-bit floating point already"):
        HalfPass()(half, task)


@pytest.mark.parametrize("word", FORMATS)
def test_openvino_computes_in_the_type_of_the_file_or_in_float32_and_tells(
    word: str, task: Task, tmp_path: Path
) -> None:
    openvino = pytest.importorskip("openvino")
    images = images_of(task)
    half = in_half(task.net, images, word)
    built = OpenVino().build(written(half, images[0], tmp_path / "half.onnx"), tmp_path)
    assert alike(half, answers(OpenVino(), built), images) >= 0.998
    type_of_file = {"float16": "FP16", "bfloat16": "BF16"}[word]
    units = {"float16": {"amx_fp16", "asimdhp"}, "bfloat16": {"avx512_bf16", "amx_bf16"}}[word] & cpu_flags()
    # The runtime is asked as well as the kernel: a process may use less than what the CPU has.
    native = units and type_of_file in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    assert set(OpenVino().executed_precisions(built)) == ({type_of_file} if native else {"FP32"})


@pytest.mark.slow
def test_a_run_builds_scores_and_tells_of_16_bits(done: Done, tmp_path: Path) -> None:
    gates = [{"smaller": {"at_least": 1.7, "backend": "onnxruntime"}}, {"parity": {"at_most": 0.001}}]
    report = gone_on(done, tmp_path, passes=[{"half": {"calibrate": 4}}], gates=gates).as_dict()
    rows = {row["backend"]: row for row in report["rows"] if row["step"] == "01-half"}
    assert set(rows) == {"onnxruntime", "openvino"}
    row = rows["onnxruntime"]
    assert row["layers"] == {"float16": sum(row["layers"].values()), "float32": 0}
    assert row["executed"] and row["parity"]["flipped"] <= 0.001
    sidecar = json.loads((tmp_path / "out" / f"{row['artifact']}.json").read_text())
    assert sidecar["made"]["half"] == {"type": "float16", "float32": {}}
    assert sidecar["input"]["dtype"] == sidecar["output"]["dtype"] == "float"
    base = next(each for each in report["rows"] if each["step"] == "baseline")
    assert row["bit_operations"] * 2 == base["bit_operations"]
