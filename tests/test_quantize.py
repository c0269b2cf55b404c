"""Quantize-dequantize: one op in torch and in ONNX, and weights stored as the integers they are."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from onnx.reference import ReferenceEvaluator
from torch import Tensor, nn
from zoo import C, conv, image, made, quantized, written

from compress.editing.calibration import calibrated
from compress.networks.unet import UNet
from export.backends import onnxruntime, openvino, tensorrt
from export.capture import folded_graph
from export.quantization.qdq import quantize_dequantize
from export.quantization.quantized import Quantized
from export.quantization.range_estimators import least_squared_error
from export.to_onnx import to_onnx


class Pair(nn.Module):
    """A pair on its input, the same for every channel or not."""

    def __init__(self, scale: Tensor, zero: Tensor) -> None:
        super().__init__()
        self.register_buffer("scale", scale)
        self.register_buffer("zero", zero)

    def forward(self, x: Tensor) -> Tensor:
        return quantize_dequantize(x, self.scale, self.zero, 1)


PAIRS = {
    "uint8 with a zero point": (torch.tensor(0.02), torch.tensor(100, dtype=torch.uint8)),
    "int8 for each channel": (torch.tensor([0.01, 0.02, 0.04]), torch.zeros(3, dtype=torch.int8)),
    "ties": (torch.tensor(0.5), torch.tensor(7, dtype=torch.uint8)),
}


@pytest.mark.parametrize("name", PAIRS)
def test_torch_rounds_to_the_bit_as_onnx_does(name: str, tmp_path: Path) -> None:
    net = Pair(*PAIRS[name])
    # Quarters: many of them lie half way between two levels, or beyond the last.
    x = torch.round(image(0, 1, 3, 16, 16) * 8) / 4
    artifact = to_onnx(net, x, tmp_path / "pair.onnx")
    (theirs,) = ReferenceEvaluator(onnx.load(artifact.path)).run(None, {"image": x.numpy()})
    assert np.array_equal(net(x).numpy(), theirs)


def test_half_way_goes_to_the_even_level_and_beyond_the_last_stays_there() -> None:
    scale, zero = torch.tensor(1.0), torch.tensor(10, dtype=torch.uint8)
    x = torch.tensor([0.5, 1.5, 2.5, -0.5, -99.0, 999.0])
    assert quantize_dequantize(x, scale, zero, 0).tolist() == [0.0, 2.0, 2.0, 0.0, -10.0, 245.0]


def weights(path: Path) -> dict[str, np.ndarray]:
    """Every convolution's weight as it is stored, by name."""
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(path).graph.initializer}
    return {name: value for name, value in stored.items() if value.ndim > 1}


def test_integer_weights_are_stored_as_integers_and_float_ones_as_floats(tmp_path: Path) -> None:
    net = quantized("unet", ("decoder.1",))
    artifact = to_onnx(net.placed(onnxruntime.RULES), image(), tmp_path / "unet.onnx")
    types = {name.split(".weight")[0]: value.dtype for name, value in weights(artifact.path).items()}
    floats = {name for name, kind in types.items() if kind == np.float32}
    assert floats == {"decoder.1.0", "decoder.1.3", "head"}
    assert set(types.values()) == {np.dtype(np.float32), np.dtype(np.int8)}


def test_a_shared_weight_is_stored_once_and_a_tied_one_along_each_axis(tmp_path: Path) -> None:
    shared = written("shared", tmp_path / "shared.onnx", openvino.RULES)
    assert [name for name in weights(shared.path) if "2.conv" in name] == ["2.conv.weight.int8"]
    tied = written("tied", tmp_path / "tied.onnx", openvino.RULES)
    first, second = (value for name, value in weights(tied.path).items() if "2.down" in name)
    assert first.dtype == second.dtype == np.int8
    assert not np.array_equal(first, second)


def test_an_integer_file_is_a_quarter_of_a_float_one(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = UNet(classes=2, in_channels=3, width=64, depth=2)().eval()
    graph = folded_graph(net, image(), ())
    ranges = calibrated(graph, [image(1)], None, 1)
    whole = to_onnx(net, image(), tmp_path / "float.onnx").size_mb
    small = to_onnx(Quantized(graph, ranges).placed(tensorrt.RULES), image(), tmp_path / "int8.onnx").size_mb
    assert small <= 0.27 * whole


def test_a_channel_of_zeros_stays_zero() -> None:
    net = nn.Sequential(conv(3, C), nn.ReLU(), conv(C, C), nn.ReLU(), conv(C, 2, 1)).eval()
    with torch.no_grad():
        net[2].weight[3] = 0
        net[2].bias[3] = 0
    graph = folded_graph(net, image(), ())
    ranges = calibrated(graph, [image(1)], None, 1)
    placed = Quantized(graph, ranges).placed(onnxruntime.RULES)
    assert torch.isfinite(placed(image())).all()


def test_a_network_that_puts_out_nothing_can_be_quantized() -> None:
    net = made("unet of one class")
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.zero_()
    graph = folded_graph(net, image(), ())
    ranges = calibrated(graph, [image(1)], least_squared_error, 1)
    assert not Quantized(graph, ranges).placed(onnxruntime.RULES)(image()).any()
