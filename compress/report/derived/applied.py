"""What a report says of the post-processing that its scores are of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Json = Mapping[str, Any]


def steps(report: Json) -> list[tuple[str, Json]]:
    """The steps between the network and its scores, each a word with its options; none for older reports."""
    return [next(iter(step.items())) for step in report["data"].get("postprocess") or []]


def has_threshold(report: Json) -> bool:
    """Whether labels are chosen by a threshold of the recipe's."""
    return any(word == "threshold" for word, _ in steps(report))


def sentences(report: Json) -> list[str]:
    """One sentence on what is done to every answer before it is scored; none where nothing is."""
    told = ", then ".join(_step(word, options) for word, options in steps(report))
    return [f"Post-processing, of the baseline and every artifact alike: {told}."] if told else []


def _step(word: str, options: Json) -> str:
    given = ", ".join(f"{option} {_value(value)}" for option, value in options.items() if value is not None)
    return f"{word} ({given})" if given else word


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_value(item)}" for key, item in value.items())
    return ", ".join(map(_value, value)) if isinstance(value, list | tuple) else str(value)
