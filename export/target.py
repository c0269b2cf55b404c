"""A target: a device and how it is reached, so that what runs on it runs there, and is timed and watched there."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from export.artifact import Artifact, Infer
from export.backend import Backend
from export.clock import Turn, timed
from export.device import Device
from export.errors import NotHere
from export.host import boot_id, conditions, host_facts, usable_cpus
from export.instruction_set import InstructionSet, family, instruction_set
from export.registry import backends_of, find_backend, words
from export.remote.watchers import Watcher, WatcherHere

if TYPE_CHECKING:
    from torch import nn

Load = Callable[[Path], "nn.Module"]
"""Makes the module of a file of weights; a function that a module has under its name, so that others can import it."""
Command = list[str]
"""A program and its arguments."""
Peak = Command | Callable[[], float]
"""What tells the peak memory (MB) of a process: a program of this host that prints it, or what asks another machine."""


class Target(Protocol):
    """Where a backend builds, runs, times and watches memory: the same calls whether the device is here or elsewhere.

    Every question about the device is asked of it. Whether the device is here is checked in `open`, and nowhere else.
    """

    @property
    def device(self) -> Device: ...

    @property
    def backends(self) -> Sequence[str]:
        """The runtimes that are built for it and run on it."""
        ...

    @property
    def threads(self) -> int:
        """CPU threads that each runtime is given.

        Raises:
            SurroundingsError: if that is the device's to say, and it is not reached.
        """
        ...

    @property
    def is_this_host(self) -> bool:
        """Whether what is timed in this process is timed on the device."""
        ...

    @property
    def machine(self) -> str:
        """What is one for all devices of one machine: they are measured one after the other, and timed in turns."""
        ...

    @property
    def identity(self) -> tuple[object, ...]:
        """What tells the machine that is reached from another that had its name before; nothing of this host."""
        ...

    def check_here(self) -> None:
        """Whether the device is reached.

        Raises:
            NotHere: if it is not there, with the reason, as a report prints it.
            SurroundingsError: if its host is not reached.
        """
        ...

    def build(self, word: str, onnx: Artifact, folder: Path) -> Artifact:
        """What the runtime `word` makes of an ONNX file for the device, in `folder` of this host.

        The device itself need not be reached, unless the runtime builds only there.

        Raises:
            BackendError: naming the node the runtime refuses, and its reason.
            NotHere: if the runtime builds only beside a device that is not here.
        """
        ...

    def open(self, word: str) -> Backend:
        """The runtime `word` on the device, where whatever is asked of it is done.

        Raises:
            NotHere: if the device is not reached, or the runtime does not compute on it.
        """
        ...

    def time(self, infer: Infer, images: Sequence[NDArray[np.float32]], turn: Turn) -> list[float]:
        """The milliseconds of each inference of a turn on the device.

        Args:
            infer: opened by a backend of this target.
            images: BCHW each; inputs are taken from them in order, over and over.
        """
        ...

    @property
    def watcher(self) -> Watcher:
        """What tells of power, heat and throttling there, and sets the power mode."""
        ...

    def peak_memory(self, word: str, artifact: Artifact) -> Peak:
        """What tells the peak memory (MB) of a process which runs the artifact on the device.

        Raises:
            NotHere: as `open`.
        """
        ...

    def facts(self) -> dict[str, Any]:
        """What a reader must know of the machine that has the device to compare times: CPU, threads, system."""
        ...

    def conditions(self) -> dict[str, Any]:
        """What that machine is like now: clock, governor, temperature, load; null where it does not say."""
        ...

    def instruction_set(self) -> InstructionSet:
        """The one that its CPU's runtimes take for integers."""
        ...

    def family(self) -> Sequence[InstructionSet]:
        """Every instruction set of its CPU's family."""
        ...

    @property
    def sent_bytes(self) -> int:
        """What travelled to the device in this process; nothing to this host."""
        ...

    @property
    def answered_bytes(self) -> int:
        """What travelled back from it."""
        ...

    def stop(self) -> None:
        """End whatever another thread asks of the device, which is asked nothing more until it is closed."""
        ...

    def close(self) -> None:
        """Leave the device; whatever is asked of it next reaches it anew."""
        ...


def target_of(device: Device, threads: int | None, load: Load) -> Target:
    """How a device is reached.

    Args:
        threads: CPU threads of each runtime; None takes every CPU that may be used where the device is.
        load: makes the module of a file of weights, for the runtimes that run modules.
    """
    if device.reach.at is not None:
        from export.remote.target import RemoteTarget

        return RemoteTarget(device=device, given_threads=threads)
    return LocalTarget(device=device, threads=threads or usable_cpus(), load=load)


@dataclass(frozen=True, kw_only=True)
class LocalTarget:
    """A device of this host; one that this host does not have is built for, and not opened."""

    device: Device
    threads: int
    load: Load

    @property
    def backends(self) -> Sequence[str]:
        return backends_of(self.device)

    @property
    def is_this_host(self) -> bool:
        return True

    @property
    def machine(self) -> str:
        return boot_id() or "this host"

    @property
    def identity(self) -> tuple[object, ...]:
        return ()

    @property
    def sent_bytes(self) -> int:
        return 0

    @property
    def answered_bytes(self) -> int:
        return 0

    def stop(self) -> None:
        """See `Target`; nothing is asked elsewhere."""

    def close(self) -> None:
        """See `Target`; nothing is held."""

    def check_here(self) -> None:
        """See `Target`."""
        self.device.check_here()

    def build(self, word: str, onnx: Artifact, folder: Path) -> Artifact:
        """See `Target`."""
        return self._backend(word).build(onnx, folder)

    def open(self, word: str) -> Backend:
        """See `Target`."""
        self.check_here()
        backend = self._backend(word)
        if self.device.kind not in backend.runs_on:
            raise NotHere(f"{word} does not run on {self.device.title}")
        return backend

    def time(self, infer: Infer, images: Sequence[NDArray[np.float32]], turn: Turn) -> list[float]:
        """See `Target`."""
        return timed(lambda number: infer(images[number % len(images)]), turn)

    @property
    def watcher(self) -> Watcher:
        return WatcherHere(kind=self.device.kind, reach=self.device.reach)

    def peak_memory(self, word: str, artifact: Artifact) -> Command:
        """See `Target`."""
        self.open(word)
        return _peak_memory(self, word, artifact)

    def facts(self) -> dict[str, Any]:
        """See `Target`."""
        return host_facts(self.threads)

    def conditions(self) -> dict[str, Any]:
        """See `Target`."""
        return conditions()

    def instruction_set(self) -> InstructionSet:
        """See `Target`."""
        return instruction_set()

    def family(self) -> Sequence[InstructionSet]:
        """See `Target`."""
        return family()

    def _backend(self, word: str) -> Backend:
        kind: Any = find_backend(word)
        more = {"load": self.load} if kind.runs_modules else {}
        backend: Backend = kind(device=self.device, threads=self.threads, **more)
        return backend


def _peak_memory(target: LocalTarget, word: str, artifact: Artifact) -> Command:
    """The program that runs on a device too, which imports nothing but the runtime; else export/peak_memory.py, which
    imports the function that loads modules by its name.
    """
    if word in words("export.sessions"):
        given: dict[str, object] = {"runtime": word, "path": str(artifact.path), "shape": artifact.input.shape}
        given |= {"threads": target.threads, "kind": target.device.processor}
        return [sys.executable, "-m", "export.remote.runner", json.dumps(given)]
    load = f"{target.load.__module__}:{target.load.__qualname__}"
    record = json.dumps({**asdict(artifact), "path": str(artifact.path)})
    return [sys.executable, "-m", "export.peak_memory", word, target.device.name, str(target.threads), load, record]
