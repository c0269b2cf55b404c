"""How many layers run elsewhere than was asked: what a DLA core leaves to the GPU, or CUDA and TensorRT to others.

TensorRT says so of a DLA core in the log of a build, and nowhere else; ONNX Runtime by the kernels that ran.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, ClassVar

from pydantic import Field
from pydantic.dataclasses import dataclass

from compress.gates.judging.artifacts import Located, each_built
from compress.gates.judging.beforehand import not_built, nowhere, where
from compress.gates.judging.options import OPTIONS, OneBackend, OneDevice
from compress.gates.judging.scene import Scene
from compress.gates.judging.verdict import Bound, Outcome, Verdict, at_most, inconclusive
from compress.measure.row import Row
from export.reach import DLA, word_of
from export.registry import find_backend, find_device, words

SHOWN = 5
"""Names of layers in a reason."""


@dataclass(frozen=True, kw_only=True, config=OPTIONS)
class Fallback:
    """Holds where at most so many layers of the network run on another processor, or by another provider.

    Judged are artifacts for DLA cores, and those that ONNX Runtime runs on a GPU; where there is none, it says so and
    does not hold.
    """

    title: ClassVar[str] = "fallback"
    reads_scores: ClassVar[bool] = False

    at_most: Annotated[int, Field(ge=0)]
    device: OneDevice = None
    backend: OneBackend = None

    cannot_hold = not_built

    def never_holds(self, scene: Scene) -> Iterator[str]:
        """What it limits is told of DLA cores, and by ONNX Runtime of GPUs."""
        yield from nowhere(self, scene)
        judged = where(self, scene)
        if judged and not any(DLA in spot.device or _is_told(spot) for spot in judged):
            titles = tuple(dict.fromkeys(spot.title for spot in judged))
            there = f"{', '.join(titles)} {'is' if len(titles) == 1 else 'are'} neither"
            yield (
                f"never holds: it judges DLA cores, and ONNX Runtime on GPUs, and {there}; give a device "
                "with dla: 0, such as agx_orin: {at: HOST, dla: 0}"
            )

    @property
    def bound(self) -> Bound:
        return at_most(self.at_most)

    def __call__(self, rows: Sequence[Row]) -> list[Verdict]:
        told = [row for row in rows if _is_told(row)]
        return each_built(self, told or rows, lambda row: [self._outcome(row)])

    def _outcome(self, row: Row) -> Outcome:
        if row.fallback is None:
            return inconclusive(
                "not measured: nothing says where its layers run; give device: NAME+dla0, or ONNX Runtime on a GPU"
            )
        found = self.bound.outcome(row.fallback["layers"])
        names = ", ".join(row.fallback["names"][:SHOWN])
        more = len(row.fallback["names"]) - SHOWN
        reason = f"elsewhere: {names}{f' and {more} more' if more > 0 else ''}" if names else ""
        return Outcome(ruling=found.ruling, value=found.value, reason=reason)


def _is_told(of: Located) -> bool:
    """Whether the runtime of an artifact tells what its processor does not take."""
    kind = find_backend(of.backend)
    if DLA in of.device:
        return "dla" in kind.runs_on
    word = word_of(of.device)
    return hasattr(kind, "fallback") and word in words("export.devices") and find_device(word).kind == "cuda"
