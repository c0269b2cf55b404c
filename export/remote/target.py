"""A device that is reached over SSH: what is built here is sent there once, run there, and timed there."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from export.artifact import Artifact, Infer
from export.backend import Backend
from export.clock import Turn
from export.device import Device, Kind
from export.engines.wanted import times_of_trtexec
from export.errors import NotHere, SurroundingsError
from export.files import sha256
from export.instruction_set import InstructionSet, family, widest
from export.profile import NodeTime, Profile
from export.quantization.rules import Rules
from export.registry import backends_of, find_backend
from export.remote import answers
from export.remote.building import built_there
from export.remote.conversation import Conversation, with_runner
from export.remote.watchers import Watcher, WatcherThere

SLACK_MS = 50.0
"""What a clock there may tell more than the whole request took by the clock here."""


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
        return tuple(word for word in backends_of(self.device) if not find_backend(word).runs_modules)

    @property
    def threads(self) -> int:
        return self.given_threads or self._told.cpus

    @property
    def machine(self) -> str:
        return self._told.boot_id or self._host

    @property
    def identity(self) -> tuple[object, ...]:
        """See `Target`."""
        return self._told.identity

    def check_here(self) -> None:
        """See `Target`."""
        model, board = self.device.model, self._told.board
        if model is not None and model not in (board or ""):
            raise NotHere(f"{self._host} is {board or f'a machine with {self._told.cpu}'}, and no {self.device.word}")
        if model is not None and not self.device.has_memory(self._told.memory_mb):
            has, wants = self._told.memory_mb, self.device.memory_gb
            raise NotHere(f"{self._host} is {board} with {has} MB of memory, and {self.device.word} has {wants} GB")
        if self.device.exact_sums and not (known := self.instruction_set()).exact_sums:
            raise NotHere(f"{self._host}: its CPU has neither AVX-512 VNNI nor AMX: it is {known.title}")

    def build(self, word: str, onnx: Artifact, folder: Path) -> Artifact:
        """See `Target`; a runtime whose files run on every machine builds them here."""
        backend: Any = self._kind(word)(device=self.device, threads=1)
        if not backend.builds_on_device:
            return cast(Artifact, backend.build(onnx, folder))
        self.open(word)
        return built_there(self, backend, word, onnx, folder)

    def open(self, word: str) -> Backend:
        """See `Target`."""
        self.check_here()
        if self.device.kind not in self._kind(word).runs_on:
            raise NotHere(f"{word} does not run on {self.device.title}")
        if word not in self._told.runtimes:
            has = ", ".join(self._told.runtimes) or "no runtime"
            python = f"{self._told.executable} (Python {self._told.python})"
            raise NotHere(f"{self._host}: {python} has no {word}; it has {has}; name another: python: or --python PATH")
        return cast(Backend, RemoteBackend(word=word, target=self))

    def time(self, infer: Infer, images: Sequence[NDArray[np.float32]], turn: Turn) -> list[float]:
        """See `Target`."""
        assert isinstance(infer, RemoteInfer)
        return infer.time(images, turn)

    @property
    def watcher(self) -> Watcher:
        return WatcherThere(reach=self.device.reach, conversation=self._conversation)

    def peak_memory(self, word: str, artifact: Artifact) -> Callable[[], float]:
        """See `Target`."""
        self.open(word)

        def ask() -> float:
            told, _ = self._conversation.ask(answers.PeakMemory, {"do": "peak_memory", **self.opening(word, artifact)})
            return float(told.peak_memory_mb)

        return ask

    def facts(self) -> dict[str, Any]:
        """See `Target`."""
        told = self._told
        plain = ("cpu", "cpus", "os", "machine", "isa", "board", "hostname", "memory_mb", "python", "l4t")
        return {**{name: getattr(told, name) for name in plain}, "threads": self.threads, "at": self._host}

    def conditions(self) -> dict[str, Any]:
        """See `Target`."""
        return self._conversation.ask(answers.Conditions, {"do": "conditions"})[0].conditions

    def instruction_set(self) -> InstructionSet:
        """See `Target`."""
        return widest(self._told.flags)

    def family(self) -> tuple[InstructionSet, ...]:
        """See `Target`."""
        return family(self._told.machine)

    def close(self) -> None:
        """See `Target`; the runner there ends with the conversation."""
        self._conversation.close()

    @property
    def sent_bytes(self) -> int:
        """What travelled there in this run: each file and each input at most once."""
        return self._conversation.sent_bytes

    def opening(self, word: str, artifact: Artifact) -> dict[str, Any]:
        """What the runner is told to open, whose files are there then."""
        files = {file.name: sha256(file) for file in artifact.files}
        self.send({files[file.name]: file.read_bytes for file in artifact.files})
        return {
            "runtime": word,
            "files": files,
            "file": artifact.path.name,
            "threads": self.threads,
            "kind": self.device.processor,
            "shape": list(artifact.input.shape),
        }

    def send(self, contents: dict[str, Callable[[], bytes]]) -> None:
        """Send what is not there yet.

        Args:
            contents: what gives each content, by its SHA-256.
        """
        conversation = self._conversation
        unsure = [each for each in contents if each not in conversation.there]
        if not unsure:
            return
        for each in conversation.ask(answers.Missing, {"do": "missing", "sha256": unsure})[0].missing:
            conversation.ask(answers.Kept, {"do": "put", "sha256": each}, contents[each]())
        conversation.there.update(unsure)

    @property
    def _host(self) -> str:
        assert self.device.reach.at is not None
        return self.device.reach.at

    @property
    def _conversation(self) -> Conversation:
        return with_runner(self._host, self.device.reach.python)

    @cached_property
    def _told(self) -> answers.Facts:
        return self._conversation.ask(answers.ToldFacts, {"do": "facts"})[0].facts

    @staticmethod
    def _kind(word: str) -> Any:
        return find_backend(word)


@dataclass(frozen=True, kw_only=True)
class RemoteBackend:
    """A runtime on a device that is reached: what it is, its own file says; what it does is done there."""

    word: str
    target: RemoteTarget

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
        infer = RemoteInfer(target=self.target, word=self.word, artifact=artifact)
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
            "version": self.target._told.runtimes[self.word],
        }

    def profile(self, artifact: Artifact, image_BCHW: NDArray[np.float32], runs: int = 20) -> Profile:
        """How long each node takes there, by the runtime's own counters."""
        artifact.verify()
        conversation = self.target._conversation
        image = _content(image_BCHW)
        self.target.send({image: partial(_bytes, image_BCHW)})
        request = {
            "do": "profile",
            **self.target.opening(self.word, artifact),
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

    def executed_precisions(self, artifact: Artifact) -> Mapping[str, int]:
        """How many convolutions run in each precision, as the runtime there tells."""
        artifact.verify()
        request = {"do": "executed", **self.target.opening(self.word, artifact)}
        return self.target._conversation.ask(answers.Executed, request)[0].executed


@dataclass(kw_only=True)
class RemoteInfer:
    """An artifact that is open on a device: logits_BKHW = infer(image_BCHW), computed there."""

    target: RemoteTarget
    word: str
    artifact: Artifact
    _opened: tuple[object, int] | None = None
    """In which conversation, and under which number."""
    _hashes: dict[int, tuple[NDArray[np.float32], str]] = field(default_factory=dict)
    """Of the inputs that were timed last: computed once, and kept with the input so that no other has its id."""

    def __call__(self, image_BCHW: NDArray[np.float32]) -> NDArray[np.float32]:
        content, handle = _content(image_BCHW), self.opened()
        self.target.send({content: partial(_bytes, image_BCHW)})
        request = {"do": "infer", "handle": handle, "input": content, "shape": list(image_BCHW.shape)}
        told, payload = self._conversation.ask(answers.Inferred, request)
        if (told.handle, told.input) != (handle, content):
            raise SurroundingsError(f"{self._host}: answered for another artifact, or another input")
        if len(payload) != 4 * math.prod(told.shape):
            raise SurroundingsError(f"{self._host}: answered {len(payload):,} bytes for logits of shape {told.shape}")
        return np.frombuffer(payload, "<f4").reshape(told.shape).astype(np.float32)

    def time(self, images: Sequence[NDArray[np.float32]], turn: Turn) -> list[float]:
        """The milliseconds of each inference of a turn, by the device's clock."""
        given = self._given(images)
        request = {
            "do": "time",
            **given,
            "first": turn.first,
            "count": turn.count,
            "untimed": turn.untimed,
            "seconds": None if math.isinf(turn.seconds) else turn.seconds,
        }
        begun = time.perf_counter()
        told, _ = self._conversation.ask(answers.Times, request)
        took_ms = (time.perf_counter() - begun) * 1000
        if told.handle != given["handle"] or len(told.ms) > turn.count:
            raise SurroundingsError(f"{self._host}: answered times of another artifact, or more than were asked for")
        if sum(told.ms) > took_ms + SLACK_MS:
            raise SurroundingsError(
                f"{self._host}: answered times of {sum(told.ms):.0f} ms, within {took_ms:.0f} ms: its clock is wrong"
            )
        return told.ms

    def watch(self, images: Sequence[NDArray[np.float32]], soak: float | None) -> dict[str, Any]:
        """What the device tells of power, heat and clocks while it runs; see `Target.watch`."""
        given = self._given(images)
        begun = time.perf_counter()
        told, _ = self._conversation.ask(
            answers.WatchedThere, {"do": "watch", **given, "soak": soak, "kind": self.target.device.kind}
        )
        took = time.perf_counter() - begun + SLACK_MS / 1000
        if told.handle != given["handle"] or (told.watched is not None and told.watched.seconds > took):
            raise SurroundingsError(
                f"{self._host}: answered what it saw of another artifact, or of a time that was not"
            )
        return answers.seen(told)

    def _given(self, images: Sequence[NDArray[np.float32]]) -> dict[str, Any]:
        """What a request says of the artifact and its inputs, which are there then."""
        inputs, handle = [self._hash(image) for image in images], self.opened()
        self.target.send({each: partial(_bytes, image) for each, image in zip(inputs, images, strict=True)})
        return {"handle": handle, "inputs": inputs, "shape": list(images[0].shape)}

    def opened(self) -> int:
        """The number that it is open under; opened again where the conversation is another one."""
        if self._opened is None or self._opened[0] is not self._conversation.begun:
            request = {"do": "open", **self.target.opening(self.word, self.artifact)}
            told, _ = self._conversation.ask(answers.Opened, request)
            if told.sha256 != request["files"][self.artifact.path.name]:
                raise SurroundingsError(f"{self._host}: opened another artifact than the one that was sent")
            self._opened = self._conversation.begun, told.handle
        return self._opened[1]

    def close(self) -> None:
        """Let go of it there; where the conversation is over, it has let go."""
        if self._opened is not None and self._opened[0] is self._conversation.begun:
            # A link that ends here took nothing away but what was to be let go.
            with suppress(SurroundingsError):
                self._conversation.ask(answers.Closed, {"do": "close", "handle": self._opened[1]})
        self._opened = None

    def _hash(self, image_BCHW: NDArray[np.float32]) -> str:
        known = self._hashes.get(id(image_BCHW))
        if known is None:
            known = self._hashes[id(image_BCHW)] = (image_BCHW, _content(image_BCHW))
        return known[1]

    @property
    def _host(self) -> str:
        return self.target._host

    @property
    def _conversation(self) -> Conversation:
        return self.target._conversation


def _content(image_BCHW: NDArray[np.float32]) -> str:
    return hashlib.sha256(_bytes(image_BCHW)).hexdigest()


def _bytes(image_BCHW: NDArray[np.float32]) -> bytes:
    return np.ascontiguousarray(image_BCHW, dtype="<f4").tobytes()
