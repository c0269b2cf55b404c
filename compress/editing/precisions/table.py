"""What each unit costs in each precision on one runtime, in microseconds: measured, or guessed from its work."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from compress.editing.precisions.bench import Bench, Names
from compress.editing.precisions.units import Link, Units
from export.layers import Layer

_NOWHERE: Names = frozenset()


@dataclass(frozen=True, kw_only=True)
class Table:
    """The time of every unit in integers and in float, and that of what lies between two precisions."""

    integers_us: Mapping[str, float]
    float_us: Mapping[str, float]
    value_us: float = 0.0
    """Of a value that is converted from one precision to the other."""
    fixed_us: float = 0.0
    """Of a link between two precisions, whatever its size."""

    def link_us(self, link: Link) -> float:
        return self.fixed_us + self.value_us * link.values


def measured(bench: Bench, units: Units) -> Table | None:
    """Profiles of the network in integers and in float, scaled to times taken in turns; None where nothing profiles.

    What belongs to no unit (pooling, norms, the runtime's own reordering) takes another time in integers than in
    float: the difference is shared out by the units' own times. Conversions are known from a third artifact, in which
    every second layer is in float: what it takes more than its units do, over the values that are converted in it.
    """
    every, second = frozenset(units.names), _every_second(units)
    whole = [1000 * each for each in bench.ms([_NOWHERE, every, second])]
    profiles = [bench.layers(choice) for choice in (_NOWHERE, every)]
    if profiles[0] is None or profiles[1] is None:
        return None
    integers_us, float_us = (
        _shared(*profile, units, us) for profile, us in zip(profiles, whole[:2], strict=True) if profile
    )
    table = Table(integers_us=integers_us, float_us=float_us)
    return _with_conversions(table, units, second, whole[2])


def by_work(units: Units) -> Table:
    """Where nothing is measured: multiply-accumulates times bits stand for time, and conversions are free."""
    work = {name: units.macs.get(name, 0) / 1e6 for name in units.names}
    integers_us, float_us = ({name: bits * each for name, each in work.items()} for bits in (8, 32))
    return Table(integers_us=integers_us, float_us=float_us)


def us_of(table: Table, units: Units, in_float: Names) -> float:
    """The time that a choice is predicted to take."""
    own = (table.float_us[name] if name in in_float else table.integers_us[name] for name in units.names)
    between = (table.link_us(link) for link in _between(units, in_float))
    return sum(own) + sum(between)


def corrected(table: Table, units: Units, in_float: Names, us: float) -> Table:
    """The table with conversions as dear, or as cheap, as what was measured of a choice says."""
    return _with_conversions(Table(integers_us=table.integers_us, float_us=table.float_us), units, in_float, us)


def _with_conversions(table: Table, units: Units, in_float: Names, us: float) -> Table:
    between = _between(units, in_float)
    more = max(us - us_of(table, units, in_float), 0.0)
    values = sum(link.values for link in between)
    if not between or not values:
        return table
    # Half by the number of conversions, each of which is a kernel of its own, half by their sizes.
    return Table(
        integers_us=table.integers_us,
        float_us=table.float_us,
        value_us=more / 2 / values,
        fixed_us=more / 2 / len(between),
    )


def _between(units: Units, in_float: Names) -> list[Link]:
    return [link for link in units.links if (link.before in in_float) != (link.behind in in_float)]


def _every_second(units: Units) -> Names:
    """Layers in float such that most links have two precisions: each unlike the first layer that it reads."""
    chosen: dict[str, bool] = {}
    readers: dict[str, str] = {}
    for link in units.links:
        readers.setdefault(link.behind, link.before)
    for name in units.layers:
        before = readers.get(name)
        while before is not None and before in units.operators:
            before = readers.get(before)
        chosen[name] = not chosen.get(before, True) if before is not None else False
    return frozenset(name for name, is_float in chosen.items() if is_float)


def _shared(layers: Sequence[Layer], own_us: float, units: Units, whole_us: float) -> dict[str, float]:
    """The whole time shared out over the units, by what the profile says of each."""
    known = {name.removeprefix("operator:"): name for name in units.names}
    spent = dict.fromkeys(units.names, 0.0)
    for layer in layers:
        if layer.name in known:
            spent[known[layer.name]] += layer.microseconds
    profiled = sum(layer.microseconds for layer in layers) + own_us
    named = sum(spent.values())
    # Nothing of a network that is too small to be timed layer by layer.
    rest_us = max(whole_us * (1 - named / profiled), 0.0) if profiled else whole_us
    scale = whole_us / profiled if profiled else 0.0
    share = {name: us / named if named else 1 / len(spent) for name, us in spent.items()}
    return {name: scale * us + rest_us * share[name] for name, us in spent.items()}
