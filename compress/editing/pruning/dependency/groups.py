"""Channels that can only be removed together: what a walk over the network's operations has found."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from compress.editing.pruning.dependency.labels import NOBODY
from compress.editing.pruning.dependency.trace import TensorAxis, Trace


@dataclass(frozen=True, kw_only=True)
class Group:
    """Layers whose output channels can only be removed together."""

    layers: tuple[str, ...]
    """The convolutions and linear layers that make these channels, in the order they run."""
    channels: int
    prunable: bool
    reason: str | None = None
    """Why not, where they are not."""


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """A group, and where its channels are: `units` are removed whole or stay."""

    group: Group
    units: tuple[Mapping[TensorAxis, tuple[int, ...]], ...]
    """For each unit, the positions it has along the axes of the network's tensors."""
    widths: tuple[Mapping[str, int], ...]
    """For each unit, its channels in norms that have no tensors to know their width by."""

    @property
    def key(self) -> frozenset[TensorAxis]:
        """Stays the same when channels are removed."""
        return frozenset(self.units[0])

    @property
    def made_in(self) -> TensorAxis:
        """The axis along which the first layer makes these channels."""
        return next(iter(self.units[0]))


@dataclass(frozen=True, kw_only=True)
class Flow:
    """Which positions of which tensors speak of one channel; the same, renumbered, after a right removal."""

    channels: frozenset[frozenset[tuple[str, int, int]]]


def bundles_of(trace: Trace) -> list[Bundle]:
    """Units that are in the same places of the same layers, together, in the order in which layers make them."""
    units = _units(trace)
    alike: dict[Any, list[int]] = {}
    for root, unit in units.items():
        if any(axis in trace.makers for axis in unit):
            alike.setdefault((frozenset(unit), trace.labels.stays.get(root)), []).append(root)
    order = {axis: number for number, axis in enumerate(trace.makers)}
    bare = {name: trace.labels.roots(labels).tolist() for name, labels in trace.bare.items()}
    bundles = []
    for (axes, stays), roots in alike.items():
        made = sorted((axis for axis in axes if axis in order), key=order.__getitem__)
        first = [*made, *sorted(axes - set(made))]
        ordered = tuple({axis: units[root][axis] for axis in first} for root in roots)
        layers = tuple(dict.fromkeys(trace.makers[axis] for axis in made))
        channels = sum(len(unit[made[0]]) for unit in ordered)
        widths = tuple({name: labels.count(root) for name, labels in bare.items() if root in labels} for root in roots)
        bundles.append(Bundle(group=_group(layers, channels, stays, len(roots)), units=ordered, widths=widths))
    return sorted(bundles, key=lambda bundle: order[bundle.made_in])


def _group(layers: tuple[str, ...], channels: int, stays: str | None, units: int) -> Group:
    alone = "it has one channel" if channels == 1 else f"its {channels} channels can only go together"
    reason = stays or (alone if units == 1 else None)
    return Group(layers=layers, channels=channels, prunable=reason is None, reason=reason)


def flow_of(trace: Trace) -> Flow:
    """Every channel, as the positions it has in the network's tensors."""
    units = _units(trace).values()
    return Flow(
        channels=frozenset(
            frozenset((name, axis, index) for (name, axis), indices in unit.items() for index in indices)
            for unit in units
        )
    )


def _units(trace: Trace) -> dict[int, dict[TensorAxis, tuple[int, ...]]]:
    units: dict[int, dict[TensorAxis, tuple[int, ...]]] = {}
    for (name, axis), along in [*trace.axes.items(), *_element_axes(trace)]:
        for index, root in enumerate(trace.labels.roots(along).tolist()):
            unit = units.setdefault(root, {})
            unit[name, axis] = (*unit.get((name, axis), ()), index)
    units.pop(NOBODY, None)
    return units


def _element_axes(trace: Trace) -> list[tuple[TensorAxis, Tensor]]:
    """The axes along which a tensor's elements belong to one channel at each position."""
    found = []
    for name, labels in trace.elements.items():
        roots = trace.compact(labels)
        along = [axis for axis, length in enumerate(roots.shape) if length > 1]
        if len(along) == 1:
            found.append(((name, along[0]), roots.flatten()))
        elif along:
            trace.labels.keep(roots, f"{name} belongs to several of its channels at once")
    return found


def removed_flow(flow: Flow, removed: Mapping[TensorAxis, Iterable[int]]) -> Flow:
    """The flow that a network must have from which these positions were removed."""
    gone = {axis: sorted(indices) for axis, indices in removed.items()}

    def new(name: str, axis: int, index: int) -> tuple[str, int, int] | None:
        lost = gone.get((name, axis), [])
        before = bisect_left(lost, index)
        return None if lost[before : before + 1] == [index] else (name, axis, index - before)

    channels = (frozenset(position for each in channel if (position := new(*each))) for channel in flow.channels)
    return Flow(channels=frozenset(channel for channel in channels if channel))
