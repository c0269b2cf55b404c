"""Numbers that follow from a report, and the text of its numbers: all forms of the report take both from here."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any, Literal

from compress.measure.row import NOISE
from compress.measure.skill import LITTLE, REASONS, THRESHOLD
from compress.report import applied

Json = Mapping[str, Any]
Pairs = Sequence[tuple[float, float]]
"""Dice before and after, case by case."""

NOTHING = "–"
"""What a table shows where there is no number."""
COLLAPSE = 0.10
"""A case that loses more Dice than this is lost, whatever the mean says."""


@dataclass(frozen=True, kw_only=True)
class Span:
    """A mean between its one-sided 95 % limits; None where there are too few cases for one."""

    mean: float
    lower: float | None
    upper: float | None


@dataclass(frozen=True, kw_only=True)
class Line:
    """One row of the report beside its baseline; None where something was not measured."""

    row: Json
    step: str
    backend: str
    device: str
    measured: bool
    dice: float | None
    """Mean over cases, then over foreground classes."""
    drop: float | None
    """From the baseline under torch; positive is worse."""
    drop_upper: float | None
    """Upper 95 % limit of the drop."""
    lost: Span | None
    """The paired drop from the baseline under torch; a baseline has none."""
    lost_here: Span | None
    """The paired drop from the step before on the same backend and device."""
    p50_ms: float | None
    speed_up: float | None
    """Over the baseline on the same backend and device."""
    over_torch: float | None
    """Over the baseline under torch on the same device."""
    size_mb: float | None
    size_ratio: float | None
    """How many times smaller than the baseline for the same backend and device."""
    peak_memory_mb: float | None
    bit_operations: float | None
    """Multiply-accumulates, each times the bits of its weight."""
    fewer_bits: float | None
    """How many times fewer bit operations than the baseline for the same backend and device."""

    scored_on: int | None
    """How many cases its scores are of, where they are fewer than the last step's."""

    @property
    def title(self) -> str:
        return f"{self.step} on {self.backend} ({self.device})"

    @property
    def note(self) -> str:
        """Why numbers are missing, or how far the latency can be believed."""
        if not self.measured:
            built = "built, " if self.row["status"] == "built" else ""
            return f"{built}not measured: {self.row.get('reason') or 'no reason was recorded'}"
        samples, latency = self.part("latency_ms", "n"), self.row.get("latency_ms") or {}
        facts = [
            self.scored_on is not None and f"scored on {self.scored_on} cases",
            latency.get("screening") and "screening",
            samples is not None and f"n = {samples:.0f}",
            latency.get("settled", True) is False and "warm-up did not settle",
        ]
        return ", ".join(fact for fact in facts if fact)

    def part(self, group: str, key: str) -> float | None:
        """A number inside scores, latency_ms or parity; None unless the row was measured."""
        return number((self.row.get(group) or {}).get(key)) if self.measured else None


@dataclass(frozen=True, kw_only=True)
class Step:
    """One step of the recipe, or the last one of a chain that it is compared with, and what became of it."""

    name: str
    compared: bool
    """Whether it belongs to a chain beside the recipe's own."""
    options: Json
    seconds: float | None
    notes: Sequence[str]
    params: float | None
    macs: float | None
    smaller: float | None
    """How many times fewer parameters than the baseline."""
    fewer: float | None
    """How many times fewer multiply-accumulates than the baseline."""
    lines: Sequence[Line]


@dataclass(frozen=True, kw_only=True)
class Conclusion:
    """What all gates together say."""

    word: Literal["holds", "fails", "inconclusive", "not judged"]
    sentence: str


def lines(report: Json) -> list[Line]:
    """Every row with its drop, speed-up and size ratio."""
    return [_line(report, row) for row in report["rows"]]


def _line(report: Json, row: Json) -> Line:
    rows, p50 = report["rows"], _p50(row)
    same, torch = (_baseline(rows, backend, row["device"]) for backend in (row["backend"], "torch"))
    size, bits = number(row.get("size_mb")), number(row.get("bit_operations"))
    return Line(
        row=row,
        step=row["step"],
        backend=row["backend"],
        device=row["device"],
        measured=row["status"] == "measured",
        dice=number(_scores(row).get("dice")),
        scored_on=_fewer_cases(report, row),
        drop=drop_of(report, row),
        drop_upper=_paired(row, None, "upper"),
        lost=_span(row, "dice_drop"),
        lost_here=_span(row, "step_drop"),
        p50_ms=p50,
        speed_up=_over(_p50(same), p50),
        over_torch=_over(_p50(torch), p50),
        size_mb=size,
        size_ratio=_over(number(same.get("size_mb")), size),
        peak_memory_mb=number(row.get("peak_memory_mb")) if row["status"] == "measured" else None,
        bit_operations=bits,
        fewer_bits=_over(number(same.get("bit_operations")), bits),
    )


def _fewer_cases(report: Json, row: Json) -> int | None:
    own, most = (len(_scores(each).get("per_case") or {}) for each in (row, report["rows"][-1]))
    return own if 0 < own < most else None


def _span(row: Json, key: str) -> Span | None:
    drop = ((row.get(key) or {}).get("mean") or {}) if row["status"] == "measured" else {}
    mean = number(drop.get("drop"))
    return None if mean is None else Span(mean=mean, lower=number(drop.get("lower")), upper=number(drop.get("upper")))


def steps(report: Json) -> list[Step]:
    """Every step in the recipe's order, then the chains it is compared with, each with its lines."""
    by_step: dict[str, list[Line]] = {}
    for line in lines(report):
        by_step.setdefault(line.step, []).append(line)
    # A report of an older version has no steps of its own; its rows know them.
    told = report.get("steps") or [{"step": name, **_sizes(of[0].row)} for name, of in by_step.items()]
    first = told[0] if told else {}
    found = [_step(step, first, by_step.get(step["step"], [])) for step in told]
    return sorted(found, key=lambda step: step.compared)


def _sizes(row: Json) -> dict[str, Any]:
    return {"params": row.get("params"), "macs": row.get("macs")}


def _step(step: Json, first: Json, found: Sequence[Line]) -> Step:
    params, macs = number(step.get("params")), number(step.get("macs"))
    return Step(
        name=step["step"],
        compared=step.get("chain") is not None,
        options=step.get("options") or {},
        seconds=number(step.get("seconds")),
        notes=list(step.get("notes") or ()),
        params=params,
        macs=macs,
        smaller=_over(number(first.get("params")), params),
        fewer=_over(number(first.get("macs")), macs),
        lines=found,
    )


def baseline(report: Json) -> Line | None:
    """The baseline under torch, which every drop is taken from."""
    found = _reference(report["rows"])
    return next((line for line in lines(report) if line.row is found), None)


def last_step(report: Json) -> list[Line]:
    """The lines of the step that the gates judge."""
    found = lines(report)
    return [line for line in found if line.step == found[-1].step]


def class_names(report: Json) -> list[str]:
    """Foreground classes."""
    return list(report["data"].get("classes") or [])[1:]


def pairs_of(report: Json, row: Json, class_name: str) -> Pairs:
    """Dice of the baseline under torch and of `row`, for each case where one of them is defined.

    The other is then perfect, as in the paired drop: it rightly found nothing where there is nothing.
    """
    before, after = (_scores(each).get("per_case") or {} for each in (_reference(report["rows"]), row))
    found = [
        (_case_dice(before[case], class_name), _case_dice(after[case], class_name)) for case in after if case in before
    ]
    return [(_or_perfect(old), _or_perfect(new)) for old, new in found if (old, new) != (None, None)]


def _or_perfect(dice: float | None) -> float:
    return 1.0 if dice is None else dice


def collapsed(of: Pairs) -> int:
    """How many cases lose more than COLLAPSE."""
    return sum(before - after > COLLAPSE for before, after in of)


def drop_of(report: Json, row: Json, class_name: str | None = None) -> float | None:
    """How much Dice was lost since the baseline under torch: of one class, or of the mean over classes.

    It is the paired drop where the row has one; a baseline has none, and shows the difference of its means.
    """
    paired = _paired(row, class_name, "drop")
    before, after = (class_score(each, class_name, "dice") for each in (_reference(report["rows"]), row))
    return paired if paired is not None or before is None or after is None else before - after


def upper_of(row: Json, class_name: str) -> float | None:
    """The upper 95 % limit of the drop of one class."""
    return _paired(row, class_name, "upper")


def collapsed_of(report: Json, row: Json, class_name: str) -> float | None:
    """How many patients (or cases, where patients are not known) lose more than COLLAPSE."""
    paired, pairs = _paired(row, class_name, "collapsed"), pairs_of(report, row, class_name)
    return paired if paired is not None or not pairs else float(collapsed(pairs))


def _paired(row: Json, class_name: str | None, key: str) -> float | None:
    drops = (row.get("dice_drop") or {}) if row["status"] == "measured" else {}
    return number((drops.get(class_name or "mean") or {}).get(key))


def class_score(row: Json, class_name: str | None, metric: str) -> float | None:
    """A mean over cases, or a count, of one class; of the mean over classes where it is None."""
    scores = _scores(row)
    return number((scores if class_name is None else (scores.get("per_class") or {}).get(class_name) or {}).get(metric))


def conclusion(report: Json) -> Conclusion:
    """The verdict in one plain sentence."""
    gates = report["gates"]
    failing = [gate for gate in gates if gate["verdict"] == "fails"]
    unsure = [gate for gate in gates if gate["verdict"] != "holds" and gate not in failing]
    if not gates:
        return Conclusion(word="not judged", sentence="The recipe has no gates: nothing was judged.")
    of = f"of {len(gates)} gate{'s' * (len(gates) > 1)}"
    verb = "is" if len(unsure) == 1 else "are"
    if failing:
        rest = f"; {len(unsure)} {verb} inconclusive" if unsure else ""
        text = f"{len(failing)} {of} fail{'s' * (len(failing) == 1)}: {_named(failing)}{rest}."
        return Conclusion(word="fails", sentence=text)
    if unsure:
        text = f"No gate fails, but {len(unsure)} {of} {verb} inconclusive, which is not a pass: {_named(unsure)}."
        return Conclusion(word="inconclusive", sentence=text)
    text = "The only gate holds." if len(gates) == 1 else f"All {len(gates)} gates hold."
    first = baseline(report)
    if first is not None and first.dice is not None and first.dice < LITTLE:
        text = f"{text[:-1]}, but the baseline has little skill: its mean foreground Dice is {fixed(first.dice)}."
    return Conclusion(word="holds", sentence=text)


def _named(gates: Sequence[Json]) -> str:
    more = f" and {len(gates) - 3} more" if len(gates) > 3 else ""
    return ", ".join(map(_name, gates[:3])) + more


def gate_name(gate: Json) -> str:
    """A gate's name, and what its ratio is over where the recipe says it."""
    return f"{gate['name']} over {gate['over']}" if gate.get("over") else str(gate["name"])


def _name(gate: Json) -> str:
    of = f" of {gate['class']}" if gate["class"] else ""
    return f"{gate_name(gate)}{of}{f' on {place(gate)}' if place(gate) else ''}"


def made(report: Json) -> str:
    """When the report was made, with which version, and from which commit of the recipe's repository."""
    told, version = report.get("made") or {}, report["versions"].get("segpress")
    date = str(told.get("date") or "")
    parts = (
        date and f"{date[:10]} {date[11:16]} UTC",
        version and f"segpress {version}",
        told.get("commit") and f"recipe at commit {_short_commit(told['commit'])}",
    )
    return " · ".join(part for part in parts if part)


def _short_commit(commit: str) -> str:
    """Its first twelve digits, and that the working tree has changed since."""
    number, _, dirty = commit.partition("-")
    return f"{number[:12]}{' with uncommitted changes' if dirty else ''}"


def baseline_sentence(report: Json) -> str:
    """The Dice that everything else is compared with."""
    found = baseline(report)
    if found is None or found.dice is None:
        return "The baseline's mean foreground Dice was not measured under torch."
    cases = report["cases"].get("test")
    over = "" if cases is None else f" over {cases} test cases"
    return f"{found.title}: mean foreground Dice {fixed(found.dice)}{over}.{_of_little_skill(report, found.dice)}"


def _of_little_skill(report: Json, dice: float) -> str:
    """A warning behind the baseline's Dice where that is low."""
    if dice >= LITTLE:
        return ""
    at_half = report["data"].get("logits") == 1 and not applied.has_threshold(report)
    one = f"; {THRESHOLD}" if at_half else ""
    return f" Under {LITTLE} a baseline has little skill, and its drop says little: {REASONS}{one}."


def drop_text(line: Line) -> str:
    """The drop of a line with its upper limit, where it has one."""
    upper = "" if line.drop_upper is None else f", upper limit {signed(line.drop_upper)}"
    return f"drop {signed(line.drop)}{upper}"


def drop_sentences(report: Json) -> list[str]:
    """For each artifact of the last step: its Dice drop from the baseline, of the mean and of every class."""
    found = []
    for line in last_step(report):
        drops: Json = line.row.get("dice_drop") or {}
        texts = [f"{name} {_drop_text(drop)}" for name, drop in drops.items() if number(drop["drop"]) is not None]
        if texts:
            found.append(f"Dice drop of {line.title}: {'; '.join(texts)}.")
    return found


def _drop_text(drop: Json) -> str:
    upper = number(drop["upper"])
    limit = "no upper limit" if upper is None else f"upper limit {upper:.4f}"
    return f"{float(drop['drop']):+.4f} ({limit}, {drop['n']} cases)"


def slower_sentences(report: Json) -> list[str]:
    """A warning for each artifact that is slower, hardly faster or larger than what it was made from."""
    found = list(_larger(report))
    last = {line.title for line in last_step(report)}
    for line in lines(report):
        slower: Json = line.row.get("slower") or {}
        if slower:
            layers = ", ".join(map(_changed, slower["layers"]))
            costs = f" (most of it in {layers})" if layers else ""
            how = "slower" if slower["speed_up"] < NOISE else "hardly faster"
            found.append(f"{line.title} is {how} than {slower['than']} there ({slower['speed_up']:.2f}x){costs}.")
        below = line.speed_up is not None and line.speed_up < 1
        if below and line.title in last and line.step != "baseline" and slower.get("than") != "baseline":
            found.append(f"{line.title} is slower than the baseline there ({line.speed_up:.2f}x).")
        if below and line.title in last and line.step != "baseline":
            found[-1] += " Use the baseline on this runtime."
    return found


def _changed(layer: Sequence[Any]) -> str:
    """A layer and its time before and after; what it is, where that is said."""
    name, was, now, *kind = layer
    return f"{name} {amount(was)} to {amount(now)} ms" + (f", {kind[0]}" if any(kind) else "")


def _larger(report: Json) -> Iterator[str]:
    """A sentence for each integer file that is larger than the baseline's on its runtime."""
    for line in lines(report):
        if line.size_ratio is not None and line.size_ratio < 1 and (line.row.get("layers") or {}).get("integer"):
            yield (
                f"{line.title} is larger than the baseline's file there ({amount(line.size_mb)} MB, "
                f"{1 / line.size_ratio:.2f}x): with {large(line.row['params'])} parameters, scales, quantization nodes "
                "and a runtime's integer kernels take more room than 8-bit weights save."
            )


def processor_sentences(report: Json) -> list[str]:
    """For each artifact of the last step: on which processors its answer holds."""
    found = []
    for line in last_step(report):
        told: Json = line.row.get("processors") or {}
        if told and told["differs_on"]:
            found.append(f"{line.title} may answer otherwise on {_listed(told['differs_on'])}: {expected_text(told)}.")
        elif told:
            found.append(f"{line.title} answers alike on {_listed(told['same_on'])} ({told['why']}).")
    return found


def expected_text(told: Json) -> str:
    """What is known of the processors on which an artifact may answer otherwise."""
    expected: Json | None = told.get("expected")
    if expected is None:
        return told["why"]
    return (
        f"emulated on {expected['cases']} test cases, mean Dice {expected['dice_there']:.4f} there and "
        f"{expected['dice_here']:.4f} here ({told['why']})"
    )


def _listed(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def place(gate: Json) -> str:
    """Backend and device of a gate; empty if it is for the whole run."""
    backend, device = gate["backend"], gate["device"]
    return f"{backend} ({device})" if backend and device else backend or device or ""


def gate_numbers(gate: Json) -> tuple[str, str, str]:
    """Value, upper limit and limit as text, with the digits it takes to see on which side of the limit they lie."""
    limit = float(gate["limit"])
    bound = "at least" if gate.get("bound", "at_most") == "at_least" else "at most"
    value, upper = (_beside(number(gate[key]), limit) for key in ("value", "upper"))
    return value, upper, f"{bound} {limit:g}"


def _beside(value: float | None, limit: float) -> str:
    if value is None:
        return NOTHING
    places = 2 if abs(limit) >= 1 else 4
    while places < 9 and _side(round(value, places), limit) != _side(value, limit):
        places += 1
    return f"{value:.{places}f}"


def _side(value: float, limit: float) -> int:
    return (value > limit) - (value < limit)


def number(value: Any) -> float | None:
    """A finite number or None: report.json has null where a report in memory can have NaN."""
    return float(value) if isinstance(value, Real) and math.isfinite(value) else None


def fixed(value: float | None, places: int = 4) -> str:
    """Scores, with the same digits everywhere so that they can be compared down a column."""
    return NOTHING if value is None else f"{value:.{places}f}"


def signed(value: float | None) -> str:
    """A drop; + is worse."""
    return NOTHING if value is None else f"{value:+.4f}"


def times(value: float | None) -> str:
    """A ratio."""
    return NOTHING if value is None else f"{value:.2f}×"


def between(span: Span | None) -> str:
    """A drop with its interval: +0.0012 [-0.0003, 0.0028]."""
    if span is None:
        return NOTHING
    limits = "" if span.lower is None or span.upper is None else f" [{fixed(span.lower)}, {fixed(span.upper)}]"
    return f"{signed(span.mean)}{limits}"


def large(value: float | None) -> str:
    """Parameters and multiply-accumulates: 31.0 M."""
    for unit, size in (("P", 1e15), ("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value is not None and abs(value) >= size:
            return f"{amount(value / size)} {unit}"
    return NOTHING if value is None else f"{value:.0f}"


def lasted(seconds: float | None) -> str:
    """How long a step took: 0.4 s, 12 s, 4 min, 2 h 5 min."""
    if seconds is None:
        return NOTHING
    if seconds < 90:
        return f"{seconds:.{seconds < 10:d}f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


def amount(value: float | None) -> str:
    """Milliseconds and megabytes to three digits, never as a power of ten."""
    if value is None or value == 0:
        return NOTHING if value is None else "0"
    return f"{value:.{max(0, 2 - math.floor(math.log10(abs(value))))}f}"


def _over(before: float | None, after: float | None) -> float | None:
    return before / after if before is not None and after else None


def _scores(row: Json) -> Json:
    return (row.get("scores") or {}) if row.get("status") == "measured" else {}


def _p50(row: Json) -> float | None:
    return number((row.get("latency_ms") or {}).get("p50")) if row.get("status") == "measured" else None


def _case_dice(case: Json | None, class_name: str) -> float | None:
    return number(((case or {}).get(class_name) or {}).get("dice"))


def _baselines(rows: Sequence[Json], backend: str) -> Iterator[Json]:
    return (row for row in rows if row["step"] == "baseline" and row["backend"] == backend)


def _reference(rows: Sequence[Json]) -> Json:
    return next((row for row in _baselines(rows, "torch") if _scores(row)), {})


def _baseline(rows: Sequence[Json], backend: str, device: str) -> Json:
    return next((row for row in _baselines(rows, backend) if row["device"] == device), {})
