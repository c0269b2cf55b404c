"""Trials that are stopped before their export: the network in torch says enough.

A trial is looked at only behind the last of its passes that trains, since training wins back what other passes lose.
The reason is one sentence, which the report gives.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from compress.search.objectives.score import Score
from compress.search.trial import Trial


@dataclass(frozen=True, kw_only=True)
class Sight:
    """What is known of a network before it is exported."""

    scores: Sequence[float]
    """On validation cases, in torch, one for each objective `score`."""
    macs: int
    params: int
    stored_bytes: int
    """Of its file: weights of few bits are stored in these."""
    bits: int
    """Of a weight, behind the recipe's last pass."""
    is_final: bool = True
    """Whether no pass to come changes it but in the bits of its numbers."""


def why_stopped(sight: Sight, wanted: Sequence[Score], before: Sequence[Trial], margin: float) -> str | None:
    """Why a trial is not worth an export; None where it may be.

    Args:
        wanted: the objectives `score`.
        before: the trials before it.
    """
    for objective, score in zip(wanted, sight.scores, strict=True):
        if objective.at_least is not None and score < objective.at_least - margin:
            return f"its {objective.title} in torch, {score:.4f}, is more than {margin:g} below {objective.at_least:g}"
    # What is still to be pruned will have fewer MACs than now.
    for other in before if sight.is_final else ():
        if _is_ahead(other, sight, margin):
            scores = ", ".join(f"{score:.4f}" for score in sight.scores)
            theirs = ", ".join(f"{score:.4f}" for score in other.torch_scores)
            ahead = f"trial {other.number} has {theirs} with no more MACs, parameters, bytes or bits"
            return f"its score in torch is {scores}, and {ahead}"
    return None


def _is_ahead(other: Trial, sight: Sight, margin: float) -> bool:
    """Whether a finished trial is no larger in anything that is known, and better by more than the margin."""
    if other.state != "finished" or not other.torch_scores or other.stored_bytes is None:
        return False
    assert other.macs is not None and other.params is not None, "it was finished"
    return (
        all(theirs > ours + margin for theirs, ours in zip(other.torch_scores, sight.scores, strict=True))
        and other.macs <= sight.macs
        and other.params <= sight.params
        and other.stored_bytes <= sight.stored_bytes
        and other.bits <= sight.bits
    )
