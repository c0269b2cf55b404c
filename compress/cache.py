"""What a run keeps, so that the next one goes on where it stopped.

Every finished piece of work is a JSON record with a key: a hash of everything it depends on (the
recipe up to there, the data, the weights, our code, the libraries). A record with the right key is
the answer; with another, or none, the work is done again. Records are written whole or not at all,
so a run killed at any moment leaves only whole ones.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import platform
import shutil
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import export
from compress.errors import TRACED, SegpressError, SurroundingsError
from export.files import PARTIAL, cannot_write, make_folder, write_json
from export.registry import find_backend, words

_LIBRARIES = (
    "torch",
    "numpy",
    "scipy",
    "monai",
    "torchvision",
    "timm",
    "segmentation-models-pytorch",
    "onnx",
    "onnxscript",
)
"""Those of runtimes are told by the runtimes."""


class Cache:
    """The records under one run's folder."""

    def __init__(self, folder: Path, own: str = "") -> None:
        """The records there.

        Args:
            own: of several processes that work in one folder, a name for what each writes by itself.
        """
        self.folder, self.own = folder, own

    def value(self, name: str, key: str, make: Callable[[], Any]) -> Any:
        """The kept value of this name if its key is still right, else what `make` gives, which is then kept."""
        path = self.folder / "kept" / f"{name}.json"
        kept = _read(path)
        if kept is not None and kept.get("key") == key:
            return kept["value"]
        value = make()
        make_folder(path.parent)
        write_json(path, {"key": key, "value": value})
        return value

    def holds(self, name: str, key: str) -> bool:
        """Whether the kept value of this name is still right."""
        kept = _read(self.folder / "kept" / f"{name}.json")
        return kept is not None and kept.get("key") == key


def _read(path: Path) -> dict[str, Any] | None:
    try:
        kept = json.loads(path.read_text())
    except (OSError, json.JSONDecodeError):
        return None
    return kept if isinstance(kept, dict) and "value" in kept else None


def key_of(*parts: Any) -> str:
    """A hash of whatever the work depends on; values are told apart by their representation."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()


@cache
def versions() -> dict[str, str]:
    """Our version, Python's, and those of the libraries that change a result."""
    found = {"segpress": version("segpress"), "python": platform.python_version()}
    of_runtimes = (library for word in words("export.backends") for library in find_backend(word).libraries)
    for library in (*_LIBRARIES, *of_runtimes):
        try:
            found[library] = version(library)
        except PackageNotFoundError:
            continue
    return found


@cache
def code_key() -> str:
    """A hash of every source file of ours: work done by other code is not trusted."""
    digest = hashlib.sha256()
    for package in (Path(__file__).parent, Path(export.__file__).parent):
        for source in sorted((*package.rglob("*.py"), *package.rglob("*.j2"))):
            digest.update(source.relative_to(package).as_posix().encode() + source.read_bytes())
    return digest.hexdigest()


@contextmanager
def claimed(folder: Path, *, fresh: bool) -> Iterator[None]:
    """The run's folder, made and held for this process; what a killed run left half-written is removed.

    Raises:
        SurroundingsError: if another run holds the folder.
        SegpressError: if it cannot be written.
    """
    make_folder(folder)
    try:
        lock = (folder / ".lock").open("w")
    except OSError as error:
        raise cannot_write(folder, error) from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SurroundingsError(f"{folder}: another run is writing there; wait for it, or choose --out") from None
        except OSError as error:
            raise SurroundingsError(
                f"{folder}: its file system has no locks ({error.strerror}); choose --out"
            ) from None
        for half in folder.rglob(f"*{PARTIAL}"):
            half.unlink(missing_ok=True)
        if fresh:
            for entry in folder.iterdir():
                if entry.is_dir():
                    shutil.rmtree(entry)
                elif entry.name != ".lock":
                    entry.unlink()
        with traced(folder / "log.txt"):
            yield


@contextmanager
def traced(log: Path) -> Iterator[None]:
    """While open, the trace of an error that nobody foresaw is appended to this file; the error goes on."""
    try:
        yield
    except (SegpressError, KeyboardInterrupt):
        raise
    except BaseException as error:
        with contextlib.suppress(OSError), log.open("a", encoding="utf-8") as file:
            file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {''.join(traceback.format_exception(error))}")
            error.add_note(f"{TRACED}{log}")
        raise
