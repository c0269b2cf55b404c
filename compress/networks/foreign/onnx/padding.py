"""What is added around an image: by the attributes of a node that has a window, or as told."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor
from torch.nn import functional as F

from compress.networks.foreign.onnx.node import Node


def axis_pads(node: Node, sides: Sequence[Any], kernel: Sequence[int]) -> tuple[list[Any], list[Any]]:
    """What a window's node adds before and after each axis of the image."""
    count = len(kernel)
    strides, dilations = node.get("strides", [1] * count), node.get("dilations", [1] * count)
    auto = node.get("auto_pad", "NOTSET")
    if auto in ("NOTSET", "VALID"):
        pads = node.get("pads", [0] * 2 * count) if auto == "NOTSET" else [0] * 2 * count
        return list(pads[:count]), list(pads[count:])
    begins, ends = [], []
    for side, size, stride, dilation in zip(sides, kernel, strides, dilations, strict=True):
        reach = (size - 1) * dilation + 1
        total = max((-(-side // stride) - 1) * stride + reach - side, 0) if stride > 1 else reach - 1
        small = total // 2
        begins.append(small if auto == "SAME_UPPER" else total - small)
        ends.append(total - small if auto == "SAME_UPPER" else small)
    return begins, ends


def padded(x: Tensor, begins: Sequence[Any], ends: Sequence[Any], value: float = 0.0) -> Tensor:
    """An image with so much added to its last axes."""
    if not any(begins) and not any(ends):
        return x
    pads = [each for pair in zip(reversed(begins), reversed(ends), strict=True) for each in pair]
    return F.pad(x, pads, value=value)
