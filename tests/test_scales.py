"""Steps of integer grids that no runtime overflows: dead channels, huge biases, tensors that are all but zero."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from zoo import conv, image

from compress.editing.calibration import calibrated
from export.backend import Backend
from export.backends import onnxruntime, openvino, tensorrt
from export.backends.onnxruntime import OnnxRuntime
from export.backends.openvino import OpenVino
from export.capture import folded_graph
from export.quantization.quantized import Quantized
from export.quantization.rules import Rules
from export.quantization.scales import Reading, grid, weight_scale
from export.to_onnx import to_onnx

C = 16
SIZES = (0.0, 1e-9, 1e-40)
"""What the weights of the first output channels are multiplied by: they say a constant each."""
RUNTIMES = {"onnxruntime": (onnxruntime.RULES, OnnxRuntime()), "openvino": (openvino.RULES, OpenVino())}


class EveryLayer(nn.Module):
    """A layer of every kind side by side, each between two of its own; their outputs are added up as logits."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv(3, C)
        self.layers = nn.ModuleList(
            [
                conv(C, C),
                conv(C, C, groups=4),
                conv(C, C, groups=C),
                nn.ConvTranspose2d(C, C, 2, 2),
                nn.ConvTranspose2d(C, C, 3, padding=1),
                nn.ConvTranspose2d(C, C, 2, 2, groups=2),
            ]
        )
        self.linear = nn.Linear(C, C)
        self.heads = nn.ModuleList([conv(C, 1, 1) for _ in range(len(self.layers) + 1)])

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem(x))
        wide = [torch.relu(layer(x))[..., : x.shape[2], : x.shape[3]] for layer in self.layers]
        wide.append(torch.relu(self.linear(x.permute(0, 2, 3, 1))).permute(0, 3, 1, 2))
        return torch.cat([head(each) for head, each in zip(self.heads, wide, strict=True)], 1)


@torch.no_grad()
def with_dead_channels() -> EveryLayer:
    torch.manual_seed(0)
    net = EveryLayer().eval()
    for layer in (*net.layers, net.linear):
        weight = layer.weight.transpose(0, 1) if isinstance(layer, nn.ConvTranspose2d) else layer.weight
        for channel, size in enumerate(SIZES):
            weight[channel] *= size  # type: ignore[operator,index]
            layer.bias[channel] = 0.5 * (channel + 1)  # type: ignore[operator]
    return net


@pytest.fixture(scope="module")
def calibrated_with_dead_channels() -> tuple[EveryLayer, Quantized]:
    net, example, x = with_dead_channels(), image(0, 1, 3, 8, 8), image(1, 1, 3, 8, 8)
    graph = folded_graph(net, example, ())
    return net, Quantized(graph, calibrated(graph, [x], None, 1))


@pytest.mark.parametrize(("rules", "backend"), RUNTIMES.values(), ids=RUNTIMES)
def test_a_written_layer_keeps_its_bias_whatever_its_weights(
    rules: Rules, backend: Backend, calibrated_with_dead_channels: tuple[EveryLayer, Quantized], tmp_path: Path
) -> None:
    (net, quantized), example, x = calibrated_with_dead_channels, image(0, 1, 3, 8, 8), image(1, 1, 3, 8, 8)
    placed = quantized.placed(rules)
    artifact = backend.build(to_onnx(placed, example, tmp_path / "net.onnx"), tmp_path)
    with backend.open(artifact) as infer, torch.no_grad():
        answer, simulated, exact = infer(x.numpy()), placed(x).numpy(), net(x).numpy()
    for layer in range(answer.shape[1]):
        size = np.abs(exact[:, layer]).max()
        assert np.abs(answer - simulated)[:, layer].max() < 0.03 * size
        assert np.abs(answer - exact)[:, layer].max() < 0.1 * size


@pytest.mark.parametrize("input_scale", [2.0**-60, 1e-12, 0.02, 1e27])
@pytest.mark.parametrize("bias", [0.0, 1e-20, 1.0, -1e12])
@pytest.mark.parametrize("weight", [0.0, 1e-44, 1e-9, 1.0, 1e6])
def test_the_bias_and_any_sum_fit_32_bits(weight: float, bias: float, input_scale: float) -> None:
    weight_OCT = weight * torch.tensor([1.0, -1.0, 0.5, 1e-3]).repeat(2, 8).reshape(2, 32, 1)
    scale_O = weight_scale(weight_OCT, [Reading(bias_O=torch.tensor([bias, 0.0]), input_scale=input_scale)])
    step_O = scale_O * np.float32(input_scale)
    assert torch.isfinite(step_O).all() and (step_O > torch.finfo(torch.float32).tiny).all()
    assert (weight_OCT.abs().amax((1, 2)) / scale_O <= 127.001).all()
    largest_O = 255 * (weight_OCT / scale_O[:, None, None]).round().abs().sum((1, 2))
    assert (largest_O + torch.tensor([abs(bias), 0.0]) / step_O < 2**31).all()


def test_sums_of_very_many_products_fit_32_bits() -> None:
    weight_OCT = torch.ones(1, 100_000, 1)
    (scale,) = weight_scale(weight_OCT, [Reading(bias_O=None, input_scale=0.1)])
    assert 255 * 100_000 * round(1 / float(scale)) < 2**31


def test_a_channel_of_zeros_rounds_its_bias_by_less_than_a_millionth() -> None:
    weight_OCT = torch.stack([torch.zeros(8, 9), torch.ones(8, 9)])
    bias_O = torch.tensor([0.0123, 0.5])
    (scale, _) = weight_scale(weight_OCT, [Reading(bias_O=bias_O, input_scale=40 / 255)])
    step = float(scale) * 40 / 255
    assert math.isclose(round(0.0123 / step) * step, 0.0123, rel_tol=1e-6)


def test_a_weight_that_layers_share_holds_the_bias_of_each() -> None:
    weight_OCT = torch.full((1, 4, 1), 1e-9)
    each = [Reading(bias_O=torch.tensor([1.0]), input_scale=scale) for scale in (0.01, 1e-6)]
    assert float(weight_scale(weight_OCT, each)) == float(weight_scale(weight_OCT, each[1:]))


def test_an_ordinary_channel_s_largest_weight_is_its_last_code() -> None:
    weight_OCT = torch.randn(8, 16, 9)
    scale_O = weight_scale(weight_OCT, [Reading(bias_O=torch.randn(8), input_scale=0.02)])
    assert torch.allclose(weight_OCT.abs().amax((1, 2)) / scale_O, torch.tensor(127.0))


@pytest.mark.parametrize("span", [(0.0, 0.0), (0.0, 1e-42), (-1e-30, 1e-25), (-1e30, 1e30), (0.0, 3e38)])
@pytest.mark.parametrize("rules", [onnxruntime.RULES, tensorrt.RULES], ids=["uint8", "int8"])
def test_a_step_and_its_reciprocal_are_ordinary_numbers(span: tuple[float, float], rules: Rules) -> None:
    scale, _ = grid(span, rules)
    assert torch.isfinite(scale) and torch.isfinite(1 / scale) and 1 / scale > torch.finfo(torch.float32).tiny
