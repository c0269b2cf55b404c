"""What a person sees at the end of `compress search`: the front, and how it ended."""

from __future__ import annotations

from rich.console import Console
from rich.text import Text

from compress.report.derived.recorded import Json
from compress.report.search_page import ending, facts
from compress.report.search_tables import front_table
from compress.report.terminal import show_table

_STYLES = {"holds": "green", "fails": "bold red", "inconclusive": "yellow"}


def show(record: Json, console: Console) -> None:
    """Print the front as a table, and a closing sentence."""
    table = front_table(record)
    if record["front"]:
        console.print()
        show_table(table, console)
        console.print(Text(table.note, "dim"))
    console.print()
    for sentence in facts(record):
        console.print(Text(sentence))
    end = ending(record)
    console.print(Text(f"{end.head}. {end.sentence}", _STYLES[end.word]))
    for point in record["front"][:1]:
        console.print(f"A point scored on test cases: {point['command']}", markup=False)
