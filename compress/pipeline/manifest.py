"""manifest.json: the SHA-256 of every file of a finished run, so that a changed byte in any of them is found.

It lists the report in its forms and every file under `artifacts`, `kept` and `steps`; of the log, to which later
commands append, as many bytes as the run left. It is written last: a folder without one holds no finished run. Its own
bytes follow from what it lists, with the hash of that list, so that a byte changed in itself is found too.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compress.errors import SegpressError
from export.files import PARTIAL, sha256, write_bytes

NAME = "manifest.json"
REPORTS = ("report.json", "report.md", "report.html")
FOLDERS = ("artifacts", "kept", "steps")
LOG = "log.txt"
APART = ("kept/sensitivity/",)
"""What `compress sensitivity` measures in the same folder, at any time after the run."""
AGAIN = "run the recipe again (compress run), or restore the file"


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What a run left behind."""

    files: Mapping[str, str]
    """The SHA-256 of each, by its path relative to the run's folder."""
    log_bytes: int
    log_sha256: str
    """Of the log's first `log_bytes`."""

    def as_bytes(self) -> bytes:
        """The file, which has one form only."""
        listed = {
            "files": dict(sorted(self.files.items())),
            "log": {"bytes": self.log_bytes, "sha256": self.log_sha256},
        }
        own = hashlib.sha256(json.dumps(listed, ensure_ascii=False).encode()).hexdigest()
        return (json.dumps({**listed, "sha256": own}, indent=2, ensure_ascii=False) + "\n").encode()


def seal(folder: Path) -> None:
    """Write the manifest of the run that has just ended in this folder."""
    size = (folder / LOG).stat().st_size if (folder / LOG).is_file() else 0
    files = {name: sha256(folder / name) for name in _there(folder)}
    write_bytes(folder / NAME, Manifest(files=files, log_bytes=size, log_sha256=_begun(folder / LOG, size)).as_bytes())


def unseal(folder: Path) -> None:
    """Remove the manifest, since what it lists is about to change: a run that stops half-way has none."""
    (folder / NAME).unlink(missing_ok=True)


def faults(folder: Path) -> Iterator[str]:
    """A sentence for each file that is not as the run left it, was added, or is missing.

    Raises:
        SegpressError: if there is no manifest to compare with, or it was itself changed.
    """
    manifest = read_manifest(folder)
    there = set(_there(folder))
    for name, known in manifest.files.items():
        if name not in there:
            yield f"{folder / name}: is missing; {AGAIN}"
        elif _hash(folder / name) != known:
            yield f"{folder / name}: was changed after the run (its SHA-256 differs); {AGAIN}"
    for name in sorted(there - set(manifest.files)):
        yield f"{folder / name}: was added after the run; remove it"
    if _begun(folder / LOG, manifest.log_bytes) != manifest.log_sha256:
        yield f"{folder / LOG}: the part that the run wrote was changed after it; {AGAIN}"


def check_report(path: Path) -> None:
    """Whether a report.json is the one that its run wrote; one without a manifest beside it is taken as it is.

    Raises:
        SegpressError: if it, or the manifest, was changed.
    """
    if not (path.parent / NAME).is_file() or not path.is_file():
        return
    known = read_manifest(path.parent).files.get(path.name)
    if known != _hash(path):
        raise SegpressError(f"{path}: was changed after the run (its SHA-256 differs); {AGAIN}")


def unsealed(*folders: Path) -> tuple[str, ...]:
    """A sentence for each folder without a manifest: of an older version's run, or of one that goes on."""
    bare = [folder for folder in dict.fromkeys(folders) if not (folder / NAME).is_file()]
    return tuple(f"{folder} is without {NAME}, so whether its run has ended is not known." for folder in bare)


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a finished run.

    Raises:
        SegpressError: if there is none, or it is not as it was written.
    """
    path = folder / NAME
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise SegpressError(
            f"{path}: there is none: the run has not ended, or an older version made it; run the recipe again"
        ) from None
    except OSError as error:
        raise SegpressError(f"{path}: cannot be read ({error.strerror})") from None
    try:
        manifest = _parsed(json.loads(data))
        whole = manifest.as_bytes() == data
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        whole = False
    if not whole:
        raise SegpressError(f"{path}: was changed after the run (it is not as it was written); {AGAIN}")
    return manifest


def _parsed(record: Any) -> Manifest:
    log = record["log"]
    return Manifest(files=dict(record["files"]), log_bytes=int(log["bytes"]), log_sha256=str(log["sha256"]))


def _there(folder: Path) -> list[str]:
    """The files of the run that are there now, by their paths relative to its folder."""
    inside = (path for name in FOLDERS for path in (folder / name).rglob("*"))
    paths = [*(folder / name for name in REPORTS), *inside]
    names = sorted(path.relative_to(folder).as_posix() for path in paths if path.is_file())
    return [name for name in names if not name.startswith(APART) and not name.endswith(PARTIAL)]


def _hash(path: Path) -> str:
    try:
        return sha256(path)
    except OSError as error:
        raise SegpressError(f"{path}: cannot be read ({error.strerror})") from None


def _begun(path: Path, size: int) -> str:
    """The SHA-256 of the first bytes of a file; of nothing where it is not there."""
    if not path.is_file():
        return hashlib.sha256(b"").hexdigest()
    with path.open("rb") as file:
        return hashlib.sha256(file.read(size)).hexdigest()
