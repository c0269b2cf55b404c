"""The two ends of a stretch of a network, and the layers that a block between them is made of.

Legend: B batch, C channels.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

from torch import nn

_CONV: Mapping[int, Any] = {2: nn.Conv2d, 3: nn.Conv3d}
_TRANSPOSED: Mapping[int, Any] = {2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
_POOL = {2: nn.AdaptiveAvgPool2d, 3: nn.AdaptiveAvgPool3d}
_NORMS = {
    2: (nn.BatchNorm2d, nn.InstanceNorm2d),
    3: (nn.BatchNorm3d, nn.InstanceNorm3d),
}

Decomposed = Literal["tucker", "svd", "spatial"]
"""How a kernel becomes a product of thinner ones, as in the pass `lowrank`."""


@dataclass(frozen=True, kw_only=True)
class Body:
    """A block without the norm and the activation at its end, which are those of the stretch that it replaces."""

    layers: Sequence[nn.Module]
    """All but the last one."""
    last: nn.Module | None
    """What is fitted to what should come out, a convolution with a bias; None where nothing is learned."""
    shortcut: bool = False
    """Whether the input is added to what comes out."""


@dataclass(frozen=True, kw_only=True)
class Ends:
    """What goes into a stretch and what comes out, and how the trained network is built there."""

    before: int
    """Channels that go in."""
    after: int
    """Channels that come out."""
    inner: int
    """Channels between its convolutions, at the widest."""
    down: tuple[int, ...]
    """What each axis of the image is divided by (rounded up)."""
    up: tuple[int, ...]
    """What each axis of the image is multiplied with."""
    kernel: tuple[int, ...]
    """Sides of its kernels, 3 at most; 1 along axes over which it does not look."""
    norm: nn.Module | None
    """One of its norms; None where it has none."""
    activation: nn.Module
    """One of its activations."""

    @property
    def dims(self) -> int:
        """2 for images, 3 for volumes."""
        return len(self.down)

    @property
    def keeps_size(self) -> bool:
        """Whether the image comes out as large as it went in."""
        return max((*self.down, *self.up)) == 1

    @property
    def keeps_shape(self) -> bool:
        """Whether what comes out could be added to what goes in."""
        return self.keeps_size and self.before == self.after

    def rise(self) -> list[nn.Module]:
        """Nearest neighbours up to the size that comes out; nothing where that is no larger."""
        larger = tuple(float(side) for side in self.up)
        return [nn.Upsample(scale_factor=larger, mode="nearest")] if max(self.up) > 1 else []

    def conv(
        self,
        before: int,
        after: int,
        kernel: int | tuple[int, ...] = 1,
        *,
        groups: int = 1,
        dilation: int = 1,
        strided: bool = False,
        bias: bool = True,
    ) -> nn.Module:
        """A convolution that keeps the size, or with `strided` divides it as the stretch does."""
        sides = (kernel,) * self.dims if isinstance(kernel, int) else kernel
        stride, padding = self.down if strided else (1,) * self.dims, tuple(dilation * (side // 2) for side in sides)
        layer: nn.Module = _CONV[self.dims](
            before, after, sides, stride=stride, padding=padding, dilation=dilation, groups=groups, bias=bias
        )
        return layer

    def normed(self, before: int, after: int, kernel: int | tuple[int, ...] = 1, **options: Any) -> list[nn.Module]:
        """A convolution, its norm and its activation, as the stretch has them."""
        norms = self.norms(after)
        return [self.conv(before, after, kernel, bias=not norms, **options), *norms, self.active()]

    def active(self) -> nn.Module:
        """An activation like the stretch's own."""
        return copy.deepcopy(self.activation)

    def halving(self, before: int, after: int, *, bias: bool) -> nn.Module:
        """A convolution to half the size (rounded up)."""
        padding = tuple(side // 2 for side in self.kernel)
        layer: nn.Module = _CONV[self.dims](before, after, self.kernel, stride=2, padding=padding, bias=bias)
        return layer

    def tiling(self, before: int, after: int) -> nn.Module:
        """A transposed convolution to twice the size, each pixel of which comes from one."""
        layer: nn.Module = _TRANSPOSED[self.dims](before, after, 2, stride=2)
        return layer

    def norms(self, channels: int) -> list[nn.Module]:
        """A norm like the stretch's own over so many channels; nothing where it has none."""
        own: Any = self.norm
        if own is None:
            return []
        if isinstance(own, nn.GroupNorm):
            groups = next(count for count in range(own.num_groups, 0, -1) if channels % count == 0)
            return [nn.GroupNorm(groups, channels, eps=own.eps, affine=own.affine)]
        batch, instance = _NORMS[self.dims]
        kind = batch if isinstance(own, nn.modules.batchnorm._BatchNorm) else instance
        return [kind(channels, eps=own.eps, affine=own.affine, track_running_stats=own.track_running_stats)]

    def squeezed(self, channels: int, reduction: int) -> list[nn.Module]:
        """What weighs channels by their means: numbers from 0 to 1 (BC11)."""
        inner = max(1, channels // reduction)
        layers = (self.conv(channels, inner), nn.ReLU(inplace=True), self.conv(inner, channels), nn.Sigmoid())
        return [_POOL[self.dims](1), *layers]


@dataclass(frozen=True, kw_only=True)
class Thinned:
    """The trained layers of a stretch, made thinner: still to be fitted to what they answered before."""

    block: nn.Module
    """Named inside as the stretch is."""
    lost: Mapping[tuple[str, int], Collection[int]]
    """By the name of a tensor and its axis, the channels that it no longer has."""
    swapped: Collection[str] = ()
    """The names of layers in the place of each of which there are several thin ones in a row."""


class OwnLayers(Protocol):
    """The trained layers of a stretch, and how they can be made thinner; None where there is nothing to gain."""

    def narrowed(self, share: float) -> Thinned | None:
        """With this share of the channels between its layers: those from which the others can best be computed."""
        ...

    def separated(self, rank: int) -> Thinned | None:
        """With depthwise convolutions, so many for each channel, and 1x1 ones in the place of k x k ones."""
        ...

    def decomposed(self, how: Decomposed, rank: float) -> Thinned | None:
        """With thin layers in the place of each convolution, at this share of its full ranks."""
        ...


class Kind(Protocol):
    """A kind of small block: a file of compress/networks/blocks/kinds/, its fields the options of a recipe."""

    def __call__(self, ends: Ends) -> Body | None:
        """A block of this kind, freshly initialised; None where these ends do not allow one."""
        ...


@runtime_checkable
class Thinner(Protocol):
    """A kind whose blocks begin as the trained layers of the stretch; it lies beside the others."""

    def thinned(self, own: OwnLayers) -> Thinned | None:
        """These layers, thinner; None where there is nothing to gain."""
        ...
