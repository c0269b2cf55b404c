"""The log of a run: said aloud, and kept in its folder."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from compress.cache import versions

Log = Callable[[str], None]


@contextmanager
def logged(folder: Path, say: Log) -> Iterator[Log]:
    """A log that is said aloud and, with the time, appended to the folder's log.txt."""
    with written(folder) as write:

        def log(line: str) -> None:
            write(line)
            say(line)

        yield log


@contextmanager
def written(folder: Path) -> Iterator[Log]:
    """A log that is not said aloud: with the time, appended to the folder's log.txt."""
    with (folder / "log.txt").open("a", encoding="utf-8") as file:

        def write(line: str) -> None:
            file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {line}\n")
            file.flush()

        write(f"segpress {versions()['segpress']}, process {os.getpid()}")
        yield write
