"""What nnU-Net's own predictor answers beside a recipe's artifacts, voxel by voxel, and how long each takes.

    python -m benchmarks.nnunet RECIPE [RECIPE ...] [--other-spacing 1.3]

Each recipe has a network and data of `nnunet`. The float network and the last of its passes are built for each runtime
of the CPU; on every test case labels are compared with those of `nnUNetPredictor` (`pip install nnunetv2`) with the
same mirroring. With --other-spacing the same is done on copies of the test cases whose headers say so many mm along the
first axis, so that both resample. The result is written to benchmarks/nnunet.md.
"""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console

from compress import progress
from compress.cache import Cache, versions
from compress.data.dataset.cases import Case, MaskArray
from compress.data.dataset.tiles import by
from compress.data.planned.volumes import Planned
from compress.gates.judging.paired_drop import paired_drop
from compress.measure.segmentation import Scores, score_case, scores_of
from compress.networks.foreign.torchvision_import import torchvision
from compress.pipeline.build import Builder
from compress.pipeline.deployment import Deployment, target_on
from compress.pipeline.peak_memory import PeakMemory
from compress.pipeline.stages import baseline, chain
from compress.recipe import Recipe, load
from compress.task import Task
from export.artifact import Infer
from export.files import write_bytes
from export.host import conditions, host_facts
from export.registry import find_device
from export.to_onnx import Style

HERE = Path(__file__).parent
Answer = Callable[[Case], MaskArray]
PREDICTOR = "nnUNetPredictor, torch fp32"


@dataclass(frozen=True, kw_only=True)
class Row:
    """One predictor on all test cases."""

    name: str
    other: int
    """Voxels to which nnU-Net's own predictor gives another class."""
    voxels: int
    scores: Scores
    seconds: list[float]


def main(
    recipes: list[Path],
    data: Annotated[Path | None, typer.Option(help="Folder of nnUNet_raw instead of the recipes'.")] = None,
    threads: int = 1,
    cases: Annotated[int, typer.Option(help="Test cases, at most.")] = 56,
    other_spacing: Annotated[float | None, typer.Option()] = None,
    to: Annotated[Path, typer.Option(help="The Markdown file to write.")] = HERE / "nnunet.md",
) -> None:
    """Compare, and write the tables."""
    tables = [table for path in recipes for table in _compared(load(path, data), threads, cases, other_spacing)]
    page = "\n".join([*_head(threads), *tables])
    write_bytes(to, page.encode())
    Console(width=140).print(page, markup=False)


def _compared(recipe: Recipe, threads: int, count: int, other_spacing: float | None) -> Iterator[str]:
    """A table of the test cases as they are, and one of a few in another spacing."""
    task = recipe.task()
    with tempfile.TemporaryDirectory() as scratch, contextlib.ExitStack() as stack:
        infers = dict(_artifacts(recipe, task, Path(scratch), threads, stack))
        ours = {name: partial(task.labels, infer) for name, infer in infers.items()}
        asked: dict[str, Answer] = {PREDICTOR: _predictor(recipe, task, threads), **ours}
        for spacing in (None,) if other_spacing is None else (None, other_spacing):
            some = task.data.cases["test"][: count if spacing is None else min(count, 12)]
            some = some if spacing is None else [_stretched(case, spacing, Path(scratch)) for case in some]
            answers, seconds = _answers(asked, some)
            rows = [_row(name, task, some, answers, seconds[name]) for name in asked]
            yield _table(recipe, task, rows, spacing)


def _answers(
    asked: dict[str, Answer], cases: Sequence[Case]
) -> tuple[dict[str, dict[str, MaskArray]], dict[str, list[float]]]:
    """What each says of every case, and how long it took, reading included.

    At each step all are asked, each for another case: what the host does meets all alike, and what one has read is
    not there for the next.
    """
    answers: dict[str, dict[str, MaskArray]] = {name: {} for name in asked}
    seconds: dict[str, list[float]] = {name: [] for name in asked}
    with progress.steps("comparing", len(cases)) as step:
        for turn in range(len(cases)):
            for place, (name, answer) in enumerate(asked.items()):
                case = cases[(turn + 3 * place) % len(cases)]
                begun = time.perf_counter()
                answers[name][case.name] = answer(case)
                seconds[name].append(time.perf_counter() - begun)
            step()
    return answers, seconds


def _row(
    name: str, task: Task, cases: Sequence[Case], answers: dict[str, dict[str, MaskArray]], seconds: list[float]
) -> Row:
    classes = len(task.data.class_names)
    scored = [score_case(answers[name][case.name], task.data.mask(case), classes=classes, ruler=None) for case in cases]
    names = [(case.name, case.unit) for case in cases]
    return Row(
        name=name,
        other=sum(int((answers[name][case.name] != answers[PREDICTOR][case.name]).sum()) for case in cases),
        voxels=sum(answers[name][case.name].size for case in cases),
        scores=scores_of(names, scored, task.data.class_names[1:]),
        seconds=seconds,
    )


def _artifacts(
    recipe: Recipe, task: Task, folder: Path, threads: int, stack: contextlib.ExitStack
) -> Iterator[tuple[str, Infer]]:
    """The float network and the last step's, on every runtime that has them."""
    cache = Cache(folder)
    before = baseline(task, "benchmark", cache, print)
    last = chain(recipe.passes, before, task, cache, print)[-1:]
    builder = Builder(task, Style(opset=recipe.opset), cache, print, stack.enter_context(PeakMemory(at_once=0)))
    for stage, word in ((before, "fp32"), *((stage, "int8") for stage in last)):
        for backend in ("onnxruntime", "openvino"):
            deployment = Deployment(backend=backend, target=target_on(find_device("cpu"), threads))
            build = builder.build(stage, deployment)
            assert build is not None and build.artifact is not None, build
            yield f"{backend} {word}", stack.enter_context(deployment.open().open(build.artifact))


def _predictor(recipe: Recipe, task: Task, threads: int) -> Answer:
    """nnU-Net's own, with the recipe's mirroring, on the plan's axes."""
    torchvision()
    import torch
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    torch.set_num_threads(threads)
    options: Any = recipe.data
    made: Any = nnUNetPredictor(
        tile_step_size=1 - options.overlap, use_mirroring=bool(task.data.fit.mirrored), device=torch.device("cpu"),
        allow_tqdm=False,
    )  # fmt: skip
    made.initialize_from_trained_model_folder(str(options.results), (options.fold,), Path(str(recipe.weights)).name)
    if task.data.fit.mirrored:
        made.allowed_mirroring_axes = task.data.fit.mirrored
    read, reader = made.plans_manager.image_reader_writer_class(), task.data.reader
    assert isinstance(reader, Planned)

    def answer(case: Case) -> MaskArray:
        image, properties = read.read_images([str(path) for path in reader.files(case.image)])
        labels: MaskArray = made.predict_single_npy_array(image, properties)
        # Axes as the data have them.
        return labels.astype(np.uint8).transpose(reader.plan.transposed)

    return answer


def _stretched(case: Case, spacing: float, folder: Path) -> Case:
    """A copy of the case whose header says so many mm along its first axis."""
    import nibabel

    made = {}
    for path in (case.image, case.mask):
        image: Any = nibabel.load(path)
        affine = image.affine @ np.diag([spacing, 1, 1, 1])
        made[path] = folder / path.parent.name / path.name
        made[path].parent.mkdir(exist_ok=True)
        make: Any = nibabel.Nifti1Image
        nibabel.save(make(np.asanyarray(image.dataobj), affine), made[path])
    return replace(case, image=made[case.image], mask=made[case.mask])


def _table(recipe: Recipe, task: Task, rows: Sequence[Row], spacing: float | None) -> str:
    first, fit = rows[0], task.data.fit
    told = "" if spacing is None else f", headers changed to {spacing:g} mm along the first axis"
    lines = [
        f"| {row.name} | {row.scores.mean('dice'):.4f} "
        f"| {paired_drop(first.scores, row.scores, None, 'dice').mean:+.4f} "
        f"| {1 - row.other / row.voxels:.4%} ({row.other} of {row.voxels} others) "
        f"| {np.median(row.seconds) * 1e3:.0f} |"
        for row in rows
    ]
    return "\n".join(
        [
            f"## {Path(str(getattr(recipe.data, 'results', ''))).name}{told}",
            "",
            f"Tiles of {by(fit.size)}, step {1 - fit.overlap:g}, mirrored along {list(fit.mirrored)}; "
            f"{len(first.seconds)} test cases.",
            "",
            "| predictor | Dice | drop | voxels of the same class | a volume, median ms |",
            "|---|---|---|---|---|",
            *lines,
            "",
        ]
    )


def _head(threads: int) -> list[str]:
    host = host_facts(threads)
    return [
        "# nnU-Net's own predictor, and a recipe's artifacts",
        "",
        "`python -m benchmarks.nnunet RECIPE ...`: trained by benchmarks/nnunet_train.py on msd_hippocampus. Labels at",
        "the file's own voxels; end to end, a volume's reading, preparation, mirrored tiles and way back included.",
        "",
        f"- Host: {host['cpu']}, {threads} threads, {', '.join(host['isa'])}; {conditions()}",
        f"- {', '.join(f'{name} {number}' for name, number in versions().items())}, nnunetv2 {version('nnunetv2')}",
        "- Drop: mean foreground Dice of nnU-Net's own predictor minus the artifact's, paired by case",
        "",
    ]


if __name__ == "__main__":
    typer.run(main)
