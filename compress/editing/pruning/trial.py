"""Cuts tried before they are made: which of them a network refuses, and why; how large it is with them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MethodType

import torch
from torch import Tensor, nn

from compress.editing.pruning.answers import answering
from compress.editing.pruning.dependency.graph import traced
from compress.editing.pruning.dependency.groups import Bundle, Flow, Group, removed_flow
from compress.editing.pruning.dependency.trace import TensorAxis
from compress.editing.pruning.removal import Cut, positions, without
from compress.errors import ExportError
from compress.measure.macs import macs_of
from export.errors import REFUSALS, first_line
from export.modules import copy_of

Reasons = Mapping[frozenset[TensorAxis], str]
"""Why bundles must stay whole, by their keys."""


class Refused(Exception):
    """The network does not run with these cuts, which were to be measured."""

    def __init__(self, cuts: Sequence[Cut]) -> None:
        super().__init__()
        self.cuts = cuts


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A network to try cuts on, and the shape of its answer."""

    whole: nn.Module
    """With all of the answers that it has in training: what torch.export captures."""
    image: Tensor
    """An input of it; values do not matter."""
    light: nn.Module
    """The network without its values, where its Python runs without them."""
    light_whole: nn.Module
    """The same with all of the answers."""
    light_image: Tensor
    shape: torch.Size
    """Of all the answers."""

    @torch.no_grad()
    def size(self, cuts: Sequence[Cut] = ()) -> tuple[int, int]:
        """Parameters, and multiply-accumulates for one image, of the network that is cut so.

        Raises:
            Refused: if it does not run so.
        """
        net = without(self.light, cuts)
        try:
            return sum(parameter.numel() for parameter in net.parameters()), macs_of(net, self.light_image)
        except REFUSALS:
            raise Refused(cuts) from None

    @torch.no_grad()
    def fault(self, cuts: Sequence[Cut]) -> str | None:
        """Why the network does not answer as before in shape once it is cut so; None if it does."""
        try:
            shape = without(self.light_whole, cuts)(self.light_image).shape
        except REFUSALS as error:
            return f"its code counts on so many channels ({first_line(error, 120)})"
        return None if shape == self.shape else f"without some, the answer is {tuple(shape)}, not {tuple(self.shape)}"


@torch.no_grad()
def trial_of(net: nn.Module, image: Tensor) -> Trial:
    """A trial of a network.

    Args:
        net: in evaluation mode; it is not changed.
        image: an input of the right shape (values do not matter).
    """
    whole = answering(net, image)
    try:
        light = _without_values(net)
        light_whole = light if whole is net else _without_values(whole)
        nothing = image.to("meta")
        shape = light_whole(nothing).shape
    except REFUSALS:
        light, light_whole, nothing, shape = net, whole, image, whole(image).shape
    return Trial(whole=whole, image=image, light=light, light_whole=light_whole, light_image=nothing, shape=shape)


def _without_values(net: nn.Module) -> nn.Module:
    # Module.to() would untie shared weights.
    light = copy_of(net, [(tensor, tensor.detach().to("meta")) for tensor in (*net.parameters(), *net.buffers())])
    for module in light.modules():
        if type(module) in _BATCH_NORMS and module.track_running_stats:
            module.forward = MethodType(_as_wide, module)
    return light


_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def _as_wide(norm: nn.modules.batchnorm._BatchNorm, image: Tensor) -> Tensor:
    """What a batch norm answers without values; torch computes that in Python, in a third of the time of a network."""
    assert norm.running_mean is not None
    if image.shape[1:2] != norm.running_mean.shape:
        raise RuntimeError(f"running_mean should contain {image.shape[1]} elements not {norm.running_mean.numel()}")
    return torch.empty_like(image)


def groups(net: nn.Module, example: Tensor) -> list[Group]:
    """The layers of a network whose channels go together, and whether they can go at all.

    Args:
        net: in evaluation mode.
        example: an input of the right shape (values do not matter).

    Raises:
        ExportError: if torch.export cannot capture the network.
    """
    return [bundle.group for bundle in tried(net, example)]


def tried(net: nn.Module, example: Tensor) -> list[Bundle]:
    """Every bundle of a network; one without half of whose channels it is not the same has the reason why.

    Args:
        net: in evaluation mode.
        example: an input of the right shape (values do not matter).

    Raises:
        ExportError: if torch.export cannot capture the network.
    """
    trial = trial_of(net, example)
    bundles, flow = prunable(trial)
    return keeping(bundles, refusals(trial, flow, _halves(bundles)))


def prunable(trial: Trial) -> tuple[list[Bundle], Flow]:
    """Every bundle of the network; one without half of whose channels it does not run has the reason why.

    Raises:
        ExportError: if torch.export cannot capture the network.
    """
    bundles, flow = traced(trial.whole, trial.image)
    return keeping(bundles, _alone(trial, _halves(bundles))), flow


def _halves(bundles: Sequence[Bundle]) -> list[Cut]:
    """Every other unit of each bundle."""
    return [Cut(bundle=one, units=tuple(range(1, len(one.units), 2))) for one in bundles if one.group.prunable]


def refusals(trial: Trial, flow: Flow, cuts: Sequence[Cut]) -> Reasons:
    """The bundles that must stay whole so that the others can be cut, each with the reason.

    A cut is right if the network still runs, its answer has the same shape, and every channel that is left
    flows where it flowed before (`Flow`): shapes alone do not show a split that has moved.
    """
    refused = dict(_alone(trial, cuts))
    left = [cut for cut in cuts if cut.bundle.key not in refused]
    while left and (beside := _together(trial, flow, left)):
        refused |= beside
        left = [cut for cut in left if cut.bundle.key not in refused]
    return refused


def _alone(trial: Trial, cuts: Sequence[Cut]) -> Reasons:
    """Which of these cuts the network does not bear, each tried by itself."""
    return {cut.bundle.key: fault for cut in cuts if (fault := trial.fault([cut])) is not None}


def _together(trial: Trial, flow: Flow, cuts: Sequence[Cut]) -> Reasons:
    """Which of these cuts cannot be made beside the others; empty if all can."""
    if trial.fault(cuts) is not None:
        for number in range(1, len(cuts) + 1):
            fault = trial.fault(cuts[:number])
            if fault is not None:
                return {cuts[number - 1].bundle.key: fault}
    try:
        _, after = traced(without(trial.whole, cuts), trial.image)
    except ExportError as error:
        return {cut.bundle.key: f"without some of its channels, {error}" for cut in cuts}
    wanted = removed_flow(flow, positions(cuts)).channels
    if after.channels == wanted:
        return {}
    touched = {(name, axis) for channel in after.channels ^ wanted for name, axis, _ in channel}
    guilty = [cut for cut in cuts if cut.bundle.key & touched] or list(cuts)
    reason = "its code picks channels by their number, and would pick others"
    return {cut.bundle.key: reason for cut in guilty}


def keeping(bundles: Sequence[Bundle], reasons: Reasons) -> list[Bundle]:
    """The bundles, those that have a reason not to be pruned any more."""
    # One that is not prunable may be in the same places as one that is.
    return [kept(one, reasons[one.key]) if one.group.prunable and one.key in reasons else one for one in bundles]


def kept(bundle: Bundle, reason: str) -> Bundle:
    """The bundle, not to be pruned for this reason."""
    return replace(bundle, group=replace(bundle.group, prunable=False, reason=reason))
