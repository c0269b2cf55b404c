"""What a runtime is to the rest: everything that is ever asked of one, whichever device runs it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from export.artifact import Artifact, Infer
from export.device import Device, Kind
from export.profile import Profile
from export.quantization.rules import Rules


class Backend(Protocol):
    """One runtime on one device: builds an artifact from ONNX, opens it, and tells what it was told.

    A file of export/backends/ has one, a frozen dataclass that is made with `device` and `threads`. It does not ask
    whether the device is here: its `Target` (export/target.py) does, before anything is run on it.
    """

    rules: ClassVar[Rules | None]
    """How it wants quantized networks written; None if it takes none."""
    runs_on: ClassVar[frozenset[Kind]]
    """The kinds of processor that it computes on."""
    runs_modules: ClassVar[bool]
    """Whether it runs the torch module itself, and no file made of ONNX: it is then made with the field `load` too."""
    builds_on_device: ClassVar[bool]
    """Whether what it builds is for one device and one version of the runtime, so that the device itself builds it."""
    libraries: ClassVar[tuple[str, ...]]
    """Installed packages whose versions decide what it builds and answers; those that are missing do not count."""

    @property
    def device(self) -> Device: ...

    @property
    def threads(self) -> int: ...

    @staticmethod
    def check_installed() -> None:
        """Whether what it needs is installed.

        Raises:
            MissingExtra: if not, with how to install it.
        """
        ...

    def build(self, onnx: Artifact, folder: Path) -> Artifact:
        """What this runtime makes of an ONNX file, in `folder`.

        Raises:
            BackendError: naming the node the runtime refuses, and its reason.
            NotHere: if it builds only beside a device that is not here.
        """
        ...

    def open(self, artifact: Artifact) -> AbstractContextManager[Infer]:
        """The artifact, loaded and ready.

        Raises:
            BackendError: if it is not the file that was built, or the runtime cannot load it.
            NotHere: if this installation of the runtime cannot run it, with the reason.
        """
        ...

    def flags(self) -> dict[str, object]:
        """What was set, for the report."""
        ...


@runtime_checkable
class Profiler(Protocol):
    """A backend that tells how long each node takes."""

    def profile(self, artifact: Artifact, image_BCHW: NDArray[np.float32], runs: int = 20) -> Profile:
        """By the runtime's own counters: medians over warm runs."""
        ...


@runtime_checkable
class Inspector(Protocol):
    """A backend that tells in what precision layers really run: that a file has Q/DQ in it proves no integer kernel."""

    def executed_precisions(self, artifact: Artifact) -> Mapping[str, int]:
        """How many convolutions and multiplications of matrices run in each precision ("INT8", "FP16", "FP32")."""
        ...


@runtime_checkable
class Partitioner(Protocol):
    """A backend whose runtime leaves to others, and says nothing of it, what its own processor does not take."""

    def fallback(self, artifact: Artifact) -> Mapping[str, Any]:
        """What it left: `layers` how many, `names` which, `taken` how many it took, `why` as far as it says.

        Raises:
            NotHere: if it has nothing to leave them to, as on a CPU.
        """
        ...


@runtime_checkable
class Tap(Protocol):
    """A backend that tells what it computes inside."""

    quick_to_tap: ClassVar[bool]
    """Whether this takes so little time that integer layers are always looked at."""

    def values(
        self, artifact: Artifact, image_BCHW: NDArray[np.float32], names: Collection[str]
    ) -> Mapping[str, NDArray[Any]]:
        """What it computes for these tensors of the ONNX file, outputs of nodes.

        Raises:
            BackendError: if it does not take the file with all of them as outputs.
        """
        ...


@runtime_checkable
class Emulator(Protocol):
    """A backend whose integers can be computed as another processor would."""

    def open_as(self, artifact: Artifact, *, pairs_in_16_bits: bool) -> AbstractContextManager[Infer]:
        """The artifact as an x86 CPU without VNNI answers (`pairs_in_16_bits`), or one with it."""
        ...
