"""Scores, against numbers worked out by hand and distances found by trying every pair."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from compress.measure.segmentation import (
    ASD,
    DICE,
    HAUSDORFF,
    HD95,
    IOU,
    MAE,
    METRICS,
    NSD,
    PRECISION,
    RECALL,
    CaseScores,
    Ruler,
    Scores,
    score_case,
    scores_of,
)

PIXELS = Ruler()
Labels = NDArray[np.integer[Any]]


def score(labels: Labels, truth: Labels, classes: int = 2, ruler: Ruler | None = PIXELS, **more: Any) -> CaseScores:
    return score_case(np.asarray(labels), np.asarray(truth), classes=classes, ruler=ruler, **more)


def surface(mask_HW: NDArray[np.bool_]) -> NDArray[np.int_]:
    """Pixels of a mask with a neighbour (or the image's edge) outside it, as (row, column)."""
    cross = ndimage.generate_binary_structure(mask_HW.ndim, 1)
    return np.argwhere(mask_HW & ~ndimage.binary_erosion(mask_HW, cross, border_value=0))


def nearest(from_HW: NDArray[np.bool_], to_HW: NDArray[np.bool_], spacing: tuple[float, ...]) -> NDArray[np.float64]:
    """The distance from every surface pixel of one mask to the other's surface, by trying every pair."""
    start, end = surface(from_HW) * np.array(spacing), surface(to_HW) * np.array(spacing)
    return np.asarray(np.linalg.norm(start[:, None] - end[None], axis=2).min(axis=1))


def two_blobs(rng: np.random.Generator, shape: tuple[int, int]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Two rough shapes that overlap somewhat."""
    rough = ndimage.gaussian_filter(rng.standard_normal((2, *shape)), (0, 2, 2))
    rough[1] += rough[0]
    first, second = (each > np.quantile(each, rng.uniform(0.6, 0.9)) for each in rough)
    return first, second


def test_overlap_scores_are_those_worked_out_by_hand() -> None:
    truth = np.array([[1, 1, 1, 0], [0, 0, 0, 0]])
    labels = np.array([[0, 1, 1, 1], [1, 0, 0, 0]])
    (values,), (alarm,), *_ = score(labels, truth, ruler=None)
    # Two hits, two extra, one missed.
    assert values[DICE] == pytest.approx(4 / 7)
    assert values[IOU] == pytest.approx(2 / 5)
    assert values[PRECISION] == pytest.approx(2 / 4)
    assert values[RECALL] == pytest.approx(2 / 3)
    assert values[MAE] == pytest.approx(3 / 8)
    assert np.isnan(values[[HD95, NSD, HAUSDORFF, ASD]]).all()
    assert not alarm


def test_classes_are_scored_apart() -> None:
    truth = np.array([[1, 1, 2, 2], [0, 0, 2, 2]])
    labels = np.array([[1, 1, 1, 2], [0, 0, 2, 2]])
    values_KM, *_ = score(labels, truth, classes=3)
    assert values_KM[:, DICE].tolist() == pytest.approx([2 * 2 / (3 + 2), 2 * 3 / (3 + 4)])


def test_a_perfect_answer_is_perfect_in_every_metric() -> None:
    truth = np.zeros((9, 9), int)
    truth[2:5, 3:8] = 1
    (values,), *_ = score(truth, truth)
    assert values.tolist() == [1, 1, 0, 1, 1, 1, 0, 0, 0]


def test_both_empty_is_undefined_and_no_false_alarm() -> None:
    values_KM, alarms_K, *_ = score(np.zeros((8, 8), int), np.zeros((8, 8), int), classes=3)
    assert np.isnan(values_KM).all()
    assert alarms_K.tolist() == [0, 0]


def test_a_prediction_where_the_truth_is_empty_is_0_and_a_false_alarm() -> None:
    labels = np.zeros((30, 40), int)
    labels[3, 3] = 1
    (values,), (alarm,), *_ = score(labels, np.zeros((30, 40), int))
    assert values.tolist() == [0, 0, 50, 0, 0, 0, 50, 50, 1 / 1200]
    assert alarm == 1


def test_a_missing_prediction_is_0_and_the_diagonal_but_no_false_alarm() -> None:
    truth = np.zeros((30, 40), int)
    truth[3:9, 3:9] = 1
    (values,), (alarm,), *_ = score(np.zeros((30, 40), int), truth, ruler=Ruler(spacing=(2.0, 0.5)))
    assert values[[DICE, IOU, NSD, PRECISION, RECALL]].tolist() == [0, 0, 0, 0, 0]
    assert values[[HD95, HAUSDORFF, ASD]].tolist() == pytest.approx([math.hypot(60, 20)] * 3)
    assert values[MAE] == pytest.approx(36 / 1200)
    assert alarm == 0


def test_two_masks_that_miss_each_other_have_a_distance_and_no_overlap() -> None:
    truth, labels = np.zeros((20, 20), int), np.zeros((20, 20), int)
    truth[5, 5], labels[5, 12] = 1, 1
    (values,), (alarm,), *_ = score(labels, truth)
    assert values.tolist() == [0, 0, 7, 0, 0, 0, 7, 7, 2 / 400]
    assert alarm == 0


@pytest.mark.parametrize("spacing", [None, (1.0, 1.0), (0.2, 0.9), (3.0, 0.5)])
def test_distances_equal_those_found_by_trying_every_pair(spacing: tuple[float, float] | None) -> None:
    rng = np.random.default_rng(0)
    ruler = Ruler(spacing=spacing, tolerance=1.3)
    for _ in range(12):
        shape = (int(rng.integers(12, 30)), int(rng.integers(12, 30)))
        first, second = two_blobs(rng, shape)
        (values,), *_ = score(first.astype(int), second.astype(int), ruler=ruler)
        there, back = (nearest(*pair, spacing or (1.0, 1.0)) for pair in ((first, second), (second, first)))
        assert values[HD95] == pytest.approx(max(np.percentile(there, 95), np.percentile(back, 95)), rel=1e-5)
        assert values[HAUSDORFF] == pytest.approx(max(there.max(), back.max()), rel=1e-5)
        assert values[ASD] == pytest.approx(np.concatenate([there, back]).mean(), rel=1e-5)
        near = (there <= 1.3).sum() + (back <= 1.3).sum()
        assert values[NSD] == pytest.approx(near / (len(there) + len(back)), abs=1e-6)


@pytest.mark.parametrize("spacing", [(0.3, 0.7), None])
def test_surfaces_and_their_distances_are_those_of_monai(spacing: tuple[float, float] | None) -> None:
    import torch
    from monai.metrics.utils import get_edge_surface_distance

    rng = np.random.default_rng(3)
    masks = [ndimage.gaussian_filter(rng.standard_normal((48, 40)), 3) > 0.02 for _ in range(2)]
    _, found, _ = get_edge_surface_distance(
        *(torch.from_numpy(np.pad(mask, 1)) for mask in masks),
        spacing=spacing,
        symmetric=True,
        mask=torch.ones(50, 42, dtype=torch.bool),
    )
    there, back = (distances.double().numpy() for distances in found)
    values, *_ = score_case(masks[0].astype(int), masks[1].astype(int), classes=2, ruler=Ruler(spacing=spacing))
    assert values[0, HD95] == max(np.percentile(there, 95), np.percentile(back, 95))
    assert values[0, ASD] == np.concatenate([there, back]).mean()


def test_distances_in_a_volume_equal_those_found_by_trying_every_pair() -> None:
    spacing = (3.0, 0.5, 1.25)
    rough = ndimage.gaussian_filter(np.random.default_rng(3).standard_normal((2, 9, 14, 11)), (0, 1, 2, 2))
    labels, truth = (each > np.quantile(each, 0.8) for each in (rough[0], rough[0] + 0.5 * rough[1]))
    values, *_ = score(labels.astype(int), truth.astype(int), ruler=Ruler(spacing=spacing, tolerance=1.3))
    there, back = nearest(labels, truth, spacing), nearest(truth, labels, spacing)
    both = np.concatenate([there, back])
    assert values[0, DICE] == pytest.approx(2 * (labels & truth).sum() / (labels.sum() + truth.sum()))
    assert values[0, HAUSDORFF] == pytest.approx(both.max(), rel=1e-5)
    assert values[0, HD95] == pytest.approx(max(np.percentile(there, 95), np.percentile(back, 95)), rel=1e-5)
    assert values[0, ASD] == pytest.approx(both.mean(), rel=1e-5)
    assert values[0, NSD] == pytest.approx((both <= 1.3).mean(), rel=1e-5)
    values, *_ = score(labels.astype(int), np.zeros_like(truth, int), ruler=Ruler(spacing=spacing))
    assert values[0, HAUSDORFF] == pytest.approx(math.hypot(27, 7, 13.75))


def test_a_mask_at_the_edge_of_the_image_ends_there() -> None:
    truth = np.zeros((12, 12), int)
    truth[:, :4] = 1
    labels = np.zeros((12, 12), int)
    labels[:, :6] = 1
    (values,), *_ = score(labels, truth)
    ends = [nearest(*pair, (1.0, 1.0)) for pair in ((labels > 0, truth > 0), (truth > 0, labels > 0))]
    assert values[HD95] == pytest.approx(max(np.percentile(each, 95) for each in ends)) == 2


def test_ranges_hold_whatever_the_masks() -> None:
    rng = np.random.default_rng(1)
    for _ in range(20):
        labels, truth = rng.integers(0, 4, (2, 9, 11)) * (rng.random((2, 1, 1)) < 0.8)
        values_KM, *_ = score(labels, truth, classes=4)
        defined = values_KM[~np.isnan(values_KM[:, DICE])]
        shares = defined[:, [DICE, IOU, NSD, PRECISION, RECALL]]
        assert ((shares >= 0) & (shares <= 1)).all()
        assert (defined[:, IOU] <= defined[:, DICE]).all()
        np.testing.assert_allclose(defined[:, DICE], 2 * defined[:, IOU] / (1 + defined[:, IOU]))
        assert ((defined[:, MAE] >= 0) & (defined[:, MAE] <= 1)).all()
        assert ((defined[:, ASD] >= 0) & (defined[:, ASD] <= defined[:, HAUSDORFF])).all()
        assert (defined[:, HD95] <= defined[:, HAUSDORFF]).all()
        assert (defined[:, HAUSDORFF] <= math.hypot(9, 11)).all()


def test_ignored_pixels_count_neither_for_nor_against() -> None:
    rng = np.random.default_rng(2)
    truth = rng.integers(0, 2, (10, 10))
    labels = rng.integers(0, 2, (10, 10))
    out = rng.random((10, 10)) < 0.3
    expected, *_ = score(np.where(out, 0, labels), np.where(out, 0, truth), ruler=None)
    found, *_ = score(labels, np.where(out, 255, truth), ruler=None, ignore=255)
    np.testing.assert_array_equal(found[:, :MAE], expected[:, :MAE])
    assert found[0, MAE] == pytest.approx((labels != truth)[~out].mean())


def test_a_class_seen_only_among_ignored_pixels_is_absent_and_no_false_alarm() -> None:
    truth = np.full((8, 8), 9)
    truth[:4] = 0
    labels = np.where(truth == 9, 1, 0)
    values_KM, alarms_K, *_ = score(labels, truth, ignore=9)
    assert np.isnan(values_KM).all()
    assert alarms_K.tolist() == [0]


def test_pixels_are_counted_by_what_is_true_and_what_was_answered_and_sizes_are_theirs_in_mm2() -> None:
    truth, labels = np.array([[0, 1, 1, 2], [0, 0, 2, 9]]), np.array([[0, 1, 0, 2], [2, 0, 1, 1]])
    scored = score(labels, truth, classes=3, ruler=Ruler(spacing=(0.5, 2.0)), ignore=9)
    assert scored.pixels_CC.tolist() == [[2, 0, 1], [1, 1, 0], [0, 1, 1]], "what counts nowhere is in no row"
    scores = scores_of([("a", "a")], [scored], ("nerve", "vessel"))
    assert scores.pixels_CC.tolist() == scored.pixels_CC.tolist()
    assert scores.sizes_NK2.tolist() == [[[2, 2], [2, 2]]], "a pixel is 1 mm2"
    twice = score(labels, truth, classes=3, ruler=Ruler(spacing=(1.0, 2.0)), ignore=9)
    both = scores_of([("a", "a"), ("b", "b")], [scored, twice], ("nerve", "vessel"))
    assert both.sizes_NK2[:, 0].tolist() == [[2, 2], [4, 4]] and both.pixels_CC.sum() == 14


def three_cases() -> Scores:
    """Nerve in the first two; the third is empty and gets a false vessel."""
    truth = np.zeros((3, 12, 16), int)
    truth[0, 2:6, 2:6], truth[1, 4:9, 4:9] = 1, 1
    labels = truth.copy()
    labels[0, 2, 2:6], labels[2, 0, 0] = 0, 2
    scored = [score(*pair, classes=3) for pair in zip(labels, truth, strict=True)]
    names = [("a.png", "p1"), ("b.png", "p1"), ("c.png", "c.png")]
    return scores_of(names, scored, ("nerve", "vessel"))


def test_absent_cases_and_false_alarms_are_counted_for_each_class() -> None:
    scores = three_cases()
    assert scores.absent == (1, 2)
    assert scores.false_alarms == (0, 1)


def test_means_are_over_the_cases_where_a_class_is_defined_then_over_classes() -> None:
    scores = three_cases()
    nerve = (2 * 12 / (12 + 16) + 1) / 2
    assert scores.class_mean("nerve", "dice") == pytest.approx(nerve)
    assert scores.class_mean("vessel", "dice") == 0
    assert scores.mean("dice") == pytest.approx(nerve / 2)
    assert scores.column("vessel", "hd95")[2] == 20


def of(values_KM: NDArray[np.float64]) -> CaseScores:
    """A case with these metrics, of which nothing else counts."""
    classes = 1 + len(values_KM)
    return CaseScores(values_KM, np.zeros(classes - 1), np.zeros((classes, classes)), 1.0)


def test_a_class_that_no_case_has_is_left_out_of_the_mean() -> None:
    values = np.full((1, 2, len(METRICS)), math.nan)
    values[0, 0] = 0.5
    scores = scores_of([("a", "a")], [of(values[0])], ("nerve", "vessel"))
    assert math.isnan(scores.class_mean("vessel", "dice"))
    assert scores.mean("dice") == 0.5
    empty = scores_of([("a", "a")], [of(values[0] * math.nan)], ("nerve", "vessel"))
    assert math.isnan(empty.mean("dice"))


def test_scores_survive_the_way_through_json() -> None:
    scores = three_cases()
    text = json.dumps(scores.as_dict(), allow_nan=False)
    back = Scores.from_dict(json.loads(text))
    np.testing.assert_allclose(back.values_NKM, scores.values_NKM, atol=5e-7)
    assert (back.cases, back.units, back.class_names) == (scores.cases, scores.units, scores.class_names)
    assert (back.absent, back.false_alarms) == (scores.absent, scores.false_alarms)
    assert np.array_equal(back.sizes_NK2, scores.sizes_NK2) and np.array_equal(back.pixels_CC, scores.pixels_CC)
    assert [back.mean(metric) for metric in METRICS] == pytest.approx(
        [json.loads(text)[metric] for metric in METRICS], abs=1e-6
    )


def test_a_report_that_is_older_than_a_metric_is_read() -> None:
    record = json.loads(json.dumps(three_cases().as_dict()))
    for case in record["per_case"].values():
        for name in ("nerve", "vessel"):
            del case[name]["mae"], case[name]["sizes"]
    del record["confusion"]
    back = Scores.from_dict(record)
    assert math.isnan(back.mean("mae")) and np.isnan(back.sizes_NK2).all()
    assert back.mean("dice") == pytest.approx(three_cases().mean("dice"), abs=1e-6)


def test_every_metric_has_its_place() -> None:
    assert [METRICS[place] for place in (DICE, IOU, HD95, NSD, PRECISION, RECALL, HAUSDORFF, ASD, MAE)] == list(METRICS)


def test_what_report_json_holds_is_plain() -> None:
    record = three_cases().as_dict()
    assert record["dice"] == pytest.approx(0.464286)
    assert record["per_case"]["a.png"]["patient"] == "p1"
    assert "patient" not in record["per_case"]["c.png"]
    assert record["per_case"]["c.png"]["nerve"]["dice"] is None
    assert record["per_class"]["vessel"]["false_alarms"] == 1


def test_a_ruler_without_spacing_measures_pixels() -> None:
    assert Ruler(spacing=(0.1, 0.2)).diagonal((30, 20)) == 5
