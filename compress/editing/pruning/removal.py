"""Channels taken out of a network for good: an ordinary, smaller network, and the proof that it is the same one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from types import MethodType

import torch
from torch import Tensor, nn

from compress.editing.pruning.dependency.answers import answering
from compress.editing.pruning.dependency.graph import traced
from compress.editing.pruning.dependency.groups import Bundle, Flow, Group, removed_flow
from compress.editing.pruning.dependency.layers import goes_across
from compress.editing.pruning.dependency.trace import TensorAxis
from compress.errors import ExportError
from compress.measure.macs import macs_of
from export.errors import REFUSALS, first_line
from export.modules import copy_of


@dataclass(frozen=True, kw_only=True)
class Cut:
    """Some units of a bundle, to be removed."""

    bundle: Bundle
    units: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A network to try cuts on, and the shape of its answer."""

    net: nn.Module
    whole: nn.Module
    """The same with all of the answers that it has in training."""
    example: Tensor
    shape: torch.Size
    """Of all the answers."""

    @torch.no_grad()
    def size(self, cuts: Sequence[Cut] = ()) -> tuple[int, int]:
        """Parameters, and multiply-accumulates for one image, of the network that is cut so."""
        net = without(copy_of(self.net), cuts)
        return sum(parameter.numel() for parameter in net.parameters()), macs_of(net, self.example)


@torch.no_grad()
def trial_of(net: nn.Module, example: Tensor) -> Trial:
    """The network without its values, where its Python runs without them; else a copy."""
    plain = copy_of(net).eval()
    whole = answering(plain, example)
    try:
        light = _without_values(plain)
        lighter = light if whole is plain else _without_values(whole)
        nothing = example.to("meta")
        return Trial(net=light, whole=lighter, example=nothing, shape=lighter(nothing).shape)
    except REFUSALS:
        return Trial(net=plain, whole=whole, example=example, shape=whole(example).shape)


def _without_values(net: nn.Module) -> nn.Module:
    light = copy_of(net)
    # Module.to() would untie shared weights.
    _exchange(light, [(tensor, tensor.detach().to("meta")) for tensor in (*light.parameters(), *light.buffers())])
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
        example: an input of the right shape (values do not matter).

    Raises:
        ExportError: if torch.export cannot capture the network.
    """
    bundles, flow = prunable(net, example)
    refused = refusals(net, example, flow, _halves(bundles))
    return [bundle.group for bundle in keeping(bundles, refused)]


def prunable(net: nn.Module, example: Tensor, trial: Trial | None = None) -> tuple[list[Bundle], Flow]:
    """Every bundle of the network; one without half of whose channels it does not run has the reason why.

    Args:
        trial: of this network, if there is one already.

    Raises:
        ExportError: if torch.export cannot capture the network.
    """
    bundles, flow = traced(net, example)
    trial = trial or trial_of(net, example)
    faults = {cut.bundle.key: fault for cut in _halves(bundles) if (fault := _fault(trial, [cut])) is not None}
    return keeping(bundles, faults), flow


def _halves(bundles: Sequence[Bundle]) -> list[Cut]:
    """Every other unit of each bundle."""
    return [Cut(bundle=one, units=tuple(range(1, len(one.units), 2))) for one in bundles if one.group.prunable]


def refusals(
    net: nn.Module, example: Tensor, flow: Flow, cuts: Sequence[Cut], trial: Trial | None = None
) -> dict[frozenset[TensorAxis], str]:
    """The bundles (by key) that must stay whole so that the others can be cut, each with the reason.

    A cut is right if the network still runs, its answer has the same shape, and every channel that is left
    flows where it flowed before (`Flow`): shapes alone do not show a split that has moved.
    """
    refused: dict[frozenset[TensorAxis], str] = {}
    trial = trial or trial_of(net, example)
    for cut in cuts:
        fault = _fault(trial, [cut])
        if fault is not None:
            refused[cut.bundle.key] = fault
    left = [cut for cut in cuts if cut.bundle.key not in refused]
    while left and (found := _together(net, example, flow, left, trial)):
        refused |= found
        left = [cut for cut in left if cut.bundle.key not in refused]
    return refused


def without(net: nn.Module, cuts: Sequence[Cut]) -> nn.Module:
    """`net` itself, these units of its channels removed from every tensor they are in."""
    lost: dict[str, int] = {}
    for cut in cuts:
        for unit in cut.units:
            for name, count in cut.bundle.widths[unit].items():
                lost[name] = lost.get(name, 0) + count
    tensors = {name: tensor_of(net, name) for name, _ in positions(cuts)}
    smaller = {name: tensor.detach() for name, tensor in tensors.items()}
    for (name, axis), indices in positions(cuts).items():
        stay = sorted(set(range(smaller[name].shape[axis])) - indices)
        smaller[name] = smaller[name].index_select(axis, torch.tensor(stay, device=smaller[name].device))
    _exchange(net, [(tensors[name], new) for name, new in smaller.items()])
    for name, module in net.named_modules():
        _resize(module, lost.get(name, 0))
    return net


def positions(cuts: Sequence[Cut]) -> dict[TensorAxis, set[int]]:
    """Where along which axes the removed channels are."""
    found: dict[TensorAxis, set[int]] = {}
    for cut in cuts:
        for unit in cut.units:
            for axis, indices in cut.bundle.units[unit].items():
                found.setdefault(axis, set()).update(indices)
    return found


@torch.no_grad()
def _fault(trial: Trial, cuts: Sequence[Cut]) -> str | None:
    try:
        shape = without(copy_of(trial.whole), cuts)(trial.example).shape
    except REFUSALS as error:
        return f"its code counts on so many channels ({first_line(error, 120)})"
    return None if shape == trial.shape else f"without some, the answer is {tuple(shape)}, not {tuple(trial.shape)}"


def _together(
    net: nn.Module, example: Tensor, flow: Flow, cuts: Sequence[Cut], trial: Trial
) -> dict[frozenset[TensorAxis], str]:
    """Which of these cuts cannot be made beside the others; empty if all can."""
    if _fault(trial, cuts) is not None:
        for number in range(1, len(cuts) + 1):
            fault = _fault(trial, cuts[:number])
            if fault is not None:
                return {cuts[number - 1].bundle.key: fault}
    try:
        _, after = traced(without(copy_of(net), cuts), example)
    except ExportError as error:
        return {cut.bundle.key: f"without some of its channels, {error}" for cut in cuts}
    wanted = removed_flow(flow, positions(cuts)).channels
    if after.channels == wanted:
        return {}
    touched = {(name, axis) for channel in after.channels ^ wanted for name, axis, _ in channel}
    guilty = [cut for cut in cuts if cut.bundle.key & touched] or list(cuts)
    reason = "its code picks channels by their number, and would pick others"
    return {cut.bundle.key: reason for cut in guilty}


def keeping(bundles: Sequence[Bundle], reasons: Mapping[frozenset[TensorAxis], str]) -> list[Bundle]:
    """The bundles, those that have a reason (by key) not to be pruned any more."""
    # One that is not prunable may be in the same places as one that is.
    return [kept(one, reasons[one.key]) if one.group.prunable and one.key in reasons else one for one in bundles]


def kept(bundle: Bundle, reason: str) -> Bundle:
    """The bundle, not to be pruned for this reason."""
    return replace(bundle, group=replace(bundle.group, prunable=False, reason=reason))


def tensor_of(net: nn.Module, name: str) -> Tensor:
    """A parameter or buffer by its name."""
    owner, _, last = name.rpartition(".")
    found = getattr(net.get_submodule(owner), last)
    assert isinstance(found, Tensor)
    return found


def _exchange(net: nn.Module, pairs: Sequence[tuple[Tensor, Tensor]]) -> None:
    """Put each new tensor wherever the old one is: a shared weight stays shared."""
    new = {
        id(old): nn.Parameter(smaller, requires_grad=old.requires_grad) if isinstance(old, nn.Parameter) else smaller
        for old, smaller in pairs
    }
    for module in net.modules():
        holders: tuple[Mapping[str, Tensor | None], ...] = (module._parameters, module._buffers)
        for held in holders:
            for name, tensor in list(held.items()):
                if id(tensor) in new:
                    held[name] = new[id(tensor)]  # type: ignore[index]


def _resize(module: nn.Module, lost: int) -> None:
    """Bring what a layer says of its own width up to date with its tensors."""
    if isinstance(module, nn.modules.conv._ConvNd):
        _resize_convolution(module)
    elif isinstance(module, nn.Linear):
        module.out_features, module.in_features = module.weight.shape
    elif isinstance(module, nn.Embedding):
        module.embedding_dim = module.weight.shape[1]
    elif isinstance(module, nn.PReLU):
        module.num_parameters = module.weight.numel()
    elif isinstance(module, nn.modules.batchnorm._NormBase):
        module.num_features -= lost
    elif isinstance(module, nn.GroupNorm) and lost:
        size = module.num_channels // module.num_groups
        module.num_channels -= lost
        if not goes_across(module.num_groups, size):
            module.num_groups = module.num_channels // size
    elif isinstance(module, nn.LayerNorm) and lost:
        module.normalized_shape = (*module.normalized_shape[:-1], module.normalized_shape[-1] - lost)


def _resize_convolution(conv: nn.modules.conv._ConvNd) -> None:
    first, second = conv.weight.shape[:2]
    each = conv.out_channels // conv.groups
    if conv.groups > 1 and conv.groups == conv.in_channels:
        conv.groups = conv.in_channels = first if conv.transposed else first // each
        conv.out_channels = conv.groups * each
    elif conv.transposed:
        conv.in_channels, conv.out_channels = first, second * conv.groups
    else:
        conv.in_channels, conv.out_channels = second * conv.groups, first
