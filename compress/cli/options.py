"""What several commands take, and the console that they print on."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

RecipePath = Annotated[Path, typer.Argument(help="The recipe, a YAML file.", show_default=False)]
DataRoot = Annotated[Path | None, typer.Option("--data", help="Use this data folder instead of the recipe's.")]
Out = Annotated[Path, typer.Option(help="Where the run's folder is made.")]
Fresh = Annotated[bool, typer.Option("--fresh", help="Start over; forget what is kept.")]
RunFolder = Annotated[
    Path, typer.Argument(help="The folder of a finished run, such as runs/unet-int8.", show_default=False)
]
Junit = Annotated[Path | None, typer.Option("--junit", help="Also write JUnit XML there: a test case a gate.")]
Summary = Annotated[
    Path | None, typer.Option("--summary", help="Also append the verdict as Markdown, as to $GITHUB_STEP_SUMMARY.")
]
Benchmark = Annotated[
    Path | None, typer.Option("--benchmark-json", help="Also write latency, size and drop for github-action-benchmark.")
]
Pdf = Annotated[Path | None, typer.Option("--pdf", help="Also print the report there, on A4; Chromium does it.")]
Mlflow = Annotated[
    str | None, typer.Option("--mlflow", help="Also tell MLflow, as a run of this experiment (MLFLOW_TRACKING_URI).")
]
Cluster = Annotated[
    str | None, typer.Option(help="The address of a Ray cluster whose machines all see the folders named.")
]


def console_of_output() -> Any:
    """The rich console of the standard output."""
    from rich.console import Console

    # A pipe has no width of its own, and 80 columns break the tables.
    terminal = sys.stdout is not None and sys.stdout.isatty()
    return Console(highlight=False, width=None if terminal else 110)


def size_of(text: str | None, axes: tuple[int, ...] = (2, 3)) -> tuple[int, ...] | None:
    """The sides that `--size` gives; None where it is not given."""
    from compress.errors import SegpressError

    sides = [] if text is None else text.lower().split("x")
    if text is None:
        return None
    if len(sides) not in axes or not all(side.isdecimal() and int(side) > 0 for side in sides):
        or_three = ", or three sides" if 3 in axes else ""
        raise SegpressError(f"--size: '{text}' is not a height and a width, such as 256x256{or_three}")
    return tuple(map(int, sides))
