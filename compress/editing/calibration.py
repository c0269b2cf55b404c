"""What activations take on the calibration cases, seen in one pass over them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, fx

from compress.errors import PassError
from compress.progress import bar
from export.quantization.observers import Channels, Histograms, MinMax, Observer, observe
from export.quantization.placement import candidates
from export.quantization.range_estimators import RangeEstimator
from export.quantization.scales import Range

if TYPE_CHECKING:
    from compress.data.dataset.cases import Case
    from compress.task import Task

NAMED = 5
"""As many cases are named where something is odd about them."""


def calibrated(
    graph: fx.GraphModule,
    images: Iterable[Tensor],
    estimator: RangeEstimator | None,
    count: int,
    channels: Channels | None = None,
    word: str = "calibration",
) -> dict[str, Range]:
    """The range of every activation that some runtime may quantize.

    Images are streamed, so that memory grows neither with their number nor with their size.

    Args:
        images: 1C.., on which the network is run once.
        estimator: how a range is taken from a histogram; None: all values.
        count: how many images there are, for the progress bar.
        channels: is shown the same activations.
        word: of the pass that asks.

    Raises:
        PassError: if an activation is not finite on some image.
    """
    extremes = MinMax() if estimator is None else Histograms()
    seen: Observer = extremes if channels is None else _both(extremes, channels)
    observe(graph, candidates(graph), seen, bar(images, "calibrating", count))
    ranges = extremes.ranges
    for name, extreme in ranges.items():
        if not np.isfinite(extreme).all():
            raise PassError(f"{word}: the activation {name} is not finite on the calibration cases; check the weights")
    if isinstance(extremes, Histograms) and estimator is not None:
        # A range of one value has nothing to be estimated.
        return {
            name: estimator(extremes.of[name]) if low < high else (low, high) for name, (low, high) in ranges.items()
        }
    return ranges


def _both(first: Observer, second: Observer) -> Observer:
    def seen(name: str, activation: Tensor) -> None:
        first(name, activation)
        second(name, activation)

    return seen


def told_images(task: Task, cases: Sequence[Case], word: str) -> Iterator[Tensor]:
    """The network's inputs (1C..), one at a time; those in which every pixel is the same are told in a note.

    Raises:
        PassError: after the last one, if all of them are such.
    """
    empty = []
    for case, image in zip(cases, task.data.images(cases), strict=True):
        if (image == image.flat[0]).all():
            empty.append(case.name)
        yield torch.from_numpy(image)
    named = ", ".join(empty[:NAMED]) + (f" and {len(empty) - NAMED} more" if len(empty) > NAMED else "")
    if empty and len(empty) == len(cases):
        raise PassError(
            f"{word}: every pixel is the same in each of the {len(cases)} calibration cases ({named}), so that no "
            "range can be taken from them; give cases that show something the split 'calibration'"
        )
    if empty:
        task.note(
            f"warning: {word}: every pixel is the same in {len(empty)} of {len(cases)} calibration cases ({named}): "
            "they say nothing of the ranges that real images need"
        )
