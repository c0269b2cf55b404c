"""Multiply-accumulates times the bits of their weights."""

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from zoo import ZOO, example, made, quantized

from compress.measure.complexity import bit_operations
from export.backends.onnxruntime import RULES


@pytest.mark.parametrize("name", sorted(ZOO))
def test_a_float_network_counts_32_bits_for_each_of_its_macs(name: str) -> None:
    net = made(name)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        net(example(name))
    assert bit_operations(net, example(name)) == 32 * counter.get_total_flops() // 2 > 0


def test_integers_count_8_and_what_stays_in_float_counts_32() -> None:
    net = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 2, 1))
    stem, head = 3 * 16 * 9 * 32 * 32, 16 * 2 * 32 * 32
    image = example("plain") if "plain" in ZOO else torch.zeros(1, 3, 32, 32)
    assert bit_operations(net, image) == 32 * (stem + head)
    half = net.half()
    assert bit_operations(half, image.half()) == 16 * (stem + head)


def test_a_quantized_network_counts_what_its_runtime_makes_of_it() -> None:
    name = sorted(ZOO)[0]
    net = quantized(name)
    placed = net.placed(RULES)
    found, full = bit_operations(placed, example(name)), bit_operations(net.graph, example(name))
    assert full // 4 <= found < full


def test_an_integer_weight_counts_8_through_the_views_a_linear_layer_makes_of_it() -> None:
    from export.quantization.qdq import quantize_dequantize

    class Net(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            weight = quantize_dequantize(torch.ones(4, 8), torch.tensor(0.1), torch.tensor(0, dtype=torch.int8), 0)
            return nn.functional.linear(x, weight, torch.zeros(4)) + nn.functional.linear(x, torch.ones(4, 8))

    assert bit_operations(Net(), torch.zeros(5, 8)) == 5 * 4 * 8 * (8 + 32)
