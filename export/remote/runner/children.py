"""Processes that a runner starts: each in a group of its own, and none outlives it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
from typing import Sequence, Tuple

WATCHES = "SEGPRESS_WATCHES"
"""Set where a process shall end when its standard input does (export/remote/runner/__main__.py)."""
Ended = Tuple[int, bytes, bytes]
"""The exit code, and what was said and complained."""


class Children:
    """Those that run now."""

    def __init__(self) -> None:
        self._running: dict[int, subprocess.Popen[bytes]] = {}
        self._lock = threading.Lock()

    def ran(self, command: Sequence[str]) -> Ended:
        """What came of it; waits for it."""
        # None is started beside the end of them all.
        with self._lock:
            child = subprocess.Popen(
                list(command),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
                env={**os.environ, WATCHES: "1"},
            )
            self._running[child.pid] = child
        try:
            out, err = _read(child)
        finally:
            del self._running[child.pid]
        return child.returncode, out, err

    def end(self) -> None:
        """End them, with all that they started; nothing is started any more."""
        self._lock.acquire()
        for child in list(self._running.values()):
            kill_group(child.pid)


def kill_group(process: int) -> None:
    """End a process and what it started, where that is still there."""
    with contextlib.suppress(OSError):
        os.killpg(process, signal.SIGKILL)


def _read(child: subprocess.Popen[bytes]) -> tuple[bytes, bytes]:
    """Both of what it writes, while its standard input stays open."""
    assert child.stdin is not None and child.stdout is not None and child.stderr is not None
    complaints: list[bytes] = []
    stderr = child.stderr
    reader = threading.Thread(target=lambda: complaints.append(stderr.read()), daemon=True)
    reader.start()
    said = child.stdout.read()
    reader.join()
    child.wait()
    for stream in (child.stdin, child.stdout, child.stderr):
        stream.close()
    return said, b"".join(complaints)
