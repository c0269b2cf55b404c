"""Gates: one limit on one measured number, and what may honestly be said of it.

A drop gate is a non-inferiority test: it holds only if the upper limit of a one-sided 95 %
interval of the paired per-case drop lies under the margin. See `upper_limit` for the interval.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass as plain_dataclass
from dataclasses import replace
from functools import lru_cache
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, Field, model_validator
from pydantic.dataclasses import dataclass
from scipy.special import stdtrit

from compress.gates.judging.verdict import Ruling, Verdict
from compress.measure.latency import limits, samples_for
from compress.measure.row import Row
from compress.measure.segmentation import FEWEST, RELEASE, Scores
from compress.measure.skill import lacking

Name = Literal[
    "dice_drop",
    "iou_drop",
    "hd95_rise",
    "parity",
    "latency_ms",
    "speedup",
    "size_mb",
    "smaller",
    "fewer_bit_operations",
    "baseline",
]
Values = NDArray[np.float64]

LEVEL = 0.95
RESAMPLES = 10_000
MOST_CASES = 20_000
"""More test cases than this nobody has."""
COLLAPSE = 0.10
"""A case that loses more Dice than this has collapsed, whatever the mean says."""

DROPS = {"dice_drop": "dice", "iou_drop": "iou", "hd95_rise": "hd95"}
READ_SCORES = (*DROPS, "baseline")
"""The gates that read how well the baseline does."""


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class Floor:
    """The least that a score may be."""

    at_least: Annotated[float, Field(ge=0, le=1)]


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid", populate_by_name=True))
class Gate:
    """The options of a gate; which of them it takes depends on its name (see `TAKES`)."""

    at_most: Annotated[float, Field(allow_inf_nan=False)] | None = None
    at_least: Annotated[float, Field(allow_inf_nan=False)] | None = None
    device: str | None = None
    """None judges the artifacts of every device in the recipe."""
    backend: str | None = None
    """None judges the artifacts of every backend."""
    class_name: Annotated[str | None, Field(alias="class")] = None
    """None judges every foreground class; each must hold."""
    dice: Floor | None = None
    """The Dice that the baseline itself must have (`baseline`)."""
    percentile: Literal[50, 90, 95, 99] = 50
    over: str | None = None
    """What a speed-up or a reduction is over: a backend (its baseline), a step of the recipe or a chain of its
    `compare` (on the artifact's own backend). None takes the baseline on the artifact's own backend."""

    @model_validator(mode="after")
    def _one_bound(self) -> Gate:
        if sum(limit is not None for limit in (self.at_most, self.at_least, self.dice)) != 1:
            raise ValueError("needs one limit: at_most or at_least")
        return self

    @property
    def limit(self) -> float:
        if self.dice is not None:
            return self.dice.at_least
        limit = self.at_least if self.at_most is None else self.at_most
        assert limit is not None
        return limit


TAKES: Mapping[str, frozenset[str]] = {
    "dice_drop": frozenset({"at_most", "device", "backend", "class"}),
    "iou_drop": frozenset({"at_most", "device", "backend", "class"}),
    "hd95_rise": frozenset({"at_most", "device", "backend", "class"}),
    "parity": frozenset({"at_most", "device", "backend"}),
    "latency_ms": frozenset({"at_most", "device", "backend", "percentile"}),
    "speedup": frozenset({"at_least", "device", "backend", "percentile", "over"}),
    "size_mb": frozenset({"at_most", "device", "backend"}),
    "smaller": frozenset({"at_least", "device", "backend", "over"}),
    "fewer_bit_operations": frozenset({"at_least", "device", "backend", "over"}),
    "baseline": frozenset({"dice", "class"}),
}
"""Which options each gate takes; a drop has no lower limit, a speed-up or a reduction no upper one."""
OF_FILE = {"size_mb": "size_mb", "smaller": "size_mb", "fewer_bit_operations": "bit_operations"}
"""The number of a row that these gates judge; an artifact has it even where it cannot run."""


@plain_dataclass(frozen=True, kw_only=True)
class Drop:
    """The paired drop of one class: its mean, its limits, and on how many independent cases."""

    mean: float
    upper: float
    n: int
    collapsed: int
    """Cases that lose more than `COLLAPSE`."""
    lower: float = -math.inf
    """One-sided, like `upper`; shown, never judged."""


def judge(gates: Sequence[tuple[Name, Gate]], rows: Sequence[Row]) -> list[Verdict]:
    """One verdict for each gate on each artifact of the last step (and each class, for a drop)."""
    verdicts = []
    for name, gate in gates:
        if name == "baseline":
            verdicts += _judge_baseline(gate, rows)
            continue
        judged = [row for row in rows if row.step == rows[-1].step and _applies(gate, row)]
        if not judged:
            asked = [f"{what} '{word}'" for what, word in (("device", gate.device), ("backend", gate.backend)) if word]
            reason = f"not measured: nothing was built for {' and '.join(asked) or 'any device'}"
            verdicts.append(_verdict(name, gate, None, "inconclusive", reason))
        for row in judged:
            verdicts += [_said_where(verdict, row) for verdict in _judge_row(name, gate, row, rows)]
    return verdicts


def _judge_baseline(gate: Gate, rows: Sequence[Row]) -> list[Verdict]:
    """Whether the network that all drops are taken from can do its task: each class, under torch where it was run."""
    measured = [row for row in rows if row.step == "baseline" and row.scores is not None]
    row = next((row for row in measured if row.backend == "torch"), next(iter(measured), None))
    if row is None or row.scores is None:
        return [_verdict("baseline", gate, None, "inconclusive", "not measured: the baseline has no scores")]
    scores = Scores.from_dict(dict(row.scores))
    verdicts = []
    for class_name in scores.class_names if gate.class_name is None else (gate.class_name,):
        if class_name not in scores.class_names:
            value, reason = math.nan, _no_class(class_name, scores)
        else:
            value, reason = scores.class_mean(class_name, "dice"), "no test case has this class"
        holds: Ruling = "inconclusive" if math.isnan(value) else "holds" if value >= gate.limit else "fails"
        reason = reason if holds == "inconclusive" else ""
        verdicts.append(_verdict("baseline", gate, row, holds, reason, value=value, class_name=class_name))
    return verdicts


def _no_class(class_name: str, scores: Scores) -> str:
    return f"there is no class '{class_name}'; there are {', '.join(scores.class_names)}"


def _said_where(verdict: Verdict, row: Row) -> Verdict:
    """A verdict on answers that hold on some processors only says so."""
    told = row.processors or {}
    if verdict.name not in (*DROPS, "parity") or not told.get("differs_on"):
        return verdict
    where = f"on {told['measured_on']}; not shown for {', '.join(told['differs_on'])}"
    return replace(verdict, reason=f"{verdict.reason}; {where}" if verdict.reason else where)


def _applies(gate: Gate, row: Row) -> bool:
    return gate.device in (None, row.device) and gate.backend in (None, row.backend)


def _judge_row(name: Name, gate: Gate, row: Row, rows: Sequence[Row]) -> list[Verdict]:
    if name in OF_FILE and row.status != "not measured":
        return [_judge_file(name, gate, row, rows)]
    if row.status != "measured":
        return [_verdict(name, gate, row, "inconclusive", f"not measured: {row.reason}")]
    if name in DROPS:
        return _judge_drop(name, gate, row, rows)
    if name == "parity":
        flipped = None if row.parity is None else row.parity["flipped"]
        return [_plain(name, gate, row, flipped)]
    return [_judge_time(name, gate, row, rows)]


def _judge_file(name: Name, gate: Gate, row: Row, rows: Sequence[Row]) -> Verdict:
    """A number of the artifact itself, or how many times smaller it is than that of what it is compared with."""
    value: float | None = getattr(row, OF_FILE[name])
    if name == "size_mb" or not value:
        return _plain(name, gate, row, value)
    before, over = _compared(rows, gate, row)
    was: float | None = None if before is None else getattr(before, OF_FILE[name])
    if not was:
        return _verdict(name, gate, row, "inconclusive", f"not measured: {over}")
    return _plain(name, gate, row, was / value)


def _judge_time(name: Name, gate: Gate, row: Row, rows: Sequence[Row]) -> Verdict:
    """Latency, or the speed-up over the baseline or another step, at the gate's percentile."""
    percentile = f"p{gate.percentile}"
    before, over = _compared(rows, gate, row)
    timed = [row] if name == "latency_ms" else [row, before if before and before.status == "measured" else None]
    times = [one.latency_ms for one in timed if one is not None and one.latency_ms is not None]
    if len(times) < len(timed):
        missing = "its latency" if row.latency_ms is None else over
        return _verdict(name, gate, row, "inconclusive", f"not measured: {missing}")
    value = times[0][percentile] if name == "latency_ms" else times[1][percentile] / times[0][percentile]
    fewest, needed = min(time["n"] for time in times), samples_for(gate.percentile)
    if fewest < needed:
        few = f"{percentile} needs {needed} samples, there are {fewest}"
        excluded = _excluded(gate, times)
        if excluded:
            return _verdict(name, gate, row, "fails", f"{few}, which exclude the limit: {excluded}", value=value)
        return _verdict(name, gate, row, "inconclusive", f"{few}: raise latency samples, or seconds", value=value)
    return _plain(name, gate, row, value)


def _excluded(gate: Gate, times: Sequence[Mapping[str, Any]]) -> str | None:
    """What too few samples (of the artifact, then of what a ratio is over) say against the limit; None if nothing."""
    # Two limits that must hold together are each allowed half the error.
    level = 1 - (1 - LEVEL) / len(times)
    fastest, _ = limits(times[0], gate.percentile, level)
    if len(times) == 1:
        return f"p{gate.percentile} is at least {fastest:.4g} ms (95 % confidence)" if fastest > gate.limit else None
    _, slowest = limits(times[1], gate.percentile, level)
    most = slowest / fastest if fastest > 0 else math.inf
    return f"the ratio is at most {most:.3g} (95 % confidence)" if most < gate.limit else None


def _compared(rows: Sequence[Row], gate: Gate, row: Row) -> tuple[Row | None, str]:
    """The row that a ratio is taken from, and how to speak of it."""
    if gate.over is None or any(each.backend == gate.over for each in rows):
        backend = gate.over or row.backend
        built = ("measured", "built") if gate.over is None else ("measured",)
        return _baseline(rows, backend, row.device, built), f"the baseline on {backend}"
    same = [each for each in rows if (each.step, each.backend, each.device) == (gate.over, row.backend, row.device)]
    refused = f" ({same[0].reason})" if same and same[0].status == "not measured" and same[0].reason else ""
    return (same[0] if same else None), f"{gate.over} on {row.backend}{refused}"


def _baseline(rows: Sequence[Row], backend: str, device: str, states: tuple[str, ...] = ("measured",)) -> Row | None:
    """The baseline on a backend of this device, or of the host's CPU."""
    found = [row for row in rows if row.step == "baseline" and row.backend == backend and row.status in states]
    return next((row for place in (device, "cpu") for row in found if row.device == place), None)


def _plain(name: Name, gate: Gate, row: Row, value: float | None) -> Verdict:
    if value is None or not math.isfinite(value):
        return _verdict(name, gate, row, "inconclusive", "not measured")
    holds = value <= gate.limit if gate.at_most is not None else value >= gate.limit
    return _verdict(name, gate, row, "holds" if holds else "fails", "", value=value)


def _judge_drop(name: Name, gate: Gate, row: Row, rows: Sequence[Row]) -> list[Verdict]:
    before = _baseline(rows, "torch", row.device) or _baseline(rows, row.backend, row.device)
    if before is None or before.scores is None or row.scores is None:
        return [_verdict(name, gate, row, "inconclusive", "not measured: the baseline has no scores")]
    was, now = Scores.from_dict(dict(before.scores)), Scores.from_dict(dict(row.scores))
    classes = now.class_names if gate.class_name is None else (gate.class_name,)
    verdicts = []
    for class_name in classes:
        if class_name not in now.class_names:
            reason = _no_class(class_name, now)
            verdicts.append(_verdict(name, gate, row, "inconclusive", reason, class_name=class_name))
            continue
        drop = paired_drop(was, now, class_name, DROPS[name])
        ruling, reason = rule(drop, gate.limit)
        if (lack := lacking(was, class_name)) is not None:
            ruling, reason = "inconclusive", lack
        if name != "hd95_rise" and drop.collapsed:
            reason += f"; {drop.collapsed} lose more than {COLLAPSE:.2f}"
        verdicts.append(
            _verdict(name, gate, row, ruling, reason, value=drop.mean, upper=drop.upper, class_name=class_name)
        )
    return verdicts


def rule(drop: Drop, margin: float) -> tuple[Ruling, str]:
    """What may be said of a drop against its margin, and why; of one that is inconclusive, what would decide it."""
    label = "release" if drop.n >= RELEASE else "screening"
    if not math.isfinite(drop.mean):
        return "inconclusive", f"{drop.n} cases have this class"
    if drop.mean > margin:
        sure = ": the lower limit is past the margin too" if drop.lower > margin else ""
        return "fails", f"{label}, {drop.n} cases{sure}"
    if drop.n < FEWEST:
        return "inconclusive", f"only {drop.n} cases; {FEWEST} are needed{_more_cases(drop, margin)}"
    if drop.upper < margin:
        return "holds", f"{label}, {drop.n} cases"
    near = f"the upper limit is not under the margin{_more_cases(drop, margin)}"
    return "inconclusive", f"{label}, {drop.n} cases: {near}"


def _more_cases(drop: Drop, margin: float) -> str:
    """How many more cases like these would bring the upper limit, which nears the mean as 1/√n, under the margin."""
    if not math.isfinite(drop.upper):
        return ""
    above, room = drop.upper - drop.mean, margin - drop.mean
    needed = max(FEWEST, drop.n * (above / room) ** 2) if room > 0 else math.inf
    if needed > MOST_CASES:
        return f"; the mean, {drop.mean:.4f}, is too near the margin, {margin:g}, for more cases to decide it"
    # Two digits: the spread is itself an estimate.
    more = max(1, math.ceil(needed) - drop.n)
    unit = 10 ** max(0, len(str(more)) - 2)
    return f"; about {math.ceil(more / unit) * unit} more like these would decide it"


def paired_drop(before: Scores, after: Scores, class_name: str | None, metric: str) -> Drop:
    """The drop of a metric (a rise, for HD95) from one network to another on the same cases.

    Args:
        class_name: None averages the foreground classes of each case first.
    """
    assert before.cases == after.cases
    names = after.class_names if class_name is None else (class_name,)
    drops_NK = np.stack([_differences(before, after, name, metric) for name in names], axis=1)
    defined = ~np.isnan(drops_NK).all(axis=1)
    drops_N = np.nanmean(drops_NK[defined], axis=1) if defined.any() else np.empty(0)
    units = np.asarray(after.units)[defined]
    per_unit = np.asarray([drops_N[units == unit].mean() for unit in dict.fromkeys(units)])
    if len(per_unit) == 0:
        return Drop(mean=math.nan, upper=math.nan, n=0, collapsed=0)
    return Drop(
        mean=float(per_unit.mean()),
        upper=upper_limit(per_unit),
        n=len(per_unit),
        collapsed=int((per_unit > COLLAPSE).sum()),
        lower=-upper_limit(-per_unit),
    )


def _differences(before: Scores, after: Scores, class_name: str, metric: str) -> Values:
    """Per case, how much worse it became; NaN where neither network nor truth has the class.

    A case is never dropped from one arm only: where one arm is undefined (nothing there, nothing
    predicted: right) and the other is not, the undefined one counts as perfect.
    """
    was, now = before.column(class_name, metric), after.column(class_name, metric)
    perfect = 0.0 if metric == "hd95" else 1.0
    either = ~(np.isnan(was) & np.isnan(now))
    was = np.where(either & np.isnan(was), perfect, was)
    now = np.where(either & np.isnan(now), perfect, now)
    return now - was if metric == "hd95" else was - now


def upper_limit(drops_N: Values, level: float = LEVEL) -> float:
    """One-sided upper limit of the mean of independent paired drops; infinite for fewer than two.

    The largest of three: the percentile bootstrap (10,000 resamples, fixed seed), Student's t, and
    Johnson's t corrected for skewness (J. Am. Stat. Assoc. 73:536, 1978). At the margin and n =
    149 the first two pass 7 % of exponential drops and 12 % of those where few cases lose much;
    with the third both are under 6 % (simulated in tests/test_gates.py).
    """
    return float(upper_limits(drops_N[None], level)[0]) if len(drops_N) > 1 else math.inf


def upper_limits(drops_SN: Values, level: float = LEVEL) -> Values:
    """`upper_limit` of S samples of N drops each (S)."""
    n = drops_SN.shape[1]
    mean, spread = drops_SN.mean(axis=1), drops_SN.std(axis=1, ddof=1)
    t = float(stdtrit(n - 1, level))
    student = mean + t * spread / math.sqrt(n)
    # Where all drops are equal there is no skewness, and the limit is their mean.
    third, cube = ((drops_SN - mean[:, None]) ** 3).mean(axis=1), drops_SN.std(axis=1) ** 3
    skewness = np.divide(third, cube, out=np.zeros_like(mean), where=cube > 0)
    johnson = student + skewness * (1 + 2 * t**2) * spread / (6 * n)
    percentile = np.quantile(drops_SN @ _resampling(n).T, level, axis=1)
    return np.maximum(np.maximum(percentile, student), johnson)


@lru_cache(maxsize=8)
def _resampling(n: int) -> Values:
    """Bootstrap weights: each row averages one resample of n cases; the same for every artifact."""
    return np.random.default_rng(n).multinomial(n, np.full(n, 1 / n), size=RESAMPLES) / n


def _verdict(
    name: Name,
    gate: Gate,
    row: Row | None,
    verdict: Ruling,
    reason: str,
    *,
    value: float | None = None,
    upper: float | None = None,
    class_name: str | None = None,
) -> Verdict:
    def finite(number: float | None) -> float | None:
        return None if number is None or not math.isfinite(number) else round(number, 6)

    return Verdict(
        name="baseline dice" if name == "baseline" else name,
        bound="at_least" if gate.at_most is None else "at_most",
        limit=gate.limit,
        value=finite(value),
        upper=finite(upper),
        device=gate.device if row is None else row.device,
        backend=gate.backend if row is None else row.backend,
        class_name=class_name,
        verdict=verdict,
        reason=reason,
        over=gate.over,
    )


def drops(rows: Sequence[Row], row: Row) -> dict[str, Any] | None:
    """The Dice drop of a row, for each class and for their mean, as the report shows beside its scores."""
    if row.step == "baseline":
        return None
    return _drops(_baseline(rows, "torch", row.device) or _baseline(rows, row.backend, row.device), row)


def step_drop(rows: Sequence[Row], row: Row, before: str) -> dict[str, Any] | None:
    """The same, from the step named `before` on the same backend and device; None where that has no scores."""
    if row.step == "baseline":
        return None
    place = (before, row.backend, row.device)
    return _drops(next((each for each in rows if (each.step, each.backend, each.device) == place), None), row)


def _drops(before: Row | None, row: Row) -> dict[str, Any] | None:
    if before is None or before.scores is None or row.scores is None:
        return None
    # `scoring: {others: n}` scores what no drop gate reads on fewer cases.
    was, now = Scores.from_dict(dict(before.scores)), Scores.from_dict(dict(row.scores))
    was, now = was.among(now.cases), now.among(was.cases)
    found: dict[str, Any] = {}
    for class_name in (None, *now.class_names):
        drop = paired_drop(was, now, class_name, "dice")
        found[class_name or "mean"] = {
            "drop": round(drop.mean, 6) if drop.n else None,
            "lower": round(drop.lower, 6) if math.isfinite(drop.lower) else None,
            "upper": round(drop.upper, 6) if math.isfinite(drop.upper) else None,
            "n": drop.n,
            "collapsed": drop.collapsed,
        }
    return found
