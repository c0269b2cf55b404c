"""Progress on long work: a bar on a terminal; in a pipe or a log a line a minute, of what, how far and how long."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

Item = TypeVar("Item")
Step = Callable[[], None]

EVERY = 60.0
"""Seconds between two lines where there is no terminal."""
_open: list[str] = []
"""The bars on the terminal: rich draws one at a time."""
_counted: list[_Counted] = []
"""Those that are told a line at a time; the last one is what goes on just now."""
_opening = threading.Lock()
"""Several devices are measured at the same time."""


class _Silence:
    """How long nothing has been said."""

    def __init__(self) -> None:
        self.since = time.monotonic()

    def end(self, line: str) -> None:
        self.since = time.monotonic()
        # Nobody may be listening any more.
        with contextlib.suppress(OSError, ValueError, AttributeError):
            sys.stderr.write(f"{line}\n")
            sys.stderr.flush()

    def lasts(self) -> bool:
        return time.monotonic() - self.since >= EVERY


_silence = _Silence()


def bar(items: Iterable[Item], what: str, total: int) -> Iterator[Item]:
    """The items, with a bar while they are used up."""
    with steps(what, total) as step:
        for item in items:
            yield item
            step()


@contextmanager
def steps(what: str, total: int | None, done: int = 0) -> Iterator[Step]:
    """A bar that moves by one each time the function it gives is called; None has no known end."""
    console = Console(stderr=True)
    with _opening:
        draws = console.is_terminal and not _open
        if draws:
            _open.append(what)
    if not draws:
        counted = _Counted(what, total, done)
        _counted.append(counted)
        try:
            yield counted
        finally:
            _counted.remove(counted)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    try:
        with Progress(*columns, console=console, transient=True) as progress:
            task = progress.add_task(what, total=total, completed=done)
            yield lambda: progress.advance(task)
    finally:
        _open.remove(what)


@contextmanager
def at_work(what: str) -> Iterator[None]:
    """While open, a line tells whenever nothing has been said for a minute: how far that is which is counted,
    else that the work goes on.
    """
    started, ended = time.monotonic(), threading.Event()

    def line() -> str:
        # Of a copy: other devices' threads begin and end theirs.
        told = next((counted.line() for counted in reversed(tuple(_counted))), None)
        return told or f"{what}: at work for {lasted(time.monotonic() - started)}"

    def watch() -> None:
        while not ended.wait(EVERY / 12):
            if not _open and _silence.lasts():
                _silence.end(line())

    _silence.since = started
    watching = threading.Thread(target=watch, daemon=True)
    watching.start()
    try:
        yield
    finally:
        ended.set()
        watching.join()


class _Counted:
    """Counts steps, and tells of them a line at a time."""

    def __init__(self, what: str, total: int | None, done: int) -> None:
        self.what, self.total, self.done, self.first = what, total, done, done
        self.started = time.monotonic()
        _silence.since = max(_silence.since, self.started)

    def __call__(self) -> None:
        self.done += 1
        if not _open and _silence.lasts():
            _silence.end(self.line() or self.what)

    def line(self) -> str | None:
        """How far it is; None before its first step."""
        if self.done == self.first:
            return None
        took = time.monotonic() - self.started
        if self.total is None:
            return f"{self.what}: {self.done} done in {lasted(took)}"
        left = took / (self.done - self.first) * (self.total - self.done)
        return f"{self.what}: {self.done} of {self.total} in {lasted(took)}, about {lasted(left)} left"


def lasted(seconds: float) -> str:
    """How long, in words: 40 s, 2.5 minutes."""
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.1f} minutes"
