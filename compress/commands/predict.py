"""`compress predict`: masks of any images, by an artifact that a run built, scored and timed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from compress.data.dataset.cases import Case, Fit
from compress.data.dataset.channels import seen
from compress.data.dataset.pairs import SUFFIXES
from compress.errors import DataError, SegpressError
from compress.measure.row import Row
from compress.pipeline.finished import finished
from compress.pipeline.reopened import reopened
from compress.recipe.options import nearest
from compress.report.predictions import mask_png, overlay_png
from compress.report.reading import Recorded
from export.files import check_folder, make_folder, write_together

Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Which:
    """The artifact that answers."""

    step: str | None = None
    """None is the last one."""
    backend: str = "onnxruntime"
    device: str = "cpu"


def predict(folder: Path, images: Sequence[Path], which: Which, out: Path, *, force: bool, say: Say) -> int:
    """Write `out/masks/NAME.png` and `out/overlays/NAME.png` of every image; returns how many.

    A mask has the size of its image, and the values that masks of the run's data have.

    Raises:
        SegpressError: if there is no such artifact, it does not run here, two images have one name, or a file is there
            already; once all others have their masks, if images cannot be read.
    """
    run = finished(folder)
    check_folder(out)
    row = _row(run, which)
    found = _named(_files(images), out, force=force)
    with reopened(run, row) as opened:
        data, reader = opened.task.data, opened.task.data.reader
        say(f"{row.step} on {row.backend} ({row.device}), {run.name}")
        left_out: list[str] = []
        for name, path in found.items():
            try:
                seen_CHW = seen(reader.image(path, data.channels, Fit(size=reader.size(path))))
                labels_HW = opened.task.labels(opened.infer, Case(name=name, image=path, mask=path))
            except DataError as error:
                left_out.append(str(error))
                say(f"left out: {error}")
                continue
            both = {"masks": mask_png(labels_HW, opened.masks), "overlays": overlay_png(seen_CHW, labels_HW)}
            write_together({make_folder(out / what) / f"{name}.png": content for what, content in both.items()})
    if len(left_out) == len(found):
        raise SegpressError(f"none of {len(found)} images has a mask: {left_out[0]}")
    if left_out:
        have, more = ("have", " (the others are named above)") if left_out[1:] else ("has", "")
        raise SegpressError(
            f"{len(left_out)} of {len(found)} images {have} no mask, all others have ({out}): {left_out[0]}{more}"
        )
    return len(found)


def _row(run: Recorded, which: Which) -> Row:
    """The row of the artifact that is meant."""
    steps = list(dict.fromkeys(row.step for row in run.rows))
    step = which.step or steps[-1]
    if step not in steps:
        raise SegpressError(f"--step: {run.path.parent} has no step '{step}'{nearest(step, steps)}")
    of_step = [row for row in run.rows if row.step == step and row.artifact is not None]
    fits = [row for row in of_step if (row.backend, row.device) == (which.backend, which.device)]
    if not fits:
        known = ", ".join(f"{row.backend} on {row.device}" for row in of_step) or "nothing"
        raise SegpressError(
            f"--backend: {step} was not built for {which.backend} on {which.device}, but for {known} (--backend, "
            "--device)"
        )
    return fits[0]


def _files(images: Sequence[Path]) -> list[Path]:
    """Every image that is named, or lies in a folder that is."""
    found: list[Path] = []
    for path in images:
        if path.is_dir():
            try:
                lying = sorted(path.iterdir())
            except OSError as error:
                raise SegpressError(f"{path}: the folder cannot be read ({error.strerror})") from None
            inside = [each for each in lying if each.suffix.lower() in SUFFIXES and each.name[0] != "."]
            if not inside:
                raise SegpressError(f"{path}: holds no image ({', '.join(SUFFIXES[:5])})")
            found += inside
        elif path.is_file():
            found.append(path)
        else:
            raise SegpressError(f"{path}: no such image")
    return list(dict.fromkeys(found))


def _named(files: Sequence[Path], out: Path, *, force: bool) -> dict[str, Path]:
    """Each image by its name without suffix, which its mask gets."""
    found: dict[str, Path] = {}
    for path in files:
        if path.stem in found:
            raise SegpressError(
                f"{found[path.stem]} and {path} have one name, and so would their masks; give them one after the "
                "other, each with an --out of its own"
            )
        found[path.stem] = path
    written = (out / what / f"{name}.png" for name in found for what in ("masks", "overlays"))
    there = next((path for path in written if path.exists()), None)
    if there is not None and not force:
        raise SegpressError(f"{there}: is there already; give another --out, or --force to write over it")
    return found
