"""Scores of a segmentation, case by case and class by class.

Legend: H height, W width (of volumes, depth before them), N cases, K foreground classes, M the metrics of `METRICS`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, TypeVar

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
    """Which test cases are scored: the recipe's `scoring`."""

    others: Annotated[int, Field(ge=1)] | None = None
    """What no gate on a drop reads is scored on so many test cases; None scores it on all. The baseline that drops
    are taken from and the last step always are scored on all."""

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
        )

    def as_dict(self) -> dict[str, Any]:
        """The form that report.json holds; NaN becomes null."""
        per_class: dict[str, Any] = {}
        for index, name in enumerate(self.class_names):
            per_class[name] = {metric: _plain(self.class_mean(name, metric)) for metric in METRICS}
            per_class[name] |= {"absent": self.absent[index], "false_alarms": self.false_alarms[index]}
        per_case: dict[str, Any] = {}
        for case, unit, values_KM in zip(self.cases, self.units, self.values_NKM, strict=True):
            per_case[case] = {
                name: {metric: _plain(value) for metric, value in zip(METRICS, values_M, strict=True)}
                for name, values_M in zip(self.class_names, values_KM, strict=True)
            }
            if unit != case:
                per_case[case]["patient"] = unit
        means = {metric: _plain(self.mean(metric)) for metric in METRICS}
        return {**means, "per_class": per_class, "per_case": per_case}

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
        )


def scores_of(
    cases: Sequence[tuple[str, str]], values: Sequence[Values], class_names: Sequence[str], alarms: Sequence[Values]
) -> Scores:
    """Scores from each case's (name, unit), values_KM and false alarms_K."""
    values_NKM = np.stack(values)
    return Scores(
        cases=tuple(name for name, _ in cases),
        units=tuple(unit for _, unit in cases),
        class_names=tuple(class_names),
        values_NKM=values_NKM,
        false_alarms=tuple(int(count) for count in np.sum(alarms, axis=0)),
        absent=tuple(int(count) for count in np.isnan(values_NKM[:, :, 0]).sum(axis=0)),
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
) -> tuple[Values, Values]:
    """All metrics of one case, and which classes are false alarms: values_KM, alarms_K.

    The rules for empty masks ("Understanding metric-related pitfalls", Nature Methods 2024):
    both empty leaves the class undefined (NaN); a prediction where the truth is empty scores 0 and
    is a false alarm; a missing prediction scores 0, its distances being the image's diagonal.

    Args:
        classes: number of classes, background included.
        ruler: None leaves the metrics of surfaces out (NaN), which is much faster.
        ignore: pixels with this truth count as background in both.
    """
    pixels = labels_HW.size
    if ignore is not None:
        counted = truth_HW != ignore
        pixels = int(counted.sum())
        labels_HW = np.where(counted, labels_HW, 0)
        truth_HW = np.where(counted, truth_HW, 0)
    hits, extra, missed = _counts(labels_HW, truth_HW, classes)
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
    return values_KM, alarms_K.astype(float)


def _counts(
    labels_HW: NDArray[np.integer[Any]], truth_HW: NDArray[np.integer[Any]], classes: int
) -> tuple[Values, Values, Values]:
    """Of each foreground class (K), the pixels that are it and called so, those only called so, those only it."""
    assert labels_HW.max(initial=0) < classes and truth_HW.max(initial=0) < classes
    pairs = truth_HW.ravel().astype(np.intp) * classes + labels_HW.ravel()
    table = np.bincount(pairs, minlength=classes**2).reshape(classes, classes).astype(float)
    hits = table.diagonal()
    return hits[1:], (table.sum(0) - hits)[1:], (table.sum(1) - hits)[1:]


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


def _plain(value: float) -> float | None:
    """Six digits keep a drop of 1e-5 and do not show noise as precision."""
    return None if math.isnan(value) else round(float(value), 6)
