"""Post-training int8 of one network by four tools, scored on the same test cases and timed in turns.

    python -m benchmarks.ptq --data <folder of usgra_nerve> [--networks <folder>]

Ours for OpenVINO and for ONNX Runtime, NNCF's post-training quantization (OpenVINO), and ONNX
Runtime's quantize_static with its default settings; the float network on all three runtimes beside
them. All calibrate on the same cases. `--networks` is a folder of folders with a recipe.yaml each, a trained network
and its data: their drops are a second table. The result is written to benchmarks/ptq.md.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console

from benchmarks.ptq_networks import networks_page
from benchmarks.ptq_peers import nncf_artifact, onnxruntime_static
from compress import progress
from compress.cache import Cache, versions
from compress.gates.judging.paired_drop import paired_drop
from compress.measure.latency import Samples, Timing, interleaved
from compress.measure.segmentation import Scores
from compress.pipeline.build import Builder
from compress.pipeline.deployment import Deployment, target_on
from compress.pipeline.peak_memory import PeakMemory
from compress.pipeline.stages import baseline, chain
from compress.recipe import load
from compress.task import Task
from export.artifact import Infer
from export.backends.torch import infer_from_module
from export.files import write_bytes
from export.host import conditions, host_facts
from export.registry import find_device
from export.to_onnx import Style

HERE = Path(__file__).parent


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One tool's artifact, open and ready."""

    name: str
    infer: Infer
    size_mb: float


def main(
    data: Annotated[Path, typer.Option(help="Folder of usgra_nerve.")],
    recipe: Annotated[Path, typer.Option()] = HERE.parent / "recipes" / "nerve_unet_int8.yaml",
    threads: int = 2,
    samples: int = 200,
    seconds: float = 60.0,
    networks: Annotated[Path | None, typer.Option(help="Folder of trained networks, a recipe.yaml in each.")] = None,
    cases: Annotated[int, typer.Option(help="Test cases on which each of these is scored.")] = 60,
    to: Annotated[Path, typer.Option(help="The Markdown file to write.")] = HERE / "ptq.md",
) -> None:
    """Quantize, score and time; print and write the tables."""
    loaded = load(recipe, data)
    task = loaded.task()
    task.check()
    timing = Timing(threads=threads, samples=samples, seconds=seconds)
    with tempfile.TemporaryDirectory() as scratch, contextlib.ExitStack() as stack:
        entries = list(_entries(loaded, task, Path(scratch), threads, stack))
        scores = {}
        for entry in entries:
            with progress.steps(f"scoring {entry.name}", len(task.data.cases["test"])) as step:
                scores[entry.name] = task.measure(entry.infer, step)
        images = list(task.data.images(task.data.cases["test"][:16]))
        runs = {entry.name: _run(entry.infer, images) for entry in entries}
        times = interleaved(runs, timing, task.seed)
    page = _page(entries, scores, times, threads, task)
    if networks is not None:
        page += networks_page(networks, threads, cases)
    write_bytes(to, page.encode())
    Console(width=140).print(page, markup=False)


def _run(infer: Infer, images: list[np.ndarray]) -> Any:
    return lambda number: infer(images[number % len(images)])


def _entries(recipe: Any, task: Task, folder: Path, threads: int, stack: contextlib.ExitStack) -> Iterator[Entry]:
    cache = Cache(folder)
    before = baseline(task, "benchmark", cache, print)
    stage = chain(recipe.passes[:1], before, task, cache, print)[0]
    # No peak memory: nothing runs beside what is timed.
    peaks = stack.enter_context(PeakMemory(at_once=0))
    builder = Builder(task, Style(opset=recipe.opset), cache, print, peaks)

    def ours(backend: str, which: Any, name: str) -> Entry:
        deployment = Deployment(backend=backend, target=target_on(find_device("cpu"), threads))
        build = builder.build(which, deployment)
        assert build is not None and build.artifact is not None, build
        opened = stack.enter_context(deployment.open().open(build.artifact))
        return Entry(name=name, infer=opened, size_mb=build.artifact.size_mb)

    yield Entry(name="torch fp32 (eager)", infer=infer_from_module(task.net), size_mb=before.path.stat().st_size / 1e6)
    yield ours("onnxruntime", before, "ONNX Runtime fp32")
    yield ours("openvino", before, "OpenVINO fp32")
    yield ours("onnxruntime", stage, "ONNX Runtime int8, segpress")
    yield ours("openvino", stage, "OpenVINO int8, segpress")
    onnx = builder.exports.file(before, "model", None)
    for make in (onnxruntime_static, nncf_artifact):
        name, artifact, backend = make(onnx, task, folder, threads)
        opened = stack.enter_context(backend.open(artifact))
        yield Entry(name=name, infer=opened, size_mb=artifact.size_mb)


def _ratio(before_ms: list[float], after_ms: list[float]) -> tuple[float, float, float]:
    """How many times faster the second is, by medians, with a bootstrap interval: low, middle, high."""
    random = np.random.default_rng(0)
    ratios = [
        np.median(random.choice(before_ms, len(before_ms))) / np.median(random.choice(after_ms, len(after_ms)))
        for _ in range(2000)
    ]
    low, high = np.percentile(ratios, [2.5, 97.5])
    return float(low), float(np.median(before_ms) / np.median(after_ms)), float(high)


def _page(entries: list[Entry], scores: dict[str, Scores], times: dict[str, Samples], threads: int, task: Task) -> str:
    first = scores[entries[0].name]
    torch_ms = times[entries[0].name].as_dict()["p50"]
    lines = []
    for entry in entries:
        time = times[entry.name].as_dict()
        drop = paired_drop(first, scores[entry.name], None, "dice")
        lines.append(
            f"| {entry.name} | {scores[entry.name].mean('dice'):.4f} | {drop.mean:+.4f} | {drop.upper:+.4f} "
            f"| {time['p50']:.1f} | {time['p95']:.1f} | {torch_ms / time['p50']:.2f}x | {entry.size_mb:.2f} "
            f"| {time['n']} |"
        )
    names = [entry.name for entry in entries if entry.name.startswith("OpenVINO int8")]
    low, middle, high = _ratio(times[names[1]].times_ms, times[names[0]].times_ms)
    host = host_facts(threads)
    libraries = ", ".join(f"{name} {number}" for name, number in versions().items())
    height, width = task.data.fit.size
    return "\n".join(
        [
            "# Post-training int8, side by side",
            "",
            "`python -m benchmarks.ptq --data <folder of usgra_nerve>`: one run, artifacts timed in turns.",
            "",
            f"- Host: {host['cpu']}, {threads} threads, {', '.join(host['isa'])}; {conditions()}",
            f"- Network: U-Net width 32, {height}x{width}, batch 1; {len(first.cases)} test cases of usgra_nerve;",
            f"  calibration on {len(task.data.cases['calibration'])} cases that were neither trained on nor tested on",
            f"- {libraries}",
            "- Drop: mean foreground Dice of torch fp32 minus the artifact's, paired by case; upper: one-sided 95 %",
            "",
            "| artifact | Dice | drop | upper | p50 ms | p95 ms | over torch | MB | n |",
            "|---|---|---|---|---|---|---|---|---|",
            *lines,
            "",
            f"{names[0]} over {names[1]}: {middle:.3f}x "
            f"(95 % interval {low:.3f} to {high:.3f}, bootstrap of the medians).",
            "",
        ]
    )


if __name__ == "__main__":
    typer.run(main)
