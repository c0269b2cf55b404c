"""The convolutions of VGG16 (Simonyan and Zisserman 2015, arXiv 1409.1556, configuration D)."""

from torch import nn

DEPTHS = (2, 2, 3, 3, 3)
"""Convolutions at each of the five resolutions."""


def widths(width: int) -> tuple[int, ...]:
    """Channels at each of the five resolutions, of which the first has `width` (64 in the paper)."""
    return width, 2 * width, 4 * width, 8 * width, 8 * width


def vgg16_stages(
    in_channels: int, width: int, *, norm: bool = False, dilations: tuple[int, ...] = (1,) * 5
) -> nn.ModuleList:
    """The five stages, each without the pooling that follows it; the order of their layers is torchvision's.

    Args:
        norm: a batch norm after each convolution.
        dilations: of all convolutions of a stage; every one keeps the size.
    """
    stages = nn.ModuleList()
    for after, depth, dilation in zip(widths(width), DEPTHS, dilations, strict=True):
        layers: list[nn.Module] = []
        for _ in range(depth):
            layers += conv(in_channels, after, norm=norm, dilation=dilation)
            in_channels = after
        stages.append(nn.Sequential(*layers))
    return stages


def conv(before: int, after: int, *, norm: bool, dilation: int = 1) -> list[nn.Module]:
    """A 3x3 convolution with a bias, perhaps a batch norm, and a ReLU."""
    layer = nn.Conv2d(before, after, 3, padding=dilation, dilation=dilation)
    return [layer, *([nn.BatchNorm2d(after)] if norm else []), nn.ReLU(inplace=True)]
