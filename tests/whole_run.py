"""A whole run over tiny real things, made once for all tests, and what tests go on with."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from shared_fixtures import write_recipe

from compress.commands.run import run
from compress.recipe import load
from compress.report.report import Report

TIMES = ("latency_ms", "peak_memory_mb", "slower")
Done = tuple[Path, dict[str, Any]]
"""A finished run's folder, and its report."""


def quiet(_: str) -> None:
    """A log nobody reads."""


def finished(place: Path, folder: Path, weights: Path) -> None:
    """A run with gates of every kind, its recipe at `place` and its folder `place/out`."""
    recipe = {
        "name": "tiny",
        "network": {"unet": {"classes": 3, "in_channels": 1, "width": 8, "depth": 2, "weights": str(weights)}},
        "data": {"folder": {"root": str(folder), "size": [32, 32]}},
        "passes": [{"int8": {"calibrate": 8, "method": "mse", "keep": ["head"]}}],
        "devices": ["cpu", "rtx_40"],
        "latency": {"samples": 10, "seconds": 0.2, "warm_up": 0, "threads": 1},
        "gates": [
            {"dice_drop": {"at_most": 0.05, "device": "cpu"}},
            {"hd95_rise": {"at_most": 5, "device": "cpu", "class": "square"}},
            {"parity": {"at_most": 0.05, "device": "cpu"}},
            {"size_mb": {"at_most": 1}},
            {"latency_ms": {"at_most": 10_000, "device": "rtx_40"}},
            {"latency_ms": {"at_most": 10_000, "device": "cpu", "percentile": 99}},
        ],
    }
    run(load(write_recipe(place, recipe)), place / "out", say=quiet)


def gone_on(done: Done, place: Path, **changes: Any) -> Report:
    """The finished run under a changed recipe: what the change leaves as it was is not done again."""
    shutil.copytree(done[0], place / "out")
    recipe = {**done[1]["recipe"], "devices": ["cpu"], "gates": [], **changes}
    return run(load(write_recipe(place, recipe)), place / "out", say=quiet)
