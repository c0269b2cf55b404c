"""What the times of two runs say of each other, which were not taken in turns.

Whatever the host did between two sessions is in their ratio. How much that is, is seen on networks that did not change:
the baselines that both runs timed, each in turns with its run's own artifacts. Their ratios correct what may hold; what
fails must be slower than all of them by `SESSION` more, or by as much as they differ among themselves: one artifact can
be unlucky where the others are not.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from compress.gates.judging.two_runs import Measured, Pair
from compress.gates.judging.verdict import Bound, Outcome, inconclusive
from compress.measure.latency import MEDIAN_LEVEL, limits
from compress.measure.row import Row
from export.registry import find_backend, words

SESSION = 1.10
"""How much slower one artifact may be in another session of the same host, beyond what others show: an allowance (for
where it lies in memory, for what runs beside it), no measurement. Without it a change of nothing fails at times."""
MACHINE = ("at", "board", "cpu", "cpus", "threads", "machine", "isa", "l4t")
"""What two machines are told apart by, where times are concerned."""
REPEAT = "time both in one run (compare: in a recipe), or raise latency samples"


@dataclass(frozen=True, kw_only=True)
class Ratio:
    """How many times longer the median inference takes in the second run."""

    value: float
    lower: float
    upper: float
    """Between them by order statistics, each median's limits at 97.5 %: of these two sessions, not of any others."""


@dataclass(frozen=True, kw_only=True)
class Sessions:
    """Two runs, as far as their times are concerned."""

    before: Measured
    after: Measured
    anchors: Mapping[tuple[str, str], Ratio] = field(default_factory=dict)
    """Of each backend and device on which both runs timed the same uncompressed network."""

    def outcome(self, pair: Pair, bound: Bound) -> Outcome:
        """Whether an artifact is slower in the second run than a bound on the ratio allows."""
        unlike = self.unlike(pair)
        if unlike:
            return inconclusive(f"not comparable: {unlike}")
        ratio = ratio_of(pair.before, pair.after)
        if ratio is None:
            return inconclusive(f"not measured: its latency{_why(pair.after) or _why(pair.before)}")
        if self._same(pair):
            reason = f"the same file, versions and host: {_in_words(ratio)} is what the sessions differ by"
            # It takes as long as before: a limit below 1 asks for more than that.
            return Outcome(ruling="holds" if bound.limit >= 1 else "fails", reason=reason, value=ratio.value)
        return self._ruled(pair, ratio, bound)

    def _ruled(self, pair: Pair, ratio: Ratio, bound: Bound) -> Outcome:
        own = _place(pair.after) if pair.after.step == "baseline" else None
        # Another device has sessions of its own.
        there = [place for place in self.anchors if place[1] == pair.after.device and place != own]
        others = [self.anchors[place] for place in there]
        least, most = _least(ratio, others), _most(ratio, others)
        told = f"{_in_words(ratio)}, not timed in turns; {_drift(others)}"
        if least > bound.limit:
            return Outcome(ruling="fails", reason=told, value=ratio.value, upper=most)
        if most is not None and most <= bound.limit:
            return Outcome(ruling="holds", reason=told, value=ratio.value, upper=most)
        return Outcome(ruling="inconclusive", reason=f"{told}: {REPEAT}", value=ratio.value, upper=most)

    def unlike(self, pair: Pair) -> str | None:
        """Why the times of a pair cannot be compared: what the machines differ in; None where they can."""
        was, now = _machine(pair.before, self.before), _machine(pair.after, self.after)
        differing = [key for key in (*MACHINE, "governor") if was.get(key) != now.get(key)]
        texts = [f"{key} {_plain(was.get(key))} and {_plain(now.get(key))}" for key in differing]
        return "; ".join(texts) or None

    def _same(self, pair: Pair) -> bool:
        """Whether both runs timed the very same computation."""
        was, now = pair.before, pair.after
        same = bool(was.sha256) and was.sha256 == now.sha256 and was.flags == now.flags
        return same and _same_library(now.backend, self.before, self.after)


def sessions(before: Measured, after: Measured) -> Sessions:
    """Two runs, with what both timed of the network that neither changed."""
    bare = Sessions(before=before, after=after)
    if _architecture(before) != _architecture(after):
        return bare
    anchors: dict[tuple[str, str], Ratio] = {}
    for row in _baselines(before):
        other = next((each for each in _baselines(after) if _place(each) == _place(row)), None)
        if other is None or (row.params, row.macs, row.flags) != (other.params, other.macs, other.flags):
            continue
        pair = Pair(before=row, after=other)
        ratio = ratio_of(row, other)
        if ratio and not bare.unlike(pair) and _same_library(row.backend, before, after):
            anchors[_place(row)] = ratio
    return Sessions(before=before, after=after, anchors=anchors)


def _least(ratio: Ratio, anchors: Sequence[Ratio]) -> float:
    """How much slower it is at least, whatever the sessions did."""
    slowest = max([1.0, *(anchor.upper for anchor in anchors)])
    values = [anchor.value for anchor in anchors] or [1.0]
    return ratio.lower / (slowest * max(SESSION, max(values) / min(values)))


def _most(ratio: Ratio, anchors: Sequence[Ratio]) -> float | None:
    """How much slower it is at most, if the sessions differ as the anchors show; None where these show nothing."""
    fastest = min((anchor.lower for anchor in anchors), default=0.0)
    return ratio.upper / fastest if fastest > 0 else None


def ratio_of(before: Row, after: Row) -> Ratio | None:
    """How many times longer the second takes; None where one was not timed."""
    was, now = before.latency_ms, after.latency_ms
    if was is None or now is None or not was["p50"] or not now["p50"]:
        return None
    (was_low, was_high), (now_low, now_high) = _limits(was), _limits(now)
    # Limits of few samples are 0 and infinity.
    upper = now_high / was_low if was_low > 0 else math.inf
    return Ratio(value=now["p50"] / was["p50"], lower=now_low / was_high if was_high > 0 else 0.0, upper=upper)


def _limits(times: Mapping[str, Any]) -> tuple[float, float]:
    """Of the median; a record of an older version bounds it by the few order statistics that it kept."""
    lower, upper = times.get("p50_limits") or limits(times, 50, MEDIAN_LEVEL)
    return float(lower), float(upper)


def _machine(row: Row, run: Measured) -> dict[str, Any]:
    """What timed a row: this host, or the machine that its device is on."""
    times = row.latency_ms or {}
    return {**(times.get("host") or run.host), "governor": (times.get("conditions") or {}).get("governor")}


def _baselines(run: Measured) -> list[Row]:
    return [row for row in run.rows if row.step == "baseline" and row.latency_ms is not None]


def _place(row: Row) -> tuple[str, str]:
    return row.backend, row.device


def _architecture(run: Measured) -> dict[str, Any]:
    """The network without what makes its answers and not its work."""
    return {
        word: {name: value for name, value in (options or {}).items() if name != "weights"}
        for word, options in run.network.items()
    }


def _same_library(backend: str, before: Measured, after: Measured) -> bool:
    if backend not in words("export.backends"):
        return False
    return all(before.versions.get(name) == after.versions.get(name) for name in find_backend(backend).libraries)


def _drift(anchors: list[Ratio]) -> str:
    if not anchors:
        return "how far the sessions differ is not known: no uncompressed network was timed in both"
    lower, upper = min(each.lower for each in anchors), max(each.upper for each in anchors)
    many = f"{len(anchors)} baselines" if len(anchors) > 1 else "the baseline"
    return f"{many} timed in both took {lower:.3g} to {upper:.3g} times as long"


def _in_words(ratio: Ratio) -> str:
    return f"{ratio.value:.3g} times ({ratio.lower:.3g} to {ratio.upper:.3g})"


def _why(row: Row) -> str:
    return f" ({row.reason})" if row.reason else ""


def _plain(value: Any) -> str:
    return "unknown" if value is None else "+".join(map(str, value)) if isinstance(value, list) else str(value)
