"""What a change may cost: each artifact of its run against the same artifact of the main branch's run.

Two runs of equals must hardly ever end in an alarm. A size is no chance; a drop and a ratio of times are, and all of a
comparison's together are allowed a false alarm in one of a hundred comparisons (`ALARM`, shared out evenly after
Bonferroni): a drop fails where its mean is past the margin *and* its lower limit at that confidence is above 0.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from compress.gates.judging.artifacts import applies, verdict_on
from compress.gates.judging.gate import Gate
from compress.gates.judging.non_inferiority import MOST_CASES, Drop, in_two_digits
from compress.gates.judging.paired_drop import paired_drop
from compress.gates.judging.score_drop import drop_outcomes
from compress.gates.judging.two_runs import Measured, Pair, Pairing
from compress.gates.judging.two_sessions import sessions
from compress.gates.judging.verdict import Bound, Outcome, Verdict, at_most, inconclusive
from compress.measure.row import Row
from compress.measure.segmentation import Scores

ALARM = 0.002
"""How often a comparison of equals may fail."""


@dataclass(frozen=True, kw_only=True)
class Allowed:
    """What a change may cost; None is not judged."""

    drop: float | None = 0.005
    """Mean paired Dice that each class may lose: half of what a whole compression is often allowed."""
    slower: float | None = 1.1
    """Times longer that the median inference may take; less than two sessions of one host can tell apart is a coin."""
    larger: float | None = 1.05
    """Times larger that the artifact's files may be: engines of one network differ by a few hundredths."""


@dataclass(frozen=True, kw_only=True)
class Limit:
    """One of them, as a verdict names it."""

    title: str
    bound: Bound

    def of(self, pair: Pair) -> Limit:
        """The same, naming the step where several are compared."""
        return replace(self, title=f"{self.title} of {pair.title}") if pair.title else self


def judge_change(before: Measured, after: Measured, pairing: Pairing, allowed: Allowed) -> list[Verdict]:
    """One verdict for each limit on each artifact that the first run has (and each class, for the drop).

    What neither run measured is judged by its size alone; what only the first one did is inconclusive.
    """
    found: list[Verdict] = []
    measured = [pair for pair in pairing.pairs if pair.before.status == "measured"]
    chances = sum(_chances(pair, allowed) for pair in measured)
    if allowed.drop is not None:
        limit, level = Limit(title="dice_drop", bound=at_most(allowed.drop)), 1 - ALARM / max(1, chances)
        found += [
            verdict_on(limit.of(pair), pair.after, each) for pair in measured for each in _drops(pair, limit, level)
        ]
        found += _lost(limit, pairing)
    if allowed.slower is not None:
        limit, both = Limit(title="slower", bound=at_most(allowed.slower)), sessions(before, after)
        found += [verdict_on(limit.of(pair), pair.after, both.outcome(pair, limit.bound)) for pair in measured]
        found += _lost(limit, pairing)
    if allowed.larger is not None:
        limit = Limit(title="larger", bound=at_most(allowed.larger))
        found += [verdict_on(limit.of(pair), pair.after, _larger(pair, limit)) for pair in pairing.pairs]
        found += _lost(limit, pairing)
    return found


def judge_pairs(gates: Sequence[tuple[str, Gate]], pairing: Pairing) -> list[Verdict]:
    """What a recipe's gates say of each artifact of the change, where the first run's artifact is the baseline."""
    found = []
    for _, gate in gates:
        each = [pair for pair in pairing.pairs if not hasattr(gate, "device") or applies(gate, pair.after)]  # type: ignore[arg-type]
        # One that applies to nothing says so.
        found += [verdict for pair in each or pairing.pairs[:1] for verdict in gate(as_rows(pair))]
    return found


def as_rows(pair: Pair) -> list[Row]:
    """A pair as the rows of one run: what was before is its baseline."""
    return [replace(pair.before, step="baseline", device=pair.after.device), replace(pair.after, step="change")]


def _chances(pair: Pair, allowed: Allowed) -> int:
    """How many verdicts on a pair chance can spoil."""
    classes = len((pair.before.scores or {}).get("per_class") or {})
    return classes * (allowed.drop is not None) + (allowed.slower is not None)


def _lost(limit: Limit, pairing: Pairing) -> Iterator[Verdict]:
    for row in pairing.lost:
        if row.status == "measured":
            yield verdict_on(limit, row, inconclusive(f"not measured: the change has no {row.backend} artifact for it"))


def _drops(pair: Pair, limit: Limit, level: float) -> list[Outcome]:
    if pair.after.scores is None:
        return [inconclusive(f"not measured: {pair.after.reason or 'the change has no scores'}")]
    rows = as_rows(pair)
    return [_unless_chance(each, rows, level) for each in drop_outcomes("dice", limit.bound.limit, rows, rows[1], None)]


def _unless_chance(outcome: Outcome, rows: Sequence[Row], level: float) -> Outcome:
    """The outcome; inconclusive where it fails by a drop that equals can have too."""
    if outcome.ruling != "fails":
        return outcome
    was, now = (Scores.from_dict(dict(row.scores or {})) for row in rows)
    drop = paired_drop(was, now, outcome.class_name, "dice", level)
    if drop.lower > 0:
        return outcome
    reason = f"{outcome.reason}; past the margin, but equals can differ as much: the lower limit is not above 0"
    return replace(outcome, ruling="inconclusive", reason=f"{reason} ({level:.2%} confidence){_more(drop)}")


def _more(drop: Drop) -> str:
    """How many more cases would bring the lower limit, which nears the mean as 1/√n, above 0."""
    if not math.isfinite(drop.lower):
        return ""
    needed = drop.n * ((drop.mean - drop.lower) / drop.mean) ** 2
    if needed > MOST_CASES:
        return f"; more than {MOST_CASES:,} cases would be needed to decide it"
    return f"; about {in_two_digits(needed - drop.n)} more like these would decide it"


def _larger(pair: Pair, limit: Limit) -> Outcome:
    was, now = pair.before.size_mb, pair.after.size_mb
    if was and not now:
        return inconclusive(f"not measured: {pair.after.reason or 'the change has no file'}")
    return limit.bound.outcome(now / was) if was and now else inconclusive("not measured: there is no file")
