"""What the network must do: the data, the scores, and the uncompressed network that already does it.

Legend: B batch, C channels, K classes, H height, W width (of volumes, depth before them).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from compress.cluster import ALONE, Workers
from compress.data.dataset.cases import Case, Dataset, Fit, FloatArray, MaskArray, Spacing
from compress.data.dataset.channels import seen
from compress.data.dataset.frames import Frame, looked_at
from compress.data.dataset.oddities import oddities
from compress.data.dataset.restore import labels_at
from compress.data.dataset.tiles import Size, blended, central
from compress.data.dataset.windows import slid
from compress.errors import DataError
from compress.measure.segmentation import CaseScores, Ruler, Scores, score_case, scores_of
from compress.postprocess.applying.chain import Postprocess
from export.artifact import Chooser, Infer
from export.choice import finite, labels_from_logits
from export.graph import Dynamic

Step = Callable[[], None]
Note = Callable[[str], None]


def _unheard(line: str) -> None:
    """Nobody listens."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """The data, and the uncompressed network: baseline of every drop and teacher of every distillation."""

    data: Dataset
    net: nn.Module
    seed: int
    dynamic: tuple[Dynamic, ...] = ()
    postprocess: Postprocess = field(default_factory=Postprocess)
    """What every network's answers go through before they are scored, timed or shown."""
    folder: Path | None = None
    """Where a long pass keeps what it needs to go on after an interruption; None keeps nothing."""
    views: Path | None = None
    """Where augmented cases and the teacher's answers lie, for all steps that ask for the same; None: each its own."""
    kept: Path | None = None
    """Where passes keep, by content, what later ones may ask for again; None keeps nothing."""
    workers: Workers = ALONE
    """Processes that a pass may have its work done in at once."""
    note: Note = _unheard
    """Told what a pass did, or did not do and why, a sentence at a time: for the log and the report."""

    @cached_property
    def example(self) -> Tensor:
        """A network input of the right shape: zeros, 1CHW."""
        return torch.zeros(1, self.data.channels, *self.data.fit.size)

    def check(self) -> list[str]:
        """Look at every file of the roles that passes and measurements use, and that test cases can be scored.

        Returns:
            What is odd but not wrong, one sentence each.

        Raises:
            DataError: naming the file or the split that is wrong.
        """
        if not self.data.cases["test"]:
            raise DataError(f"{self.data.source}: the split 'test' is empty, so nothing can be measured")
        return oddities(self.data, self.data.check())

    def measure(self, infer: Infer, step: Step = lambda: None, cases: Sequence[Case] | None = None) -> Scores:
        """Score a network, in whatever form it runs, on every test case, or on those given.

        Args:
            step: called after each case, for a progress bar.

        Raises:
            NotHere: if the network's answer is not finite: such a row is never scored.
        """
        cases = self.data.cases["test"] if cases is None else cases
        scored = []
        for case in cases:
            scored.append(self.score(infer, case))
            step()
        return scores_of([(case.name, case.unit) for case in cases], scored, self.data.class_names[1:])

    def score(self, infer: Infer, case: Case, *, surfaces: bool = True) -> CaseScores:
        """All metrics of one case; without `surfaces` those that count pixels, much faster.

        The same labels of a case have the same scores: most of those of a network in float are, on all runtimes.
        """
        labels_HW, truth_HW, spacing = self._compared(infer, case)
        ruler = Ruler(spacing=spacing, tolerance=self.data.tolerance) if surfaces else None
        which = case.name, surfaces, labels_HW.shape, _digest(labels_HW), _digest(truth_HW)
        if which not in self._scored:
            classes, ignore = len(self.data.class_names), self.data.ignore
            self._scored[which] = score_case(labels_HW, truth_HW, classes=classes, ruler=ruler, ignore=ignore)
        return self._scored[which]

    @cached_property
    def _scored(self) -> dict[tuple[Any, ...], CaseScores]:
        """By case, and what was answered for it."""
        return {}

    def labels(self, infer: Infer, case: Case) -> MaskArray:
        """The network's answer at the image's original size (HW): what end-to-end latency times, all tiles included."""
        return self._answered(infer, case).labels(self.data.size_of(case), self.data.spacing_of(case))

    def _answered(self, infer: Infer, case: Case) -> Answer:
        """The network's answer at its own size, or of tiles at the size that they are taken from."""
        fit, pixels_CHW = self.data.fit, self.data.whole_pixels(case)
        image_CHW = self.data.normalization(pixels_CHW)
        answer = partial(
            Answer, pixels_CHW=pixels_CHW, fit=fit, postprocess=self.postprocess, frame=self.data.frame(case)
        )
        if isinstance(infer, Chooser) and needs_logits(self, case) is None:
            return answer(said_KHW=infer.labels(image_CHW[None]), are_labels=True)
        return answer(said_KHW=finite(_logits(infer, image_CHW, fit, self._answer))[0])

    @cached_property
    def logits(self) -> int:
        """How many logits the network gives for each pixel; 1 is a sigmoid's."""
        return self._shape[0]

    @property
    def _answer(self) -> Size:
        """The size of what the network says of one tile: all of it, or its middle if it is unpadded."""
        return self._shape[1:]

    @cached_property
    def _shape(self) -> tuple[int, ...]:
        """That of the network's answer (KHW)."""
        # Without gradients only: in inference mode the example, kept, would be of no use to passes that train.
        with torch.no_grad():
            return tuple(self.net(self.example).shape[1:])

    def probes(self, most: int = 4) -> Iterator[np.ndarray]:
        """A few real inputs (1CHW) to compare two forms of one network on; test cases only if there are no others."""
        roles = (self.data.cases[role] for role in ("val", "calibration", "test"))
        return self.data.images(next(cases for cases in roles if cases)[:most])

    def shown(self, case: Case) -> tuple[MaskArray, MaskArray]:
        """The image (HWC uint8) and its truth (HW) at the network's size, or of tiles all together, to look at."""
        pixels_CHW = looked_at(self.data.whole_pixels(case), self.data.frame(case))
        seen_HWC = (np.moveaxis(seen(pixels_CHW), 0, -1) * 255).round().astype(np.uint8)
        truth_HW = self.data.whole_mask(case)
        if self.data.fit.in_tiles:
            return _thinned(seen_HWC, truth_HW.ndim), _thinned(truth_HW, truth_HW.ndim)
        return seen_HWC, truth_HW

    def fitted_labels(self, infer: Infer, case: Case) -> MaskArray:
        """The network's answer to what is `shown`; around an unpadded network's answer there is background."""
        answer, whole_HW = self._answered(infer, case), np.zeros(self.data.fit.size, np.uint8)
        if answer.is_partial:
            labels_HW = answer.labels(self.data.size_of(case), self.data.spacing_of(case))
            whole_HW[central(answer.size, whole_HW.shape)] = labels_HW
        elif self.postprocess.steps:
            labels_HW = answer.labels(self.data.size_of(case), self.data.spacing_of(case))
            whole_HW = self.data.as_seen(case, labels_HW)
        else:
            whole_HW = answer.at_its_size()
        return _thinned(whole_HW, whole_HW.ndim) if self.data.fit.in_tiles else whole_HW

    def _compared(self, infer: Infer, case: Case) -> tuple[MaskArray, MaskArray, Spacing | None]:
        """Labels and truth of one size, and the pixel spacing there.

        Both are of the image's original size, except for an unpadded network, whose answer covers
        only the centre of its input and is compared there; laid side by side as tiles it covers all.
        """
        truth_HW, spacing = self.data.mask(case), self.data.spacing_of(case)
        answer = self._answered(infer, case)
        labels_HW = answer.labels(truth_HW.shape, spacing)
        if not answer.is_partial:
            return labels_HW, truth_HW, spacing
        fitted_HW = self.data.fitted_mask(case)
        return labels_HW, fitted_HW[central(answer.size, fitted_HW.shape)], answer.spacing(truth_HW.shape, spacing)


def _logits(infer: Infer, image_CHW: FloatArray, fit: Fit, answer: Size) -> NDArray[Any]:
    """What a network says of an image (1KHW), piece by piece where it takes pieces.

    Args:
        answer: the size of what it says of one tile.
    """
    if fit.how == "tile":
        return blended(infer, image_CHW, fit.size, answer, fit.overlap)
    if fit.how == "nnunet":
        return slid(infer, image_CHW, fit.size, fit.overlap, fit.mirrored)[None]
    return infer(image_CHW[None])


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a network said of a case, and how labels are made of it."""

    said_KHW: NDArray[Any]
    """Logits; or labels (1HW), chosen where they were computed."""
    are_labels: bool = False
    pixels_CHW: FloatArray
    """What it answered for, scaled to 0..1, at the network's size; of tiles all that they are taken from."""
    fit: Fit
    postprocess: Postprocess
    frame: Frame | None = None
    """Where what it answered for lies in the image; None where that is all of it."""

    @property
    def size(self) -> Size:
        return self.said_KHW.shape[1:]

    @property
    def is_partial(self) -> bool:
        """Whether an unpadded network answered for the centre of its input only."""
        return not self.fit.in_tiles and self.size != self.fit.size

    def labels(self, original: Size, spacing: Spacing | None) -> MaskArray:
        """Labels of the image's original size (HW), or, if partial, of the centre at the network's size.

        Args:
            spacing: of the original image.
        """
        if self.is_partial:
            inner_CHW = self.pixels_CHW[central(self.size, self.fit.size)]
            labels_HW = self._chosen(self.said_KHW, inner_CHW, self.size)
            return self.postprocess.cleaned(labels_HW, self.spacing(original, spacing))
        if self.frame is not None:
            logits_KHW = self.frame.logits(self.said_KHW)
            labels_HW = self._chosen(logits_KHW, self.pixels_CHW, logits_KHW.shape[1:])
            return self.postprocess.cleaned(self.frame.placed(labels_HW), spacing)
        inner_KHW, pixels_CHW = self.fit.unpadded(self.said_KHW, original), self.fit.unpadded(self.pixels_CHW, original)
        size = inner_KHW.shape[1:] if self.fit.restored_from == "labels" else original
        labels_HW = self._chosen(inner_KHW, pixels_CHW, size)
        return self.postprocess.cleaned(
            labels_HW if size == original else self.fit.restore(labels_HW, original), spacing
        )

    def spacing(self, original: Size, spacing: Spacing | None) -> Spacing | None:
        """The spacing at the network's size of an image of this size and spacing."""
        if spacing is None:
            return None
        sides = zip(spacing, original, self.fit.size, strict=True)
        return tuple(length * old / new for length, old, new in sides)

    def at_its_size(self) -> MaskArray:
        """The largest class of each pixel at the network's size (HW), before any step."""
        return self.said_KHW[0] if self.are_labels else labels_from_logits(self.said_KHW[None])[0]

    def _chosen(self, said_KHW: NDArray[Any], pixels_CHW: FloatArray, size: Size) -> MaskArray:
        """Labels of this size (HW), before the steps on labels; of an answer without what is padded around it."""
        same = said_KHW.shape[1:] == size
        if self.are_labels:
            assert same and not self.postprocess.changes_choice, "needs_logits would have said so"
            return said_KHW[0]
        if self.postprocess.changes_choice:
            return self.postprocess.chosen(said_KHW, pixels_CHW, size)
        return labels_from_logits(said_KHW[None])[0] if same else labels_at(said_KHW, size)


def needs_logits(task: Task, case: Case) -> str | None:
    """Why labels that are chosen at the network's own size do not say enough of a case; None where they do."""
    fit = task.data.fit
    if fit.in_tiles:
        return "the logits of tiles that overlap are averaged"
    readers = [word for word, step in task.postprocess.steps if step.on == "probabilities"]
    if readers:
        return f"postprocess ({readers[0]}) reads probabilities"
    original = task.data.size_of(case)
    if fit.restored_from == "labels" or fit.inner(original) == original or task._answer != fit.size:
        # Nothing, or labels, are brought to another size; of an unpadded network nothing is.
        return None
    return "probabilities are brought to the images' own size (`restore: labels` in `data` would do without)"


def _digest(labels_HW: MaskArray) -> bytes:
    return hashlib.sha256(np.ascontiguousarray(labels_HW).tobytes()).digest()


def _thinned(pixels: MaskArray, axes: int, most: int = 1024) -> MaskArray:
    """Every n-th row and column of an image (HW or HWC, with so many axes before C) that is too large for a report."""
    step = -(-max(pixels.shape[:axes]) // most)
    return pixels[(slice(None, None, step),) * axes]
