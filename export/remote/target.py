"""A device that is reached over SSH: what is built here is sent there once, and opened there."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from export.artifact import Artifact, Infer
from export.backend import Backend
from export.clock import Turn
from export.device import Device, Kind
from export.engines.wanted import times_of_trtexec
from export.errors import NotHere
from export.instruction_set import InstructionSet, family, widest
from export.profile import NodeTime, Profile
from export.quantization.rules import Rules
from export.registry import backends_of, find_backend, is_for_signs
from export.remote import answers
from export.remote.building import built_there
from export.remote.conversation import Conversation
from export.remote.device import RemoteDevice
from export.remote.infer import RemoteInfer, content, content_bytes
from export.remote.watchers import Watcher, WatcherThere


@dataclass(frozen=True, kw_only=True)
class RemoteTarget:
    """A device at a host; everything that is said of it, it says itself."""

    device: Device
    given_threads: int | None = None
    """CPU threads of each runtime; None takes every CPU that may be used there."""

    @property
    def is_this_host(self) -> bool:
        return False

    @property
    def backends(self) -> tuple[str, ...]:
        """Those that run a file: nothing is installed there, and a module of torch is no file."""
        return tuple(word for word in backends_of(self.device) if _runs_elsewhere(word))

    @property
    def threads(self) -> int:
        return self.remote.threads

    @property
    def machine(self) -> str:
        return self._told.boot_id or self.remote.host

    @property
    def identity(self) -> tuple[object, ...]:
        """See `Target`."""
        return self._told.identity

    def check_here(self) -> None:
        """See `Target`."""
        fault = _another(self.device, self._told)
        if fault is not None:
            raise NotHere(f"{self.remote.host}{fault}")

    def build(self, word: str, onnx: Artifact, folder: Path) -> Artifact:
        """See `Target`; a runtime whose files run on every machine builds them here."""
        backend: Any = self._kind(word)(device=self.device, threads=1)
        if not backend.builds_on_device:
            return cast(Artifact, backend.build(onnx, folder))
        self.open(word)
        return built_there(self.remote, backend, word, onnx, folder)

    def open(self, word: str) -> Backend:
        """See `Target`."""
        self.check_here()
        if self.device.kind not in self._kind(word).runs_on:
            raise NotHere(f"{word} does not run on {self.device.title}")
        told, host = self._told, self.remote.host
        if word not in told.runtimes:
            python = f"{told.executable} (Python {told.python})"
            if word in told.broken:
                raise NotHere(f"{host}: {word} of {python} cannot be used ({told.broken[word]})")
            has = ", ".join(told.runtimes) or "no runtime"
            raise NotHere(f"{host}: {python} has no {word}; it has {has}; name another: python: or --python PATH")
        return cast(Backend, RemoteBackend(word=word, target=self))

    def time(self, infer: Infer, images: Sequence[NDArray[np.float32]], turn: Turn) -> list[float]:
        """See `Target`."""
        assert isinstance(infer, RemoteInfer)
        return infer.time(images, turn)

    @property
    def watcher(self) -> Watcher:
        return WatcherThere(kind=self.device.kind, reach=self.device.reach, conversation=self._conversation)

    def peak_memory(self, word: str, artifact: Artifact) -> Callable[[], float]:
        """See `Target`."""
        self.open(word)

        def ask() -> float:
            request = {"do": "peak_memory", **self.remote.opening(word, artifact)}
            told, _ = self._conversation.ask(answers.PeakMemory, request)
            return float(told.peak_memory_mb)

        return ask

    def facts(self) -> dict[str, Any]:
        """See `Target`."""
        told = self._told
        plain = ("cpu", "cpus", "os", "machine", "isa", "board", "hostname", "memory_mb", "python", "l4t")
        return {**{name: getattr(told, name) for name in plain}, "threads": self.threads, "at": self.remote.host}

    def conditions(self) -> dict[str, Any]:
        """See `Target`."""
        return self._conversation.ask(answers.Conditions, {"do": "conditions"})[0].conditions

    def instruction_set(self) -> InstructionSet:
        """See `Target`."""
        return widest(self._told.flags)

    def family(self) -> tuple[InstructionSet, ...]:
        """See `Target`."""
        return family(self._told.machine)

    def stop(self) -> None:
        """See `Target`."""
        self._conversation.stop()

    def close(self) -> None:
        """See `Target`; the runner there ends with the conversation."""
        self._conversation.close()

    @property
    def sent_bytes(self) -> int:
        """What travelled there in this run: each file and each input at most once."""
        return self._conversation.sent_bytes

    @property
    def answered_bytes(self) -> int:
        """What travelled back in this run: labels, or logits where labels do not say enough, and engines."""
        return self._conversation.answered_bytes

    @property
    def remote(self) -> RemoteDevice:
        """The device, for whatever asks something of it."""
        return RemoteDevice(device=self.device, given_threads=self.given_threads)

    @property
    def _told(self) -> answers.Facts:
        return self.remote.told

    @property
    def _conversation(self) -> Conversation:
        return self.remote.conversation

    @staticmethod
    def _kind(word: str) -> Any:
        return find_backend(word)


@dataclass(frozen=True, kw_only=True)
class RemoteBackend:
    """A runtime on a device that is reached: what it is, its own file says; what it does is done there."""

    word: str
    target: RemoteTarget

    @property
    def _remote(self) -> RemoteDevice:
        return self.target.remote

    @property
    def device(self) -> Device:
        return self.target.device

    @property
    def threads(self) -> int:
        return self.target.threads

    @property
    def rules(self) -> Rules | None:
        return find_backend(self.word).rules

    @property
    def runs_on(self) -> frozenset[Kind]:
        return find_backend(self.word).runs_on

    @property
    def runs_modules(self) -> bool:
        return False

    @property
    def builds_on_device(self) -> bool:
        return find_backend(self.word).builds_on_device

    @property
    def libraries(self) -> tuple[str, ...]:
        return find_backend(self.word).libraries

    @staticmethod
    def check_installed() -> None:
        """Always: what is installed there was asked when it was opened."""

    def build(self, onnx: Artifact, folder: Path) -> Artifact:
        """See `Backend`."""
        return self.target.build(self.word, onnx, folder)

    @contextmanager
    def open(self, artifact: Artifact) -> Iterator[Infer]:
        """The artifact, sent where it is not there yet, and opened there."""
        artifact.verify()
        infer = RemoteInfer(remote=self._remote, word=self.word, artifact=artifact)
        try:
            infer.opened()
        except NotHere as error:
            raise NotHere(f"{error}{times_of_trtexec(artifact.made)}") from None
        try:
            yield infer
        finally:
            infer.close()

    def flags(self) -> dict[str, object]:
        """What was set, for the report."""
        kind: Any = find_backend(self.word)
        return {
            **kind(device=self.device, threads=self.threads).flags(),
            "version": self._remote.told.runtimes[self.word],
        }

    def profile(self, artifact: Artifact, image_BCHW: NDArray[np.float32], runs: int = 20) -> Profile:
        """How long each node takes there, by the runtime's own counters."""
        artifact.verify()
        conversation = self._remote.conversation
        image = content(image_BCHW)
        conversation.send({image: partial(content_bytes, image_BCHW)})
        request = {
            "do": "profile",
            **self._remote.opening(self.word, artifact),
            "input": image,
            "input_shape": list(image_BCHW.shape),
            "runs": runs,
        }
        told = conversation.ask(answers.Profiled, request)[0].profile
        nodes = (
            NodeTime(names=tuple(node.names), kind=node.kind, microseconds=node.microseconds, precision=node.precision)
            for node in told.nodes
        )
        return Profile(nodes=tuple(nodes), whole_us=told.whole_us)

    def fallback(self, artifact: Artifact) -> Mapping[str, Any]:
        """Which nodes the runtime there left to another processor."""
        artifact.verify()
        request = {"do": "fallback", **self._remote.opening(self.word, artifact)}
        told = self._remote.conversation.ask(answers.FallbackThere, request)[0].fallback
        return told.model_dump(exclude_none=True)

    def executed_precisions(self, artifact: Artifact) -> Mapping[str, int]:
        """How many convolutions run in each precision, as the runtime there tells."""
        artifact.verify()
        request = {"do": "executed", **self._remote.opening(self.word, artifact)}
        return self._remote.conversation.ask(answers.Executed, request)[0].executed


def _another(device: Device, told: answers.Facts) -> str | None:
    """What a host is that is not this device, behind its name; None where it can be."""
    if device.model is not None and device.model not in (told.board or ""):
        return f" is {told.board or f'a machine with {told.cpu}'}, and no {device.word}"
    if device.model is not None and not device.has_memory(told.memory_mb):
        return f" is {told.board} with {told.memory_mb} MB of memory, and {device.word} has {device.memory_gb} GB"
    if device.exact_sums and not (known := widest(told.flags)).exact_sums:
        return f": its CPU has neither AVX-512 VNNI nor AMX: it is {known.title}"
    return None


def _runs_elsewhere(word: str) -> bool:
    """Not what runs modules; and our kernels are compiled on this host, for its own processor."""
    return not find_backend(word).runs_modules and not is_for_signs(word)
