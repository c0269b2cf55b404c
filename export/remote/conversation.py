"""A conversation with the runner on a device: a request, its answer; and what is said where the link ends it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any

from export.errors import BackendError, NotHere, SurroundingsError
from export.remote import answers
from export.remote.answers import Facts, Known
from export.remote.hearing import AGAIN
from export.remote.link import Link
from export.remote.runner.packing import packed
from export.remote.runner.wire import MOST_BYTES


class Conversation:
    """One host's runner, begun when something is first asked of it, and begun again where the link was lost."""

    def __init__(self, host: str, python: str) -> None:
        self.host, self.python = host, python
        self.sent_bytes = 0
        """What travelled there: the runner, artifacts and inputs."""
        self.answered_bytes = 0
        """What travelled back: answers to inputs, and what was built there."""
        self.there: set[str] = set()
        """SHA-256 of what is known to be there."""
        self._lock = threading.Lock()
        self._link: Link | None = None
        self._machine: str | None = None
        self._facts: Facts | None = None
        self._stopped = False

    def ask(self, kind: type[Known], request: dict[str, Any], payload: bytes = b"") -> tuple[Known, bytes]:
        """What the runner answers, and the bytes behind it.

        Args:
            request: `do` says what, and the rest how (export/remote/runner/serve.py).

        Raises:
            BackendError: what the runtime there refuses, with its reason.
            NotHere: what the device has not, such as a runtime.
            SurroundingsError: if it is not reached, the link is lost, or its answer is none.
        """
        if len(payload) > MOST_BYTES:
            raise SurroundingsError(f"{self.host}: {len(payload):,} bytes are more than can be sent ({MOST_BYTES:,})")
        with self._lock:
            try:
                if self._link is None:
                    self._begin()
                return self._asked(kind, request, payload)
            except (BackendError, NotHere):
                raise
            except BaseException:
                # Whatever it was, Ctrl-C too: what comes next would not be the answer to what is asked next.
                self._end()
                raise

    def send(self, contents: Mapping[str, Callable[[], bytes]]) -> None:
        """Send what is not there yet.

        Args:
            contents: what gives each content, by its SHA-256.
        """
        unsure = [each for each in contents if each not in self.there]
        if not unsure:
            return
        for each in self.ask(answers.Missing, {"do": "missing", "sha256": unsure})[0].missing:
            content = contents[each]()
            payload, is_packed = packed(content)
            request = {"do": "put", "sha256": each, "packed": is_packed, "size": len(content)}
            self.ask(answers.Kept, request, payload)
        self.there.update(unsure)

    def facts(self) -> Facts:
        """What the device says of itself, asked once: whatever is reached by this name later must be the same."""
        if self._facts is None:
            self._facts = self.ask(answers.ToldFacts, {"do": "facts"})[0].facts
        return self._facts

    def close(self) -> None:
        """End it; the runner there ends with it. What is asked next begins another."""
        self._stopped = False
        self._end()

    def stop(self) -> None:
        """End it while another thread may be asking, whose questions are refused until it is closed."""
        self._stopped = True
        self._end()

    @property
    def begun(self) -> object:
        """What is another object whenever the runner is another one, which has nothing open yet."""
        return self._link

    def _asked(self, kind: type[Known], request: dict[str, Any], payload: bytes) -> tuple[Known, bytes]:
        link = self._link
        if link is None:
            raise SurroundingsError(f"{self.host}: the conversation was ended; {AGAIN}")
        message = link.ask(request, payload)
        self.sent_bytes += len(payload)
        self.answered_bytes += len(message.payload)
        return answers.read(kind, message.said, self.host), message.payload

    def _begin(self) -> None:
        if self._stopped:
            raise SurroundingsError(f"{self.host}: the conversation was ended; {AGAIN}")
        self._link = link = Link(self.host, self.python)
        if self._stopped:
            raise SurroundingsError(f"{self.host}: the conversation was ended; {AGAIN}")
        self.there.clear()
        self.sent_bytes += link.sent_bytes
        if self._machine not in (None, link.machine) and self._facts is not None:
            # Started again, or another: several machines can have one name, and take turns.
            now = self._asked(answers.ToldFacts, {"do": "facts"}, b"")[0].facts
            if now.identity != self._facts.identity:
                raise SurroundingsError(
                    f"{self.host}: is another machine than before, or has other runtimes "
                    f"({', '.join(self._facts.changed(now))}); `at` must name one machine"
                )
            self._facts = now
        self._machine = link.machine

    def _end(self) -> None:
        link, self._link = self._link, None
        if link is not None:
            link.close()


_open: dict[tuple[str, str], Conversation] = {}


def with_runner(host: str, python: str) -> Conversation:
    """The conversation with this host: one for all devices that are reached there, since a device measures for one."""
    return _open.setdefault((host, python), Conversation(host, python))


def close_all() -> None:
    """End every conversation."""
    while _open:
        _, conversation = _open.popitem()
        conversation.close()
