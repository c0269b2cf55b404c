"""Messages between a host and the runner on a device: one line of JSON each, and as many bytes behind it as it says.

Every message bears the nonce of its conversation, so that nothing from another is taken for an answer.
"""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass, field
from typing import Any, Callable, Iterator, Protocol

PROTOCOL = 1
LONGEST_LINE = 1 << 20
"""Bytes of a line."""
MOST_BYTES = 1 << 31
"""Bytes behind a line."""
PIECE = 1 << 16
"""Bytes that are read at once: what comes slowly is a sign of life too."""
BEAT = 5.0
"""Seconds between two signs of life, of either side."""
SILENCE = 60.0
"""Seconds without any sign of life after which the other side is taken for gone."""


class Broken(Exception):
    """What came is no message: its text says why."""


@dataclass(frozen=True)
class Message:
    """One message."""

    said: dict[str, Any]
    payload: bytes = field(default=b"", repr=False)


class Readable(Protocol):
    """What messages are read from."""

    def readline(self, limit: int = ..., /) -> bytes: ...
    def read(self, size: int = ..., /) -> bytes: ...


class Writable(Protocol):
    """What messages are written to."""

    def write(self, data: bytes, /) -> Any: ...
    def flush(self) -> None: ...


def messages(
    stream: Readable, nonce: str, most: int = MOST_BYTES, heard: Callable[[], object] = lambda: None
) -> Iterator[Message]:
    """The messages of a conversation, to its end.

    Args:
        most: bytes that may be behind a line.
        heard: is called whenever something came, also within a message that takes minutes.

    Raises:
        Broken: at the first that is none.
    """
    while True:
        line = stream.readline(LONGEST_LINE + 1)
        if not line:
            return
        said = _read(line, nonce)
        size = said.pop("bytes", 0)
        if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= most:
            raise Broken(f"{size!r} bytes are announced, and at most {most:,} are taken")
        heard()
        payload = bytearray()
        while len(payload) < size:
            piece = stream.read(min(PIECE, size - len(payload)))
            if not piece:
                return
            heard()
            payload += piece
        yield Message(said=said, payload=bytes(payload))


def _read(line: bytes, nonce: str) -> dict[str, Any]:
    if len(line) > LONGEST_LINE:
        raise Broken(f"a line is longer than {LONGEST_LINE:,} bytes")
    try:
        # Python writes and reads NaN, which JSON does not have.
        said = json.loads(line.decode("ascii"), parse_constant=_refused)
    except ValueError as error:
        raise Broken(f"a line is no JSON ({error}): {line[:60]!r}") from None
    if not isinstance(said, dict):
        raise Broken(f"a line is no message: {line[:60]!r}")
    if said.pop("nonce", None) != nonce:
        raise Broken("a message is of another conversation (its nonce is not this one's)")
    return said


def _refused(constant: str) -> None:
    raise ValueError(f"{constant} is no number")


class Voice:
    """The end of a conversation that writes; threads may share it."""

    def __init__(self, stream: Writable, nonce: str) -> None:
        self._stream, self._nonce = stream, nonce
        self._lock = threading.Lock()

    def say(self, said: dict[str, Any], payload: bytes = b"") -> None:
        """Send a message.

        Raises:
            OSError: if nobody listens any more.
        """
        size = {"bytes": len(payload)} if payload else {}
        line = json.dumps({**said, **size, "nonce": self._nonce}, allow_nan=False).encode("ascii") + b"\n"
        with self._lock:
            self._stream.write(line)
            if payload:
                self._stream.write(payload)
            self._stream.flush()
