"""How the time of `blocks` grows with stretches, candidates, steps and processes.

    python -m benchmarks.scale

The network is the phantom's U-Net of width 16, on small images. Each process has one thread, so that two of them have
twice the hardware of one; measurements of one and of two processes take turns. The result is benchmarks/scale.md;
docs/scale.md says what follows from it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Annotated

import numpy as np
import torch
import typer
import yaml
from rich.console import Console

from compress.cluster import ALONE, Workers
from compress.editing.blocks.apart import errors_of
from compress.editing.blocks.candidates import Candidate, candidates, kinds
from compress.editing.blocks.learning import Lessons
from compress.editing.blocks.seen import seen_at
from compress.editing.blocks.stretches import Stretch, stretches
from compress.editing.layer_replacement import SkippedSites
from compress.recipe import load
from compress.task import Task
from export.files import write_bytes
from export.host import host_facts, usable_cpus

HERE = Path(__file__).parent
SPACE = ("depthwise_separable", "inverted_residual", "lowrank")
COUNTS = (6, 12, 24, 48)
"""Blocks that are trained side by side."""


def main(
    steps: Annotated[int, typer.Option(help="Training steps of each block.")] = 40,
    long: Annotated[
        int, typer.Option(help="Training steps where processes are compared: the pass's own number.")
    ] = 300,
    size: Annotated[int, typer.Option(help="Side of the images.")] = 96,
    pairs: Annotated[int, typer.Option(help="Measurements of one process and of two, in turns.")] = 1,
    to: Annotated[Path, typer.Option(help="The Markdown file to write.")] = HERE / "scale.md",
) -> None:
    """Measure and write the tables."""
    torch.set_num_threads(1)
    console = Console()
    with TemporaryDirectory() as scratch:
        bench = Bench(task=_task(Path(scratch), size), folder=Path(scratch) / "views", steps=steps)
        lines = [*_head(bench, size)]
        for part in (_of_parts(bench), _of_candidates(bench), _of_processes(bench, pairs, long)):
            for line in part:
                lines.append(line)
                console.print(line, markup=False)
            write_bytes(to, ("\n".join(lines) + "\n").encode())


def _task(folder: Path, size: int) -> Task:
    weights = str(HERE.parent / "recipes/weights/phantom_unet.safetensors")
    recipe = {
        "name": "benchmark-scale",
        "network": {"unet": {"classes": 3, "width": 16, "weights": weights}},
        "data": {"synthetic": {"train": 32, "val": 8, "calibration": 4, "test": 4, "size": [size, size], "batch": 4}},
        "passes": [{"blocks": {"macs": 0.5}}],
    }
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe))
    return load(path).task()


class Bench:
    """One network, and blocks of it that begin anew each time."""

    def __init__(self, task: Task, folder: Path, steps: int) -> None:
        self.task, self.folder, self.steps = task, folder, steps
        self.net = task.net.eval()
        folder.mkdir()
        # Augmented cases are made once, whatever learns from them.
        self.seconds(1, ALONE)

    def found(self) -> list[Stretch]:
        """The network's stretches."""
        return stretches(self.net, torch.from_numpy(next(iter(self.task.probes(most=1)))), SkippedSites(word="scale"))

    def blocks(self, count: int | None = None) -> list[Candidate]:
        """So many of the blocks that learn, spread over all stretches."""
        made = [block for each in self.found() for block in self._of(each) if block.learns]
        return [made[at] for at in np.linspace(0, len(made) - 1, count or len(made)).astype(int)]

    def _of(self, stretch: Stretch) -> list[Candidate]:
        image = torch.from_numpy(next(iter(self.task.probes(most=1))))
        return candidates(stretch, kinds(SPACE), 7, lambda: iter([seen_at(self.net, stretch, image).into]))

    def seconds(self, count: int, workers: Workers, steps: int | None = None) -> float:
        """What training so many blocks takes, in as many groups as there are processes."""
        blocks = self.blocks(count)
        groups: Sequence[Sequence[Candidate]] = [blocks[first :: workers.count] for first in range(workers.count)]
        lessons = Lessons(net=self.net, task=self.task, steps=steps or self.steps, folder=self.folder)
        begun = time.perf_counter()
        list(errors_of(groups, lessons, workers, lambda: None))
        return time.perf_counter() - begun


def _head(bench: Bench, size: int) -> Iterator[str]:
    host = host_facts(usable_cpus())
    yield "# How the time of `blocks` grows"
    yield ""
    yield (
        f"`python -m benchmarks.scale` on {host['cpu']}, {usable_cpus()} CPUs, one thread a process; the phantom's "
        f"U-Net of width 16 at {size}x{size}, {bench.steps} steps of 4 images. What follows from it: "
        "[docs/scale.md](../docs/scale.md)."
    )
    yield ""


def _of_parts(bench: Bench) -> Iterator[str]:
    begun = time.perf_counter()
    found = bench.found()
    looked = time.perf_counter()
    made = bench.blocks()
    yield "| part | how many | seconds | each |"
    yield "|---|--:|--:|--:|"
    yield f"| stretches found | {len(found)} | {looked - begun:.1f} | {(looked - begun) / len(found):.3f} |"
    both = time.perf_counter() - looked - (looked - begun)
    yield f"| blocks made | {len(made)} | {both:.1f} | {both / len(made):.3f} |"
    yield ""


def _of_candidates(bench: Bench) -> Iterator[str]:
    yield "| blocks trained side by side | seconds | a block |"
    yield "|--:|--:|--:|"
    took = {count: bench.seconds(count, ALONE) for count in COUNTS}
    for count, seconds in took.items():
        yield f"| {count} | {seconds:.1f} | {seconds / count:.2f} |"
    slope, rest = np.polyfit(list(took), list(took.values()), 1)
    yield ""
    yield f"By least squares {rest:.1f} s for the trained network, and {slope:.2f} s for each block."
    yield ""


def _of_processes(bench: Bench, pairs: int, steps: int) -> Iterator[str]:
    count = COUNTS[-1]
    took: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(pairs):
        for processes, seconds in took.items():
            seconds.append(bench.seconds(count, Workers(count=processes), steps))
    one, two = (median(took[processes]) for processes in (1, 2))
    yield f"| processes | seconds to train {count} blocks for {steps} steps, median of {pairs} | of one process's |"
    yield "|--:|--:|--:|"
    yield f"| 1 | {one:.1f} ({', '.join(f'{each:.1f}' for each in took[1])}) | 1 |"
    yield f"| 2 | {two:.1f} ({', '.join(f'{each:.1f}' for each in took[2])}) | {two / one:.2f} |"
    yield ""
    yield "Two need time for Ray to begin and for each to import torch, and each runs the trained network."


if __name__ == "__main__":
    typer.run(main)
