"""The time that cannot be beaten, of each artifact for a device whose peaks are published."""

from __future__ import annotations

from compress.report.derived.compared import lines
from compress.report.derived.numbers import amount, number, times
from compress.report.derived.recorded import Json, ratio

HEAD = ("artifact", "cannot be beaten (ms)", "because of its", "p50 (ms)", "p50 over floor")
NOTE = (
    "A floor is no prediction: it is what the operations take at the device's published peak for dense matrices, or "
    "the bytes at its memory's bandwidth, and no kernel reaches either (docs/devices.md). A target below it cannot be "
    "met with this network."
)


def rows(report: Json) -> list[tuple[str, ...]]:
    """A row for each artifact that has a floor, measured or only built."""
    found: list[tuple[str, ...]] = []
    for line in lines(report):
        floor = line.row.get("floor")
        if floor:
            ms = number(floor["ms"])
            found.append((line.title, amount(ms), floor["by"], amount(line.p50_ms), times(ratio(line.p50_ms, ms))))
    return found
