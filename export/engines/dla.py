"""Which layers TensorRT put on a DLA core, and which it left to the GPU: it says so in the log of a build alone."""

from __future__ import annotations

import re
from typing import Any, Iterable

FIRST_WITHOUT, FIRST_AGAIN = (10, 8), (11, 4)
"""TensorRT from the first up to the second has no DLA (its guide, "Working with DLA": 10.7 is the last of 10)."""
_HEADING = re.compile(r"-{5,}\s*Layers running on (DLA|GPU)", re.IGNORECASE)
# "[GpuLayer] CONVOLUTION: name", or "[GpuLayer] name" where the version does not say of what type it is.
_LAYER = re.compile(r"\[(Dla|Gpu)Layer\] (?:([A-Z][A-Z_0-9]+): )?(.+?)\s*$")
_SWITCHED = re.compile(r"Switching this layer'?s device type to GPU", re.IGNORECASE)
_OWN = ("COPY", "REFORMAT", "NOOP")
"""What moves data to and from the DLA: no layer of the network."""
_MOST_REASONS = 50


def fault(version: tuple[int, ...]) -> str | None:
    """Why this version of TensorRT builds nothing for a DLA core; None if it does."""
    if FIRST_WITHOUT <= version[:2] < FIRST_AGAIN:
        told = ".".join(map(str, version))
        return (
            f"TensorRT {told} has no DLA: 10.7 is the last that has it (JetPack 6 comes with 10.3), 11.4 the next; "
            f"leave `dla` out, or install one of these"
        )
    return None


def placed(log: Iterable[str]) -> tuple[list[str], list[str]]:
    """The layers on the DLA and those on the GPU, as a build's log lists them, without those that only move data."""
    on: dict[str, list[str]] = {"Dla": [], "Gpu": []}
    for where, kind, name in (found.groups() for found in map(_LAYER.search, log) if found):
        if kind not in _OWN and not name.startswith("Reformatting CopyNode") and not name.endswith(" copy"):
            on[where].append(name)
    return on["Dla"], on["Gpu"]


def fallback(log: Iterable[str]) -> dict[str, Any] | None:
    """The layers that the DLA did not take: `layers` how many, `names` which, `on_dla` how many it took, and `why` as
    TensorRT warned; None where the log does not say where layers run.
    """
    lines = list(log)
    if not any(_HEADING.search(line) for line in lines):
        return None
    dla, gpu = placed(lines)
    why = dict.fromkeys(_said(line) for line in lines if _SWITCHED.search(line))
    return {"layers": len(gpu), "names": gpu, "on_dla": len(dla), "why": list(why)[:_MOST_REASONS]}


def _said(line: str) -> str:
    """A line of a log without its time and source."""
    return re.sub(r"^(?:\[[^\]]*\]\s*)+", "", line).strip()[:300]
