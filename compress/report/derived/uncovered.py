"""What a report says of layers that did not run in the precision asked for."""

from __future__ import annotations

from collections.abc import Iterator

from compress.report.derived.compared import Line, last_step
from compress.report.derived.recorded import Json

TITLE = "Layers that did not run in integers"
NOTE = (
    "Convolutions and multiplications of matrices of artifacts in integers, as their runtimes tell: what each ran in "
    "instead, and whether that was the recipe's choice, a rule for this runtime, or the runtime's own."
)
_SHOWN = 3


def rows(line: Line) -> Iterator[tuple[str, str, str, str]]:
    """For each reason: what layers ran in, how many, which, and why."""
    reasons: dict[tuple[str, str], list[str]] = {}
    for each in line.row.get("uncovered") or ():
        reasons.setdefault((each["ran"], each["why"]), []).append(each["layer"])
    for (ran, why), layers in reasons.items():
        yield ran, str(len(layers)), ", ".join(layers), why


def sentences(report: Json) -> list[str]:
    """For each artifact of the last step: which layers its runtime chose by itself not to run in integers."""
    found = []
    for line in last_step(report):
        own = [each["layer"] for each in line.row.get("uncovered") or () if "runtime itself chose" in each["why"]]
        if own:
            more = f" and {len(own) - _SHOWN} more" if len(own) > _SHOWN else ""
            found.append(
                f"{line.title}: of its layers in integers the runtime ran {len(own)} in float by its own choice "
                f"({', '.join(own[:_SHOWN])}{more})."
            )
    return found
