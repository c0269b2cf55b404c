"""Where the time of one inference goes, as a runtime tells it (Python 3.8: it is told on devices too)."""

from __future__ import annotations

import statistics
from collections import Counter
from dataclasses import dataclass
from typing import Sequence

WARM = 5
"""Runs before those that are counted."""


def closed(shape: Sequence[int]) -> tuple[int, ...]:
    """A shape to run something once: open axes (-1) are a batch of 1 and sides of 256, of a volume 64.

    Engines are built for ranges that have it in them; a side of 1 does not get through a network that halves it.
    """
    batch, *rest = shape
    side = 64 if len(shape) > 4 else 256
    return (1 if batch == -1 else batch, *(side if axis == -1 else axis for axis in rest))


@dataclass(frozen=True)
class NodeTime:
    """What one node of a runtime's own graph took."""

    names: tuple[str, ...]
    """The ONNX nodes, or their outputs, that the runtime made it from; none of them known: its own work."""
    kind: str
    microseconds: float
    precision: str = ""
    """What it computes in, such as "INT8", where the runtime says so."""


@dataclass(frozen=True)
class Profile:
    """Where the time of one inference goes: medians over warm runs."""

    nodes: tuple[NodeTime, ...]
    whole_us: float
    """The nodes' and what lies between them: of a run that nothing disturbs, since an interruption falls on
    other nodes in every run and is in no median."""


def profile_of(runs: Sequence[tuple[float, Sequence[NodeTime]]]) -> Profile:
    """The medians of several runs, each its whole time and its nodes' (microseconds)."""
    times: dict[tuple[tuple[str, ...], str, str], list[float]] = {}
    for _, nodes in runs:
        of_run: Counter[tuple[tuple[str, ...], str, str]] = Counter()
        for node in nodes:
            of_run[node.names, node.kind, node.precision] += node.microseconds  # type: ignore[assignment]
        for key, spent in of_run.items():
            times.setdefault(key, []).append(spent)
    medians = [
        NodeTime(names=names, kind=kind, microseconds=statistics.median(spent), precision=precision)
        for (names, kind, precision), spent in times.items()
    ]
    between = statistics.median(whole - sum(node.microseconds for node in nodes) for whole, nodes in runs)
    return Profile(nodes=tuple(medians), whole_us=between + sum(node.microseconds for node in medians))
