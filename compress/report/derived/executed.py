"""What a report says where layers that are placed in integers did not run in them."""

from __future__ import annotations

from compress.report.derived.compared import lines
from compress.report.derived.recorded import Json


def executed_sentences(report: Json) -> list[str]:
    """A warning for each artifact with integer layers of which its runtime ran none in integers."""
    found = []
    for line in lines(report):
        placed = (line.row.get("layers") or {}).get("integer")
        ran: dict[str, int] = line.row.get("executed") or {}
        if placed and ran and not ran.get("INT8"):
            told = ", ".join(f"{count} in {word}" for word, count in ran.items())
            found.append(
                f"{line.title} has {placed} layers in integers and its runtime ran none in them ({told}): "
                "it is smaller, and cannot be faster for that."
            )
    return found
