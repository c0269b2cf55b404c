"""The tables of a report, as text: its Markdown and its HTML show the same."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from compress.gates.judging.paired_drop import COLLAPSE
from compress.report.derived import (
    agreement,
    compared,
    drops,
    floors,
    headline,
    heat,
    machines,
    numbers,
    recorded,
    subgroups,
    uncovered,
    verdicts,
)
from compress.report.derived.compared import Line, Step
from compress.report.derived.numbers import NOTHING
from compress.report.derived.recorded import Json


@dataclass(frozen=True, kw_only=True)
class Table:
    """Cells as people read them."""

    title: str
    head: tuple[str, ...]
    align: str
    """One letter a column: l for words, r for numbers."""
    rows: Sequence[tuple[str, ...]]
    note: str = ""
    """How to read it, in one or two sentences."""


def tables(report: Json) -> list[Table]:
    """Every table of the report, in reading order."""
    return [
        gate_table(report),
        step_table(report),
        note_table(report),
        stage_table(report),
        class_table(report),
        case_table(report),
        *agreement_tables(report),
        *device_tables(report),
        artifact_table(report),
        *hash_tables(report),
        *uncovered_tables(report),
        *fallback_tables(report),
        *processor_tables(report),
        *host_tables(report),
        _pairs("Versions", report["versions"]),
    ]


def gate_table(report: Json) -> Table:
    """One row for each verdict."""
    head = ("gate", "on", "class", "value", "upper limit", "limit", "verdict", "reason")
    rows = [
        (
            verdicts.title(gate),
            verdicts.where(gate) or NOTHING,
            gate["class"] or NOTHING,
            *verdicts.in_numbers(gate),
            gate["verdict"],
            gate["reason"],
        )
        for gate in report["gates"]
    ]
    note = (
        "A drop holds when its one-sided 95 % upper limit is under the limit, fails when its value is past it, "
        "and is inconclusive in between."
    )
    return Table(title="Gates", head=head, align="lllrrlll", rows=rows, note=note)


def step_table(report: Json) -> Table:
    """The waterfall: what each step took from Dice, parameters, work, time and size, on every runtime."""
    head = (
        *("step", "params", "MACs", "backend", "Dice", "lost in this step", "lost since the baseline"),
        *("MACs × bits", "p50 (ms)", "size (MB)"),
    )
    rows = [row for step in compared.steps(report) for row in _step_rows(step)]
    note = (
        f"Lost: mean paired drop in Dice over {_many(report)} [one-sided 95 % limits], + is worse; in this step on the "
        f"same backend, since {recorded.reference_in_words(report['rows'])}. In brackets (4×): how many times less "
        "than the baseline there. "
        "MACs × bits: each multiply-accumulate times the bits of its weight (32, 16, 8), as the runtime gets "
        f"the network.{_on_fewer(report)}"
    )
    return Table(title="Step by step", head=head, align="lrrlrrrrrr", rows=rows, note=note)


def _on_fewer(report: Json) -> str:
    """A mean over fewer cases is not to be compared with a mean over all; a drop is, being paired."""
    fewer = [line.scored_on for line in compared.lines(report) if line.scored_on is not None]
    if not fewer:
        return ""
    return f" What no drop gate reads is scored on {fewer[0]} of the test cases (*): compare its drops, not its Dice."


def _step_rows(step: Step) -> Iterator[tuple[str, ...]]:
    name = f"vs. {step.name}" if step.compared else step.name
    work = (numbers.large(step.params), step.smaller), (numbers.large(step.macs), step.fewer)
    own = (name, *(_with_factor(text, factor) for text, factor in work))
    if not step.lines:
        yield (*own, *["not built" if step.compared else NOTHING], *[NOTHING] * 6)
    for index, line in enumerate(step.lines):
        yield (
            *(own if index == 0 else ("",) * len(own)),
            f"{line.backend} ({line.device})",
            numbers.fixed(line.dice) + ("*" if line.scored_on else ""),
            drops.between(line.lost_here),
            drops.between(line.lost),
            _with_factor(numbers.large(line.bit_operations), line.fewer_bits),
            _with_factor(numbers.amount(line.p50_ms), line.speed_up),
            _with_factor(numbers.amount(line.size_mb), line.size_ratio),
        )


def _with_factor(text: str, factor: float | None) -> str:
    """A number and how many times less it is than the baseline's, where that is not once."""
    return text if factor is None or round(factor, 2) == 1 else f"{text} ({_short(factor)}×)"


def _short(factor: float) -> str:
    return f"{factor:.0f}" if factor >= 10 else f"{factor:.1f}" if factor >= 1 else f"{factor:.2f}"


def note_table(report: Json) -> Table:
    """What each step was told, and what it said it did and did not do."""
    rows = []
    for step in compared.steps(report):
        own = (step.name, _plain(step.options), numbers.lasted(step.seconds))
        notes = step.notes or [NOTHING]
        rows += [(*(own if index == 0 else ("", "", "")), note) for index, note in enumerate(notes)]
    return Table(title="What each step did", head=("step", "options", "took", "notes"), align="llrl", rows=rows)


def stage_table(report: Json) -> Table:
    """One row for each step on each backend and device."""
    columns: list[tuple[str, str, Callable[[Line], str]]] = [
        ("step", "l", lambda line: line.step),
        ("backend", "l", lambda line: line.backend),
        ("device", "l", lambda line: line.device),
        ("status", "l", status),
        ("Dice", "r", lambda line: numbers.fixed(line.dice) + ("*" if line.scored_on else "")),
        ("Dice drop", "r", lambda line: numbers.signed(line.drop)),
        ("IoU", "r", lambda line: numbers.fixed(line.part("scores", "iou"))),
        (_hd95(report), "r", lambda line: numbers.fixed(line.part("scores", "hd95"), 2)),
        ("p50 (ms)", "r", lambda line: numbers.amount(line.p50_ms)),
        ("p95 (ms)", "r", lambda line: numbers.amount(line.part("latency_ms", "p95"))),
        ("end-to-end p50 (ms)", "r", lambda line: numbers.amount(line.part("latency_ms", "end_to_end_p50"))),
        ("speed-up", "r", lambda line: numbers.times(line.speed_up)),
        ("over torch", "r", lambda line: numbers.times(line.over_torch)),
        ("size (MB)", "r", lambda line: numbers.amount(line.size_mb)),
        ("smaller", "r", lambda line: numbers.times(line.size_ratio)),
        ("params", "r", lambda line: numbers.large(numbers.number(line.row.get("params")))),
        ("MACs", "r", lambda line: numbers.large(numbers.number(line.row.get("macs")))),
        ("peak (MB)", "r", lambda line: numbers.amount(line.peak_memory_mb)),
        ("parity error", "r", lambda line: _text(line.part("parity", "relative_error"), ".1e")),
        ("flipped", "r", lambda line: _text(line.part("parity", "flipped"), ".3%")),
    ]
    rows = [tuple(text(line) for _, _, text in columns) for line in compared.lines(report)]
    note = (
        f"Dice drop is from {recorded.reference_in_words(report['rows'])}, over pairs of {_many(report)} (+ is worse). "
        "Latency is of the network alone at batch 1; speed-up is over the baseline on the same backend and device; "
        "end to end is timed on this host alone. "
        "Parity is with torch: the relative error of the logits, and the share of pixels whose class flipped."
    )
    head, align, _ = zip(*columns, strict=True)
    return Table(title="Each step on each device", head=head, align="".join(align), rows=rows, note=note)


def status(line: Line) -> str:
    """Whether it was measured, and if not, why."""
    if not line.measured:
        return line.note
    return f"measured ({line.note})" if line.note else "measured"


def _text(value: float | None, form: str) -> str:
    return NOTHING if value is None else format(value, form)


def class_table(report: Json) -> Table:
    """One row for each class of each measured row."""
    words = ("step", "backend", "device", "class")
    means = ("Dice", "Dice drop", "upper limit", "IoU", _hd95(report), "NSD", "precision", "recall")
    counts = ("lost", "absent", "false alarms")
    measured = [line for line in compared.lines(report) if line.dice is not None]
    rows = [_class_row(report, line, name) for line in measured for name in recorded.class_names(report)]
    note = (
        f"Upper limit: of the drop, one-sided 95 %. Lost: {_many(report)} that lose more than {COLLAPSE:.2f} Dice. "
        "Absent: cases where neither truth nor answer has the class, which have no Dice. "
        "False alarms: cases where only the answer has it."
    )
    align = "l" * len(words) + "r" * len(means + counts)
    return Table(title="Class by class", head=words + means + counts, align=align, rows=rows, note=note)


def _class_row(report: Json, line: Line, name: str) -> tuple[str, ...]:
    def score(metric: str, places: int = 4) -> str:
        return numbers.fixed(recorded.class_score(line.row, name, metric), places)

    drop = drops.drop_of(report, line.row, name), drops.upper_of(line.row, name)
    lost = drops.collapsed_of(report, line.row, name)
    words = (line.step, line.backend, line.device, name)
    surfaces = (score("iou"), score("hd95", 2), score("nsd"), score("precision"), score("recall"))
    counts = (numbers.fixed(lost, 0), score("absent", 0), score("false_alarms", 0))
    return (*words, score("dice"), *map(numbers.signed, drop), *surfaces, *counts)


def _hd95(report: Json) -> str:
    unit = report["data"].get("unit")
    return f"HD95 ({unit})" if unit else "HD95"


def _many(report: Json) -> str:
    """What drops are counted in."""
    return f"{report['data'].get('independent') or 'case'}s"


def case_table(report: Json) -> Table:
    """How many cases played which role, and what each role was used for."""
    counts, data = report["cases"], report["data"]
    uses = data.get("roles") or {}
    rows = [(role, _plain(counts.get(role)), uses.get(role, NOTHING)) for role in dict.fromkeys([*counts, *uses])]
    looks = data.get("test_looks")
    facts = [
        data.get("source") and f"Source: {data['source']}.",
        data.get("independent") and f"Drops are averaged and resampled by {data['independent']}.",
        looks is not None and f"The test cases were looked at {'once' if looks == 1 else f'{looks} times'}.",
    ]
    note = " ".join(fact for fact in facts if fact)
    return Table(title="Cases", head=("role", "cases", "used for"), align="lrl", rows=rows, note=note)


def artifact_table(report: Json) -> Table:
    """Where each artifact lies, what runs in integers in it, and the flags it was made and run with."""
    rows = [
        (
            line.title,
            line.row.get("artifact") or NOTHING,
            _layers(line),
            _executed(line),
            _plain(line.row.get("flags") or {}),
        )
        for line in compared.lines(report)
    ]
    return Table(
        title="Artifacts and flags",
        head=("artifact", "file", "convolutions", "ran in", "flags"),
        align="lllll",
        rows=rows,
        note="What convolutions and multiplications of matrices ran in is told by the runtime, not by the file.",
    )


def uncovered_tables(report: Json) -> list[Table]:
    """Which layers did not run in the integers asked for, and why; none where all did, or nothing tells."""
    rows = [(line.title, *cells) for line in compared.lines(report) for cells in uncovered.rows(line)]
    head = ("artifact", "ran in", "layers", "which", "why")
    table = Table(title=uncovered.TITLE, head=head, align="llrll", rows=rows, note=uncovered.NOTE)
    return [table] if rows else []


def fallback_tables(report: Json) -> list[Table]:
    """Which layers a DLA core or a GPU left to another processor; none where nothing tells of any."""
    told = [(line.title, line.row["fallback"]) for line in compared.lines(report) if line.row.get("fallback")]
    rows = [(title, str(each["layers"]), _plain(each["names"]), _plain(each["why"])) for title, each in told]
    head = ("artifact", "layers elsewhere", "which", "why")
    return [Table(title="Layers left to another processor", head=head, align="lrll", rows=rows)] if rows else []


def agreement_tables(report: Json) -> list[Table]:
    """Scores by columns of split.csv, sizes, and which class was taken for which; none that a report does not know."""
    names = agreement.confusion_head(report)
    parts = [
        ("Subgroups", subgroups.HEAD, subgroups.ALIGN, subgroups.rows(report), subgroups.NOTE),
        ("Sizes", agreement.SIZE_HEAD, agreement.SIZE_ALIGN, agreement.size_rows(report), agreement.SIZE_NOTE),
        (
            *("Which class was taken for which", names, f"ll{'r' * (len(names) - 2)}"),
            *(agreement.confusion_rows(report), agreement.CONFUSION_NOTE),
        ),
    ]
    return _with_rows(parts)


def device_tables(report: Json) -> list[Table]:
    """What cannot be beaten, for devices whose peaks are published; power, heat and throttling of what was watched."""
    parts = [
        ("Floors", floors.HEAD, "lrlrr", floors.rows(report), floors.NOTE),
        ("Power and heat", heat.HEAD, heat.ALIGN, heat.rows(report), heat.NOTE),
    ]
    return _with_rows(parts)


def _with_rows(parts: Sequence[tuple[str, tuple[str, ...], str, Sequence[tuple[str, ...]], str]]) -> list[Table]:
    """Tables of title, head, alignment, rows and note, but those that have no rows."""
    return [Table(title=t, head=h, align=a, rows=rows, note=note) for t, h, a, rows, note in parts if rows]


def hash_tables(report: Json) -> list[Table]:
    """What exactly was measured: the recipe's commit, the data, the weights, every artifact; none for older reports."""
    own: Json = report.get("hashes") or {}
    commit = (report.get("made") or {}).get("commit")
    rows = [(f"the {what}", f"SHA-256 {value}") for what, value in own.items()]
    rows += [("the recipe", f"commit {commit}")] if commit else []
    for row in report["rows"]:
        folder = str(row.get("artifact") or "").rpartition("/")[0]
        rows += [(f"{folder}/{name}", f"SHA-256 {value}") for name, value in (row.get("sha256") or {}).items()]
    note = "The data's is of every file that was used, with its role; an artifact's sidecar has its own too."
    table = Table(title="Hashes", head=("of", "hash"), align="ll", rows=list(dict.fromkeys(rows)), note=note)
    return [table] if rows else []


def processor_tables(report: Json) -> list[Table]:
    """On which processors each artifact answers as it did here, and why; none for a report that does not know."""
    told = [(line, line.row["processors"]) for line in compared.lines(report) if line.row.get("processors")]
    rows = [
        (
            line.title,
            each["measured_on"],
            _plain(each["same_on"]),
            _plain(each["differs_on"]),
            headline.expected_text(each),
        )
        for line, each in told
    ]
    table = Table(
        title="Processors",
        head=("artifact", "measured on", "the same answer on", "may differ on", "because"),
        align="lllll",
        rows=rows,
        note="Answers of integer layers; float layers differ in last bits from CPU to CPU. Times are of its device.",
    )
    return [table] if rows else []


def host_tables(report: Json) -> list[Table]:
    """What ran where: this host, then each machine that was reached over SSH."""
    there = [_pairs(f"Host of {devices}", facts) for devices, facts in machines.elsewhere(report)]
    return [_pairs("Host", report["host"]), *there]


def _layers(line: Line) -> str:
    layers = line.row.get("layers") or {}
    return ", ".join(f"{count} {kind}" for kind, count in layers.items()) or NOTHING


def _executed(line: Line) -> str:
    return ", ".join(f"{count} {word}" for word, count in (line.row.get("executed") or {}).items()) or NOTHING


def _pairs(title: str, values: Json) -> Table:
    rows = [(str(key), _plain(value)) for key, value in values.items()]
    return Table(title=title, head=("what", "value"), align="ll", rows=rows)


def _plain(value: Any) -> str:
    """Any value of host, versions or flags in words."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key}={_plain(item)}" for key, item in value.items()) or NOTHING
    if isinstance(value, list | tuple):
        return ", ".join(_plain(item) for item in value) or NOTHING
    if isinstance(value, bool):
        return "yes" if value else "no"
    return NOTHING if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)
