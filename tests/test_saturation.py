"""No pair of products leaves 16 bits: the steps that see to it, and the proof from what is written in a file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from integer_layers import Conv, Product, write
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn
from zoo import quantized, written

from compress.editing.calibration import calibrated
from export.backends import onnxruntime, openvino, tensorrt
from export.backends.onnxruntime import OnnxRuntime
from export.capture import folded_graph
from export.quantization.assignment import Assignment
from export.quantization.quantized import Quantized
from export.quantization.rules import Rules
from export.quantization.saturation import LARGEST_CODE, LARGEST_SUM, largest_pairs, pair_sums, safe_scale
from export.to_onnx import to_onnx

SHAPES = [(8, 1, 9), (8, 1, 1), (5, 2, 1), (16, 3, 49), (8, 4, 9), (6, 6, 27), (4, 17, 9), (32, 64, 1)]


def integers(weight_OCT: Tensor, scale_O: Tensor) -> Tensor:
    return (weight_OCT / scale_O[:, None, None]).round()


def finest(weight_OCT: Tensor) -> Tensor:
    return weight_OCT.abs().amax((1, 2)) / 127


def every_pair(weight_OCT: Tensor) -> list[Tensor]:
    """The pairs that any runtime makes: along im2col (taps outside, channels inside), and channels of one tap."""
    outputs, channels, _ = weight_OCT.shape
    along = weight_OCT.permute(0, 2, 1).reshape(outputs, -1)
    by_tap = nn.functional.pad(weight_OCT.permute(0, 2, 1), (0, channels % 2)).reshape(outputs, -1)
    rows = nn.functional.pad(along, (0, along.shape[1] % 2))
    return [each.reshape(outputs, -1, 2) for each in (rows, by_tap)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("shift", [0.0, 0.5, -3.0])
def test_no_pair_leaves_16_bits_at_a_safe_scale_and_no_step_is_twice_as_coarse(
    shape: tuple[int, int, int], shift: float
) -> None:
    torch.manual_seed(sum(shape))
    weight = torch.randn(shape) + shift
    scale = safe_scale(weight, finest(weight))
    stored = integers(weight, scale)
    for pairs in every_pair(stored):
        worst = torch.maximum(pairs.clamp(min=0).sum(2), (-pairs).clamp(min=0).sum(2)).max()
        assert LARGEST_CODE * worst <= LARGEST_SUM
    assert (scale >= finest(weight)).all()
    assert (scale <= 2 * finest(weight)).all()
    # No coarser than needed: one step of the limit finer, some pair of a changed channel does not fit.
    changed = scale > finest(weight)
    finer = integers(weight, torch.where(changed, scale * (1 - 2 / 128), scale))
    assert (largest_pairs(finer)[changed] > LARGEST_SUM // LARGEST_CODE - 2).all()


def test_a_channel_whose_pairs_fit_keeps_its_eight_bits() -> None:
    # Channels (0, 1) and (2, 3) are pairs; 1 and 2 are none, whatever they hold.
    weight = torch.tensor([[127, 1, 127, -127], [100, -100, 0, 64], [1, 127, 127, 0], [70, 70, 0, 0]])[
        ..., None
    ].float()
    scale = safe_scale(weight, torch.ones(4))
    assert scale[:3].tolist() == [1, 1, 1]
    assert scale[3].item() == pytest.approx(140 / 128, rel=0.01)


def test_codes_that_cannot_come_ask_for_nothing() -> None:
    weight = torch.full((1, 2, 1), 127.0)
    assert safe_scale(weight, torch.ones(1)).item() > 1.9
    assert safe_scale(weight, torch.ones(1), code=LARGEST_SUM // 254).item() == 1


@pytest.mark.parametrize(
    "layer",
    [
        Conv(inside=16, outside=8),
        Conv(inside=12, outside=8, groups=4),
        Product(kind="MatMul", rows=4, inside=8, outside=6),
        Product(kind="Gemm, transposed", rows=4, inside=8, outside=6),
    ],
    ids=["convolution", "groups", "matrix", "linear"],
)
def test_a_file_tells_in_which_channels_sums_can_leave_16_bits(layer: Conv | Product, tmp_path: Path) -> None:
    weight = layer.weight.astype(int)
    if isinstance(layer, Product) and layer.kind == "MatMul":
        weight = weight.T
    rows = np.moveaxis(weight.reshape(*weight.shape[:2], -1), 1, 2)
    if rows.shape[2] % 2 == 0:
        pairs = rows.reshape(len(rows), -1, 2)
        sums = np.maximum(np.maximum(pairs, 0).sum(2), np.maximum(-pairs, 0).sum(2)).max(1)
    else:
        # Any two, where channels are odd.
        flat = rows.reshape(len(rows), -1)
        sums = np.array([max(np.sort(np.maximum(sign * row, 0))[-2:].sum() for sign in (1, -1)) for row in flat])
    found = pair_sums(onnx.load(write(layer, tmp_path / "layer.onnx").path))
    assert found is not None
    assert found.largest == 255 * sums.max()
    assert found.unsafe == {"layer": int((255 * sums > 32767).sum())}


@pytest.mark.parametrize("rules", [onnxruntime.RULES, openvino.RULES], ids=["onnxruntime", "openvino"])
@pytest.mark.parametrize(
    "name", ["unet of one class", "transposed", "transposed in groups", "tied", "squeeze and excite"]
)
def test_what_is_written_for_a_cpu_is_proven_safe(name: str, rules: Rules, tmp_path: Path) -> None:
    sums = written(name, tmp_path / "net.onnx", rules).made["pair_sums"]
    assert (sums["layers"], sums["unsafe"]) == (quantized(name).layers(rules)["integer"], {})
    assert 0 < sums["largest"] <= LARGEST_SUM


def test_a_depthwise_layer_keeps_its_eight_bits(tmp_path: Path) -> None:
    assert pair_sums(onnx.load(write(Conv(inside=16, outside=16, groups=16), tmp_path / "layer.onnx").path)) is None
    wider = pair_sums(onnx.load(write(Conv(inside=8, outside=16, groups=8), tmp_path / "layer.onnx").path))
    assert wider is not None and wider.unsafe


def test_signed_codes_are_shifted_and_then_cut_off_as_well(tmp_path: Path) -> None:
    net = quantized("unet of one class")
    sums = written("unet of one class", tmp_path / "net.onnx", tensorrt.RULES).made["pair_sums"]
    assert sums["layers"] == net.layers(tensorrt.RULES)["integer"]
    assert sums["unsafe"], "run on a CPU, what is written for a GPU is not safe"


@pytest.mark.parametrize(("mode", "bounded"), [("nearest", True), ("cubic", False)])
def test_only_what_moves_values_keeps_their_bound(mode: str, bounded: bool, tmp_path: Path) -> None:
    # A sigmoid on a grid up to 2 never comes above code 128; resized by cubic splines it overshoots.
    model = onnx.load(write(Conv(inside=16, outside=8), tmp_path / "layer.onnx").path)
    scales = helper.make_tensor("scales", TensorProto.FLOAT, [4], [1, 1, 1, 1])
    for tensor in model.graph.initializer:
        if tensor.name == "image_scale":
            tensor.CopyFrom(numpy_helper.from_array(np.float32(2 / 255), "image_scale"))
    model.graph.initializer.append(scales)
    before = [
        helper.make_node("Sigmoid", ["image"], ["gate"]),
        helper.make_node("Resize", ["gate", "", "scales"], ["resized"], mode=mode),
    ]
    model.graph.node[0].input[0] = "resized"
    nodes = [*before, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    found = pair_sums(model)
    assert found is not None
    assert (found.largest <= 254 * 128) is bounded


@pytest.mark.parametrize("shape", [(16, 6), (3, 16, 6), (16,)])
def test_matrices_of_every_rank_are_read(shape: tuple[int, ...]) -> None:
    model = onnx.ModelProto()
    model.CopyFrom(
        helper.make_model(
            helper.make_graph(
                [
                    helper.make_node("QuantizeLinear", ["image", "scale", "zero"], ["codes"]),
                    helper.make_node("DequantizeLinear", ["codes", "scale", "zero"], ["read"]),
                    helper.make_node("DequantizeLinear", ["layer.weight.int8", "scale"], ["weight"]),
                    helper.make_node("MatMul", ["read", "weight"], ["answer"]),
                ],
                "matrix",
                [helper.make_tensor_value_info("image", TensorProto.FLOAT, [4, 16])],
                [helper.make_tensor_value_info("answer", TensorProto.FLOAT, None)],
                [
                    numpy_helper.from_array(np.float32(0.1), "scale"),
                    numpy_helper.from_array(np.uint8(0), "zero"),
                    numpy_helper.from_array(np.full(shape, 100, np.int8), "layer.weight.int8"),
                ],
            )
        )
    )
    found = pair_sums(model)
    assert found is not None and found.largest == 255 * 200
    assert found.unsafe == {"layer": int(np.prod(shape)) // 16}


class Shared(nn.Module):
    """One weight behind a gate, whose codes have a bound on the grid they share with more, and behind none."""

    def __init__(self) -> None:
        super().__init__()
        self.twice = nn.Conv2d(8, 8, 3, padding=1)
        nn.init.uniform_(self.twice.weight, 0.09, 0.1)
        self.head = nn.Conv2d(16, 2, 1)

    def forward(self, image: Tensor) -> Tensor:
        gate = torch.sigmoid(image)
        logits: Tensor = self.head(torch.cat([self.twice(gate), self.twice(image * 4)], 1))
        return logits


def test_a_shared_weight_fits_the_largest_codes_of_all_its_layers(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net, seen = Shared().eval(), torch.rand(1, 8, 8, 8)
    graph = folded_graph(net, seen, ())
    ranges = calibrated(graph, [seen], None, 1)
    (gate,) = (name for name in ranges if "sigmoid" in name)
    # As if the gate lay on a grid twice as wide, of which it needs half of the codes.
    found = Quantized(graph, {**ranges, gate: (0.0, 2.0)})
    artifact = to_onnx(found.placed(onnxruntime.RULES), seen, tmp_path / "net.onnx")
    assert artifact.made["pair_sums"]["unsafe"] == {}


class Hostile(nn.Module):
    """Bright images, and neighbours that add up: what real networks do a little, all the time."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(4, 16, 3, padding=1)
        self.second = nn.Conv2d(16, 16, 3, padding=1)
        self.head = nn.Conv2d(16, 2, 1)
        for layer in (self.first, self.second):
            nn.init.uniform_(layer.weight, 0.08, 0.1)

    def forward(self, image: Tensor) -> Tensor:
        logits: Tensor = self.head(self.second(self.first(image).relu()).relu())
        return logits


def hostile(rules: Rules, path: Path) -> tuple[OnnxRuntime, Tensor, np.ndarray, object]:
    torch.manual_seed(0)
    net, seen = Hostile().eval(), torch.rand(1, 4, 16, 16) * 0.2 + 0.8
    graph = folded_graph(net, seen, ())
    found = Quantized(graph, calibrated(graph, [seen], None, 1), Assignment(keep_float=("head",)))
    with torch.no_grad():
        return OnnxRuntime(), seen, net(seen).numpy(), to_onnx(found.placed(rules), seen, path)


def test_a_hostile_network_is_proven_unsafe_and_mended_and_the_emulation_shows_both(tmp_path: Path) -> None:
    eight_bits = Rules(**{**vars(onnxruntime.RULES), "pairs_in_16_bits": False})
    errors, proofs = {}, {}
    for title, rules in (("8 bits", eight_bits), ("safe", onnxruntime.RULES)):
        runtime, seen, wanted, artifact = hostile(rules, tmp_path / "net.onnx")
        proofs[title] = artifact.made["pair_sums"]["unsafe"]
        for narrow in (True, False):
            with runtime.open_as(artifact, pairs_in_16_bits=narrow) as infer:
                errors[title, narrow] = np.abs(infer(seen.numpy()) - wanted).max() / np.abs(wanted).max()
    assert proofs == {"8 bits": {"first": 16, "second": 16}, "safe": {}}
    assert errors["8 bits", True] > 0.2
    assert errors["8 bits", False] < 0.02
    assert errors["safe", True] == errors["safe", False] < 0.02
