"""Files and inputs that were sent to a device, named by their content, in one folder of the user's cache."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
from pathlib import Path
from typing import Mapping, Sequence

import numpy as np

from export.errors import BackendError, SurroundingsError

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EIO)
_NAME = re.compile(r"[\w][\w.@+-]*")


class Store:
    """What is kept on a device between two conversations."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._inputs: dict[str, np.ndarray] = {}

    def missing(self, hashes: Sequence[str]) -> list[str]:
        """Those of these contents that are not here, each SHA-256 in hex."""
        return [each for each in hashes if not self._path(each).is_file()]

    def put(self, sha256: str, data: bytes) -> None:
        """Keep this content.

        Raises:
            SurroundingsError: if it arrived damaged, or there is no room.
        """
        if hashlib.sha256(data).hexdigest() != sha256:
            raise SurroundingsError("what was sent arrived damaged (its SHA-256 differs)")
        path = self._path(sha256)
        beside = path.with_name(f"{path.name}.{os.getpid()}.partial")
        try:
            path.parent.mkdir(exist_ok=True)
            with beside.open("wb") as file:
                file.write(data)
            beside.replace(path)
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
            BackendError: if it is not here.
        """
        path = self._path(sha256)
        if not path.is_file():
            raise BackendError("what is asked for is not on the device; it must be made again")
        return path.read_bytes()

    def artifact(self, files: Mapping[str, str]) -> Path:
        """The folder in which these contents lie under their names, verified: an engine is code.

        Args:
            files: SHA-256 of each by its name.

        Raises:
            BackendError: if one is not here, or is not what its name says.
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
        content, path = self._path(sha256), folder / name
        if not content.is_file() or hashlib.sha256(content.read_bytes()).hexdigest() != sha256:
            raise BackendError(f"{name} is not on the device as it was sent; it must be sent again")
        if path.exists():
            path.unlink()
        os.link(str(content), str(path))

    def input(self, sha256: str, shape: Sequence[int]) -> np.ndarray:
        """An input (BCHW) of this content, held in memory from then on."""
        if sha256 not in self._inputs:
            path = self._path(sha256)
            if not path.is_file():
                raise BackendError("an input is not on the device; it must be sent again")
            self._inputs[sha256] = np.frombuffer(path.read_bytes(), dtype="<f4").reshape(tuple(shape))
        return self._inputs[sha256]

    def forget_inputs(self) -> None:
        """Let go of those that are held in memory."""
        self._inputs.clear()

    def clean(self) -> int:
        """Remove everything; returns the bytes that were freed."""
        freed = sum(path.stat().st_size for path in self.folder.rglob("*") if path.is_file())
        shutil.rmtree(str(self.folder), ignore_errors=True)
        return freed

    def _path(self, sha256: str) -> Path:
        if not re.fullmatch("[0-9a-f]{64}", sha256):
            raise BackendError(f"{sha256!r} is no SHA-256")
        return self.folder / "contents" / sha256


def cannot_write(folder: Path, error: OSError) -> SurroundingsError:
    """The sentence for what could not be written there."""
    reason = os.strerror(error.errno) if error.errno else str(error)
    advice = "; make room there" if error.errno in _FULL else ""
    return SurroundingsError(f"{folder}: cannot be written ({reason}){advice}")
