"""What tells whether a data set is the one that it was: by its files' dates, or by their bytes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from export.files import sha256

Role = TypeVar("Role")
Cases = Mapping[Role, Sequence[Any]]
Files = Callable[[Any], tuple[Path, ...]]
"""The files of one case."""


def by_dates(read: Sequence[Any], cases: Cases[Role], roles: Sequence[Role], files: Files) -> str:
    """Changes when a case, a file (size or time of change) or one of `read` changes."""
    text = [repr(tuple(read))]
    for role in roles:
        for case in cases[role]:
            stats = [path.stat() for path in files(case)]
            text.append(repr((role, case, [(stat.st_size, stat.st_mtime_ns) for stat in stats])))
    return hashlib.sha256("\n".join(text).encode()).hexdigest()


def by_bytes(cases: Cases[Role], roles: Sequence[Role], files: Files) -> str:
    """Of the bytes of every file, with the role and name of its case: the same wherever the data lies."""
    # A file may be there once for each tile, and a mask once for each of its images.
    sums = {path: sha256(path) for path in {path for some in cases.values() for case in some for path in files(case)}}
    text = [
        repr((role, case.name, case.patient, case.corner, *(sums[path] for path in files(case)), *_within(case, files)))
        for role in roles
        for case in cases[role]
    ]
    return hashlib.sha256("\n".join(text).encode()).hexdigest()


def _within(case: Any, files: Files) -> tuple[str, ...]:
    """What tells a mask among others of the same file."""
    return () if case.mask in files(case) else (case.mask.name,)
