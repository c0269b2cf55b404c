"""Two runs of one recipe, the main branch's and a change's: which of their artifacts belong together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from compress.measure.row import Row


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What is known of one run."""

    rows: Sequence[Row]
    host: Mapping[str, Any]
    """The machine that ran it."""
    versions: Mapping[str, str]
    network: Mapping[str, Any]
    """The recipe's word of the network and its options."""


@dataclass(frozen=True, kw_only=True)
class Pair:
    """One artifact in both runs."""

    before: Row
    after: Row
    title: str = ""
    """The step, where several of one backend and device are compared."""


@dataclass(frozen=True, kw_only=True)
class Pairing:
    """The artifacts of two runs."""

    pairs: Sequence[Pair]
    lost: Sequence[Row]
    """Of the first run only: the change has none to compare."""
    gained: Sequence[Row]
    """Of the second run only."""


def paired(before: Sequence[Row], after: Sequence[Row], every_step: bool = False) -> Pairing:
    """The artifacts for one backend and device, of the last step of each run or of every step that both have.

    A device is that of the same name; where none is, the one of the same word at another host, to be told apart later.
    """
    was, now = (rows if every_step else _of_last_step(rows) for rows in (before, after))
    pairs: list[Pair] = []
    left = list(now)
    for exactly in (True, False):
        taken = {id(pair.before) for pair in pairs}
        for row in [row for row in was if id(row) not in taken]:
            other = next((each for each in left if _alike(row, each, every_step, exactly)), None)
            if other is not None:
                left.remove(other)
                pairs.append(Pair(before=row, after=other, title=other.step if every_step else ""))
    order = {id(row): index for index, row in enumerate(was)}
    taken = {id(pair.before) for pair in pairs}
    return Pairing(
        pairs=sorted(pairs, key=lambda pair: order[id(pair.before)]),
        lost=[row for row in was if id(row) not in taken],
        gained=left,
    )


def aligned(pairing: Pairing) -> Pairing:
    """The pairing, each pair's scores on the cases that both have, in one order."""
    return replace(pairing, pairs=[_on_common_cases(pair) for pair in pairing.pairs])


def _on_common_cases(pair: Pair) -> Pair:
    was, now = pair.before.scores, pair.after.scores
    if was is None or now is None or list(was["per_case"]) == list(now["per_case"]):
        return pair
    common = [case for case in was["per_case"] if case in now["per_case"]]

    def among(row: Row, scores: Mapping[str, Any]) -> Row:
        cases = {case: scores["per_case"][case] for case in common}
        return replace(row, scores={**scores, "per_case": cases} if common else None)

    return replace(pair, before=among(pair.before, was), after=among(pair.after, now))


def _of_last_step(rows: Sequence[Row]) -> list[Row]:
    return [row for row in rows if row.step == rows[-1].step]


def _alike(row: Row, other: Row, every_step: bool, exactly: bool) -> bool:
    devices = [each.device if exactly else each.device.partition("@")[0] for each in (row, other)]
    return devices[0] == devices[1] and row.backend == other.backend and (not every_step or row.step == other.step)
