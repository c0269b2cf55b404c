"""A conversation with the runner on a device: a request, its answer; and what is said where the link ends it."""

from __future__ import annotations

import contextlib
import queue
import secrets
import subprocess
import threading
from collections import deque
from typing import IO, Any, Protocol

from export.errors import BackendError, NotHere, SurroundingsError
from export.remote import answers, ssh
from export.remote.answers import Known
from export.remote.package import bootstrap, runner
from export.remote.runner.wire import BEAT, MOST_BYTES, PROTOCOL, SILENCE, Broken, Message, Voice, messages

NOISE = 1 << 16
"""Bytes that a shell may print before the first word; what comes later is no noise."""
FIRST_WORD = 60.0
"""Seconds within which the first word comes."""


class Link(Protocol):
    """A program on the device, and the two ends of what it reads and writes."""

    stdin: IO[bytes] | None
    stdout: IO[bytes] | None
    stderr: IO[bytes] | None

    def poll(self) -> int | None: ...
    def kill(self) -> None: ...
    def wait(self, timeout: float | None = None) -> int: ...


class Conversation:
    """One host's runner, begun when something is first asked of it, and begun again where the link was lost."""

    def __init__(self, host: str, python: str) -> None:
        self.host, self.python = host, python
        self.sent_bytes = 0
        """What travelled there: the runner, artifacts and inputs."""
        self.there: set[str] = set()
        """SHA-256 of what is known to be there."""
        self._lock = threading.Lock()
        self._link: _Connected | None = None

    def ask(self, kind: type[Known], request: dict[str, Any], payload: bytes = b"") -> tuple[Known, bytes]:
        """What the runner answers, and the bytes behind it.

        Args:
            request: `do` says what, and the rest how (export/remote/runner/serve.py).

        Raises:
            BackendError: what the runtime there refuses, with its reason.
            NotHere: what the device has not, such as a runtime.
            SurroundingsError: if it is not reached, the link is lost, or its answer is none.
        """
        with self._lock:
            if self._link is None:
                self._link = _Connected(self.host, self.python)
                self.there.clear()
                self.sent_bytes += self._link.sent_bytes
            try:
                message = self._link.ask(request, payload)
                self.sent_bytes += len(payload)
                return answers.read(kind, message.said, self.host), message.payload
            except (BackendError, NotHere):
                raise
            except BaseException:
                # Whatever it was, Ctrl-C too: what comes next would not be the answer to what is asked next.
                self.close()
                raise

    def close(self) -> None:
        """End it; the runner there ends with it."""
        if self._link is not None:
            self._link.close()
            self._link = None

    @property
    def begun(self) -> object:
        """What is another object whenever the runner is another one, which has nothing open yet."""
        return self._link


class _Connected:
    """A conversation while its link lasts."""

    def __init__(self, host: str, python: str) -> None:
        self._host, self._python = host, python
        self._nonce = secrets.token_hex(16)
        self._number = 0
        self.sent_bytes = 0
        self._complaints: deque[str] = deque(maxlen=50)
        self._answers: queue.Queue[Message | SurroundingsError] = queue.Queue()
        self._process = _began(host, python)
        assert self._process.stdin is not None
        self._voice = Voice(self._process.stdin, self._nonce)
        self._over = threading.Event()
        self._readers = [threading.Thread(target=each, daemon=True) for each in (self._hear, self._hear_complaints)]
        try:
            self._greet()
        except SurroundingsError:
            self.close()
            raise
        except NotHere as error:
            self.close()
            raise SurroundingsError(str(error)) from None

    def ask(self, request: dict[str, Any], payload: bytes) -> Message:
        """See `Conversation.ask`."""
        self._number += 1
        self._say({**request, "number": self._number}, payload)
        message = self._next(SILENCE)
        if message.said.pop("to", None) != self._number:
            raise SurroundingsError(f"{self._host}: answered what was not asked, or was asked before")
        return self._unless_refused(message)

    def close(self) -> None:
        """Leave nothing behind, here or there."""
        self._over.set()
        assert self._process.stdin is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        try:
            # The runner ends when it hears nobody any more.
            self._process.wait(timeout=3)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        for reader in self._readers:
            # One of them may be who closes.
            if reader.ident is not None and reader is not threading.current_thread():
                reader.join(timeout=3)
        for stream in (self._process.stdout, self._process.stderr):
            if stream is not None:
                stream.close()

    def _greet(self) -> None:
        """Send what begins there, and the runner where it is wanted, until it says hello."""
        assert self._process.stdin is not None
        for reader in reversed(self._readers):
            reader.start()
        self._write(bootstrap(self._nonce))
        message = self._unless_refused(self._next(FIRST_WORD))
        if message.said.get("wants") == len(runner()):
            self._write(runner())
            message = self._unless_refused(self._next(FIRST_WORD))
        hello = answers.read(answers.Hello, message.said, self._host)
        if hello.hello != PROTOCOL:
            raise SurroundingsError(f"{self._host}: speaks protocol {hello.hello}, and {PROTOCOL} is understood here")
        threading.Thread(target=self._beat, daemon=True).start()

    def _beat(self) -> None:
        """Let the runner know that somebody is here, however long nothing is asked."""
        while not self._over.wait(BEAT):
            with contextlib.suppress(OSError, ValueError):
                self._voice.say({"do": "nothing"})

    def _next(self, patience: float) -> Message:
        try:
            heard = self._answers.get(timeout=patience)
        except queue.Empty:
            raise SurroundingsError(
                f"{self._host}: says nothing for {patience:.0f} s; the same command goes on from what is done"
            ) from None
        if isinstance(heard, SurroundingsError):
            raise heard
        return heard if "alive" not in heard.said else self._next(patience)

    def _unless_refused(self, message: Message) -> Message:
        if "error" not in message.said:
            return message
        says = " ".join(str(message.said.get("says")).encode("utf-8", "replace").decode("utf-8").split())[:500]
        told = f"{self._host}: {says}"
        kinds = {"backend": BackendError, "here": NotHere, "surroundings": SurroundingsError}
        if message.said["error"] in kinds:
            raise kinds[message.said["error"]](told)
        wrong = SurroundingsError(f"{self._host}: the runner there failed ({says})")
        wrong.add_note(str(message.said.get("trace")))
        raise wrong

    def _say(self, said: dict[str, Any], payload: bytes) -> None:
        try:
            self._voice.say(said, payload)
        except (OSError, ValueError):
            raise self._lost() from None

    def _write(self, data: bytes) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(data)
            self._process.stdin.flush()
        except OSError:
            raise self._lost() from None
        self.sent_bytes += len(data)

    def _lost(self) -> SurroundingsError:
        """Why nothing more can be said: what was heard last, if that tells."""
        with contextlib.suppress(queue.Empty):
            while True:
                heard = self._answers.get(timeout=5)
                if isinstance(heard, SurroundingsError):
                    return heard
        return SurroundingsError(f"{self._host}: the connection ended; the same command goes on from what is done")

    def _hear(self) -> None:
        """Put every message where it is waited for, and behind them why there are no more."""
        assert self._process.stdout is not None
        try:
            for message in messages(_Behind(self._process.stdout, self._nonce), self._nonce, MOST_BYTES):
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
        code = self._process.poll()
        self._answers.put(ssh.refused(self._host, self._python, code, "\n".join(self._complaints)))

    def _hear_complaints(self) -> None:
        assert self._process.stderr is not None
        with contextlib.suppress(OSError, ValueError):
            for line in self._process.stderr:
                self._complaints.append(line.decode("utf-8", "replace").rstrip())


class _Behind:
    """What is read behind the noise that a shell makes before the first message."""

    def __init__(self, stream: IO[bytes], nonce: str) -> None:
        self._stream, self._mark = stream, f'"nonce": "{nonce}"'.encode()
        self._begun = False

    def readline(self, limit: int = -1, /) -> bytes:
        heard = 0
        while True:
            line = self._stream.readline(limit)
            if self._begun or not line or self._mark in line:
                self._begun = True
                return line
            heard += len(line)
            if heard > NOISE:
                raise Broken(f"a shell there prints without end: {line[:60]!r}")

    def read(self, size: int = -1, /) -> bytes:
        return self._stream.read(size)


def _began(host: str, python: str) -> subprocess.Popen[bytes]:
    # What lies in the user's folder there must not stand for a module of Python's.
    first = "import sys; sys.path[:] = [p for p in sys.path if p]; exec(eval(sys.stdin.buffer.readline()))"
    command = ssh.command(host, [python, "-u", "-c", first])
    try:
        # In a group of its own: Ctrl-C is for this program, which then ends the conversation.
        return subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
        )
    except OSError as error:
        raise SurroundingsError(
            f"{command[0]}: cannot be started ({error.strerror}); install an OpenSSH client"
        ) from None


_open: dict[tuple[str, str], Conversation] = {}


def with_runner(host: str, python: str) -> Conversation:
    """The conversation with this host: one for all devices that are reached there, since a device measures for one."""
    return _open.setdefault((host, python), Conversation(host, python))


def close_all() -> None:
    """End every conversation."""
    while _open:
        _, conversation = _open.popitem()
        conversation.close()
