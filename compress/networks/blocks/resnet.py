"""ResNet as an encoder (He et al. 2016, arXiv 1512.03385), its last stages dilated if wanted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torch import Tensor, nn

Depths = tuple[int, int, int, int]
"""Blocks at each of the four resolutions."""
STRIDES = 4, 8, 16, 32
"""Of the four stages' answers, when none is dilated."""


class ResNet(nn.Module):
    """The answers of the four stages, (stage1_BCHW, ..., stage4_BCHW) = encoder(image_BCHW).

    Parameters are named as torchvision's, but for its classifier, which is not here: its state dicts load with
    `strict=False`. With the deep stem, `conv1` is a sequence of three convolutions.
    """

    layer1: nn.Sequential
    layer2: nn.Sequential
    layer3: nn.Sequential
    layer4: nn.Sequential

    def __init__(
        self,
        in_channels: int,
        depths: Sequence[int],
        *,
        block: Literal["basic", "bottleneck"] = "bottleneck",
        width: int = 64,
        output_stride: Literal[8, 16, 32] = 32,
        deep_stem: bool = False,
    ) -> None:
        """Build the encoder.

        Args:
            depths: blocks of each stage: 3, 4, 6, 3 is ResNet-34 (basic) and ResNet-50, 3, 4, 23, 3 ResNet-101.
            width: channels after the stem and inside the first stage; 64 in the paper.
            output_stride: of the last stage. A stage that keeps its input's resolution has dilated 3x3
                convolutions instead, in all of its blocks (Chen et al. 2016, arXiv 1606.00915).
            deep_stem: three 3x3 convolutions that end in 2 * width channels instead of one of 7x7
                (Zhao et al. 2017, arXiv 1612.01105).
        """
        super().__init__()
        kind = Basic if block == "basic" else Bottleneck
        before = 2 * width if deep_stem else width
        self.conv1 = _deep_stem(in_channels, width) if deep_stem else _conv(in_channels, width, 7, stride=2)
        self.bn1 = nn.BatchNorm2d(before)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        for stage, (depth, full) in enumerate(zip(depths, STRIDES, strict=True)):
            inside = width * 2**stage
            stride = 2 if 4 < full <= output_stride else 1
            dilation = max(1, full // output_stride)
            blocks = [kind(before, inside, stride=stride, dilation=dilation)]
            before = kind.expansion * inside
            blocks += [kind(before, inside, dilation=dilation) for _ in range(depth - 1)]
            self.add_module(f"layer{stage + 1}", nn.Sequential(*blocks))
        self.channels = tuple(kind.expansion * width * 2**stage for stage in range(4))

    def forward(self, x_BCHW: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        first = self.layer1(self.maxpool(self.relu(self.bn1(self.conv1(x_BCHW)))))
        second = self.layer2(first)
        third = self.layer3(second)
        return first, second, third, self.layer4(third)


class Basic(nn.Module):
    """Two 3x3 convolutions and the input."""

    expansion = 1

    def __init__(self, before: int, width: int, *, stride: int = 1, dilation: int = 1) -> None:
        super().__init__()
        self.conv1 = _conv(before, width, 3, stride=stride, dilation=dilation)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = _conv(width, width, 3, dilation=dilation)
        self.bn2 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = _shortcut(before, width, stride)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        inner = self.relu(self.bn1(self.conv1(x_BCHW)))
        return self.relu(self.bn2(self.conv2(inner)) + _skipped(self.downsample, x_BCHW))


class Bottleneck(nn.Module):
    """A 3x3 convolution between two of 1x1, and the input; the 3x3 one has the stride, as torchvision's."""

    expansion = 4

    def __init__(self, before: int, width: int, *, stride: int = 1, dilation: int = 1) -> None:
        super().__init__()
        self.conv1 = _conv(before, width, 1)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = _conv(width, width, 3, stride=stride, dilation=dilation)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = _conv(width, 4 * width, 1)
        self.bn3 = nn.BatchNorm2d(4 * width)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = _shortcut(before, 4 * width, stride)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        inner = self.relu(self.bn1(self.conv1(x_BCHW)))
        inner = self.relu(self.bn2(self.conv2(inner)))
        return self.relu(self.bn3(self.conv3(inner)) + _skipped(self.downsample, x_BCHW))


def _conv(before: int, after: int, kernel: int, *, stride: int = 1, dilation: int = 1) -> nn.Conv2d:
    padding = kernel // 2 * dilation
    return nn.Conv2d(before, after, kernel, stride=stride, padding=padding, dilation=dilation, bias=False)


def _deep_stem(in_channels: int, width: int) -> nn.Sequential:
    first, second = _conv(in_channels, width, 3, stride=2), _conv(width, width, 3)
    norms = nn.BatchNorm2d(width), nn.BatchNorm2d(width)
    rectified = nn.ReLU(inplace=True), nn.ReLU(inplace=True)
    return nn.Sequential(first, norms[0], rectified[0], second, norms[1], rectified[1], _conv(width, 2 * width, 3))


def _shortcut(before: int, after: int, stride: int) -> nn.Sequential | None:
    if stride == 1 and before == after:
        return None
    return nn.Sequential(_conv(before, after, 1, stride=stride), nn.BatchNorm2d(after))


def _skipped(downsample: nn.Module | None, x_BCHW: Tensor) -> Tensor:
    return x_BCHW if downsample is None else downsample(x_BCHW)
