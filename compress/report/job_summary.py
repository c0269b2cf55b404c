"""What the gates say as the Markdown of a CI job's summary, or of a comment on a change: the worst news first."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from compress.report import tables
from compress.report.derived import verdicts
from compress.report.markdown import escape, section

_WORST_FIRST = ("fails", "inconclusive", "holds")
_SIGNS = {"holds": "✅", "fails": "❌", "inconclusive": "⚠️", "not judged": "⚠️"}


def to_summary(report: Mapping[str, Any], notes: tuple[str, ...] = ()) -> str:
    """The verdict in one line, and a table of the gates; `report` is `Report.as_dict()` or report.json read back.

    Args:
        notes: what a reader should know besides, a sentence each.
    """
    verdict = verdicts.conclusion(report)
    ranked = sorted(report["gates"], key=lambda gate: _WORST_FIRST.index(gate["verdict"]))
    parts = [
        f"### {_SIGNS[verdict.word]} {escape(report['name'])}: {verdict.word}",
        escape(verdict.sentence),
        *([section(tables.gate_table({**report, "gates": ranked}), level=4)] if ranked else []),
        *(["\n".join(f"- {escape(note)}" for note in notes)] if notes else []),
    ]
    return "\n\n".join(parts) + "\n"
