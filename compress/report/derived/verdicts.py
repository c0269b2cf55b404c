"""What the gates say: one at a time, and all together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from compress.measure.skill import LITTLE
from compress.report.derived.compared import baseline
from compress.report.derived.numbers import NOTHING, fixed, number
from compress.report.derived.recorded import Json


@dataclass(frozen=True, kw_only=True)
class Conclusion:
    """What all gates together say."""

    word: Literal["holds", "fails", "inconclusive", "not judged"]
    sentence: str


def conclusion(report: Json) -> Conclusion:
    """The verdict in one plain sentence."""
    gates = report["gates"]
    failing = [gate for gate in gates if gate["verdict"] == "fails"]
    unsure = [gate for gate in gates if gate["verdict"] != "holds" and gate not in failing]
    if not gates:
        return Conclusion(word="not judged", sentence="The recipe has no gates: nothing was judged.")
    of = f"of {len(gates)} gate{'s' * (len(gates) > 1)}"
    verb = "is" if len(unsure) == 1 else "are"
    if failing:
        rest = f"; {len(unsure)} {verb} inconclusive" if unsure else ""
        text = f"{len(failing)} {of} fail{'s' * (len(failing) == 1)}: {_named(failing)}{rest}."
        return Conclusion(word="fails", sentence=text)
    if unsure:
        text = f"No gate fails, but {len(unsure)} {of} {verb} inconclusive, which is not a pass: {_named(unsure)}."
        return Conclusion(word="inconclusive", sentence=text)
    text = "The only gate holds." if len(gates) == 1 else f"All {len(gates)} gates hold."
    first = baseline(report)
    if first is not None and first.dice is not None and first.dice < LITTLE:
        text = f"{text[:-1]}, but the baseline has little skill: its mean foreground Dice is {fixed(first.dice)}."
    return Conclusion(word="holds", sentence=text)


def _named(gates: Sequence[Json]) -> str:
    more = f" and {len(gates) - 3} more" if len(gates) > 3 else ""
    return ", ".join(map(named, gates[:3])) + more


def named(gate: Json) -> str:
    """A gate with its class, and where it is judged."""
    of = f" of {gate['class']}" if gate["class"] else ""
    return f"{title(gate)}{of}{f' on {where(gate)}' if where(gate) else ''}"


def title(gate: Json) -> str:
    """A gate's name, and what its ratio is over where the recipe says it."""
    return f"{gate['name']} over {gate['over']}" if gate.get("over") else str(gate["name"])


def where(gate: Json) -> str:
    """Backend and device of a gate; empty if it is for the whole run."""
    backend, device = gate["backend"], gate["device"]
    return f"{backend} ({device})" if backend and device else backend or device or ""


def in_numbers(gate: Json) -> tuple[str, str, str]:
    """Value, upper limit and limit as text, with the digits it takes to see on which side of the limit they lie."""
    limit = float(gate["limit"])
    bound = "at least" if gate.get("bound", "at_most") == "at_least" else "at most"
    value, upper = (_beside(number(gate[key]), limit) for key in ("value", "upper"))
    return value, upper, f"{bound} {limit:g}"


def _beside(value: float | None, limit: float) -> str:
    if value is None:
        return NOTHING
    places = 2 if abs(limit) >= 1 else 4
    while places < 9 and _side(round(value, places), limit) != _side(value, limit):
        places += 1
    return f"{value:.{places}f}"


def _side(value: float, limit: float) -> int:
    return (value > limit) - (value < limit)
