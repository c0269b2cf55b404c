"""A device measures for one run at a time: the lock, and what becomes of one whose holder hears nobody any more.

Each user has a lock in the own cache, and all users of a machine share another one, since two would time each other.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import time
from pathlib import Path
from typing import Any, Callable

from export.remote.runner.facts import machine
from export.remote.runner.store import LOCK, cannot_write
from export.remote.runner.wire import BEAT, SILENCE

PATIENCE = BEAT + 4
"""Seconds for which one waits for another runner to end, or to be seen to hear nobody."""
QUIET = 3.0
"""Seconds without a touch after which the holder hears nobody: it touches the file every second while it does."""
LONGEST = SILENCE + 15
"""Seconds after which a holder that hears nobody should have ended by itself: it is stopped, or hangs."""


LOCKS = "SEGPRESS_LOCKS"
"""Environment variable with the folder of the lock that all users share, in place of EVERYBODY_S."""
EVERYBODY_S = "/tmp"


def _unheard(reason: str) -> None:
    """Nobody is told."""


class Lock:
    """A file that is locked as long as this process lives.

    By the locks of POSIX, which a process that a library forked does not share.
    """

    def __init__(self, folder: Path, run: str, *, shared: bool = False) -> None:
        """`run` tells one run of a host from every other: its runners, of several Pythons, share the lock.

        Args:
            shared: whether other users may take it too; what they write into it is never acted upon.
        """
        self._path, self._run, self._shared = folder / (f"segpress-{LOCK}" if shared else LOCK), run, shared
        self._file = -1
        self._is_taken = self._holds = False

    def taken(self, wait: float = 0.0, tell: Callable[[str], None] = _unheard) -> str | None:
        """Take it; why that cannot be, where it cannot.

        Args:
            wait: seconds for which another run that goes on measuring is waited for.
            tell: is told every few seconds whose end is waited for.
        """
        begun = touched = time.monotonic()
        touch, told = None, begun - BEAT + 1
        while True:
            try:
                holder = self._holder()
            except OSError as error:
                # One that another user keeps to himself excludes nobody.
                return None if self._shared else str(cannot_write(self._path.parent, error))
            if holder is None or holder.get("run") == self._run:
                self._is_taken = True
                return None
            waited = time.monotonic() - begun
            # By this process's clock alone: that of the machine may be set meanwhile.
            if touch != (touch := os.fstat(self._file).st_mtime_ns):
                touched = time.monotonic()
            quiet = time.monotonic() - touched
            if quiet > LONGEST and holder.get("machine") == machine() and not self._shared:
                # It has our user, and holds the lock: it is the process that wrote its number.
                with contextlib.suppress(OSError, KeyError):
                    os.kill(holder["process"], signal.SIGKILL)
            if waited > max(wait, PATIENCE if quiet < QUIET else LONGEST + PATIENCE):
                return f"another run measures there now{_said(holder)}; wait until it has ended"
            if time.monotonic() - told > BEAT:
                told = time.monotonic()
                left = f"; waiting for it to end, {(wait - waited) / 60:.0f} minutes at most" if wait > waited else ""
                tell(f"another run measures there now{_said(holder)}{left}")
            time.sleep(0.1)

    def keep(self, *, is_heard: bool) -> None:
        """Let others see that a host is heard; take it over where another runner of this run has ended."""
        with contextlib.suppress(OSError):
            if self._is_taken and not self._holds:
                self._try()
            if self._is_taken and self._holds and is_heard:
                os.utime(self._file)

    def _holder(self) -> dict[str, Any] | None:
        """What the one who has it says of itself; None where it is this process."""
        if not self._is_there():
            if self._file >= 0:
                os.close(self._file)
            self._file = -1
            self._file = self._opened_by_all() if self._shared else self._opened()
        if self._try() and self._is_there():
            return None
        # By this file alone: closing another that is the same would give the lock back.
        return _read(os.pread(self._file, 1 << 12, 0))

    def _opened(self) -> int:
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        return os.open(str(self._path), os.O_RDWR | os.O_CREAT, 0o600)

    def _opened_by_all(self) -> int:
        """A file that everybody may lock, and which is no link to another.

        A system may keep from being made what another user has made in a folder of all (fs.protected_regular): it is
        opened first, and made only where it is not there.
        """
        flags = os.O_RDWR | os.O_NOFOLLOW
        try:
            return os.open(str(self._path), flags)
        except FileNotFoundError:
            made = os.open(str(self._path), flags | os.O_CREAT | os.O_EXCL, 0o666)
            os.fchmod(made, 0o666)
            return made

    def _is_there(self) -> bool:
        """Whether what is open is still what others open by that name, which all that was sent may be removed with."""
        if self._file < 0:
            return False
        try:
            return os.path.samestat(os.fstat(self._file), self._path.stat())
        except FileNotFoundError:
            return False

    def _try(self) -> bool:
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        came = os.environ.get("SSH_CLIENT", "").split()
        told = {
            "run": self._run,
            "process": os.getpid(),
            "machine": machine(),
            "from": came[0] if came else None,
            "since": time.strftime("%Y-%m-%d %H:%M:%S"),
        }
        os.ftruncate(self._file, 0)
        os.pwrite(self._file, json.dumps(told).encode("ascii"), 0)
        self._holds = True
        return True


def of_machine(run: str) -> Lock:
    """The lock that all users of this machine share."""
    return Lock(Path(os.environ.get(LOCKS) or EVERYBODY_S), run, shared=True)


def _read(data: bytes) -> dict[str, Any]:
    try:
        told = json.loads(data.decode("ascii"))
    except ValueError:
        # It is just being written.
        return {}
    return told if isinstance(told, dict) else {}


def _said(holder: dict[str, Any]) -> str:
    words = [f"{key} {str(holder[key])[:40]}" for key in ("process", "from", "since") if holder.get(key)]
    return f" ({', '.join(words)})" if words else ""
