"""A link to the runner on a device while it lasts: begun, spoken to, and ended."""

from __future__ import annotations

import contextlib
import secrets
import subprocess
import sys
import threading
from typing import Any

from export.errors import BackendError, NotHere, SurroundingsError
from export.remote import answers, ssh
from export.remote.hearing import Hearing
from export.remote.package import bootstrap, runner
from export.remote.runner.wire import BEAT, PROTOCOL, Message, Voice

FIRST_WORD = 60.0
"""Seconds within which the first word comes."""
WAIT = 600.0
"""Seconds for which another run that measures there is waited for."""
RUN = secrets.token_hex(8)
"""Tells what this process measures from what others do: of one run, several Pythons of a host may be asked in turns."""


class Link:
    """A conversation while its link lasts."""

    def __init__(self, host: str, python: str) -> None:
        self._host = host
        self._number = 0
        self._has_told = False
        self.sent_bytes = 0
        nonce = secrets.token_hex(16)
        self._process = _began(host, python)
        assert self._process.stdin is not None
        self._voice = Voice(self._process.stdin, nonce)
        self._over = threading.Event()
        self._hearing = Hearing(self._process, host, python, nonce)
        try:
            self.machine = self._greeted(nonce)
        except NotHere as error:
            self.close()
            raise SurroundingsError(str(error)) from None
        except BaseException:
            self.close()
            raise

    def ask(self, request: dict[str, Any], payload: bytes) -> Message:
        """What is answered, as `Conversation.ask` says."""
        self._number += 1
        self._say({**request, "number": self._number}, payload)
        message = self._next(None)
        if message.said.pop("to", None) != self._number:
            raise SurroundingsError(f"{self._host}: answered what was not asked, or was asked before")
        return self._unless_refused(message)

    def close(self) -> None:
        """Leave nothing behind, here or there."""
        self._over.set()
        self._hearing.end()
        assert self._process.stdin is not None
        # The runner ends when it hears nobody any more. One that hears nothing does not take what is on its way to it.
        killing = threading.Timer(3, self._process.kill)
        killing.daemon = True
        killing.start()
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        self._process.wait()
        killing.cancel()
        self._hearing.close()

    def _greeted(self, nonce: str) -> str:
        """Send what begins there, and the runner where it is wanted, until it says hello; which machine it is."""
        self._write(bootstrap(nonce, RUN, WAIT))
        message = self._unless_refused(self._next(FIRST_WORD))
        if "wants" in message.said:
            if message.said["wants"] == len(runner()):
                self._write(runner())
            # The runner may wait for another to end, and wants to know meanwhile that somebody is here.
            threading.Thread(target=self._beat, daemon=True).start()
            message = self._unless_refused(self._next(FIRST_WORD))
        while "waits" in message.said:
            self._tell(str(message.said["waits"]))
            message = self._unless_refused(self._next(FIRST_WORD))
        hello = answers.read(answers.Hello, message.said, self._host)
        if hello.hello != PROTOCOL:
            raise SurroundingsError(f"{self._host}: speaks protocol {hello.hello}, and {PROTOCOL} is understood here")
        self._hearing.greeted()
        return hello.machine

    def _tell(self, waits: str) -> None:
        """What is waited for, once: it can take minutes."""
        if not self._has_told:
            self._has_told = True
            print(f"{self._host}: {' '.join(waits.split())[:300]}", file=sys.stderr, flush=True)

    def _beat(self) -> None:
        """Let the runner know that somebody is here, however long nothing is asked."""
        while not self._over.wait(BEAT):
            with contextlib.suppress(OSError, ValueError):
                self._voice.say({"do": "nothing"})

    def _next(self, patience: float | None) -> Message:
        return self._hearing.next(patience)

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
            raise self._hearing.lost() from None

    def _write(self, data: bytes) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(data)
            self._process.stdin.flush()
        except OSError:
            raise self._hearing.lost() from None
        self.sent_bytes += len(data)


def _began(host: str, python: str) -> subprocess.Popen[bytes]:
    # What lies in the user's folder there must not stand for a module of Python's.
    first = "import sys; sys.path[:] = [p for p in sys.path if p]; exec(eval(sys.stdin.buffer.readline()))"
    command = ssh.command(host, [python, "-u", "-W", "ignore", "-c", first])
    try:
        # In a group of its own: Ctrl-C is for this program, which then ends the conversation.
        return subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
        )
    except (OSError, ValueError) as error:
        raise SurroundingsError(
            f"{command[0]}: cannot be started ({getattr(error, 'strerror', None) or error}); install an OpenSSH client"
        ) from None
