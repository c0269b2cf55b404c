"""A report's numbers computed once more from what the run kept: a sentence for each that does not follow from it."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from numbers import Real
from pathlib import Path
from typing import Any

from compress.errors import RecipeError
from compress.gates.judging.drop_record import baseline_drop, step_drop
from compress.gates.judging.judge import judge
from compress.measure.latency import samples_for
from compress.measure.row import Row
from compress.measure.segmentation import Scores
from compress.recipe.gates_file import gates_of
from compress.report.reading import Recorded
from export.files import sha256

DIGIT = 1e-6
"""The last digit that a report keeps of a score: a mean of rounded numbers may differ by one, a limit of it by two."""
TIMES = ("min", "p50", "p90", "p95", "p99", "max")
Differences = Iterator[str]


def differences(run: Recorded) -> Differences:
    """Every number of a report that does not follow from what is kept, each with the file that it is in."""
    folder = run.path.parent
    for index, row in enumerate(run.rows):
        where = f"{run.path}: rows[{index}] ({row.step} on {row.backend}, {row.device})"
        for said in (*_scores(row), *_drops(row, run), *_latency(row), *_files(row, folder), *_kept(row, folder)):
            yield f"{where}: {said}"
    for said in (*_steps(run, folder), *_data(run, folder), *_verdicts(run)):
        yield f"{run.path}: {said}"


def _scores(row: Row) -> Differences:
    """Means over cases, and counts."""
    if row.scores is None:
        return
    told = dict(row.scores)
    again = Scores.from_dict(told).as_dict()
    yield from _unlike(told, again, "scores", ("per_case",))
    for name, of in told["per_class"].items():
        dice = [case[name].get("dice") for case in told["per_case"].values()]
        if of["absent"] != dice.count(None):
            yield f"scores.per_class.{name}.absent is {of['absent']}, but {dice.count(None)} cases have no Dice of it"


def _drops(row: Row, run: Recorded) -> Differences:
    steps = [step["step"] for step in run.record.get("steps", ()) if step.get("chain") is None]
    before = {after: name for name, after in pairwise(steps)}
    for key, told, again in (
        ("dice_drop", row.dice_drop, baseline_drop(run.rows, row)),
        ("step_drop", row.step_drop, step_drop(run.rows, row, before.get(row.step, "baseline"))),
    ):
        if told is not None or again is not None:
            yield from _unlike(told or {}, again or {}, key)


def _latency(row: Row) -> Differences:
    """What must be in order, and the label that follows from the number of samples."""
    times = row.latency_ms
    if times is None:
        return
    known = [(name, times[name]) for name in TIMES if times.get(name) is not None]
    for (low, less), (high, more) in pairwise(known):
        if less > more:
            yield f"latency_ms.{low} is {less}, above {high}, {more}"
    if "screening" in times and times["screening"] != (times["n"] < samples_for(99)):
        yield f"latency_ms.screening is {times['screening']}, with {times['n']} samples"
    limits = times.get("p50_limits")
    if limits and not limits[0] <= times["p50"] <= limits[1]:
        yield f"latency_ms.p50 is {times['p50']}, outside its limits, {limits[0]} and {limits[1]}"


def _files(row: Row, folder: Path) -> Differences:
    """The artifact: its hashes, and its size in MB."""
    if row.artifact is None:
        return
    files = [(folder / row.artifact).with_name(name) for name in row.sha256 or ()]
    missing = [file for file in files if not file.is_file()]
    if missing:
        yield f"its file {missing[0]} is missing"
        return
    for file in files:
        if sha256(file) != (row.sha256 or {}).get(file.name):
            yield f"sha256 of {file.name} is not that of {file}"
    size = sum(file.stat().st_size for file in files) / 1e6
    if row.size_mb is not None and files and abs(size - row.size_mb) > DIGIT:
        yield f"size_mb is {row.size_mb}, but its files have {size:.6f}"


def _kept(row: Row, folder: Path) -> Differences:
    """What was kept of the same artifact: its scores and times."""
    name = f"{row.step}-{row.backend}-{row.device}"
    built = _record(folder / "kept" / f"build-{name}.json")
    built = built if isinstance(built, dict) and row.artifact is not None else {}
    keys = [key for key in ("artifact", "layers", "bit_operations") if key in built]
    yield from (f"{key} is not what kept/build-{name}.json has" for key in keys if built[key] != getattr(row, key))
    if row.scores is None:
        # What an earlier recipe kept of a chain that is now refused is no business of this report.
        return
    scored = _record(folder / "kept" / f"scores-{name}.json")
    if isinstance(scored, Mapping):
        fields = [key for key in ("scores", "parity", "peak_memory_mb", "processors", "flags") if key in scored]
        yield from (
            f"{key} is not what kept/scores-{name}.json has"
            for key in fields
            if scored[key] != _plain(getattr(row, key))
        )
    else:
        yield f"kept/scores-{name}.json, which its scores are from, is missing or damaged"
    if row.latency_ms is not None:
        timed = [_record(path) for path in sorted((folder / "kept").glob("latency*.json"))]
        told = {"latency_ms": _plain(row.latency_ms), "watch": _plain(row.watch)}
        if told not in [record.get(name) for record in timed if isinstance(record, Mapping)]:
            yield "latency_ms and watch are in none of kept/latency*.json"


def _steps(run: Recorded, folder: Path) -> Differences:
    """The recipe's own steps beside what was kept when they were done, and their networks."""
    for step in run.record.get("steps", ()):
        name = step["step"]
        sizes = {(row.params, row.macs) for row in run.rows if row.step == name}
        if sizes - {(step["params"], step["macs"])}:
            yield f"steps ({name}): params and macs are not those of its rows"
        kept = _record(folder / "kept" / f"{name}.json") if step.get("chain") is None else None
        if not isinstance(kept, Mapping):
            continue
        net = folder / "steps" / name / "net.safetensors"
        if not net.is_file() or sha256(net) != kept.get("sha256"):
            yield f"steps ({name}): {net} is not the network that kept/{name}.json tells of"
        keys = [key for key in ("params", "macs", "seconds", "notes") if key in kept]
        yield from (f"steps ({name}): {key} is not what kept/{name}.json has" for key in keys if kept[key] != step[key])


def _data(run: Recorded, folder: Path) -> Differences:
    kept = _record(folder / "kept" / "data.json")
    told = run.record.get("hashes", {}).get("data")
    if isinstance(kept, list) and kept and told is not None and kept[0] != told:
        yield "hashes.data is not what kept/data.json has"
    cases, scored = run.record["cases"].get("test"), len((run.rows[-1].scores or {}).get("per_case") or ())
    if scored and cases is not None and scored != cases:
        yield f"cases.test is {cases}, but the last step was scored on {scored}"
    looks, measured = run.record["data"].get("test_looks"), sum(row.status == "measured" for row in run.rows)
    if looks is not None and looks != measured:
        yield f"data.test_looks is {looks}, but {measured} rows were measured"


def _verdicts(run: Recorded) -> Differences:
    """What the recipe's gates say of these rows."""
    told = list(run.record["gates"])
    if not told and not run.record["recipe"].get("gates"):
        return
    try:
        again = [verdict.as_dict() for verdict in judge(gates_of(run.record["recipe"], run.path), run.rows)]
    except RecipeError as error:
        yield "; ".join(error.mistakes)
        return
    if len(told) != len(again):
        yield f"gates: there are {len(told)} verdicts, but the recipe's gates give {len(again)}"
        return
    for index, (one, other) in enumerate(zip(told, again, strict=True)):
        # Reasons are words, which another version may choose otherwise.
        yield from _unlike(one, other, f"gates[{index}]", ("reason",))


def _unlike(told: Mapping[str, Any], again: Mapping[str, Any], where: str, apart: Sequence[str] = ()) -> Differences:
    """What differs where both have a value: a report of an older version may lack one."""
    for key in [key for key in told if key in again and key not in apart]:
        one, other = told[key], again[key]
        if isinstance(one, Mapping) and isinstance(other, Mapping):
            yield from _unlike(one, other, f"{where}.{key}")
        elif not _alike(one, other):
            yield f"{where}.{key} is {one}, but what is kept gives {other}"
    if not set(told) & set(again) and (told or again):
        yield f"{where} is {'missing' if again else 'there'}, but what is kept gives {'it' if again else 'none'}"


def _alike(one: Any, other: Any) -> bool:
    if isinstance(one, Real) and isinstance(other, Real) and not isinstance(one, bool):
        return math.isclose(one, other, rel_tol=0, abs_tol=2.5 * DIGIT)
    return bool(one == other)


def _record(path: Path) -> Any:
    """The value of a kept record; None where there is none to read."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))["value"]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _plain(value: Any) -> Any:
    return None if value is None else json.loads(json.dumps(value))
