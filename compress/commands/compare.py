"""`compress compare`: two finished runs, the main branch's and a change's, paired case by case; nothing is measured."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from compress.errors import RecipeError, SegpressError
from compress.gates.judging.change import Allowed, judge_change, judge_pairs
from compress.gates.judging.two_runs import Measured, Pair, Pairing, aligned, paired
from compress.gates.judging.verdict import Verdict
from compress.measure.row import Row
from compress.pipeline.finished import finished
from compress.pipeline.manifest import unsealed
from compress.report.change import change_table
from compress.report.reading import Recorded
from compress.report.report import exit_code
from compress.report.tables import Table

DEFAULTS = Allowed()
NOTHING = Allowed(drop=None, slower=None, larger=None)
"""Every limit off."""


@dataclass(frozen=True, kw_only=True)
class Compared:
    """What a change cost."""

    record: dict[str, Any]
    """The change's report.json, with the verdicts on the change as its `gates`."""
    table: Table
    pairs: Sequence[Pair]
    """The artifacts that both runs have."""
    notes: tuple[str, ...]
    """What else the runs differ in, a sentence each."""
    exit_code: int


def compare(
    main: Path, change: Path, allowed: Allowed, gates: Path | None = None, *, every_step: bool = False
) -> Compared:
    """Judge what a change cost, from two runs on the same cases, which are only read.

    Args:
        main: the folder of the run that is compared with.
        gates: a YAML file with gates on each artifact of the change, whose baseline is that of `main`.
        every_step: compare every step that both have; otherwise the last one of each.

    Raises:
        SegpressError: if there is no finished run, or the two are of other cases, classes or data: which.
        RecipeError: if the gates are wrong.
    """
    was, now = finished(main), finished(change)
    check_same_data(was, now)
    pairing = paired(was.rows, now.rows, every_step)
    if not pairing.pairs:
        raise SegpressError(f"{main} and {change}: no backend and device in common, so there is nothing to compare")
    check_same_cases(pairing, main, change)
    pairing = aligned(pairing)
    verdicts = judge_change(_measured(was), _measured(now), pairing, allowed)
    verdicts += _by_file(gates, now, pairing)
    if not verdicts:
        raise SegpressError("nothing is judged: every limit is off; leave one on, or give gates (--gates)")
    title = f"{now.name}, {change} beside {main}"
    record = {**now.record, "name": title, "gates": [verdict.as_dict() for verdict in verdicts]}
    notes = (*unsealed(main, change), *_differences(was, now, pairing))
    return Compared(
        record=record,
        table=change_table(pairing.pairs),
        pairs=pairing.pairs,
        notes=notes,
        exit_code=exit_code(verdicts),
    )


def limits(given: Mapping[str, str | None], otherwise: Allowed) -> Allowed:
    """What the command line's words allow.

    Args:
        given: a number or "off", by the name of the limit; None takes that of `otherwise`.

    Raises:
        SegpressError: if one is neither, naming its option.
    """
    read = {name: _limit(name, text) for name, text in given.items() if text is not None}
    return replace(otherwise, **read)


def _limit(name: str, text: str) -> float | None:
    if text == "off":
        return None
    try:
        limit = float(text)
    except ValueError:
        limit = math.nan
    right = 0 <= limit <= 1 if name == "drop" else 0 < limit < math.inf
    if not right:
        wanted = "a Dice from 0 to 1, such as 0.005" if name == "drop" else "a ratio above 0, such as 1.1"
        raise SegpressError(f"--{name}: '{text}' is not {wanted}, nor 'off'")
    return limit


def _by_file(gates: Path | None, now: Recorded, pairing: Pairing) -> list[Verdict]:
    if gates is None:
        return []
    from compress.recipe.gates_file import read_gates_file

    chosen = read_gates_file(gates, now.record["recipe"])
    timed = [f"gates[{index}] ({word})" for index, (word, _) in enumerate(chosen) if word == "speedup"]
    if timed:
        why = "its two artifacts must be timed in turns, and two runs are not; limit the ratio by --slower"
        raise RecipeError(str(gates), [f"{where}: {why}" for where in timed])
    return judge_pairs(chosen, pairing)


def check_same_data(was: Recorded, now: Recorded) -> None:
    """Whether two runs were scored on the same data.

    Raises:
        SegpressError: if not, with the first thing that differs.
    """
    pair = was.path.parent, now.path.parent
    classes = [list(run.record["data"].get("classes") or ()) for run in (was, now)]
    if classes[0] != classes[1]:
        raise _other(*pair, f"their classes differ: {', '.join(classes[0])} and {', '.join(classes[1])}")
    cases = [_cases(run.rows) for run in (was, now)]
    _check_cases(cases[0], cases[1], *pair)
    hashes = [str((run.record.get("hashes") or {}).get("data") or "")[:12] for run in (was, now)]
    if all(hashes) and hashes[0] != hashes[1]:
        differing = f"the data differs (SHA-256 {hashes[0]}... and {hashes[1]}...): an image, a mask or a role"
        raise _other(*pair, differing)


def check_same_cases(pairing: Pairing, main: Path, change: Path) -> None:
    """Whether both artifacts of each pair of the last step were scored on the same cases.

    Raises:
        SegpressError: if not, with a case of one only.
    """
    for pair in pairing.pairs:
        # Steps before the last may be scored on fewer cases, drawn by the seed (`scoring: {others: n}`).
        if not pair.title and pair.before.scores is not None and pair.after.scores is not None:
            _check_cases(_cases([pair.before]), _cases([pair.after]), main, change)


def _check_cases(was: Mapping[str, str], now: Mapping[str, str], main: Path, change: Path) -> None:
    for cases, others, where in ((was, now, main), (now, was, change)):
        alone = [case for case in cases if case not in others]
        if alone and others:
            more = f" and {len(alone) - 1} more" if len(alone) > 1 else ""
            raise _other(main, change, f"the test case '{alone[0]}'{more} is in {where} only")
    moved = [case for case in was if case in now and was[case] != now[case]]
    if moved:
        raise _other(main, change, f"the case '{moved[0]}' is of patient {was[moved[0]]} and of {now[moved[0]]}")


def _cases(rows: Sequence[Row]) -> dict[str, str]:
    """The test cases that rows were scored on, each with its patient or itself."""
    scored = [row.scores["per_case"] for row in rows if row.scores is not None]
    return {case: of.get("patient", case) for cases in scored for case, of in cases.items()}


def _other(main: Path, change: Path, what: str) -> SegpressError:
    return SegpressError(f"{main} and {change} cannot be compared: {what}; run both on the same data")


def _measured(run: Recorded) -> Measured:
    record = run.record
    return Measured(
        rows=run.rows,
        host=record["host"],
        versions=record["versions"],
        network=record["recipe"].get("network") or {},
    )


def _differences(was: Recorded, now: Recorded, pairing: Pairing) -> Iterator[str]:
    """What a reader should know that no gate says."""
    before, after = was.record, now.record
    if before["seed"] != after["seed"]:
        yield f"The seeds differ: {before['seed']} and {after['seed']}."
    weights = [(record.get("hashes") or {}).get("weights") for record in (before, after)]
    if weights[0] != weights[1]:
        yield "The uncompressed networks have other weights."
    names = sorted({*before["versions"], *after["versions"]})
    versions = [(name, before["versions"].get(name), after["versions"].get(name)) for name in names]
    texts = [f"{name} {old or 'none'} and {new or 'none'}" for name, old, new in versions if old != new]
    if texts:
        yield f"The versions differ: {', '.join(texts)}."
    for row in pairing.gained:
        yield f"Only {now.path.parent} has {row.step} on {row.backend} ({row.device}); it is not judged."
    for pair in pairing.pairs:
        row = pair.before
        if row.status != "measured":
            yield f"{row.step} on {row.backend} ({row.device}) was not measured: {row.reason}."
