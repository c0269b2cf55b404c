"""`compress verify`: whether a finished run is as it was left, and its report follows from what it kept."""

from __future__ import annotations

from pathlib import Path

from compress.errors import SegpressError
from compress.pipeline.finished import finished, folder_of
from compress.pipeline.manifest import faults, read_manifest
from compress.pipeline.recomputed import differences
from compress.report.derived import verdicts


def verify(folder: Path) -> list[str]:
    """Look at every byte of the run in this folder, then at every number of its report; what was found right.

    Numbers are computed again only where every file is the one that the run wrote.

    Raises:
        SegpressError: with a sentence for each file that was changed, added or is missing, or else for each number that
            does not follow from what is kept.
    """
    folder_of(folder)
    _refuse(folder, list(faults(folder)))
    run = finished(folder)
    _refuse(folder, list(differences(run)))
    return [
        f"{folder}: {len(read_manifest(folder).files)} files are as the run left them",
        f"{run.path}: its numbers follow from what is kept: {len(run.rows)} rows, {len(run.record['gates'])} verdicts",
        f"{run.path}: {verdicts.conclusion(run.record).sentence}",
    ]


def _refuse(folder: Path, found: list[str]) -> None:
    if len(found) == 1:
        raise SegpressError(found[0])
    if found:
        raise SegpressError(f"{folder}: {len(found)} faults\n" + "\n".join(f"  {each}" for each in found))
