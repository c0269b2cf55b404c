"""Peak memory of an artifact: what a fresh process needs that does nothing but load and run it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, Self

from compress.errors import SurroundingsError
from export.target import Command, Peak

PATIENCE_S = 20.0
"""With a process that gives way to all others, once its answer is all that is waited for."""


@dataclass(frozen=True, kw_only=True)
class Begun:
    """A process that runs."""

    command: Command
    process: subprocess.Popen[str]


@dataclass(frozen=True, kw_only=True)
class Ended:
    """A process that is over."""

    said: str
    complaint: str
    code: int


class PeakMemory:
    """Peak memory of artifacts by name, each found in a process of its own while this one does something else.

    What runs beside changes how long a process takes, not how much memory it needs. Each is started, not forked: a
    fork would count what its parent had loaded, and leave out what both share. Each gives way to all others.
    """

    def __init__(self, at_once: int = 2) -> None:
        """Run no more than so many at once."""
        self._at_once = at_once
        self._asked: dict[str, Callable[[], float]] = {}
        self._waiting: dict[str, Command] = {}
        self._begun: dict[str, Begun] = {}
        self._ended: dict[str, Ended] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def ahead(self, name: str, given: Peak) -> None:
        """Find this peak out as soon as there is room, unless it is known or asked for already.

        What another machine is asked for is asked when it is wanted, since that is no time of this one's.
        """
        if callable(given):
            self._asked[name] = given
        elif name not in {*self._begun, *self._ended}:
            self._waiting.setdefault(name, given)
        self._go_on()

    def settle(self) -> None:
        """Wait until all that were asked for ahead are known, before something begins that they would slow down."""
        for name in [*self._begun, *self._waiting]:
            self._end(name)

    def mb(self, name: str) -> float:
        """The peak in MB, rounded to 10, since it varies by a few from run to run; waits for it.

        Raises:
            SurroundingsError: if the process died, as one does that gets no more memory.
        """
        if name in self._asked:
            return self._asked[name]()
        self._end(name)
        ended = self._ended.pop(name)
        if ended.code != 0:
            lines = ended.complaint.strip().splitlines() or [f"exit {ended.code}"]
            raise SurroundingsError(f"{name}: the process that measures its memory died ({lines[-1][:200]})")
        return float(ended.said)

    def close(self) -> None:
        """End what runs and forget what waits; what was not asked for until now is not needed."""
        self._waiting.clear()
        while self._begun:
            _, begun = self._begun.popitem()
            _kill(begun.process)

    def _end(self, name: str) -> None:
        if name in self._waiting:
            self._begin(name)
        if name in self._begun:
            self._ended[name] = self._outcome(name)
            del self._begun[name]
            self._go_on()

    def _outcome(self, name: str) -> Ended:
        """What it says, once it is over; one that others leave no CPU is begun again, and gives way no more."""
        begun = self._begun[name]
        try:
            said, complaint = begun.process.communicate(timeout=PATIENCE_S)
        except subprocess.TimeoutExpired:
            _kill(begun.process)
            begun = self._begun[name] = replace(begun, process=_started(begun.command))
            said, complaint = begun.process.communicate()
        return Ended(said=said, complaint=complaint, code=begun.process.returncode)

    def _go_on(self) -> None:
        running = sum(begun.process.poll() is None for begun in self._begun.values())
        for name in list(self._waiting)[: max(0, self._at_once - running)]:
            self._begin(name)

    def _begin(self, name: str) -> None:
        command = self._waiting.pop(name)
        self._begun[name] = Begun(command=command, process=_started(command))
        _give_way(self._begun[name].process)


def _started(command: Command) -> subprocess.Popen[str]:
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def _kill(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate()


def _give_way(process: subprocess.Popen[Any]) -> None:
    """Have a process that was just started run only where no other would, on systems that have such a line for CPUs.

    Two threads of torch that compute a layer wait for one another: where one is kept off its CPU for a few
    milliseconds, at layer after layer, the network takes several times as long.
    """
    if hasattr(os, "SCHED_IDLE"):
        # One that has ended already, or may not give way, does as it does.
        with suppress(OSError):
            os.sched_setscheduler(process.pid, os.SCHED_IDLE, os.sched_param(0))
