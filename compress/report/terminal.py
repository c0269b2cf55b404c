"""What a person sees at the end of `compress run`: the rows, the gates, and one closing sentence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from compress.report import tables
from compress.report.derived import compared, headline, heat, numbers, verdicts
from compress.report.derived.compared import Line
from compress.report.derived.numbers import NOTHING
from compress.report.derived.recorded import Json

_STYLES = {"holds": "green", "fails": "bold red", "inconclusive": "yellow", "not judged": "yellow"}


def show(report: Mapping[str, Any], console: Console) -> None:
    """Print the report; it needs 100 columns, and wraps notes and reasons in fewer."""
    console.print(_lines(report))
    console.print()
    console.print(_steps(report))
    console.print()
    if any("why" not in (row.get("watch") or {"why": ""}) for row in report["rows"]):
        console.print(_heat(report))
        console.print()
    for sentence in headline.summary(report):
        console.print(Text(sentence))
    console.print()
    show_gates(report, console)


def show_gates(report: Mapping[str, Any], console: Console) -> None:
    """Print what the gates say, one at a time and all together."""
    if report["gates"]:
        console.print(_gates(report))
        console.print()
    verdict = verdicts.conclusion(report)
    console.print(Text(verdict.sentence, _STYLES[verdict.word]))


def _lines(report: Json) -> Table:
    table = Table(
        title=Text(report["name"], "bold"), title_justify="left", header_style="bold", box=None, pad_edge=False
    )
    for head in ("step", "backend", "device"):
        table.add_column(head, overflow="fold")
    for head in ("Dice", "drop", "in step", "p50 ms", "speed-up", "MB"):
        table.add_column(head, justify="right", no_wrap=True)
    table.add_column("note", overflow="fold")
    for line in compared.lines(report):
        table.add_row(*_cells(line), style=None if line.measured else "dim")
    return table


def _cells(line: Line) -> list[Text]:
    here = None if line.lost_here is None else line.lost_here.mean
    words = (line.step, line.backend, line.device, numbers.fixed(line.dice))
    drops = (numbers.signed(line.drop), numbers.signed(here))
    times = (numbers.amount(line.p50_ms), numbers.times(line.speed_up))
    # As Text, since rich reads brackets in a plain string as markup.
    return [Text(cell) for cell in (*words, *drops, *times, numbers.amount(line.size_mb), line.note)]


def _steps(report: Json) -> Table:
    """What each step took from the work, and what it said."""
    table = Table(header_style="bold", box=None, pad_edge=False)
    table.add_column("step", overflow="fold")
    for head in ("took", "params", "fewer", "MACs", "fewer", "MACs × bits"):
        table.add_column(head, justify="right", no_wrap=True)
    table.add_column("notes", overflow="fold")
    for step in compared.steps(report):
        bits = max((line.fewer_bits for line in step.lines if line.fewer_bits is not None), default=None)
        work = (numbers.large(step.params), numbers.times(step.smaller), numbers.large(step.macs))
        # rich's brackets again; notes can be many, and the report has them all.
        notes = "; ".join(step.notes[:2]) + (f"; {len(step.notes) - 2} more in the report" if step.notes[2:] else "")
        cells = (step.name, numbers.lasted(step.seconds), *work, numbers.times(step.fewer), _fewer(bits), notes)
        table.add_row(*map(Text, cells))
    return table


def _heat(report: Json) -> Table:
    """Power, energy, heat and throttling of what was watched; the rest, and why it is not known, in the report."""
    table = Table(
        title=Text("Power and heat", "bold"), title_justify="left", header_style="bold", box=None, pad_edge=False
    )
    shown = [heat.HEAD.index(head) for head in heat.IN_SHORT]
    for place in shown:
        right = heat.ALIGN[place] == "r"
        table.add_column(heat.HEAD[place], overflow="fold", justify="right" if right else "left")
    for row in heat.rows(report):
        table.add_row(*(Text(row[place]) for place in shown))
    return table


def _fewer(factor: float | None) -> str:
    return NOTHING if factor is None else f"÷ {factor:.1f}"


def show_notes(notes: Sequence[str], console: Console) -> None:
    """Print what a reader should know besides, a sentence a line."""
    for note in notes:
        console.print(Text(note, "dim"))


def show_table(told: tables.Table, console: Console) -> None:
    """Print a table as the report's pages show it."""
    table = Table(title=Text(told.title, "bold"), title_justify="left", header_style="bold", box=None, pad_edge=False)
    for head, side in zip(told.head, told.align, strict=True):
        # A recipe's own names are in heads: in brackets they would be styles.
        table.add_column(Text(head), justify="right" if side == "r" else "left", overflow="fold")
    for row in told.rows:
        table.add_row(*map(Text, row))
    console.print(table)


def _gates(report: Json) -> Table:
    table = Table(header_style="bold", box=None, pad_edge=False)
    for head in ("gate", "on", "class"):
        table.add_column(head, overflow="fold")
    for head in ("value", "upper\nlimit", "limit"):
        table.add_column(head, justify="right", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    table.add_column("reason", overflow="fold")
    for gate in report["gates"]:
        value, upper, limit = verdicts.in_numbers(gate)
        # Signs, since the words would leave no room for the reason.
        limit = limit.replace("at most", "≤").replace("at least", "≥")
        words = (verdicts.title(gate), verdicts.where(gate) or NOTHING, gate["class"] or NOTHING, value, upper, limit)
        ruling = Text(gate["verdict"], _STYLES[gate["verdict"]])
        table.add_row(*map(Text, words), ruling, Text(gate["reason"]))
    return table
