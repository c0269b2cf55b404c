"""Which artifacts a gate applies to, and the verdicts that what it found of each becomes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Protocol

from compress.gates.judging.verdict import Bound, Outcome, Verdict, inconclusive
from compress.measure.row import Row, Status
from export.reach import DLA, HERE


class Titled(Protocol):
    """A gate, as far as a verdict names it."""

    @property
    def title(self) -> str: ...

    @property
    def bound(self) -> Bound: ...


class OfArtifacts(Titled, Protocol):
    """A gate on artifacts, whose options say which."""

    @property
    def device(self) -> str | None:
        """None judges the artifacts of every device in the recipe."""
        ...

    @property
    def backend(self) -> str | None:
        """None judges the artifacts of every backend."""
        ...


class Located(Protocol):
    """An artifact, there already or to be built."""

    @property
    def device(self) -> str: ...

    @property
    def backend(self) -> str: ...


def applies(gate: OfArtifacts, to: Located) -> bool:
    """Whether a gate judges what this backend builds for this device."""
    return is_device(gate.device, to.device) and gate.backend in (None, to.backend)


def is_device(asked: str | None, name: str) -> bool:
    """Whether a gate's `device` means the device of this name.

    `orin_nano` means it wherever it is, `orin_nano@tower-7` the one at that host, `cpu@here` the one here;
    `agx_orin` its GPU and its DLA cores, `agx_orin+dla0` that core.
    """
    place, _, core = name.partition(DLA)
    word, _, host = place.partition("@")
    meant = (
        (word, f"{word}{DLA}{core}", f"{word}@{host or HERE}{DLA}{core}") if core else (word, f"{word}@{host or HERE}")
    )
    return asked in (None, name, *meant)


def each_measured(gate: OfArtifacts, rows: Sequence[Row], find: Callable[[Row], Sequence[Outcome]]) -> list[Verdict]:
    """What is found of each artifact of the last step that ran."""
    return _each(gate, rows, find, ("measured",))


def each_built(gate: OfArtifacts, rows: Sequence[Row], find: Callable[[Row], Sequence[Outcome]]) -> list[Verdict]:
    """What is found of each artifact of the last step that is there: its file is judged even where it cannot run."""
    return _each(gate, rows, find, ("measured", "built"))


def _each(
    gate: OfArtifacts, rows: Sequence[Row], find: Callable[[Row], Sequence[Outcome]], states: Sequence[Status]
) -> list[Verdict]:
    judged = [row for row in rows if row.step == rows[-1].step and applies(gate, row)]
    if not judged:
        return [_nothing_built(gate, rows)]
    return [
        verdict_on(gate, row, outcome)
        for row in judged
        for outcome in (find(row) if row.status in states else [inconclusive(f"not measured: {row.reason}")])
    ]


def _nothing_built(gate: OfArtifacts, rows: Sequence[Row]) -> Verdict:
    options = (("device", gate.device), ("backend", gate.backend))
    asked = [f"{option} '{word}'" for option, word in options if word]
    there = ", ".join(dict.fromkeys(f"{row.backend} on {row.device}" for row in rows if row.step == rows[-1].step))
    reason = f"not measured: nothing was built for {' and '.join(asked) or 'any device'}; there are {there}"
    return replace(verdict_on(gate, None, inconclusive(reason)), device=gate.device, backend=gate.backend)


def verdict_on(gate: Titled, row: Row | None, outcome: Outcome) -> Verdict:
    """What was found of a row, as a verdict; of no row where there is none to judge."""
    return Verdict(
        name=gate.title,
        bound=gate.bound.side,
        limit=gate.bound.limit,
        value=_finite(outcome.value),
        upper=_finite(outcome.upper),
        device=None if row is None else row.device,
        backend=None if row is None else row.backend,
        class_name=outcome.class_name,
        verdict=outcome.ruling,
        reason=outcome.reason,
        over=getattr(gate, "over", None),
    )


def _finite(number: float | None) -> float | None:
    return None if number is None or not math.isfinite(number) else round(number, 6)


def where_shown(row: Row, outcomes: Sequence[Outcome]) -> list[Outcome]:
    """What was found of answers; where these hold on some processors only, that is said."""
    told = row.processors or {}
    if not told.get("differs_on"):
        return list(outcomes)
    where = f"on {told['measured_on']}; not shown for {', '.join(told['differs_on'])}"
    return [replace(each, reason=f"{each.reason}; {where}" if each.reason else where) for each in outcomes]
