"""Every way in which a command ends other than well: one sentence, an exit code, and never a traceback on the terminal.

The trace of what nobody foresaw goes to the log.txt of the run's folder, or where there is none to a file of its own.
"""

from __future__ import annotations

import contextlib
import errno
import signal
import tempfile
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

from compress.errors import TRACED, SegpressError
from compress.networks.foreign.named import line_of
from export.errors import first_line
from export.files import cannot_write

STOPPED = "stopped; the same command goes on from the last finished step"
BEGINS_AGAIN = "stopped; the same command begins again"
GOES_ON = ("run", "train", "search", "sensitivity")
"""Commands that keep what they have finished."""
_OF_A_PATH = {
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ENOSPC),
    *(errno.EDQUOT, errno.EIO),
}


class Terminated(KeyboardInterrupt):
    """SIGTERM, which a scheduler sends: it stops a run as Ctrl-C does."""


def told(error: BaseException, command: str = "run") -> tuple[str, int]:
    """The sentence for a command that ended with this error, and its exit code."""
    stopped = STOPPED if command in GOES_ON else BEGINS_AGAIN
    if isinstance(error, SegpressError):
        return str(error), error.exit_code
    if isinstance(error, KeyboardInterrupt):
        return stopped, 128 + (signal.SIGTERM if isinstance(error, Terminated) else signal.SIGINT)
    if isinstance(error, BrokenPipeError):
        return f"nobody reads what is printed any more; {stopped}", 4
    if isinstance(error, OSError) and error.errno in _OF_A_PATH and line_of(error) is None:
        return told(cannot_write(Path(error.filename or "a file"), error), command)
    return _unforeseen(error)


def _unforeseen(error: BaseException) -> tuple[str, int]:
    theirs, trace = line_of(error), _trace_of(error)
    if theirs is not None:
        return f"{theirs}: {_sentence(error)}: an error in your own code; {trace}", 2
    if _no_memory(error):
        return f"there is not enough memory ({_sentence(error)}); free some, or set a smaller size; {trace}", 4
    return f"unexpected {_sentence(error)}; please report it: {trace}", 4


@contextlib.contextmanager
def stoppable() -> Iterator[None]:
    """While open, SIGTERM stops as Ctrl-C does: what is half done is left as a whole, and a second one ends at once."""

    def stop(number: int, frame: FrameType | None) -> None:
        signal.signal(number, signal.SIG_DFL)
        raise Terminated

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _trace_of(error: BaseException) -> str:
    noted = [note for note in getattr(error, "__notes__", ()) if note.startswith(TRACED)]
    if noted:
        return noted[0]
    try:
        with tempfile.NamedTemporaryFile(
            "w", prefix="compress-", suffix=".log", delete=False, encoding="utf-8"
        ) as file:
            file.write("".join(traceback.format_exception(error)))
        return f"{TRACED}{file.name}"
    except OSError as refusal:
        return f"its trace could not be written ({refusal.strerror})"


def _sentence(error: BaseException) -> str:
    """An error's kind and the first line of what it says."""
    text = first_line(error, 300) if str(error).strip() else ""
    if isinstance(error, SystemExit):
        return f"end of the program ({text or 0})"
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _no_memory(error: BaseException) -> bool:
    # torch raises a plain RuntimeError on a CPU.
    text = str(error)
    return isinstance(error, MemoryError) or "can't allocate memory" in text or "out of memory" in text.lower()
