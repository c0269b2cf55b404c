"""The part of benchmarks/ptq.py about many networks: what each tool's integers cost them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch import nn

from benchmarks.ptq_peers import nncf_artifact, onnxruntime_static
from compress import progress
from compress.errors import SegpressError
from compress.gates.judging.paired_drop import paired_drop
from compress.measure.segmentation import Scores
from compress.passes.int8 import Int8
from compress.recipe import load
from compress.task import Task
from export.artifact import Artifact
from export.backend import Backend
from export.backends.onnxruntime import OnnxRuntime
from export.backends.openvino import OpenVino
from export.files import make_folder
from export.to_onnx import to_onnx

OURS = {"normal": Int8(), "best": Int8(effort="best")}


def networks_page(folder: Path, threads: int, most: int) -> str:
    """A table of the drops of every network in a folder, by each tool."""
    rows = [_row(recipe, threads, most) for recipe in sorted(folder.glob("*/recipe.yaml"))]
    titles = [
        "Dice, torch",
        *(f"ONNX Runtime, segpress `{effort}`" for effort in OURS),
        "ONNX Runtime, quantize_static",
        *(f"OpenVINO, segpress `{effort}`" for effort in OURS),
        "OpenVINO, NNCF",
    ]
    return "\n".join(
        [
            "",
            "## Networks",
            "",
            f"Mean foreground Dice lost against torch fp32 on up to {most} test cases, and its one-sided 95 % upper "
            "limit.",
            "",
            f"| network | {' | '.join(titles)} |",
            f"|---{'|---' * len(titles)}|",
            *rows,
            "",
        ]
    )


def _row(recipe: Path, threads: int, most: int) -> str:
    task = load(recipe).task()
    cases = task.data.cases["test"][:most]
    scratch = make_folder(recipe.parent / "ptq")
    with torch.inference_mode():
        before = task.measure(lambda image: task.net(torch.from_numpy(image)).numpy(), cases=cases)
    cells = [f"{before.mean('dice'):.4f}"]
    for made in _made(task, scratch, threads):
        try:
            artifact, backend = made()
            with backend.open(artifact) as infer, progress.steps(f"scoring {recipe.parent.name}", len(cases)) as step:
                cells.append(_drop(before, task.measure(infer, step, cases)))
        except (SegpressError, RuntimeError) as error:
            # Another tool's fault is its result here.
            cells.append(f"not made: {str(error).splitlines()[0][:80]}")
    return f"| {recipe.parent.name} | {' | '.join(cells)} |"


def _drop(before: Scores, after: Scores) -> str:
    drop = paired_drop(before, after, None, "dice")
    return f"{drop.mean:+.4f} ({drop.upper:+.4f})"


def _made(task: Task, folder: Path, threads: int) -> Iterator[Callable[[], tuple[Artifact, Backend]]]:
    onnx = to_onnx(task.net, task.example, folder / "model.onnx")
    nets = {effort: how(task.net, task) for effort, how in OURS.items()}
    for runtime, peer in (
        (OnnxRuntime(threads=threads), onnxruntime_static),
        (OpenVino(threads=threads), nncf_artifact),
    ):
        for effort, net in nets.items():
            yield partial(_ours, net, runtime, task, folder / f"{type(runtime).__name__}-{effort}.onnx")

        def theirs(peer: Callable[..., tuple[str, Artifact, Backend]] = peer) -> tuple[Artifact, Backend]:
            _, artifact, backend = peer(onnx, task, folder, threads)
            return artifact, backend

        yield theirs


def _ours(net: nn.Module, runtime: OnnxRuntime | OpenVino, task: Task, path: Path) -> tuple[Artifact, Backend]:
    artifact = to_onnx(net.placed(runtime.rules), task.example, path)  # type: ignore[operator]
    return runtime.build(replace(artifact), path.parent), runtime
