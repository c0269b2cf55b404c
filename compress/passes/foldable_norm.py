"""Instance, group and layer norms as batch norms, which fold into convolutions and leave nothing to run.

A norm that measures each image anew cannot be folded: int8 leaves it in float, and engines split
the graph around it. A batch norm has its statistics from before. These are measured on calibration
cases; its scale and offset give its answer the mean and deviation of the norm's.

What a norm of each image's own statistics did beyond that is lost; `distill` after this pass
brings back what the network needs of it.

Legend: B batch, C channels, R rows (one for each pixel).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import torch
import torch.nn.functional as F
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from compress.data.dataset.cases import Role
from compress.editing.activations import (
    Images,
    Pair,
    agreement,
    calibration_cases,
    images,
    reconstruction_pairs,
    seen_by,
)
from compress.editing.layer_replacement import Site, SkippedSites, chosen, copied, hooked_or_shared, sites, swap
from compress.editing.least_squares import rows
from compress.errors import PassError
from compress.progress import bar
from compress.storage.description import described
from export.modules import Precision

if TYPE_CHECKING:
    from compress.task import Task

INSTANCE = (nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)
NORMS = (nn.modules.instancenorm._InstanceNorm, nn.GroupNorm, nn.LayerNorm)
BATCH = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}
"""By the axes of what they take."""


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class FoldableNorm:
    """Batch norms in the place of norms that measure each image anew."""

    requires: ClassVar[Precision] = "float"
    ensures: ClassVar[Precision] = "float"

    where: str | tuple[str, ...] = "*"
    """Which norms: names (`encoder.0.1`), modules (`decoder`) or patterns (`encoder.*.1`)."""
    calibrate: Annotated[int, Field(ge=1)] | None = None
    """How many calibration cases to measure; None uses all that the data sets aside."""

    @property
    def uses(self) -> tuple[Role, ...]:
        return ("calibration",)

    def __call__(self, net: nn.Module, task: Task) -> nn.Module:
        """The network with its norms replaced, in order, each measured behind those before it.

        Raises:
            PassError: if the network has no such norm, `where` names none, none could be replaced (with the
                reasons), or there are too few calibration cases.
        """
        original, net = copied(net, "foldable_norm"), copied(net, "foldable_norm")
        kept, replaced = SkippedSites(word="foldable_norm"), []
        cases = calibration_cases(task, self.calibrate, "foldable_norm")

        def inputs() -> Iterable[Tensor]:
            return images(task, cases)

        norms = chosen(sites(net, task.example, NORMS), self.where, "foldable_norm")
        for site in bar(norms, "measuring norms", len(norms)):
            reason = hooked_or_shared(site, net) or _unfit(site, net, inputs)
            reason = reason or swap(net, site, _batch_norm(site), task.example)
            if reason is not None:
                kept.add(site.name, reason)
                continue
            replaced.append(site.name)
            if not _is_static(site.module):
                _measure(net.get_submodule(site.name), reconstruction_pairs(net, original, site, inputs), site.name)
        if not replaced:
            raise kept.nothing_done("no norm was replaced")
        task.note(
            f"foldable_norm: {len(replaced)} norms are batch norms now ({', '.join(replaced)}); on the {len(cases)} "
            f"calibration cases {agreement(net, original, inputs()):.1%} of the foreground keeps its class"
        )
        for line in kept.lines():
            task.note(line)
        return described(net)


def _is_static(norm: Any) -> bool:
    """Whether it uses statistics of training already: in evaluation, it is a batch norm."""
    return type(norm) in INSTANCE and norm.running_mean is not None


def _unfit(site: Site, net: nn.Module, inputs: Images) -> str | None:
    norm: Any = site.module
    axes = {len(shape) for shape in site.inputs}
    if isinstance(norm, nn.LayerNorm) and norm.weight is not None and norm.weight.dim() > 1:
        return "it has a weight for each pixel, a batch norm one for each channel"
    if (
        isinstance(norm, nn.LayerNorm)
        and type(norm) is nn.LayerNorm
        and axes != {2}
        and len(norm.normalized_shape) == 1
    ):
        return "its channels are the last axis, a batch norm's the second"
    if len(axes) != 1 or not axes <= set(BATCH) or len({shape[1] for shape in site.inputs}) != 1:
        return "it is called on tensors of different kinds, or of a kind that no batch norm takes"
    if isinstance(norm, INSTANCE) and axes != {_axes(norm)}:
        return "it is called without a batch axis"
    if type(norm) not in (*INSTANCE, nn.GroupNorm, nn.LayerNorm):
        seen = next(seen_by(net, site, inputs()))
        if any(not _is_norm(norm, into, out) for into, out in seen):
            return f"it is a {type(norm).__name__}, which computes more than a plain norm"
    return None


def _axes(norm: nn.Module) -> int:
    return next(axes for axes, kind in enumerate(INSTANCE, 3) if isinstance(norm, kind))


@torch.no_grad()
def _is_norm(norm: Any, seen: Tensor, out: Tensor) -> bool:
    """Whether a subclass answers as its class does; one of a layer norm may have its channels second."""
    if isinstance(norm, nn.GroupNorm):
        plain = F.group_norm(seen, norm.num_groups, norm.weight, norm.bias, norm.eps)
    elif isinstance(norm, nn.LayerNorm):
        if tuple(norm.normalized_shape) != (seen.shape[1],):
            return False
        plain = F.layer_norm(seen.movedim(1, -1), norm.normalized_shape, norm.weight, norm.bias, norm.eps).movedim(
            -1, 1
        )
    else:
        plain = F.instance_norm(seen, None, None, norm.weight, norm.bias, True, 0.0, norm.eps)
    return out.shape == plain.shape and torch.allclose(out, plain, rtol=1e-3, atol=1e-4)


@torch.no_grad()
def _batch_norm(site: Site) -> nn.Module:
    """A batch norm of the norm's own scale, offset and, where it has them, statistics."""
    norm: Any = site.module
    shape = site.inputs[0]
    new: Any = BATCH[len(shape)](shape[1], eps=norm.eps)
    for ours, theirs in ((new.weight, norm.weight), (new.bias, norm.bias)):
        if theirs is not None:
            ours.copy_(theirs)
    if _is_static(norm):
        new.running_mean.copy_(norm.running_mean)
        new.running_var.copy_(norm.running_var)
    reference = next((tensor for tensor in norm.state_dict().values() if tensor.is_floating_point()), None)
    made: nn.Module = new.to(torch.float32 if reference is None else reference.dtype).eval()
    return made


@torch.no_grad()
def _measure(norm: Any, pairs: Iterable[Pair], name: str) -> None:
    """Give a batch norm the statistics of what it sees, and its answer those of what was wanted: (input, wanted) pairs.

    Its scale is not that of the least squared error: this would shrink the answer of a norm that
    differs from image to image, and the more so the deeper the network.
    """
    count, sums = 0, torch.zeros(5, norm.num_features, dtype=torch.float64)
    for seen, wanted in pairs:
        x, y = rows(seen, norm).double(), rows(wanted, norm).double()
        sums += torch.stack([part.sum(0) for part in (x, y, x * x, y * y, x * y)])
        count += len(x)
    if not torch.isfinite(sums).all():
        raise PassError(f"foldable_norm: what {name} sees is not finite on the calibration cases; check the weights")
    x, y, xx, yy, xy = sums / count
    norm.running_mean.copy_(x)
    norm.running_var.copy_((xx - x * x).clamp_min(0))
    deviation_C = (yy - y * y).clamp_min(0).sqrt()
    norm.weight.copy_(torch.where(xy < x * y, -deviation_C, deviation_C))
    norm.bias.copy_(y)
