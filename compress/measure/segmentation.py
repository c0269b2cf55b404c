"""Scores of a segmentation, case by case and class by class.

Legend: H height, W width (of volumes, depth before them), N cases, K foreground classes, C classes with the background,
M the metrics of `METRICS`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, NamedTuple, TypeVar

import numpy as np
import pydantic
from numpy.typing import NDArray
from pydantic import ConfigDict, Field
from scipy import ndimage
from scipy.spatial import cKDTree
from scipy.special import stdtrit

METRICS = ("dice", "iou", "hd95", "nsd", "precision", "recall", "hausdorff", "asd", "mae")
"""Dice (F1) and IoU; the Hausdorff distance, whole and its 95th percentile, and the average surface distance, each of
both surfaces (ASSD); normalized surface Dice; precision and recall; the mean absolute error of the mask, the share
of pixels that are wrong."""
DICE, IOU, HD95, NSD, PRECISION, RECALL, HAUSDORFF, ASD, MAE = range(len(METRICS))
DISTANCES = (HD95, HAUSDORFF, ASD)
"""Metrics that are lengths: 0 is best."""

FEWEST, RELEASE = 30, 149
"""Under FEWEST independent cases a drop gate never holds; from RELEASE on, a loss of 2 % of the
patients that the sample happened to miss is less than 5 % likely (0.98^149 < 0.05)."""

Values = NDArray[np.float64]
One = TypeVar("One")
"""A case, of which nothing needs to be known here."""


@pydantic.dataclasses.dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class Scoring:
    """Which test cases are scored, and how their scores are told apart: the recipe's `scoring`."""

    others: Annotated[int, Field(ge=1)] | None = None
    """What no gate on a drop reads is scored on so many test cases; None scores it on all. The baseline that drops
    are taken from and the last step always are scored on all."""
    subgroups: tuple[str, ...] = ()
    """Columns of split.csv, such as device or sex, by whose values the scores are told apart in the report."""

    def drawn(self, cases: Sequence[One], seed: int) -> list[One]:
        """The cases for the others, in their order; the same for the same seed."""
        if self.others is None or self.others >= len(cases):
            return list(cases)
        places = np.random.default_rng(seed).permutation(len(cases))[: self.others]
        return [cases[place] for place in sorted(places)]


@dataclass(frozen=True, kw_only=True)
class Ruler:
    """What distances are measured in."""

    spacing: tuple[float, ...] | None = None
    """Length of a pixel along each axis in mm; None measures in pixels."""
    tolerance: float = 2.0
    """Distance (mm, or pixels) under which two surfaces agree."""

    def along(self, shape: tuple[int, ...]) -> tuple[float, ...]:
        """The length of a pixel along each axis of an image of this shape."""
        return self.spacing or (1.0,) * len(shape)

    def diagonal(self, shape: tuple[int, ...]) -> float:
        """The image's diagonal: the distance reported where a surface is missing altogether."""
        return math.hypot(*(side * length for side, length in zip(shape, self.along(shape), strict=True)))


class CaseScores(NamedTuple):
    """What one answer is worth."""

    values_KM: Values
    """Every metric of every foreground class; NaN where truth and answer are both empty."""
    alarms_K: Values
    """1 where a class was answered that is not there."""
    pixels_CC: Values
    """Pixels by the class that is true (rows) and the one that was answered (columns)."""
    pixel: float
    """The size of a pixel: mm2, of volumes mm3; 1 where it is not known."""


@dataclass(frozen=True, kw_only=True)
class Scores:
    """Every metric for every case and foreground class; NaN where truth and prediction are both empty."""

    cases: tuple[str, ...]
    units: tuple[str, ...]
    """The patient of each case, or the case itself where patients are not known."""
    class_names: tuple[str, ...]
    """Foreground classes only."""
    values_NKM: Values
    false_alarms: tuple[int, ...]
    """For each class, the cases without it in which it was predicted."""
    absent: tuple[int, ...]
    """For each class, the cases excluded because neither truth nor prediction has it."""
    sizes_NK2: Values
    """How large each class is in truth and answer: mm2, of volumes mm3; pixels where spacing is not known."""
    pixels_CC: Values
    """Pixels of all cases by the class that is true (rows) and the one that was answered (columns)."""

    def mean(self, metric: str) -> float:
        """Mean over cases, then over foreground classes; NaN if no case has any."""
        per_class = [self.class_mean(name, metric) for name in self.class_names]
        defined = [value for value in per_class if not math.isnan(value)]
        return float(np.mean(defined)) if defined else math.nan

    def class_mean(self, class_name: str, metric: str) -> float:
        """Mean over the cases where the class is defined."""
        column = self.column(class_name, metric)
        return float(np.nanmean(column)) if not np.isnan(column).all() else math.nan

    def column(self, class_name: str, metric: str) -> Values:
        """One metric of one class for every case (N)."""
        return self.values_NKM[:, self.class_names.index(class_name), METRICS.index(metric)]

    def among(self, cases: Sequence[str]) -> Scores:
        """The scores of those of `cases` that are here; what counts over cases (`absent`, `false_alarms`) stays."""
        wanted = set(cases)
        places = [place for place, case in enumerate(self.cases) if case in wanted]
        return replace(
            self,
            cases=tuple(self.cases[place] for place in places),
            units=tuple(self.units[place] for place in places),
            values_NKM=self.values_NKM[places],
            sizes_NK2=self.sizes_NK2[places],
        )

    def as_dict(self) -> dict[str, Any]:
        """The form that report.json holds; NaN becomes null."""
        per_class: dict[str, Any] = {}
        for index, name in enumerate(self.class_names):
            per_class[name] = {metric: _plain(self.class_mean(name, metric)) for metric in METRICS}
            per_class[name] |= {"absent": self.absent[index], "false_alarms": self.false_alarms[index]}
        per_case: dict[str, Any] = {}
        for case, unit, values_KM, sizes_K2 in zip(
            self.cases, self.units, self.values_NKM, self.sizes_NK2, strict=True
        ):
            per_case[case] = {
                name: {
                    **{metric: _plain(value) for metric, value in zip(METRICS, values_M, strict=True)},
                    "sizes": [_plain(value) for value in sizes_2],
                }
                for name, values_M, sizes_2 in zip(self.class_names, values_KM, sizes_K2, strict=True)
            }
            if unit != case:
                per_case[case]["patient"] = unit
        means = {metric: _plain(self.mean(metric)) for metric in METRICS}
        confusion = [[_plain(value) for value in row] for row in self.pixels_CC]
        return {**means, "per_class": per_class, "per_case": per_case, "confusion": confusion}

    @staticmethod
    def from_dict(read: dict[str, Any]) -> Scores:
        """The inverse of `as_dict`, to the digits that it keeps."""
        names = tuple(read["per_class"])
        values = [
            # A report may be older than a metric.
            [[_number(case[name].get(metric)) for metric in METRICS] for name in names]
            for case in read["per_case"].values()
        ]
        return Scores(
            cases=tuple(read["per_case"]),
            units=tuple(case.get("patient", name) for name, case in read["per_case"].items()),
            class_names=names,
            values_NKM=np.asarray(values, float).reshape(-1, len(names), len(METRICS)),
            false_alarms=tuple(read["per_class"][name]["false_alarms"] for name in names),
            absent=tuple(read["per_class"][name]["absent"] for name in names),
            sizes_NK2=np.asarray(
                [[_pair(case[name].get("sizes")) for name in names] for case in read["per_case"].values()], float
            ).reshape(-1, len(names), 2),
            pixels_CC=np.asarray(read.get("confusion", []), float),
        )


def scores_of(cases: Sequence[tuple[str, str]], scored: Sequence[CaseScores], class_names: Sequence[str]) -> Scores:
    """Scores of all cases from each one's (name, unit) and its own."""
    values_NKM = np.stack([each.values_KM for each in scored])
    tables_NCC = np.stack([each.pixels_CC for each in scored])
    pixels_N11 = np.asarray([each.pixel for each in scored])[:, None, None]
    return Scores(
        cases=tuple(name for name, _ in cases),
        units=tuple(unit for _, unit in cases),
        class_names=tuple(class_names),
        values_NKM=values_NKM,
        false_alarms=tuple(int(count) for count in np.sum([each.alarms_K for each in scored], axis=0)),
        absent=tuple(int(count) for count in np.isnan(values_NKM[:, :, 0]).sum(axis=0)),
        sizes_NK2=np.stack([tables_NCC.sum(2), tables_NCC.sum(1)], axis=2)[:, 1:] * pixels_N11,
        pixels_CC=tables_NCC.sum(0),
    )


def surely_above_zero(values_N: Values) -> bool:
    """Whether the mean of independent values lies above 0: one-sided, 95 %, by Student's t; two or more are needed."""
    n = len(values_N)
    return bool(values_N.mean() > stdtrit(n - 1, 0.95) * values_N.std(ddof=1) / math.sqrt(n))


def score_case(
    labels_HW: NDArray[np.integer[Any]],
    truth_HW: NDArray[np.integer[Any]],
    *,
    classes: int,
    ruler: Ruler | None,
    ignore: int | None = None,
) -> CaseScores:
    """All metrics of one case, and which classes are false alarms.

    The rules for empty masks ("Understanding metric-related pitfalls", Nature Methods 2024):
    both empty leaves the class undefined (NaN); a prediction where the truth is empty scores 0 and
    is a false alarm; a missing prediction scores 0, its distances being the image's diagonal.

    Args:
        classes: number of classes, background included.
        ruler: None leaves the metrics of surfaces out (NaN), which is much faster.
        ignore: pixels with this truth count as background in both, and in no table of pixels.
    """
    pixels = labels_HW.size
    if ignore is not None:
        counted = truth_HW != ignore
        pixels = int(counted.sum())
        labels_HW = np.where(counted, labels_HW, 0)
        truth_HW = np.where(counted, truth_HW, 0)
    pixels_CC = _table(labels_HW, truth_HW, classes)
    pixels_CC[0, 0] -= labels_HW.size - pixels
    # Pixels of each foreground class that were called so, those only called so, those only it.
    hits = pixels_CC.diagonal()[1:]
    extra, missed = pixels_CC.sum(0)[1:] - hits, pixels_CC.sum(1)[1:] - hits
    values_KM = np.full((classes - 1, len(METRICS)), math.nan)
    absent = hits + extra + missed == 0
    with np.errstate(invalid="ignore", divide="ignore"):
        values_KM[:, DICE] = 2 * hits / (2 * hits + extra + missed)
        values_KM[:, IOU] = hits / (hits + extra + missed)
        values_KM[:, PRECISION] = np.where(hits + extra > 0, hits / (hits + extra), 0)
        values_KM[:, RECALL] = np.where(hits + missed > 0, hits / (hits + missed), 0)
        values_KM[:, MAE] = (extra + missed) / pixels
    values_KM[absent] = math.nan
    if ruler is not None:
        one_empty = ~absent & ((hits + extra == 0) | (hits + missed == 0))
        values_KM[np.ix_(one_empty, DISTANCES)] = ruler.diagonal(labels_HW.shape)
        values_KM[one_empty, NSD] = 0.0
        for place in np.flatnonzero(~absent & ~one_empty):
            surfaces = _surfaces(labels_HW == 1 + place, truth_HW == 1 + place, ruler)
            values_KM[place, [HD95, NSD, HAUSDORFF, ASD]] = surfaces
    alarms_K = (hits + missed == 0) & (extra > 0)
    pixel = 1.0 if ruler is None else math.prod(ruler.along(labels_HW.shape))
    return CaseScores(values_KM, alarms_K.astype(float), pixels_CC, pixel)


def _table(labels_HW: NDArray[np.integer[Any]], truth_HW: NDArray[np.integer[Any]], classes: int) -> Values:
    """Pixels by the class that is true (rows) and the one that was answered (columns), CC."""
    assert labels_HW.max(initial=0) < classes and truth_HW.max(initial=0) < classes
    pairs = truth_HW.ravel().astype(np.intp) * classes + labels_HW.ravel()
    return np.bincount(pairs, minlength=classes**2).reshape(classes, classes).astype(float)


def _surfaces(
    predicted_HW: NDArray[np.bool_], true_HW: NDArray[np.bool_], ruler: Ruler
) -> tuple[float, float, float, float]:
    """HD95, normalized surface Dice, Hausdorff and average surface distance of two masks that both have pixels.

    As MONAI 1.6 finds them, of which a test makes sure; importing it takes longer than scoring a hundred cases.
    """
    (box,) = ndimage.find_objects((predicted_HW | true_HW).view(np.uint8))
    spacing = ruler.along(predicted_HW.shape)
    edges = [_edge(np.pad(mask_HW[box], 1), spacing) for mask_HW in (predicted_HW, true_HW)]
    there, back = _nearest(edges[0], edges[1]), _nearest(edges[1], edges[0])
    both = np.concatenate([there, back])
    return (
        max(float(np.percentile(distances, 95)) for distances in (there, back)),
        float((both <= ruler.tolerance).mean()),
        float(both.max()),
        float(both.mean()),
    )


def _edge(mask_HW: NDArray[np.bool_], spacing: Sequence[float]) -> Values:
    """Where (one place a row) the pixels of a mask lie that have a neighbour outside it."""
    return np.argwhere(ndimage.binary_erosion(mask_HW) ^ mask_HW) * np.asarray(spacing, float)


def _nearest(points: Values, others: Values) -> Values:
    """Of each point the distance to the nearest of the others, in single precision."""
    return cKDTree(others, leafsize=32).query(points)[0].astype(np.float32).astype(float)


def _number(value: float | None) -> float:
    return math.nan if value is None else value


def _pair(read: Sequence[float | None] | None) -> tuple[float, float]:
    """A report may be older than sizes."""
    true, answered = read or (None, None)
    return _number(true), _number(answered)


def _plain(value: float) -> float | None:
    """Six digits keep a drop of 1e-5 and do not show noise as precision."""
    return None if math.isnan(value) else round(float(value), 6)
