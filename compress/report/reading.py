"""A report.json read back: what a run wrote, checked at the door to be what a run can have written."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, TypeAdapter, ValidationError

from compress.errors import SegpressError
from compress.measure.row import Row

Metric = Annotated[float, Field(ge=0, allow_inf_nan=False)] | None
Milliseconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Json = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Recorded:
    """A finished run's report."""

    path: Path
    """Its report.json."""
    record: Mapping[str, Any]
    """All that is in it."""
    rows: Sequence[Row]

    @property
    def name(self) -> str:
        return str(self.record["name"])


@dataclass(kw_only=True)
class _Whole:
    """The keys of a report that are read; others, of a later version, are left alone."""

    name: str
    seed: int
    recipe: Json
    versions: dict[str, str]
    host: Json
    cases: dict[str, int]
    data: Json
    rows: Annotated[list[Row], Field(min_length=1)]
    gates: list[Json]
    hashes: dict[str, str] = field(default_factory=dict)


@dataclass(kw_only=True)
class _Counted:
    absent: int
    false_alarms: int


@dataclass(kw_only=True)
class _Scores:
    means: dict[str, Metric]
    per_class: dict[str, _Counted]
    class_means: dict[str, dict[str, Metric]]
    per_case: dict[str, dict[str, dict[str, Metric]]]
    sizes: dict[str, dict[str, list[Metric] | None]]
    confusion: list[list[Metric]]


@dataclass(kw_only=True)
class _Times:
    n: Annotated[int, Field(ge=1)]
    p50: Milliseconds
    p90: Milliseconds
    p95: Milliseconds
    p99: Milliseconds


_WHOLE, _SCORES, _TIMES = TypeAdapter(_Whole), TypeAdapter(_Scores), TypeAdapter(_Times)


def read_report(path: Path) -> Recorded:
    """The report of a finished run.

    Raises:
        SegpressError: if it is not there, is no JSON, or holds what no run writes: which, and where.
    """
    record = _json(path)
    whole: _Whole = _valid(_WHOLE, record, path, "")
    for index, row in enumerate(whole.rows):
        for key, kind, value in _parts(row):
            _valid(kind, value, path, f"rows[{index}].{key}.")
        for fault in _lacking(row):
            raise SegpressError(f"{path}: rows[{index}].scores: {fault}")
    return Recorded(path=path, record=record, rows=whole.rows)


def _valid(kind: TypeAdapter[Any], value: Mapping[str, Any], path: Path, where: str) -> Any:
    try:
        return kind.validate_python(value)
    except ValidationError as error:
        raise SegpressError(f"{path}: {_fault(error, where)}") from None


def _json(path: Path) -> Json:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SegpressError(f"{path}: there is none; give the folder of a run that has ended with a report") from None
    except OSError as error:
        raise SegpressError(f"{path}: cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError) as error:
        raise SegpressError(f"{path}: not JSON ({error}); run the recipe again to write it") from None
    if not isinstance(record, dict):
        raise SegpressError(f"{path}: not a report: it is a JSON {type(record).__name__}")
    return record


def _parts(row: Row) -> Iterator[tuple[str, TypeAdapter[Any], Mapping[str, Any]]]:
    """What a row holds as plain JSON, with what each part of it must be."""
    if row.scores is not None:
        yield "scores", _SCORES, _apart(row.scores)
    if row.latency_ms is not None:
        yield "latency_ms", _TIMES, row.latency_ms


def _apart(scores: Mapping[str, Any]) -> Json:
    """The scores with their means and sizes apart from the rest, and without the patients of cases."""
    cases, classes = scores.get("per_case"), scores.get("per_class")
    sizes: Json = {}
    if isinstance(cases, dict) and all(isinstance(case, dict) for case in cases.values()):
        cases = {name: {key: of for key, of in case.items() if key != "patient"} for name, case in cases.items()}
        sizes = {
            name: {key: of.get("sizes") for key, of in case.items() if isinstance(of, dict)}
            for name, case in cases.items()
        }
        cases = {name: {key: _without_sizes(of) for key, of in case.items()} for name, case in cases.items()}
    means = {key: value for key, value in scores.items() if key not in ("per_case", "per_class", "confusion")}
    # A report may be older than sizes and pixels.
    apart = {"sizes": sizes, "confusion": scores.get("confusion", [])}
    return {"means": means, "per_class": classes, "class_means": classes, "per_case": cases, **apart}


def _without_sizes(of: Any) -> Any:
    return {key: value for key, value in of.items() if key != "sizes"} if isinstance(of, dict) else of


def _lacking(row: Row) -> Iterator[str]:
    """The classes that a case has no scores of."""
    scores = row.scores or {"per_case": {}, "per_class": {}}
    for case, of in scores["per_case"].items():
        yield from (
            f"the case '{case}' has none of the class '{name}'" for name in scores["per_class"] if name not in of
        )


def _fault(error: ValidationError, where: str) -> str:
    """The first fault, with its place in the file."""
    fault = error.errors()[0]
    place = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in fault["loc"]).removeprefix(".")
    if fault["type"] == "missing":
        return f"lacks '{where}{place}', which this version needs; run the recipe again to write it"
    said = fault["msg"][0].lower() + fault["msg"][1:]
    return (
        f"{where}{place}: {said}, not {str(fault['input'])[:40]!r}; no run writes that: restore the file, or run again"
    )
