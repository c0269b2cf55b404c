"""Files in which the kernel tells what it measures, and programs: under a root, so that a recorded tree is read too."""

from __future__ import annotations

import errno
import os
import subprocess
from pathlib import Path

ROOT = Path("/")
SECONDS = 20.0
"""A program that says nothing for so long is taken for one that waits for an answer."""
_PLACES = ("usr/bin", "usr/sbin", "bin", "sbin", "usr/local/bin", "opt/vc/bin")


def read(path: Path) -> str:
    """A file of the kernel's, without the zero byte that it may end with.

    Raises:
        OSError: where it is not there, or not readable.
    """
    return path.read_text(encoding="utf-8", errors="replace").strip("\0\n ")


def text(path: Path) -> str | None:
    """The same; None where it says nothing."""
    try:
        return read(path) or None
    except OSError:
        return None


def whole(path: Path) -> int | None:
    """A whole number; None where the file says none."""
    said = text(path)
    return int(said) if said and said.lstrip("-").isdigit() else None


def why_not(path: Path) -> str | None:
    """Why a file tells no number; None where it does."""
    try:
        said = read(path)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EPERM):
            return f"not readable: needs root, or `sudo chmod a+r {path}`"
        return f"not readable ({os.strerror(error.errno or 0)})"
    return None if said.lstrip("-").isdigit() else f"says {said[:40]!r}, and no number"


def found(root: Path, pattern: str) -> list[Path]:
    """What matches, in order; a number in a name counts as one: zone 2 comes before zone 10."""
    return sorted(root.glob(pattern), key=_natural)


def _natural(path: Path) -> tuple[object, ...]:
    parts: list[object] = []
    word = ""
    for letter in str(path) + "/":
        if word and word[-1].isdigit() != letter.isdigit():
            parts.append((0, int(word), "") if word.isdigit() else (1, 0, word))
            word = ""
        word += letter
    return tuple(parts)


def program(root: Path, name: str) -> Path | None:
    """Where a program of this name lies; None where there is none."""
    there = (root / place / name for place in _PLACES)
    return next((path for path in there if path.is_file() and os.access(str(path), os.X_OK)), None)


def ran(command: list[str]) -> tuple[bool, str]:
    """Whether a program succeeded, and all that it said; nobody answers what it asks."""
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return False, f"it says nothing for {SECONDS:.0f} s"
    except OSError as error:
        return False, os.strerror(error.errno or 0)
    return done.returncode == 0, done.stdout.decode("utf-8", "replace").strip()
