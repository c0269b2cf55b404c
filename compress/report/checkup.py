"""What `compress doctor` found, in lines."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any


def lines(found: Mapping[str, Any]) -> Iterator[str]:
    """The record of a check-up as a person reads it."""
    host = found["host"]
    yield f"segpress {found['segpress']}, Python {found['python']}, {host['os']} ({host['machine']})"
    known = f"; {', '.join(host['isa'])}" if host["isa"] else ""
    yield f"CPU: {found['board'] or host['cpu']}, {host['cpus']} usable; integers: {found['integers']}{known}"
    gpus = ", ".join(found["gpus"])
    yield f"GPU: {gpus}; driver {found['driver'] or 'not told'}" if gpus else "GPU: no NVIDIA driver"
    yield ""
    titles = ("runtime", "on", "version", "builds", "runs", "times layers", "computes in")
    rows = [titles, *(_row(each) for each in found["abilities"])]
    widths = [max(len(row[place]) for row in rows) for place in range(len(titles))]
    for row in rows:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
    installs = [f"{each['backend']}: {each['install']}" for each in found["abilities"] if each["install"]]
    extras = [f"{', '.join(lacking)}: pip install 'segpress[{extra}]'" for extra, lacking in found["extras"].items()]
    if installs or extras:
        yield ""
        yield "Not installed:"
        yield from (f"  {line}" for line in dict.fromkeys([*installs, *extras]))


def _row(each: Mapping[str, Any]) -> tuple[str, ...]:
    yes = {True: "yes", False: "no"}
    what = ", ".join(each["precisions"]) if each["runs"] else f"({each['why']})"
    timed = yes[each["times_layers"]]
    return each["backend"], each["device"], each["version"] or "-", yes[each["builds"]], yes[each["runs"]], timed, what
