"""What the network must do: the data, the scores, and the uncompressed network that already does it.

Legend: B batch, C channels, K classes, H height, W width (of volumes, depth before them).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from compress.data.dataset.cases import Case, Dataset, MaskArray, Spacing
from compress.data.dataset.oddities import oddities
from compress.data.dataset.restore import labels_at
from compress.data.dataset.tiles import Size, blended, central
from compress.errors import DataError, NotHere
from compress.measure.segmentation import Ruler, Scores, score_case, scores_of
from export.artifact import Infer
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
    folder: Path | None = None
    """Where a long pass keeps what it needs to go on after an interruption; None keeps nothing."""
    views: Path | None = None
    """Where augmented cases and the teacher's answers to them lie, for all steps of a run that ask for the same; None:
    each step has its own."""
    note: Note = _unheard
    """Told what a pass did, or did not do and why, one plain sentence at a time: for the log and the report."""

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
        values, alarms = [], []
        for case in cases:
            values_KM, alarms_K = self.score(infer, case)
            values.append(values_KM)
            alarms.append(alarms_K)
            step()
        names = [(case.name, case.unit) for case in cases]
        return scores_of(names, values, self.data.class_names[1:], alarms)

    def score(self, infer: Infer, case: Case, *, surfaces: bool = True) -> tuple[np.ndarray, np.ndarray]:
        """All metrics of one case (values_KM, alarms_K); without `surfaces` those that count pixels, much faster."""
        labels_HW, truth_HW, spacing = self._compared(infer, case)
        return score_case(
            labels_HW,
            truth_HW,
            classes=len(self.data.class_names),
            ruler=Ruler(spacing=spacing, tolerance=self.data.tolerance) if surfaces else None,
            ignore=self.data.ignore,
        )

    def labels(self, infer: Infer, case: Case) -> MaskArray:
        """The network's answer at the image's original size (HW): what end-to-end latency times, all tiles included."""
        logits_KHW = self._logits(infer, case)
        if self._is_partial(logits_KHW):
            return labels_from_logits(logits_KHW[None])[0]
        return self._restored(logits_KHW, self.data.size_of(case))

    def _logits(self, infer: Infer, case: Case) -> np.ndarray:
        """The network's answer (KHW) at its own size, or of tiles at the size that they are taken from."""
        if self.data.fit.how != "tile":
            return finite(infer(self.data.image(case)[None]))[0]
        fit, image_CHW = self.data.fit, self.data.normalization(self.data.whole_pixels(case))
        return finite(blended(infer, image_CHW, fit.size, self._answer, fit.overlap))[0]

    def _is_partial(self, logits_KHW: np.ndarray) -> bool:
        """Whether an unpadded network answered for the centre of its input only."""
        return self.data.fit.how != "tile" and logits_KHW.shape[1:] != self.data.fit.size

    def _restored(self, logits_KHW: np.ndarray, original: Size) -> MaskArray:
        """Labels of the image's original size (HW)."""
        fit = self.data.fit
        inner_KHW = fit.unpadded(logits_KHW, original)
        if fit.restored_from == "labels" or inner_KHW.shape[1:] == original:
            return fit.restore(labels_from_logits(logits_KHW[None])[0], original)
        return labels_at(inner_KHW, original)

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
        seen_HWC = (np.moveaxis(self.data.whole_pixels(case), 0, -1) * 255).round().astype(np.uint8)
        truth_HW = self.data.whole_mask(case)
        if self.data.fit.how == "tile":
            return _thinned(seen_HWC, truth_HW.ndim), _thinned(truth_HW, truth_HW.ndim)
        return seen_HWC, truth_HW

    def fitted_labels(self, infer: Infer, case: Case) -> MaskArray:
        """The network's answer to what is `shown`; around an unpadded network's answer there is background."""
        labels_HW = labels_from_logits(self._logits(infer, case)[None])[0]
        if self.data.fit.how == "tile":
            return _thinned(labels_HW, labels_HW.ndim)
        whole_HW = np.zeros(self.data.fit.size, np.uint8)
        whole_HW[central(labels_HW.shape, whole_HW.shape)] = labels_HW
        return whole_HW

    def _compared(self, infer: Infer, case: Case) -> tuple[MaskArray, MaskArray, Spacing | None]:
        """Labels and truth of one size, and the pixel spacing there.

        Both are of the image's original size, except for an unpadded network, whose answer covers
        only the centre of its input and is compared there; laid side by side as tiles it covers all.
        """
        truth_HW, spacing = self.data.mask(case), self.data.spacing_of(case)
        logits_KHW = self._logits(infer, case)
        if not self._is_partial(logits_KHW):
            return self._restored(logits_KHW, truth_HW.shape), truth_HW, spacing
        labels_HW = labels_from_logits(logits_KHW[None])[0]
        fitted_HW = self.data.fitted_mask(case)
        if spacing is not None:
            sides = zip(spacing, truth_HW.shape, fitted_HW.shape, strict=True)
            spacing = tuple(length * old / new for length, old, new in sides)
        return labels_HW, fitted_HW[central(labels_HW.shape, fitted_HW.shape)], spacing


def _thinned(pixels: MaskArray, axes: int, most: int = 1024) -> MaskArray:
    """Every n-th row and column of an image (HW or HWC, with so many axes before C) that is too large for a report."""
    step = -(-max(pixels.shape[:axes]) // most)
    return pixels[(slice(None, None, step),) * axes]


def finite(logits_BKHW: np.ndarray) -> np.ndarray:
    """The logits themselves.

    Raises:
        NotHere: if one is NaN or infinite.
    """
    if not np.isfinite(logits_BKHW).all():
        raise NotHere("its logits are not finite (NaN or infinity)")
    return logits_BKHW


def labels_from_logits(logits_BKHW: np.ndarray) -> MaskArray:
    """The class of every pixel (BHW uint8); a single logit is a sigmoid's, on above 0."""
    if logits_BKHW.shape[1] == 1:
        return (logits_BKHW[:, 0] > 0).astype(np.uint8)
    return logits_BKHW.argmax(1).astype(np.uint8)
