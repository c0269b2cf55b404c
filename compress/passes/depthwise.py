"""Convolutions as depthwise ones followed by 1x1: begun from the trained kernel, fitted to what the layer answered.

Guo et al. 2018, "Network Decoupling" (arXiv 1808.05517): the slice of a kernel that one input
channel sees, a matrix of output channels by kernel positions, is best approximated by its first
singular vectors: depthwise filters on the right, the weights of a 1x1 convolution on the left.

There is no norm or activation between the two: with one, the pair could not begin as the kernel it
replaces, and int8 would fold it away or need one more range. The filters are scaled so that every
channel between the two is as large as the others, since int8 has one range for all of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from compress.data.dataset.cases import Role
from compress.editing.activations import Images, fitted, inputs_to_fit, reconstruction_pairs
from compress.editing.decomposition.separation import separated
from compress.editing.layer_replacement import (
    CONVS,
    Site,
    SkippedSites,
    chosen,
    copied,
    cost,
    finite,
    macs,
    not_plain,
    parameters,
    sites,
    swap,
)
from compress.editing.least_squares import refit
from compress.progress import bar
from compress.storage.description import described
from export.modules import Precision

if TYPE_CHECKING:
    from compress.task import Task

FEWER_MACS = 2.0
"""A layer is replaced where this many times fewer multiply-accumulates come of it."""


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class Depthwise:
    """Depthwise k x k and pointwise 1x1 convolutions in the place of k x k ones."""

    requires: ClassVar[Precision] = "float"
    ensures: ClassVar[Precision] = "float"

    where: str | tuple[str, ...] = "*"
    """Which layers: names (`encoder.0.3`), modules (`decoder`) or patterns (`encoder.*.0`)."""
    rank: Annotated[int, Field(ge=1)] = 1
    """Depthwise filters for each input channel; more come closer to the trained kernel and cost more."""
    at_least: Annotated[int, Field(ge=1)] = 16
    """Layers with fewer input or output channels stay: a depthwise layer moves as much memory as the layer it
    replaces and computes little, so that where there is little to compute it only adds a second trip."""
    refit: bool = True
    """Fit each 1x1 convolution to what the layer answered on calibration cases, inputs taken from the network as
    changed so far. Without it a trained network hardly survives, and only training brings it back."""
    calibrate: Annotated[int, Field(ge=1)] | None = None
    """How many calibration cases to fit to; None uses all that the data sets aside."""

    @property
    def uses(self) -> tuple[Role, ...]:
        return ("calibration",) if self.refit else ()

    def __call__(self, net: nn.Module, task: Task) -> nn.Module:
        """The network with its convolutions replaced.

        Raises:
            PassError: if `where` names no layer, no layer was replaced (with the reasons), or there are too
                few calibration cases.
        """
        original, net = copied(net, "depthwise"), copied(net, "depthwise")
        kept, replaced = SkippedSites(word="depthwise"), []
        inputs: Images = inputs_to_fit(task, self.calibrate, "depthwise") if self.refit else tuple
        before = macs(net, [task.example.shape]), parameters(net)
        layers = chosen(sites(net, task.example, (nn.modules.conv._ConvNd,)), self.where, "depthwise")
        for site in bar(layers, "separating", len(layers)):
            reason = (
                _other_kind(site)
                or not_plain(site, net, CONVS)
                or self._unfit(site)
                or self._replaced(net, site, task.example)
            )
            if reason is not None:
                kept.add(site.name, reason)
                continue
            replaced.append(site.name)
            if self.refit:
                refit(net, site, reconstruction_pairs(net, original, site, inputs), "depthwise")
        if not replaced:
            raise kept.nothing_done("no layer was replaced")
        after = macs(net, [task.example.shape]), parameters(net)
        task.note(
            f"depthwise: {len(replaced)} layers replaced ({', '.join(replaced)}); {after[0] / before[0]:.0%} of the "
            f"multiply-accumulates and {after[1] / before[1]:.0%} of the parameters are left"
        )
        if self.refit:
            task.note(fitted("depthwise", net, original, inputs()))
        for line in kept.lines():
            task.note(line)
        return described(net)

    def _unfit(self, site: Site) -> str | None:
        conv: Any = site.module
        if conv.groups > 1:
            return "a convolution in groups is thin already"
        if max(conv.kernel_size) == 1:
            return "its kernel has one position: there is nothing to separate"
        if min(conv.in_channels, conv.out_channels) < self.at_least:
            return f"fewer than {self.at_least} input or output channels"
        if not finite(conv):
            return "its weights are not finite"
        return None

    def _replaced(self, net: nn.Module, site: Site, example: Tensor) -> str | None:
        conv: Any = site.module
        positions = conv.weight[0, 0].numel()
        if self.rank >= min(positions, conv.out_channels):
            return f"rank {self.rank} is all that a kernel of {positions} positions has"
        new = separated(conv, self.rank, bias=self.refit or conv.bias is not None)
        if cost(new, site.inputs) * FEWER_MACS > cost(conv, site.inputs):
            return f"rank {self.rank} leaves it with less than {FEWER_MACS:g} times fewer multiply-accumulates"
        return swap(net, site, new, example)


def _other_kind(site: Site) -> str | None:
    transposed = isinstance(site.module, nn.modules.conv._ConvTransposeNd)
    return "a transposed convolution has no such separation" if transposed else None
