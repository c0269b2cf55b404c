"""Files and inputs that were sent to a device, named by their content, in one folder of the user's cache."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import platform
import re
import shutil
from pathlib import Path
from typing import Mapping, Sequence

import numpy as np

from export.errors import BackendError, SurroundingsError

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EIO)
_NAME = re.compile(r"[\w][\w.@+:%-]*")
"""Of a file: that of its device, with its host, is a part of it."""
NODE = re.sub(r"[^\w-]+", "_", platform.node())
"""This machine, in the names of what is its own: several can share a home over the network."""
LOCK = f"lock-{NODE}"
SCRATCH = f"build-{NODE}-"
"""What the folder of an engine that is being built begins with."""
PARTIAL = f".{NODE}.{{}}.partial"
"""What a file ends with that a process is writing."""
_LOST = "what was sent is not on the device as it was sent"
_AGAIN = "the same command sends it again"


class Store:
    """What is kept on a device between two conversations."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._held: dict[str, np.ndarray] = {}
        self._sound: set[str] = set()
        """Contents that were found to be as they were sent, or arrived so."""

    def tidy(self) -> None:
        """Remove what one that was killed left half done."""
        for path in self.folder.glob(f"contents/*{PARTIAL.format('*')}"):
            with contextlib.suppress(OSError):
                path.unlink()
        for folder in self.folder.glob(f"{SCRATCH}*"):
            shutil.rmtree(str(folder), ignore_errors=True)

    def missing(self, hashes: Sequence[str]) -> list[str]:
        """Those of these contents that are not here as they were sent, each SHA-256 in hex."""
        return [each for each in hashes if not self._is_sound(each)]

    def put(self, sha256: str, data: bytes) -> None:
        """Keep this content.

        Raises:
            SurroundingsError: if it arrived damaged, or there is no room.
        """
        if hashlib.sha256(data).hexdigest() != sha256:
            raise SurroundingsError("what was sent arrived damaged (its SHA-256 differs)")
        path = self._path(sha256)
        beside = path.with_name(path.name + PARTIAL.format(os.getpid()))
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with beside.open("wb") as file:
                file.write(data)
            beside.replace(path)
            self._sound.add(sha256)
        except OSError as error:
            if beside.exists():
                beside.unlink()
            raise cannot_write(path.parent, error) from None

    def keep(self, data: bytes) -> str:
        """Keep what was made here; returns its SHA-256."""
        sha256 = hashlib.sha256(data).hexdigest()
        self.put(sha256, data)
        return sha256

    def content(self, sha256: str) -> bytes:
        """What was kept.

        Raises:
            SurroundingsError: if it is not here, or was changed.
        """
        try:
            data = self._path(sha256).read_bytes()
        except OSError as error:
            raise SurroundingsError(f"{_LOST}: {os.strerror(error.errno or 0)}; {_AGAIN}") from None
        if hashlib.sha256(data).hexdigest() != sha256:
            raise SurroundingsError(f"{_LOST}: its SHA-256 differs; {_AGAIN}")
        return data

    def artifact(self, files: Mapping[str, str]) -> Path:
        """The folder in which these contents lie under their names, verified: an engine is code.

        Args:
            files: SHA-256 of each by its name.

        Raises:
            SurroundingsError: if one is not here, or is not what its name says.
        """
        key = hashlib.sha256(repr(sorted(files.items())).encode()).hexdigest()
        folder = self.folder / "artifacts" / key[:16]
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for name, sha256 in files.items():
                self._lay(folder, name, sha256)
        except OSError as error:
            raise cannot_write(folder, error) from None
        return folder

    def _lay(self, folder: Path, name: str, sha256: str) -> None:
        if not _NAME.fullmatch(name):
            raise BackendError(f"{name!r} is no name of a file")
        self.content(sha256)
        beside = folder / (name + PARTIAL.format(os.getpid()))
        try:
            os.link(str(self._path(sha256)), str(beside))
        except OSError:
            # Cards and shares without links (FAT, some of a network).
            shutil.copyfile(str(self._path(sha256)), str(beside))
        beside.replace(folder / name)
        with contextlib.suppress(OSError):
            # It stays where both are one file already.
            beside.unlink()

    def input(self, sha256: str, shape: Sequence[int]) -> np.ndarray:
        """An input (BCHW) of this content."""
        held = self._held.get(sha256)
        # The same content can be asked for in another shape.
        return (np.frombuffer(self.content(sha256), dtype="<f4") if held is None else held).reshape(tuple(shape))

    def hold(self, hashes: Sequence[str]) -> None:
        """Have these inputs in memory, and no others: all that are scored would be more than a board has."""
        self._held = {each: self._held[each] for each in hashes if each in self._held}
        for each in hashes:
            if each not in self._held:
                self._held[each] = np.frombuffer(self.content(each), dtype="<f4")

    def forget_inputs(self) -> None:
        """Let go of those that are held in memory."""
        self._held.clear()

    def _is_sound(self, sha256: str) -> bool:
        if sha256 not in self._sound:
            try:
                self.content(sha256)
            except SurroundingsError:
                return False
            self._sound.add(sha256)
        return self._path(sha256).is_file()

    def _path(self, sha256: str) -> Path:
        if not re.fullmatch("[0-9a-f]{64}", sha256):
            raise BackendError(f"{sha256!r} is no SHA-256")
        return self.folder / "contents" / sha256


def cannot_write(folder: Path, error: OSError) -> SurroundingsError:
    """The sentence for what could not be written there."""
    reason = os.strerror(error.errno) if error.errno else str(error)
    advice = "; make room there" if error.errno in _FULL else ""
    return SurroundingsError(f"{folder}: cannot be written ({reason}){advice}")


def clean(folder: Path) -> int:
    """Remove all that was sent; returns the bytes that were freed.

    Raises:
        SurroundingsError: if something stays.
    """
    before = _size(folder)
    # The folder can be a link to a disk with more room: what is in it goes, and the lock last.
    for entry in sorted(folder.iterdir(), key=lambda each: each.name == LOCK):
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(str(entry), ignore_errors=True)
        else:
            with contextlib.suppress(OSError):
                entry.unlink()
    left = _size(folder)
    if left:
        raise SurroundingsError(f"{folder}: {left:,} bytes cannot be removed; remove them there by hand")
    with contextlib.suppress(OSError):
        folder.rmdir()
    return before


def _size(folder: Path) -> int:
    # A file that is open still, as the lock is, stays under such a name on a network's disk.
    files = (path for path in folder.rglob("*") if path.is_file() and not path.name.startswith(".nfs"))
    # An artifact is a second name of its content.
    return sum({told.st_ino: told.st_size for told in (path.stat() for path in files)}.values())
