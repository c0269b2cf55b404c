"""The report as Markdown."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from compress.report import tables
from compress.report.derived import compared, headline, numbers, verdicts
from compress.report.derived.compared import Line
from compress.report.derived.recorded import Json
from compress.report.tables import Table

_SPECIAL = re.compile(r"[\\`*\[\]|#~]|(?<!\w)_|_(?!\w)")
_ENTITIES = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})


def to_markdown(report: Mapping[str, Any]) -> str:
    """The whole report in GitHub's Markdown; `report` is `Report.as_dict()` or report.json read back."""
    verdict = verdicts.conclusion(report)
    recipe = json.dumps(report["recipe"], indent=2, ensure_ascii=False)
    parts = [
        f"# {escape(report['name'])}",
        *([escape(headline.made(report))] if headline.made(report) else []),
        f"**Verdict: {verdict.word}.** {escape(verdict.sentence)}",
        "\n".join(f"- {escape(sentence)}" for sentence in _summary(report)),
        *(_about(title, sentences) for title, sentences in headline.about(report)),
        *(section(table) for table in tables.tables(report)),
        # Indented rather than fenced: no text inside can end the block.
        f"## Recipe (seed {report['seed']})\n\n" + "\n".join(f"    {line}" for line in recipe.splitlines()),
    ]
    return "\n\n".join(parts) + "\n"


def _about(title: str, sentences: list[str]) -> str:
    return f"## {title}\n\n" + "\n\n".join(map(escape, sentences))


def _summary(report: Json) -> list[str]:
    """The few sentences to read first, with one for each artifact of the last step behind that for the baseline."""
    baseline, *others = headline.summary(report)
    return [baseline, *map(_artifact_sentence, compared.last_step(report)), *others]


def _artifact_sentence(line: Line) -> str:
    if not line.measured:
        return f"{line.title}: {line.note}."
    speed = None if line.speed_up is None else f"{numbers.times(line.speed_up)} the baseline's speed on this backend"
    size = None if line.size_ratio is None else f"{numbers.times(line.size_ratio)} smaller"
    dice = None if line.dice is None else f"Dice {numbers.fixed(line.dice)} ({headline.drop_text(line)})"
    return f"{line.title}: {', '.join(part for part in (dice, speed, size) if part) or 'nothing to compare with'}."


def escape(text: str) -> str:
    """Text that Markdown shows as it is, on one line, also inside a table."""
    return _SPECIAL.sub(r"\\\g<0>", " ".join(str(text).split())).translate(_ENTITIES)


def section(table: Table, level: int = 2) -> str:
    """A table under its title and note; `level` is that of the title's heading."""
    title = f"{'#' * level} {table.title}"
    note = f"\n{escape(table.note)}\n" if table.note else ""
    if not table.rows:
        return f"{title}\n\nNone.\n".rstrip()
    cells = [[escape(cell) for cell in row] for row in (table.head, *table.rows)]
    widths = [max(3, *map(len, column)) for column in zip(*cells, strict=True)]
    rule = ["-" * (width - 1) + (":" if side == "r" else "-") for width, side in zip(widths, table.align, strict=True)]
    head, *body = ([*map(_padded, row, widths, table.align)] for row in cells)
    grid = "\n".join(f"| {' | '.join(row)} |" for row in (head, rule, *body))
    return f"{title}\n{note}\n{grid}"


def _padded(cell: str, width: int, side: str) -> str:
    return cell.rjust(width) if side == "r" else cell.ljust(width)
