"""Operations whose shapes alone are asked for answer with the shapes, types and strides that torch says."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from compress.networks.foreign.shapes import ShapesAlone

FLAT, DEEP = (2, 4, 6, 8), (1, 4, 4, 6, 8)
LAYERS: list[tuple[Any, tuple[int, ...]]] = [
    (nn.BatchNorm2d(4), FLAT),
    (nn.BatchNorm2d(4, track_running_stats=False), FLAT),
    (nn.BatchNorm3d(4).eval(), DEEP),
    (nn.ReLU(), FLAT),
    (nn.ReLU(inplace=True), FLAT),
    (nn.Hardswish(), FLAT),
    (nn.Hardswish(inplace=True), FLAT),
    (nn.Hardsigmoid(), FLAT),
    (nn.Hardsigmoid(inplace=True), FLAT),
    (nn.ReLU6(), FLAT),
    (nn.ReLU6(inplace=True), FLAT),
    (nn.SiLU(), FLAT),
    (nn.SiLU(inplace=True), FLAT),
    (nn.GELU(), FLAT),
    (nn.Upsample(scale_factor=(2, 1.6), mode="bilinear"), FLAT),
    (nn.Upsample(size=(3, 5), mode="bilinear", align_corners=True), FLAT),
    (nn.Upsample(scale_factor=2, mode="trilinear"), DEEP),
    (nn.Conv2d(4, 3, 3), FLAT),
]


@pytest.mark.parametrize(("layer", "size"), LAYERS, ids=str)
@pytest.mark.parametrize("kind", [torch.contiguous_format, torch.channels_last])
def test_a_layer_answers_as_on_the_meta_device(
    layer: nn.Module, size: tuple[int, ...], kind: torch.memory_format
) -> None:
    kind = torch.channels_last_3d if kind is torch.channels_last and len(size) == 5 else kind
    layer = layer.to("meta")
    with torch.no_grad():
        expected = layer(torch.empty(size, device="meta").to(memory_format=kind))
        with ShapesAlone():
            found = layer(torch.empty(size, device="meta").to(memory_format=kind))
    assert (found.shape, found.dtype, found.device) == (expected.shape, expected.dtype, expected.device)
    assert found.stride() == expected.stride()


def test_only_the_meta_device_is_asked_for_shapes() -> None:
    values = torch.linspace(-4, 4, 9)
    with ShapesAlone():
        assert nn.functional.relu(values).tolist() == values.clamp(min=0).tolist()


def test_a_norm_of_other_channels_is_refused_all_the_same() -> None:
    with ShapesAlone(), pytest.raises(RuntimeError, match="running_mean"):
        nn.BatchNorm2d(5).to("meta")(torch.empty(FLAT, device="meta"))
