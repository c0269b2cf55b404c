"""How long calibration takes, beside NNCF's of the same network on the same cases.

    python -m benchmarks.calibration

All ways are run in turns in one process; the ratio is taken within each turn, since a host's load changes. The result
is written to benchmarks/calibration.md.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer

from benchmarks.ptq_peers import nncf_artifact
from compress.cache import versions
from compress.editing.calibration import calibrated
from compress.passes.int8 import Int8
from compress.recipe import load
from compress.task import Task
from export.capture import folded_graph
from export.files import make_folder, write_bytes
from export.host import conditions, host_facts
from export.to_onnx import to_onnx

HERE = Path(__file__).parent
Seconds = dict[str, list[float]]


def main(
    recipe: Annotated[Path, typer.Option()] = HERE.parent / "recipes" / "unet_int8.yaml",
    data: Annotated[Path | None, typer.Option(help="Another folder than the recipe's.")] = None,
    threads: int = 2,
    turns: int = 7,
    to: Annotated[Path, typer.Option(help="The Markdown file to write.")] = HERE / "calibration.md",
) -> None:
    """Calibrate in turns; print and write the table."""
    torch.set_num_threads(threads)
    task = load(recipe, data).task()
    with tempfile.TemporaryDirectory() as folder:
        found = calibration_times(task, Path(folder), turns)
    page = _page(found, task, recipe, threads)
    write_bytes(to, page.encode())
    typer.echo(page)


def calibration_times(task: Task, folder: Path, turns: int) -> Seconds:
    """Seconds that each way of calibrating takes, in turns."""
    graph = folded_graph(task.net, task.example, task.dynamic)
    images = [torch.from_numpy(image) for image in task.data.images(task.data.cases["calibration"])]
    onnx = to_onnx(graph, task.example, make_folder(folder / "calibration") / "model.onnx")
    ways: dict[str, Callable[[], object]] = {
        "NNCF, quantize()": partial(nncf_artifact, onnx, task, onnx.path.parent, 1),
        **{
            f"segpress, ranges by `{method}`": partial(
                calibrated, graph, images, Int8(method=method).estimator, len(images)
            )
            for method in ("mse", "min_max")
        },
        "segpress, the whole of `int8`": partial(Int8(), task.net, task),
    }
    found: Seconds = {name: [] for name in ways}
    for _ in range(turns):
        for name, run in ways.items():
            started = time.perf_counter()
            run()
            found[name].append(time.perf_counter() - started)
    return found


def _page(found: Seconds, task: Task, recipe: Path, threads: int) -> str:
    first, *_ = found
    host = host_facts(threads)
    lines = []
    for name, seconds in found.items():
        low, middle, high = np.percentile(np.asarray(seconds) / np.asarray(found[first]), [25, 50, 75])
        lines.append(f"| {name} | {np.median(seconds):.1f} | {middle:.2f} ({low:.2f} to {high:.2f}) |")
    size = "x".join(map(str, task.data.fit.size))
    return "\n".join(
        [
            "# How long calibration takes",
            "",
            f"`python -m benchmarks.calibration`: the network of recipes/{recipe.name} at {size},",
            f"{len(task.data.cases['calibration'])} cases, in turns, median of {len(found[first])}.",
            "",
            f"- Host: {host['cpu']}, {threads} threads, {', '.join(host['isa'])}; {conditions()}",
            f"- {', '.join(f'{name} {number}' for name, number in versions().items())}",
            "- The ratio is taken within each turn: median, and the middle half. NNCF's time includes what it does for",
            "  biases, that of the whole pass its tries on cases held back and on every runtime's rules.",
            "",
            "| what | seconds | over NNCF |",
            "|---|---|---|",
            *lines,
            "",
        ]
    )


if __name__ == "__main__":
    typer.run(main)
