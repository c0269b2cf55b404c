"""Dense CRF: its filter is the Gaussian one, and a noisy mask is drawn to the image's edges."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from compress.errors import DataError
from compress.postprocess.dense_crf import DenseCrf, gaussian_filter_of, logits_from_labels


def disc(size: tuple[int, int] = (48, 60)) -> np.ndarray:
    rows, columns = np.indices(size)
    return (rows - 20) ** 2 + (columns - 30) ** 2 < 14**2


def pictured(mask: np.ndarray, channels: int = 3) -> np.ndarray:
    """A bright disc on grey, with noise."""
    noise = np.random.default_rng(0).normal(0, 8, (channels, *mask.shape))
    return np.clip(np.where(mask, 170, 90) + noise, 0, 255)


def spoiled(mask: np.ndarray) -> np.ndarray:
    """The mask with a fifth of its pixels wrong."""
    wrong = np.random.default_rng(1).uniform(size=mask.shape) < 0.2
    return (mask ^ wrong).astype(np.int64)


@pytest.mark.parametrize("dims", [1, 2, 3, 5])
def test_the_filter_is_the_gaussian_one(dims: int) -> None:
    rng = np.random.default_rng(0)
    features, values = rng.uniform(0, 3, (400, dims)), rng.uniform(size=(400, 2))
    exact = np.exp(-((features[:, None] - features) ** 2).sum(-1) / 2)
    ours = gaussian_filter_of(features)
    every = np.ones((400, 1))
    error = ours(values) / ours(every) - exact @ values / (exact @ every)
    assert np.abs(error).max() < 0.03
    assert np.corrcoef(ours(every)[:, 0], (exact @ every)[:, 0])[0, 1] > 0.97


def test_the_filter_is_symmetric_so_that_like_pixels_count_for_each_other_alike() -> None:
    ours = gaussian_filter_of(np.random.default_rng(0).uniform(0, 4, (60, 3)))
    matrix = ours(np.eye(60))
    np.testing.assert_allclose(matrix, matrix.T, atol=1e-9)
    assert (matrix >= 0).all()


@pytest.mark.parametrize("channels", [1, 3])
def test_a_noisy_mask_is_drawn_to_the_edges_of_the_image(channels: int) -> None:
    mask = disc()
    noisy = spoiled(mask)
    refined = DenseCrf(alike_px=20, alike_intensity=20).refined(logits_from_labels(noisy, 2), pictured(mask, channels))
    wrong = {name: (labels != mask).mean() for name, labels in (("before", noisy), ("after", refined.argmax(0)))}
    assert wrong["before"] > 0.15
    assert wrong["after"] < 0.01


def test_positions_alone_cannot_find_the_edge_that_colours_show() -> None:
    mask = disc()
    # The mask is of the disc, but three pixels too far to the right.
    logits = logits_from_labels(np.roll(mask, 3, axis=1).astype(np.int64), 2)
    image = pictured(mask)
    wrong = {
        alike: (DenseCrf(alike=alike, alike_px=20, alike_intensity=20).refined(logits, image).argmax(0) != mask).mean()
        for alike in (0.0, 8.0)
    }
    assert wrong[8.0] < 0.1 * wrong[0.0]


def test_positions_alone_remove_islands_up_to_their_size() -> None:
    mask = disc()
    grey = np.full((1, *mask.shape), 90.0)
    island = mask.astype(np.int64)
    island[4:6, 50:52] = 1
    left = {
        (smooth, px): int(
            DenseCrf(alike=0, smooth=smooth, smooth_px=px)
            .refined(logits_from_labels(island, 2, 0.8), grey)
            .argmax(0)[:10, 46:]
            .sum()
        )
        for smooth, px in ((0.0, 1.0), (3.0, 0.4), (3.0, 1.0))
    }
    assert left == {(0.0, 1.0): 4, (3.0, 0.4): 4, (3.0, 1.0): 0}


def test_a_single_sigmoid_logit_is_refined_as_two_classes_are() -> None:
    mask = disc()
    two = logits_from_labels(spoiled(mask), 2)
    one, crf = two[1:] - two[:1], DenseCrf(alike_px=20, alike_intensity=20)
    refined_one, refined_two = crf.refined(one, pictured(mask)), crf.refined(two, pictured(mask))
    assert refined_one.shape == (1, *mask.shape)
    np.testing.assert_allclose(refined_one[0], refined_two[1] - refined_two[0], atol=1e-4)


def test_refined_logits_are_log_probabilities_of_the_given_size_and_nothing_given_is_changed() -> None:
    mask = disc((20, 31))
    logits = np.random.default_rng(0).normal(size=(4, 20, 31)).astype(np.float32)
    before = logits.copy()
    refined = DenseCrf(iterations=2).refined(logits, pictured(mask).astype(np.uint8))
    assert refined.shape == logits.shape and refined.dtype == np.float32
    np.testing.assert_allclose(np.exp(refined).sum(0), 1, atol=1e-5)
    np.testing.assert_array_equal(logits, before)


@pytest.mark.parametrize(
    ("logits", "image", "why"),
    [
        (np.zeros((2, 8, 8)), np.zeros((3, 8, 9)), "logits are 8x8 and the image 8x9; resize the logits"),
        (np.zeros((8, 8)), np.zeros((3, 8, 8)), "logits are 2-D and the image 3-D; both must be channels first"),
        (np.full((2, 8, 8), np.nan), np.zeros((3, 8, 8)), "not finite"),
    ],
)
def test_what_does_not_fit_is_refused(logits: Any, image: Any, why: str) -> None:
    with pytest.raises(DataError, match=why):
        DenseCrf().refined(logits.astype(np.float32), image)


def test_labels_of_other_classes_and_certainties_that_say_nothing_are_refused() -> None:
    labels = np.array([[0, 2]])
    with pytest.raises(DataError, match="labels are 0 to 2; 2 classes have 0 to 1"):
        logits_from_labels(labels, 2)
    with pytest.raises(DataError, match=r"a certainty of 0\.2 in 3 classes says nothing"):
        logits_from_labels(labels, 3, certainty=0.2)
    np.testing.assert_allclose(np.exp(logits_from_labels(labels, 3, 0.8)).sum(0), 1, rtol=1e-6)
