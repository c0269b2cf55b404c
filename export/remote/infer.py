"""An artifact that is open on a device over SSH: what it answers, how long it takes, what is seen meanwhile."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from export.artifact import Artifact
from export.clock import Turn
from export.errors import SurroundingsError
from export.remote import answers
from export.remote.conversation import Conversation
from export.remote.device import RemoteDevice
from export.remote.runner.packing import unpacked
from export.remote.runner.wire import MOST_BYTES

SLACK_MS = 50.0
"""What a clock there may tell more than the whole request took by the clock here."""


@dataclass(kw_only=True)
class RemoteInfer:
    """An artifact that is open on a device: logits_BKHW = infer(image_BCHW), computed there."""

    remote: RemoteDevice
    word: str
    artifact: Artifact
    _opened: tuple[object, int] | None = None
    """In which conversation, and under which number."""
    _hashes: dict[int, tuple[NDArray[np.float32], str]] = field(default_factory=dict)
    """Of the inputs that were timed last: computed once, and kept with the input so that no other has its id."""

    def __call__(self, image_BCHW: NDArray[np.float32]) -> NDArray[np.float32]:
        return self._answered("infer", answers.Inferred, image_BCHW, np.dtype("<f4")).astype(np.float32)

    def labels(self, image_BCHW: NDArray[np.float32]) -> NDArray[np.uint8]:
        """The class of every pixel (BHW), chosen there as it would be here (export/choice.py): it travels as a byte.

        Raises:
            NotHere: if a logit is not finite.
        """
        labels_BHW = self._answered("choose", answers.Chosen, image_BCHW, np.dtype(np.uint8))
        classes = max(2, self.artifact.output.shape[1])  # A sigmoid's one logit chooses between two.
        if labels_BHW.shape[0] != image_BCHW.shape[0] or labels_BHW.max(initial=0) >= classes:
            raise SurroundingsError(f"{self.remote.host}: answered labels of {classes} classes that cannot be")
        return labels_BHW

    def _answered(
        self, do: str, kind: type[answers.Inferred], image_BCHW: NDArray[np.float32], dtype: np.dtype[Any]
    ) -> NDArray[Any]:
        """What is answered to an image, in numbers of this kind."""
        sha256, handle = content(image_BCHW), self.opened()
        self._conversation.send({sha256: partial(content_bytes, image_BCHW)})
        request = {"do": do, "handle": handle, "input": sha256, "shape": list(image_BCHW.shape)}
        told, payload = self._conversation.ask(kind, request)
        if (told.handle, told.input) != (handle, sha256):
            raise SurroundingsError(f"{self.remote.host}: answered for another artifact, or another input")
        size = dtype.itemsize * math.prod(told.shape)
        if size > MOST_BYTES:
            raise SurroundingsError(f"{self.remote.host}: answered a shape that cannot be: {told.shape}")
        try:
            data = unpacked(payload, size, dtype.itemsize) if told.packed else payload
        except ValueError as error:
            raise SurroundingsError(
                f"{self.remote.host}: {error}; the same command goes on from what is done"
            ) from None
        if len(data) != size:
            raise SurroundingsError(
                f"{self.remote.host}: answered {len(data):,} bytes for an answer of shape {told.shape}"
            )
        return np.frombuffer(data, dtype).reshape(told.shape)

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
            raise SurroundingsError(
                f"{self.remote.host}: answered times of another artifact, or more than were asked for"
            )
        if sum(told.ms) > took_ms + SLACK_MS:
            raise SurroundingsError(
                f"{self.remote.host}: answered times of {sum(told.ms):.0f} ms, within {took_ms:.0f} ms: "
                "its clock is wrong"
            )
        return told.ms

    def watch(self, images: Sequence[NDArray[np.float32]], soak: float | None) -> dict[str, Any]:
        """What the device tells of power, heat and clocks while it runs; see `Target.watch`."""
        given = self._given(images)
        begun = time.perf_counter()
        told, _ = self._conversation.ask(
            answers.WatchedThere, {"do": "watch", **given, "soak": soak, "kind": self.remote.device.kind}
        )
        took = time.perf_counter() - begun + SLACK_MS / 1000
        if told.handle != given["handle"] or (told.watched is not None and told.watched.seconds > took):
            raise SurroundingsError(
                f"{self.remote.host}: answered what it saw of another artifact, or of a time that was not"
            )
        return answers.seen(told)

    def _given(self, images: Sequence[NDArray[np.float32]]) -> dict[str, Any]:
        """What a request says of the artifact and its inputs, which are there then."""
        inputs, handle = [self._hash(image) for image in images], self.opened()
        self._conversation.send(
            {each: partial(content_bytes, image) for each, image in zip(inputs, images, strict=True)}
        )
        return {"handle": handle, "inputs": inputs, "shapes": [list(image.shape) for image in images]}

    def opened(self) -> int:
        """The number that it is open under; opened again where the conversation is another one."""
        if self._opened is None or self._opened[0] is not self._conversation.begun:
            request = {"do": "open", **self.remote.opening(self.word, self.artifact)}
            told, _ = self._conversation.ask(answers.Opened, request)
            if told.sha256 != request["files"][self.artifact.path.name]:
                raise SurroundingsError(f"{self.remote.host}: opened another artifact than the one that was sent")
            self._check_version(told.version)
            self._opened = self._conversation.begun, told.handle
        return self._opened[1]

    def _check_version(self, now: str) -> None:
        """What is said of the runtime must be so of what is measured."""
        was = self.remote.told.runtimes[self.word]
        if now != was:
            self._conversation.close()
            raise SurroundingsError(
                f"{self.remote.host}: {self.word} was {was} and is {now}: it was changed while this ran"
            )

    def close(self) -> None:
        """Let go of it there; where the conversation is over, it has let go."""
        if self._opened is not None and self._opened[0] is self._conversation.begun:
            # A link that ends here took nothing away but what was to be let go.
            with suppress(SurroundingsError):
                self._conversation.ask(answers.Closed, {"do": "close", "handle": self._opened[1]})
        self._opened = None

    @property
    def _conversation(self) -> Conversation:
        return self.remote.conversation

    def _hash(self, image_BCHW: NDArray[np.float32]) -> str:
        known = self._hashes.get(id(image_BCHW))
        if known is None:
            known = self._hashes[id(image_BCHW)] = (image_BCHW, content(image_BCHW))
        return known[1]


def content(image_BCHW: NDArray[np.float32]) -> str:
    """The name of an input: its SHA-256."""
    return hashlib.sha256(content_bytes(image_BCHW)).hexdigest()


def content_bytes(image_BCHW: NDArray[np.float32]) -> bytes:
    """An input as it is sent: 32-bit floats, the least significant byte first."""
    return np.ascontiguousarray(image_BCHW, dtype="<f4").tobytes()
