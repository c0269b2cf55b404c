"""Writing that leaves a whole file or none: beside, flushed to disk, then renamed."""

import contextlib
import errno
import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from export.errors import SegpressError, SurroundingsError

PARTIAL = ".partial"
"""Ending of a file that is still being written; one that is found was left by a killed process."""

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EIO}


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file so that it is there whole or not at all.

    Raises:
        SurroundingsError: if the disk is full.
        SegpressError: if the folder cannot be written.
    """
    write_together({path: data})


def write_together(files: Mapping[Path, bytes]) -> None:
    """Write files so that all of them are there, or none is: each beside its place, then all renamed, in order.

    Raises:
        SurroundingsError: if the disk is full.
        SegpressError: if one of them cannot be written.
    """
    beside = {path: path.with_name(f"{path.name}.{os.getpid()}{PARTIAL}") for path in files}
    moved: list[Path] = []
    new = [path for path in files if not os.path.lexists(path)]
    at = next(iter(files))
    try:
        for at, data in files.items():
            _flushed(beside[at], data)
        for at in files:
            beside[at].replace(at)
            moved.append(at)
    except BaseException as error:
        for path in (*beside.values(), *(path for path in moved if path in new)):
            # Where a path itself is impossible, so is removing it.
            with contextlib.suppress(OSError):
                path.unlink()
        if isinstance(error, OSError):
            raise cannot_write(at, error) from None
        raise


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write a JSON file, indented for people, whole or not at all."""
    write_bytes(path, (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode())


def _flushed(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def make_folder(path: Path) -> Path:
    """The folder, made with its parents if it is not there.

    Raises:
        SegpressError: if it cannot be made, or is not writable.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(path, error) from None
    check_folder(path)
    return path


def check_folder(path: Path) -> None:
    """Whether a folder, or the nearest above it that is there, is one that can be written; nothing is made.

    Raises:
        SegpressError: if it is a file, or not writable.
    """
    there = next(each for each in (path, *path.absolute().parents) if os.path.lexists(each))
    if not there.is_dir():
        raise SegpressError(f"{there}: is a file, where a folder is to be; choose another place with --out")
    if not os.access(there, os.W_OK):
        raise SegpressError(f"{there}: cannot be written (no permission); choose another with --out")


def cannot_write(path: Path, error: OSError) -> SegpressError:
    """The sentence for a failed write: the disk's fault or the path's."""
    reason = os.strerror(error.errno) if error.errno else str(error)
    if error.errno in _FULL:
        return SurroundingsError(f"{path}: could not be written ({reason}); make room and run the same command again")
    return SegpressError(f"{path}: cannot be written ({reason}); choose another place with --out")


def sha256(path: Path) -> str:
    """The SHA-256 of a file's bytes, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
