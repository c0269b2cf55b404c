"""On which processors an artifact answers as it did where it was measured, and what is expected on the others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from export.artifact import Artifact
from export.backend import Backend, Emulator
from export.instruction_set import InstructionSet
from export.quantization.saturation import LARGEST_SUM
from export.target import Target

if TYPE_CHECKING:
    from compress.data.dataset.cases import Case
    from compress.task import Task

EMULATED = 20
"""Test cases on which another processor is emulated: a second or so each."""


@dataclass(frozen=True, kw_only=True)
class Processors:
    """What a report says of an artifact for CPUs."""

    measured_on: str
    """The instruction set that this host's runtimes take for integers, such as "AMX"."""
    same_on: Sequence[str]
    """Instruction sets on which its integer layers are proven to answer alike."""
    differs_on: Sequence[str]
    """Those on which they may not."""
    why: str
    unsafe: dict[str, int]
    """Layers whose sums can leave 16 bits, and in how many output channels."""
    expected: dict[str, float] | None = None
    """Emulated on those that differ: mean Dice there and here, and on how many test cases."""


def processors(
    backend: Backend, target: Target, artifact: Artifact, task: Task, cases: Sequence[Case]
) -> dict[str, Any] | None:
    """What is proven of an artifact or, where it can be, emulated; None if it is not for a CPU."""
    if backend.device.kind != "cpu" or backend.runs_modules:
        return None
    here, known, sums = target.instruction_set(), target.family(), artifact.made.get("pair_sums")
    unsafe = sums["unsafe"] if sums else {}
    same = [each for each in known if each.exact_sums or not unsafe]
    told = Processors(
        measured_on=here.title,
        same_on=_titles(same),
        differs_on=_titles([each for each in known if each not in same]),
        why=_why(sums, artifact),
        unsafe=dict(unsafe),
        expected=_expected(backend, artifact, task, cases) if unsafe and here.exact_sums else None,
    )
    return asdict(told)


def _titles(known: Sequence[InstructionSet]) -> list[str]:
    return [each.title for each in known]


def _why(sums: Any, artifact: Artifact) -> str:
    if not sums and "half" in artifact.made:
        return (
            "no layer multiplies 8-bit integers; layers in 16 bits round their answers where a CPU has kernels for "
            "them, and not where it computes them in float32"
        )
    if not sums:
        return "no layer multiplies 8-bit integers: float sums differ in their last bits at most"
    if not sums["unsafe"]:
        return (
            f"proven: no sum of two products in its {sums['layers']} integer layers exceeds {sums['largest']:,}, "
            f"and 16 bits hold {LARGEST_SUM:,}"
        )
    channels = sum(sums["unsafe"].values())
    return (
        f"{len(sums['unsafe'])} of {sums['layers']} integer layers ({channels} channels) have sums of two products up "
        f"to {sums['largest']:,}, which 16 bits cut off at {LARGEST_SUM:,}"
    )


def _expected(backend: Backend, artifact: Artifact, task: Task, cases: Sequence[Case]) -> dict[str, float] | None:
    if not isinstance(backend, Emulator):
        # OpenVINO takes another kernel for every shape; its sums are not emulated.
        return None
    some = cases[:EMULATED]
    with (
        backend.open(artifact) as infer,
        backend.open_as(artifact, pairs_in_16_bits=True) as elsewhere,
    ):
        here, there = (task.measure(each, cases=some).mean("dice") for each in (infer, elsewhere))
    return {"dice_there": round(there, 6), "dice_here": round(here, 6), "cases": len(some)}
