"""An artifact of a finished run, opened again for other images: prepared and restored as the run scored it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from compress.data.dataset.cases import ROLES, Dataset, Fit, Normalization
from compress.data.dataset.images import Images
from compress.data.dataset.masks import MaskValues, mask_values
from compress.data.dataset.tiles import by
from compress.errors import SegpressError
from compress.measure.row import Row
from compress.pipeline.build import of_weights
from compress.pipeline.deployment import target_on
from compress.pipeline.manifest import AGAIN
from compress.postprocess.applying.chain import Postprocess
from compress.recipe.entries import Entries
from compress.recipe.recipe import SEED
from compress.recipe.steps import read_postprocess
from compress.report.reading import Recorded
from compress.task import Task
from export.artifact import Artifact, Infer
from export.files import sha256
from export.registry import find_backend, find_device, named


@dataclass(frozen=True, kw_only=True)
class Reopened:
    """An artifact, ready to answer for any image."""

    infer: Infer
    task: Task
    masks: MaskValues | None
    """How masks of the run's data store classes; None where they are class indices."""
    row: Row


@contextmanager
def reopened(run: Recorded, row: Row) -> Iterator[Reopened]:
    """The artifact of a row, with the run's preprocessing, tiles and post-processing.

    Raises:
        SegpressError: if the run's data are volumes, or the artifact does not run here.
    """
    artifact = _artifact(run, row)
    backend = target_on(find_device(row.device), None).open(row.backend)
    with backend.open(artifact) as infer:
        data, masks = _data(run, artifact.input.shape)
        # What the network is asked by the task itself is how large its answers are.
        task = Task(data=data, net=Answering(infer), seed=SEED, postprocess=_postprocess(run, data))
        yield Reopened(infer=infer, task=task, masks=masks, row=row)


def _artifact(run: Recorded, row: Row) -> Artifact:
    """The artifact of a row, the very files that were scored."""
    assert row.artifact is not None
    path = run.path.parent / row.artifact
    for name, known in (row.sha256 or {}).items():
        file = path.with_name(name)
        if not file.is_file() or sha256(file) != known:
            raise SegpressError(f"{file}: is not the file that the run scored; {AGAIN}")
    if not find_backend(row.backend).runs_modules:
        return Artifact.read(path)
    # Weights do not say what their network takes; a file that was exported beside them does.
    others = (each for each in run.rows if each.artifact and not find_backend(each.backend).runs_modules)
    beside = next(others, None)
    if beside is None or beside.artifact is None:
        raise SegpressError(f"{run.path}: nothing was exported in this run; give it a runtime that takes ONNX")
    return of_weights(path, Artifact.read(run.path.parent / beside.artifact).input.shape)


class Answering(nn.Module):
    """Whatever answers with logits_BKHW, asked as a module is."""

    def __init__(self, infer: Infer) -> None:
        super().__init__()
        self.infer = infer

    def forward(self, image_BCHW: Tensor) -> Tensor:
        return torch.from_numpy(np.array(self.infer(image_BCHW.numpy()), np.float32))


def _data(run: Recorded, shape: tuple[int, ...]) -> tuple[Dataset, MaskValues | None]:
    """The run's data without its cases: how images are read, fitted and normalized."""
    given: Any = run.record["recipe"]["data"]
    word, options = next(iter(given.items())) if isinstance(given, Mapping) else (given, {})
    kind = named("compress.data", word)
    if kind.dims != 2:
        raise SegpressError(f"{run.path}: its data are volumes, and predict writes masks of images")
    entries = Entries(run.path)
    kept = {key: value for key, value in (options or {}).items() if key not in ("table", "split")}
    configured = entries.options(kind, kept, f"data ({word})")
    if configured is None:
        raise SegpressError(f"{run.path}: {entries.mistakes[0]}")
    told = run.record["data"]
    names = tuple(told["classes"])
    fit = Fit(
        size=configured.size,
        how=getattr(configured, "fit", "resize"),
        restored_from=told.get("restore", "probabilities"),
    )
    overlap = getattr(configured, "overlap", None)
    if tuple(shape[2:]) != tuple(fit.size) and -1 not in shape[2:]:
        raise SegpressError(f"{run.path}: the artifact takes {by(shape[2:])}, and the recipe says {by(fit.size)}")
    keys = {option.name for option in dataclasses.fields(Normalization)}
    normalization = Normalization(**{key: value for key, value in told["normalization"].items() if key in keys})
    data = Dataset(
        cases={role: [] for role in ROLES},
        class_names=names,
        channels=shape[1],
        fit=fit if overlap is None else dataclasses.replace(fit, overlap=overlap),
        reader=Images(
            known_spacing=getattr(configured, "spacing", None),
            window=getattr(configured, "window", None),
            channels=shape[1],
        ),
        normalization=normalization,
        source=str(run.path.parent),
    )
    masks = mask_values(getattr(configured, "masks", None), names, getattr(configured, "ignore", None), data.source)
    return data, masks


def _postprocess(run: Recorded, data: Dataset) -> Postprocess:
    """The steps that the report says its scores are with: those of the recipe may have changed since."""
    entries = Entries(run.path)
    steps = read_postprocess(entries, {"postprocess": run.record["data"].get("postprocess", [])})
    if entries.mistakes:
        raise SegpressError(f"{run.path}: {entries.mistakes[0]}")
    return Postprocess(steps=tuple(steps), class_names=data.class_names)
