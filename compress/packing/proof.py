"""Whether a pack gives the masks that the run scored: its own program beside the project's code, on real files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from compress.data.dataset.cases import Fit, MaskArray
from compress.data.dataset.images import Images
from compress.errors import SegpressError
from compress.packing.source import Source
from compress.postprocess.applying.chain import Postprocess
from compress.task import Answer
from export.artifact import Infer
from export.registry import named

LEAST = 0.9999
"""Share of the pixels of all images together that must have the same class."""
SIZES = ((97, 131), (256, 256), (301, 240), (480, 640))
"""Height and width of images that are made where none are given: smaller, as large and larger than most networks."""


def drawn(folder: Path, *, deep: bool, seed: int = 0) -> list[Path]:
    """Smooth random images in files, gray and in colour, of 8 bits, and if `deep` one of 16."""
    random = np.random.default_rng(seed)
    paths = []
    for number, (height, width) in enumerate(SIZES):
        coarse = random.integers(0, 256, (9, 11, 3), np.uint8)
        smooth = np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC), np.int16)
        grain = random.integers(-12, 13, (height, width, 3))
        pixels = np.clip(smooth + grain, 0, 255).astype(np.uint8)
        image = Image.fromarray(pixels) if number % 2 else Image.fromarray(pixels).convert("L")
        paths.append(folder / f"drawn-{number}.png")
        image.save(paths[-1])
    if deep:
        paths.append(folder / "drawn-16-bit.png")
        Image.fromarray((random.random((120, 90)) * 65535).astype(np.uint16)).save(paths[-1])
    return paths


def expected(source: Source, infer: Infer, path: Path) -> MaskArray:
    """The mask of an image (HW) as a run computes it before it is scored."""
    told: dict[str, Any] = {"how": source.told["segpress.fit"], "restored_from": source.told["segpress.restore"]}
    fit = Fit(size=tuple(source.json("size")), **told)
    pixels_CHW = Images().image(path, source.artifact.input.shape[1], fit)
    image_CHW = source.normalization(pixels_CHW)
    answer = Answer(
        said_KHW=infer(image_CHW[None])[0], pixels_CHW=pixels_CHW, fit=fit, postprocess=_postprocess(source)
    )
    return answer.labels(Images().size(path), None)


def check(expected_HW: Sequence[MaskArray], masks_HW: Sequence[MaskArray], names: Sequence[str]) -> float:
    """The share of pixels with the same class.

    Raises:
        SegpressError: if it is too low, naming the image that differs most.
    """
    other = [float((ours != theirs).mean()) for ours, theirs in zip(expected_HW, masks_HW, strict=True)]
    pixels = [mask.size for mask in expected_HW]
    same = 1 - sum(share * count for share, count in zip(other, pixels, strict=True)) / sum(pixels)
    if same < LEAST:
        worst = int(np.argmax(other))
        raise SegpressError(
            f"the pack's own program gives {same:.4%} of the pixels the class that the run gives them, and at least "
            f"{LEAST:.2%} are asked for; {names[worst]} differs most ({other[worst]:.3%}); nothing was written"
        )
    return same


def _postprocess(source: Source) -> Postprocess:
    made = [
        (word, named("compress.postprocess", word)(**options))
        for step in source.steps
        for word, options in step.items()
    ]
    return Postprocess(steps=tuple(made), class_names=tuple(json.loads(source.told["segpress.classes"])))
