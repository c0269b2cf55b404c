"""How many layers a DLA core leaves to the GPU: TensorRT says so in the log of a build, and nowhere else."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, ClassVar

from pydantic import Field
from pydantic.dataclasses import dataclass

from compress.gates.judging.artifacts import each_built
from compress.gates.judging.beforehand import not_built, nowhere, where
from compress.gates.judging.options import OPTIONS, OneBackend, OneDevice
from compress.gates.judging.scene import Scene
from compress.gates.judging.verdict import Bound, Outcome, Verdict, at_most, inconclusive
from compress.measure.row import Row
from export.reach import DLA
from export.registry import find_backend

SHOWN = 5
"""Names of layers in a reason."""


@dataclass(frozen=True, kw_only=True, config=OPTIONS)
class Fallback:
    """Holds where at most so many layers of the network run on the GPU instead of the DLA core.

    Artifacts for DLA cores are judged; where there is none, it says so and does not hold.
    """

    title: ClassVar[str] = "fallback"
    reads_scores: ClassVar[bool] = False

    at_most: Annotated[int, Field(ge=0)]
    device: OneDevice = None
    backend: OneBackend = None

    cannot_hold = not_built

    def never_holds(self, scene: Scene) -> Iterator[str]:
        """What it limits is told of DLA cores alone."""
        yield from nowhere(self, scene)
        judged = where(self, scene)
        if judged and not any(DLA in spot.device for spot in judged):
            devices = ", ".join(dict.fromkeys(spot.device for spot in judged))
            yield (
                f"never holds: it judges DLA cores, and {devices} is none; give a device with dla: 0, such as "
                "agx_orin: {at: HOST, dla: 0}"
            )

    @property
    def bound(self) -> Bound:
        return at_most(self.at_most)

    def __call__(self, rows: Sequence[Row]) -> list[Verdict]:
        on_cores = [row for row in rows if _is_on_core(row)]
        return each_built(self, on_cores or rows, lambda row: [self._outcome(row)])

    def _outcome(self, row: Row) -> Outcome:
        if row.fallback is None:
            return inconclusive(
                "not measured: nothing says which of its layers run on a DLA core; give device: NAME+dla0"
            )
        found = self.bound.outcome(row.fallback["layers"])
        names = ", ".join(row.fallback["names"][:SHOWN])
        more = len(row.fallback["names"]) - SHOWN
        reason = f"on the GPU: {names}{f' and {more} more' if more > 0 else ''}" if names else ""
        return Outcome(ruling=found.ruling, value=found.value, reason=reason)


def _is_on_core(row: Row) -> bool:
    return DLA in row.device and "dla" in find_backend(row.backend).runs_on
