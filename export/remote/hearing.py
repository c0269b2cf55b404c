"""What comes from the runner on a device: messages, signs of life, noise, and why there is no more in the end."""

from __future__ import annotations

import contextlib
import queue
import subprocess
import threading
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import IO

from export.errors import SurroundingsError
from export.remote import ssh
from export.remote.runner.wire import SILENCE, Broken, Message, messages

AGAIN = "the same command goes on from what is done"
NOISE = 1 << 16
"""Bytes that a shell may print before the first word; what comes later is no noise."""


class Hearing:
    """Both streams that a program on the device writes, each read by a thread as it comes."""

    def __init__(self, process: subprocess.Popen[bytes], host: str, python: str, nonce: str) -> None:
        self._process, self._host, self._python, self._nonce = process, host, python, nonce
        self._complaints: deque[str] = deque(maxlen=50)
        self._answers: queue.Queue[Message | SurroundingsError] = queue.Queue()
        self._heard = time.monotonic()
        self._is_greeted = False
        self._noise = b""
        self._over = threading.Event()
        self._readers = [threading.Thread(target=each, daemon=True) for each in (self._hear, self._hear_complaints)]
        for reader in reversed(self._readers):
            reader.start()

    def greeted(self) -> None:
        """The runner has said hello: from now on it gives signs of life."""
        self._is_greeted = True
        threading.Thread(target=self._watch, daemon=True).start()

    def next(self, patience: float | None) -> Message:
        """The next message; `patience` are the seconds without a sign of life, where nobody watches for them."""
        while True:
            try:
                heard = self._answers.get(timeout=patience and max(0.01, self._heard + patience - time.monotonic()))
            except queue.Empty:
                if time.monotonic() - self._heard < (patience or 0):
                    continue
                raise self._silent(patience or 0) from None
            if isinstance(heard, SurroundingsError):
                raise heard
            return heard

    def lost(self) -> SurroundingsError:
        """Why nothing more can be said: what was heard last, if that tells."""
        with contextlib.suppress(queue.Empty):
            while True:
                heard = self._answers.get(timeout=5)
                if isinstance(heard, SurroundingsError):
                    return heard
        return SurroundingsError(f"{self._host}: the connection ended; {AGAIN}")

    def end(self) -> None:
        """Watch no more; the program is about to be ended."""
        self._over.set()

    def close(self) -> None:
        """Close both, when the program has ended."""
        for reader in self._readers:
            # One of them may be who closes.
            if reader is not threading.current_thread():
                reader.join(timeout=3)
        for stream, reader in zip((self._process.stdout, self._process.stderr), self._readers, strict=True):
            # Closing waits for who reads, who waits as long as anything has the other end.
            if stream is not None and (not reader.is_alive() or reader is threading.current_thread()):
                stream.close()

    def _watch(self) -> None:
        """End what was cut without a word, or has stopped there: who waits for it, or writes to it, waits no longer."""
        late = 0
        # Twice, since whoever reads may have been kept from it, as by Ctrl-Z.
        while late < 2:
            if self._over.wait(1):
                return
            late = late + 1 if time.monotonic() - self._heard > SILENCE else 0
        self._answers.put(self._silent(SILENCE))
        self._process.kill()

    def _silent(self, seconds: float) -> SurroundingsError:
        return SurroundingsError(f"{self._host}: says nothing for {seconds:.0f} s; {AGAIN}")

    def _hear(self) -> None:
        """Put every message where it is waited for, and behind them why there are no more."""
        assert self._process.stdout is not None
        try:
            behind = _Behind(self._process.stdout, self._nonce, self._noisy)
            for message in messages(behind, self._nonce, heard=self._hears):
                if "alive" not in message.said:
                    self._answers.put(message)
        except Broken as fault:
            self._answers.put(SurroundingsError(f"{self._host}: answered what is no message: {fault}"))
            return
        except (OSError, ValueError):
            pass
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=10)
        # What was complained of comes by another way, perhaps later.
        self._readers[1].join(timeout=2)
        said = "\n".join(self._complaints)
        code = self._process.poll()
        if self._is_greeted:
            self._answers.put(ssh.lost(self._host, code, said))
        else:
            self._answers.put(ssh.refused(self._host, self._python, code, said, self._noise.decode("utf-8", "replace")))

    def _hears(self) -> None:
        self._heard = time.monotonic()

    def _noisy(self, line: bytes) -> None:
        self._noise = (self._noise + line)[-400:]

    def _hear_complaints(self) -> None:
        assert self._process.stderr is not None
        with contextlib.suppress(OSError, ValueError):
            for line in iter(partial(self._process.stderr.readline, NOISE), b""):
                self._complaints.append(line.decode("utf-8", "replace").rstrip())


class _Behind:
    """What is read behind the noise that a shell makes before the first message."""

    def __init__(self, stream: IO[bytes], nonce: str, noisy: Callable[[bytes], None]) -> None:
        self._stream, self._noisy, self._mark = stream, noisy, f'"nonce": "{nonce}"'.encode()
        self._begun = False

    def readline(self, limit: int = -1, /) -> bytes:
        heard = 0
        while True:
            line = self._stream.readline(limit)
            if self._begun or not line or self._mark in line:
                self._begun = True
                return line
            heard += len(line)
            self._noisy(line)
            if heard > NOISE:
                raise Broken(f"a shell there prints without end: {line[:60]!r}")

    def read(self, size: int = -1, /) -> bytes:
        return self._stream.read(size)
