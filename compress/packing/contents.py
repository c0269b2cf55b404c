"""What packs of several kinds hold."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from compress.packing.source import Source
from export.files import write_json

PROGRAM = ("segpress_run.py", "segpress_pixels.py")
RUNNER = Path(__file__).parent / "runner"


def put_model(source: Source, folder: Path) -> None:
    """The artifact's files, under their names."""
    for file in source.artifact.files:
        shutil.copyfile(file, folder / file.name)


def put_program(told: Mapping[str, Any], folder: Path) -> None:
    """segpress.json, and the Python files that read it."""
    write_json(folder / "segpress.json", told)
    for name in PROGRAM:
        shutil.copyfile(RUNNER / name, folder / name)
