"""What is packed: one artifact of a finished run, and all that its file says must come before and after it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compress.data.dataset.channels import USUAL
from compress.data.dataset.images import Images
from compress.data.dataset.normalization import Normalization
from compress.errors import SegpressError
from compress.measure.row import Row
from compress.report.reading import Recorded
from export.artifact import Artifact
from export.to_onnx import metadata_of

STEPS = ("threshold", "largest_component", "remove_small", "fill_holes")
"""Words of `postprocess` that runner/segpress_pixels.py takes along."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """An artifact, and what its file says of itself (docs/artifact_metadata.md)."""

    run: Recorded
    row: Row
    artifact: Artifact
    told: Mapping[str, str]

    def json(self, key: str) -> Any:
        """One of the metadata that are JSON; None where the file does not say it."""
        return json.loads(self.told.get(f"segpress.{key}", "null"))

    @property
    def normalization(self) -> Normalization:
        """What is done to pixels in 0..1."""
        return Normalization(**self.json("normalization"))

    @property
    def steps(self) -> list[dict[str, dict[str, Any]]]:
        """The recipe's post-processing, each word with its options."""
        found: list[dict[str, dict[str, Any]]] = self.json("postprocess") or []
        return found

    def refusals(self) -> Iterator[str]:
        """What a pack cannot take along, and why."""
        if len(self.artifact.input.shape) != 4:
            yield "it is a network of volumes, and packs are for images"
        elif self.told["segpress.fit"] == "nnunet":
            yield "it takes volumes slice by slice, and packs are for images"
        elif self.told["segpress.fit"] == "tile":
            yield "it takes images in tiles, and packs take them whole (`fit: resize` or `fit: pad` in `data`)"
        elif self.artifact.output.shape[2:] != self.artifact.input.shape[2:]:
            yield "it answers for the middle of an image alone, and packs for all of it"
        if self.artifact.input.shape[1] not in USUAL:
            yield f"it takes {self.artifact.input.shape[1]} channels, and packs take gray or colour"
        if self.normalization.scale not in (None, Images().scale):
            yield f"its values are scaled otherwise than packs do ({self.normalization.scale})"
        if -1 in self.artifact.input.shape:
            yield "its file leaves axes open, and packs are of one size (leave `dynamic` out)"
        for word, options in (pair for step in self.steps for pair in step.items()):
            if word not in STEPS:
                yield f"its postprocess has {word}; packs take {', '.join(STEPS)}"
            elif word == "remove_small" and options["under_px"] is None:
                yield "its postprocess has remove_small in mm, and packs know no spacing; give under_px"


def source_of(run: Recorded, step: str | None, backends: tuple[str, ...], backend: str | None) -> Source:
    """The artifact of a step, the last one where none is named, on the first of these backends that has one.

    Raises:
        SegpressError: if there is none, or it was changed since the run.
    """
    steps = list(dict.fromkeys(row.step for row in run.rows))
    wanted = steps[-1] if step is None else step
    if wanted not in steps:
        raise SegpressError(f"{run.path}: there is no step '{wanted}'; there are {', '.join(steps)}")
    if backend is not None and backend not in backends:
        raise SegpressError(f"a pack of this kind runs on {' or '.join(backends)}, not on '{backend}'")
    for word in backends if backend is None else (backend,):
        rows = (row for row in run.rows if (row.step, row.backend) == (wanted, word) and row.artifact is not None)
        if (row := next(rows, None)) is not None:
            return _read(run, row)
    raise SegpressError(
        f"{run.path}: {wanted} was built for none of {', '.join(backends if backend is None else [backend])}"
    )


def _read(run: Recorded, row: Row) -> Source:
    assert row.artifact is not None
    path = run.path.parent / row.artifact
    artifact = Artifact.read(path)
    artifact.verify()
    # A runtime's own file lies beside the ONNX file that it was made from.
    return Source(run=run, row=row, artifact=artifact, told=metadata_of(_onnx_of(path)))


def _onnx_of(path: Path) -> Path:
    onnx = path.with_suffix(".onnx")
    if not onnx.is_file():
        raise SegpressError(f"{onnx}: the file is gone, and with it what {path.name} needs before and after it")
    return onnx
