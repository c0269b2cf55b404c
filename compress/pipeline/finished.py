"""A run that has ended, as it is looked at again."""

from __future__ import annotations

from pathlib import Path

from compress.errors import SegpressError
from compress.pipeline.manifest import check_report
from compress.report.reading import Recorded, read_report


def finished(folder: Path) -> Recorded:
    """The report of the run in this folder, which is only read.

    Raises:
        SegpressError: if there is none, or it is not the one that the run wrote.
    """
    path = folder_of(folder) / "report.json"
    check_report(path)
    return read_report(path)


def folder_of(folder: Path) -> Path:
    """The folder, if it is one.

    Raises:
        SegpressError: if it is not there, or is a file.
    """
    if not folder.is_dir():
        there = "a file: give the folder of its run" if folder.exists() else "no such folder: give that of a run"
        raise SegpressError(f"{folder}: {there}, such as runs/unet-int8")
    return folder
