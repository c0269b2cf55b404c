"""UNet 3+ (Huang et al. 2020, arXiv 2004.08790): every level of the decoder reads all levels."""

from typing import Annotated, ClassVar

import torch
import torch.nn.functional as F
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from compress.contracts import multiples
from compress.networks.blocks.conv import conv, double_conv
from compress.networks.blocks.he import he_initialised


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class UNet3P:
    """A UNet 3+ of `depth` halvings: `width` channels at full resolution, doubled at every halving.

    The authors' network is the default one (26,989,637 parameters for three input channels and one
    class). Under deep supervision it answers in training with the logits of every level, the finest
    first, all at full size; in evaluation with those of the finest alone.
    """

    classes: Annotated[int, Field(ge=1, le=255)]
    """Output channels, background included; 1 is a single sigmoid logit."""
    in_channels: Annotated[int, Field(ge=1)] = 3
    width: Annotated[int, Field(ge=1)] = 64
    """Channels at full resolution, and of what a decoder level takes from each level."""
    depth: Annotated[int, Field(ge=1, le=8)] = 4
    deep_supervision: bool = True
    """A head on every level of the decoder, trained together."""
    guided: bool = False
    """The classification-guided module (section 2.3): the coarsest level says whether there is any
    foreground in the image, and where there is none the foreground's logits give way. In training
    the logarithm of that chance is added to them, so that the masks teach it; in evaluation the
    logits are multiplied by 1 or 0, as the authors', and a logit of 0 is background."""
    dims: ClassVar[int] = 2

    def __call__(self) -> nn.Module:
        """A freshly initialised network: logits_BCHW = net(image_BCHW), any floating dtype."""
        return UNet3PModule(self)

    def check_size(self, size: tuple[int, ...]) -> str | None:
        """What is wrong with an input of this (height, width), and what would be right; None if nothing."""
        return multiples(size, 2**self.depth)


class UNet3PModule(nn.Module):
    """The network that `UNet3P` describes.

    Levels are numbered from the finest, 0, to the coarsest, `depth`. `skips["i_j"]` takes level j
    to level i of the decoder, `fuse["i"]` merges all of them there.
    """

    def __init__(self, shape: UNet3P) -> None:
        super().__init__()
        self.depth, fused = shape.depth, (shape.depth + 1) * shape.width
        widths = [shape.width * 2**level for level in range(shape.depth + 1)]
        self.encoder = nn.ModuleList(
            double_conv(before, after) for before, after in zip([shape.in_channels, *widths], widths, strict=False)
        )
        self.pool = nn.MaxPool2d(2)
        self.skips, self.fuse = nn.ModuleDict(), nn.ModuleDict()
        for level in reversed(range(shape.depth)):
            for other, width in enumerate(widths):
                decoded = level < other < shape.depth
                self.skips[f"{level}_{other}"] = nn.Sequential(*conv(fused if decoded else width, shape.width))
            self.fuse[str(level)] = nn.Sequential(*conv(fused, fused))
        supervised = [fused] * shape.depth + [widths[-1]] if shape.deep_supervision else [fused]
        self.heads = nn.ModuleList(nn.Conv2d(width, shape.classes, 3, padding=1) for width in supervised)
        self.presence = Presence(widths[-1]) if shape.guided else None
        he_initialised(self)

    def forward(self, x_BCHW: Tensor) -> Tensor | tuple[Tensor, ...]:
        encoded: list[Tensor] = []
        for block in self.encoder:
            encoded.append(block(self.pool(encoded[-1]) if encoded else x_BCHW))
        levels = self._decoded(encoded)
        logits = [self.heads[0](levels[0])]
        if self.training:
            logits += [
                F.interpolate(head(level), scale_factor=2**at, mode="bilinear")
                for at, (head, level) in enumerate(zip(self.heads, levels, strict=False))
                if at > 0
            ]
        if self.presence is not None:
            gate_B111 = self.presence(encoded[-1])
            logits = [_guided(each, gate_B111) if self.training else each * gate_B111 for each in logits]
        return logits[0] if len(logits) == 1 else tuple(logits)

    def _decoded(self, encoded: list[Tensor]) -> list[Tensor]:
        """Every level of the decoder, the finest first; the coarsest is the encoder's."""
        levels = list(encoded)
        for level in reversed(range(self.depth)):
            # Coarser levels are decoded already, finer ones are still the encoder's.
            parts = [self.skips[f"{level}_{other}"](_moved(x, level - other)) for other, x in enumerate(levels)]
            levels[level] = self.fuse[str(level)](torch.cat(parts, dim=1))
        return levels


class Presence(nn.Module):
    """Whether there is any foreground in an image (B111), from its coarsest features (BCHW).

    In evaluation 1 or 0; in training the logarithm of the chance that there is, for a gradient to pass.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.drop = nn.Dropout()
        self.score = nn.Conv2d(channels, 2, 1)

    def forward(self, coarsest_BCHW: Tensor) -> Tensor:
        score_B211 = self.score(self.drop(coarsest_BCHW)).amax((2, 3), keepdim=True)
        lead_B111 = score_B211[:, 1:] - score_B211[:, :1]
        return -F.softplus(-lead_B111) if self.training else (lead_B111 > 0).type_as(lead_B111)


def _guided(logits_BKHW: Tensor, log_chance_B111: Tensor) -> Tensor:
    if logits_BKHW.shape[1] == 1:
        return logits_BKHW + log_chance_B111
    return torch.cat([logits_BKHW[:, :1], logits_BKHW[:, 1:] + log_chance_B111], dim=1)


def _moved(x_BCHW: Tensor, halvings: int) -> Tensor:
    """Smaller by so many halvings, or larger by so many doublings."""
    if halvings > 0:
        return F.max_pool2d(x_BCHW, 2**halvings)
    return x_BCHW if halvings == 0 else F.interpolate(x_BCHW, scale_factor=2**-halvings, mode="bilinear")
