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
    beside = path.with_name(f"{path.name}.{os.getpid()}{PARTIAL}")
    try:
        with beside.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except OSError as error:
        # Where the path itself is impossible, so is removing it.
        with contextlib.suppress(OSError):
            beside.unlink()
        raise cannot_write(path, error) from None


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write a JSON file, indented for people, whole or not at all."""
    write_bytes(path, (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode())


def make_folder(path: Path) -> Path:
    """The folder, made with its parents if it is not there.

    Raises:
        SegpressError: if it cannot be made, or is not writable.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(path, error) from None
    if not os.access(path, os.W_OK):
        raise SegpressError(f"{path}: cannot be written (no permission); choose another with --out")
    return path


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
