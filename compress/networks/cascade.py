"""A coarse-to-fine cascade of two networks, as nnU-Net's (Isensee et al. 2018, arXiv 1809.10486): one locates.

The coarse network sees the image in low resolution; what it takes for foreground is given to the fine one.
"""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

import torch
import torch.nn.functional as F
from pydantic import ConfigDict, Field, ValidationError, model_validator
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from compress.contracts import Network
from compress.errors import SegpressError
from export.registry import named, words

Word = Annotated[Mapping[str, Mapping[str, Any]], Field(min_length=1, max_length=1)]
FARTHEST = 1024
"""How far beyond a size another is looked for that both networks take."""


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class Cascade:
    """Two networks of this folder, each a word and its options but for classes and in_channels:

        cascade: {classes: 2, coarse: {unet: {width: 16, depth: 3}}, fine: {unet: {width: 32}}, scale: 2}

    The fine network has one input channel more for each foreground class: the coarse one's probability of
    it, brought to full resolution. In training the cascade answers with the logits of both, the fine
    ones first, all at full size; in evaluation with the fine ones alone. Both for images and volumes.
    """

    classes: Annotated[int, Field(ge=1, le=255)]
    """Output channels of both, background included; 1 is a single sigmoid logit."""
    in_channels: Annotated[int, Field(ge=1)] = 1
    """Channels of the image."""
    coarse: Word
    fine: Word
    scale: Annotated[int, Field(ge=1, le=16)] = 2
    """Pixels of the image, along each axis, whose mean is one pixel for the coarse network."""
    masked: bool = False
    """The image itself is also multiplied by the coarse network's probability of any foreground."""

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        dims = {name: self.inner(name).dims for name in ("coarse", "fine")}
        if dims["coarse"] != dims["fine"]:
            raise ValueError(f"coarse takes {dims['coarse']}-D input and fine {dims['fine']}-D; both must be alike")
        return self

    @property
    def dims(self) -> int:
        """2 for images (BCHW), 3 for volumes (BCDHW), as both networks."""
        return self.inner("fine").dims

    def inner(self, name: Literal["coarse", "fine"]) -> Network:
        """One of the two networks.

        Raises:
            ValueError: if there is no such network, or not with these options.
        """
        ((word, options),) = (self.coarse if name == "coarse" else self.fine).items()
        if word not in words("compress.networks"):
            raise ValueError(f"{name}: no network '{word}'; one of {', '.join(words('compress.networks'))}")
        for key in ("classes", "in_channels"):
            if key in options:
                raise ValueError(f"{name}: {word}: {key} is the cascade's to say; leave it out here")
        more = max(self.classes - 1, 1) if name == "fine" else 0
        try:
            built: Network = named("compress.networks", word)(
                classes=self.classes, in_channels=self.in_channels + more, **options
            )
        except ValidationError as error:
            fault = error.errors()[0]
            where = ".".join(map(str, fault["loc"]))
            raise ValueError(f"{name}: {word}: {where}: {fault['msg']}") from None
        return built

    def __call__(self) -> nn.Module:
        """A freshly initialised network: logits = net(image), BCHW or BCDHW, any floating dtype."""
        return CascadeModule(self)

    def check_size(self, size: tuple[int, ...]) -> str | None:
        """What is wrong with an input of this size, and what would be right; None if nothing."""
        if self._fits(size):
            return None
        tried = (tuple(-(-side // step) * step for side in size) for step in range(self.scale, FARTHEST, self.scale))
        wanted = next((other for other in tried if self._fits(other)), None)
        if wanted is None:
            return f"coarse (at 1/{self.scale}) and fine share no size near this one: give them like depths"
        return f"coarse (at 1/{self.scale}) and fine take other sizes: pad to {'x'.join(map(str, wanted))}"

    def _fits(self, size: tuple[int, ...]) -> bool:
        if any(side % self.scale for side in size) or self.inner("fine").check_size(size) is not None:
            return False
        return self.inner("coarse").check_size(tuple(side // self.scale for side in size)) is None


class CascadeModule(nn.Module):
    """The network that `Cascade` describes."""

    def __init__(self, shape: Cascade) -> None:
        super().__init__()
        self.coarse, self.fine = shape.inner("coarse")(), shape.inner("fine")()
        self.scale, self.masked = shape.scale, shape.masked
        self.pool = (nn.AvgPool2d if shape.dims == 2 else nn.AvgPool3d)(shape.scale)
        self._mode = "bilinear" if shape.dims == 2 else "trilinear"

    def forward(self, image: Tensor) -> Tensor | tuple[Tensor, ...]:
        small = self.pool(image)
        located = _answers(self.coarse(small))
        if located[0].shape[2:] != small.shape[2:]:
            raise SegpressError(
                f"the coarse network of a cascade answers {tuple(located[0].shape[2:])} to {tuple(small.shape[2:])}; "
                "it must answer at the size of its input (padded convolutions)"
            )
        chance = self._enlarged(_foreground(located[0]), image)
        seen = image * chance.sum(1, keepdim=True) if self.masked else image
        logits = _answers(self.fine(torch.cat([seen, chance], dim=1)))
        if not self.training:
            return logits[0]
        return *logits, *(self._enlarged(each, image) for each in located)

    def _enlarged(self, x: Tensor, like: Tensor) -> Tensor:
        return x if self.scale == 1 else F.interpolate(x, size=like.shape[2:], mode=self._mode)


def _answers(answer: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return answer if isinstance(answer, tuple) else (answer,)


def _foreground(logits: Tensor) -> Tensor:
    """The probability of each foreground class; B(K-1)HW, or B1HW of a single logit."""
    return logits.sigmoid() if logits.shape[1] == 1 else logits.softmax(1)[:, 1:]
