"""3-D U-Net (Cicek et al. 2016, arXiv 1606.06650)."""

from itertools import pairwise
from typing import Annotated, ClassVar, Literal

import torch
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from compress.contracts import multiples
from compress.networks.blocks.he import he_initialised

Kernel = Literal[1, 3, 5]
Step = Literal[1, 2]


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class UNet3D:
    """A 3-D U-Net: `depth` halvings, `width` channels at full resolution, doubled at every level.

    Convolutions are padded, so that the answer is as large as the image; the paper's are not.
    The anisotropic network of ozan-oktay/Attention-Gated-Networks is
    `width: 16, depth: 4, early: false, kernel: [3, 3, 1], step: [2, 2, 1], up: trilinear`.
    """

    classes: Annotated[int, Field(ge=1, le=255)]
    """Output channels, background included; 1 is a single sigmoid logit."""
    in_channels: Annotated[int, Field(ge=1)] = 1
    width: Annotated[int, Field(ge=2)] = 64
    depth: Annotated[int, Field(ge=1, le=8)] = 3
    early: bool = True
    """Channels double before the pooling, as in the paper: the first convolution of a level on the way down
    has half of its width. 19,069,955 parameters for three channels and classes, norms not counted."""
    kernel: tuple[Kernel, Kernel, Kernel] = (3, 3, 3)
    """Of every convolution, along depth, height and width."""
    step: tuple[Step, Step, Step] = (2, 2, 2)
    """What a level divides depth, height and width by; 1 where slices are far apart."""
    up: Literal["transposed", "trilinear"] = "transposed"
    """How the decoder goes up a level, all channels kept: a transposed convolution whose kernel is `step`
    (the paper), or trilinear interpolation."""
    norm: Literal["none", "batch", "instance", "group"] = "batch"
    dims: ClassVar[int] = 3

    def __post_init__(self) -> None:
        if set(self.step) == {1}:
            raise ValueError(
                "step is 1 along every axis: no level would be smaller than the one above; give some axis 2"
            )

    def __call__(self) -> nn.Module:
        """A freshly initialised network: logits_BCDHW = net(image_BCDHW), any floating dtype."""
        return UNet3DModule(self)

    def check_size(self, size: tuple[int, ...]) -> str | None:
        """What is wrong with an input of this (depth, height, width), and what would be right; None if nothing."""
        steps = [step**self.depth for step in self.step]
        if self.norm == "instance" and list(size) == steps:
            larger = "x".join(str(2 * side) for side in size)
            return (
                f"instance norm needs more than one voxel at depth {self.depth}: pad to {larger} or set a smaller depth"
            )
        return multiples(size, steps)


class UNet3DModule(nn.Module):
    """The network that `UNet3D` describes; logits_BCDHW = net(image_BCDHW)."""

    def __init__(self, shape: UNet3D) -> None:
        super().__init__()
        widths = [shape.width * 2**level for level in range(shape.depth + 1)]
        self.encoder = nn.ModuleList(
            _double_conv(before, after // 2 if shape.early else after, after, shape)
            for before, after in zip([shape.in_channels, *widths], widths, strict=False)
        )
        self.pool = nn.MaxPool3d(shape.step)
        self.up = nn.ModuleList(_up(below, shape) for below in widths[:0:-1])
        self.decoder = nn.ModuleList(
            _double_conv(below + width, width, width, shape) for width, below in reversed(list(pairwise(widths)))
        )
        self.head = nn.Conv3d(shape.width, shape.classes, 1)
        he_initialised(self)

    def forward(self, x_BCDHW: Tensor) -> Tensor:
        skips = []
        for level, block in enumerate(self.encoder):
            x_BCDHW = block(x_BCDHW if level == 0 else self.pool(x_BCDHW))
            skips.append(x_BCDHW)
        x_BCDHW = skips.pop()
        for up, block in zip(self.up, self.decoder, strict=True):
            x_BCDHW = block(torch.cat([skips.pop(), up(x_BCDHW)], dim=1))
        return self.head(x_BCDHW)


def _double_conv(before: int, between: int, after: int, shape: UNet3D) -> nn.Sequential:
    return nn.Sequential(*_conv(before, between, shape), *_conv(between, after, shape))


def _conv(before: int, after: int, shape: UNet3D) -> list[nn.Module]:
    deep, high, wide = shape.kernel
    padding = deep // 2, high // 2, wide // 2
    return [nn.Conv3d(before, after, shape.kernel, padding=padding), *_norm(after, shape), nn.ReLU(inplace=True)]


def _norm(channels: int, shape: UNet3D) -> list[nn.Module]:
    if shape.norm == "batch":
        return [nn.BatchNorm3d(channels)]
    if shape.norm == "instance":
        return [nn.InstanceNorm3d(channels, affine=True)]
    if shape.norm == "group":
        return [nn.GroupNorm(next(g for g in (8, 4, 2, 1) if channels % g == 0), channels)]
    return []


def _up(channels: int, shape: UNet3D) -> nn.Module:
    if shape.up == "trilinear":
        return nn.Upsample(scale_factor=tuple(map(float, shape.step)), mode="trilinear")
    # The number of parameters that the paper gives has no biases here.
    return nn.ConvTranspose3d(channels, channels, shape.step, stride=shape.step, bias=False)
