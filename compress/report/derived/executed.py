"""What a report says where layers that are placed in integers or in 16 bits did not run in them."""

from __future__ import annotations

from compress.report.derived.compared import lines
from compress.report.derived.recorded import Json

HALVES = ("float16", "bfloat16")


def executed_sentences(report: Json) -> list[str]:
    """A warning for each artifact with integer or 16-bit layers of which its runtime ran none in them."""
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
        placed = sum(count for word, count in (line.row.get("layers") or {}).items() if word in HALVES)
        if placed and ran and not ran.keys() & {"FP16", "BF16"}:
            told = ", ".join(f"{count} in {word}" for word, count in ran.items())
            found.append(
                f"{line.title} has {placed} layers in 16 bits and its runtime has no kernels for them ({told}): it is "
                "smaller, no faster, and says nothing of how 16 bits round; their simulation in torch does."
            )
    return found
