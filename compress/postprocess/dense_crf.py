"""Dense CRF: probabilities refined by the image's edges, after a network has answered, as DeepLab v1 and v2 do.

The model and its mean field are those of Kraehenbuehl and Koltun (2011, arXiv 1210.5644): every pixel is joined with
every other, by how near they are and how like in colour. Their Gaussian filter over positions and colours is
the permutohedral lattice of Adams, Baek and Davis (2010, "Fast High-Dimensional Filtering Using the
Permutohedral Lattice"), written here as a product of sparse matrices.

Legend: C channels, K classes, H and W height and width (of volumes, depth before them), N pixels, D features of a
pixel, M points of the lattice.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Annotated, Any, ClassVar

import numpy as np
import scipy.ndimage
import scipy.sparse
from numpy.typing import NDArray
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from scipy.special import log_softmax, softmax

from compress.data.dataset.restore import probabilities
from compress.errors import DataError
from compress.postprocess.applying.step import Kind, Setting

Floats = NDArray[np.float32]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]
CERTAIN = 1e-7
"""Probabilities are taken for no nearer to 0 and 1 than this: a certainty without end leaves nothing to refine."""


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class DenseCrf:
    """The two kernels that join pixels, their weights, and how often the mean field is updated.

    The defaults are those with which DeepLab v2 is commonly run on photographs; medical images want them chosen on
    validation cases. Pixels are those of the network's answer. In volumes every voxel is joined with every other, and
    distances are in voxels along each axis.
    """

    iterations: Annotated[int, Field(ge=1)] = 10
    smooth: Weight = 3.0
    """Weight of the kernel over positions alone, which removes small islands."""
    smooth_px: Positive = 1.0
    """Its standard deviation, in pixels."""
    alike: Weight = 4.0
    """Weight of the kernel over positions and colours, which draws borders to the image's edges."""
    alike_px: Positive = 67.0
    """Its standard deviation over positions, in pixels."""
    alike_intensity: Positive = 3.0
    """Its standard deviation over colours, of which 255 is the largest: 3 of 255."""

    on: ClassVar[Kind] = "probabilities"
    gives: ClassVar[Kind] = "probabilities"

    def __call__(self, probabilities_KHW: Floats, image_CHW: Floats) -> Floats:
        """The refined probabilities (KHW, of a sigmoid 1HW), by an image scaled to 0..1."""
        sure_KHW = np.clip(probabilities_KHW.astype(np.float64), CERTAIN, 1 - CERTAIN)
        # Of one logit the other class's is 0.
        logits_KHW = np.log(sure_KHW) - (np.log1p(-sure_KHW) if len(sure_KHW) == 1 else 0)
        refined_KHW = self.refined(logits_KHW.astype(np.float32), 255 * image_CHW)
        shares: Floats = probabilities(refined_KHW).numpy()
        return shares

    def faults(self, setting: Setting) -> Iterator[str]:
        """It can be applied everywhere."""
        yield from ()

    def refined(self, logits_KHW: Floats, image_CHW: NDArray[Any]) -> Floats:
        """The refined logits (KHW): log-probabilities of the classes, or one sigmoid logit where one was given.

        Args:
            logits_KHW: of a network, or from `logits_from_labels`; float.
            image_CHW: the image they are of, before normalization, 0 to 255; a grey one has one channel.

        Raises:
            DataError: if the two are not of one size, or a value is not finite.
        """
        _check(logits_KHW, image_CHW)
        if len(logits_KHW) == 1:
            two = np.concatenate([np.zeros_like(logits_KHW), logits_KHW])
            refined = self.refined(two, image_CHW)
            return refined[1:] - refined[:1]
        weighed: list[tuple[float, _Normalized]] = []
        if self.smooth:
            weighed.append((self.smooth, _smooth(logits_KHW.shape[1:], self.smooth_px)))
        if self.alike:
            weighed.append((self.alike, _alike(image_CHW, self)))
        given_NK = logits_KHW.reshape(len(logits_KHW), -1).T.astype(np.float64)
        refined_NK = given_NK
        for _ in range(self.iterations):
            belief_NK = softmax(refined_NK, axis=1)
            # Potts: what like pixels believe counts for a class, whatever the others are.
            refined_NK = given_NK + sum(weight * kernel(belief_NK) for weight, kernel in weighed)
        return log_softmax(refined_NK, axis=1).T.reshape(logits_KHW.shape).astype(np.float32)


def logits_from_labels(labels_HW: NDArray[Any], classes: int, certainty: float = 0.7) -> Floats:
    """Logits (KHW) of a hard mask, whose label has the probability `certainty` and the other classes the rest.

    Raises:
        DataError: if a label is not one of 0 to classes - 1, or the certainty is not above chance and below 1.
    """
    if labels_HW.min() < 0 or labels_HW.max() >= classes:
        raise DataError(f"labels are {labels_HW.min()} to {labels_HW.max()}; {classes} classes have 0 to {classes - 1}")
    if classes < 2 or not 1 / classes < certainty < 1:
        raise DataError(
            f"a certainty of {certainty} in {classes} classes says nothing; choose 2 classes or more and 0.7"
        )
    other = (1 - certainty) / (classes - 1)
    is_label_KHW = labels_HW == np.arange(classes)[:, None, None]
    return np.log(np.where(is_label_KHW, certainty, other)).astype(np.float32)


def _check(logits_KHW: Floats, image_CHW: NDArray[Any]) -> None:
    if logits_KHW.ndim not in (3, 4) or image_CHW.ndim != logits_KHW.ndim:
        raise DataError(
            f"logits are {logits_KHW.ndim}-D and the image {image_CHW.ndim}-D; both must be channels first, 3-D for "
            "images and 4-D for volumes"
        )
    if logits_KHW.shape[1:] != image_CHW.shape[1:]:
        sizes = ["x".join(map(str, array.shape[1:])) for array in (logits_KHW, image_CHW)]
        raise DataError(f"logits are {sizes[0]} and the image {sizes[1]}; resize the logits to the image first")
    if not (np.isfinite(logits_KHW).all() and np.isfinite(image_CHW).all()):
        raise DataError("logits or image hold values that are not finite (NaN or infinity)")


class _Normalized:
    """A kernel whose matrix has been divided by the roots of its rows' and columns' sums (their "symmetric" one)."""

    def __init__(self, filtered: Any, pixels: int) -> None:
        self.filtered = filtered
        self.scale_N1 = 1 / np.sqrt(np.maximum(filtered(np.ones((pixels, 1))), 1e-12))

    def __call__(self, values_NK: NDArray[np.float64]) -> NDArray[np.float64]:
        return self.scale_N1 * self.filtered(self.scale_N1 * values_NK)


def _smooth(size: tuple[int, ...], sigma: float) -> _Normalized:
    def filtered(values_NK: NDArray[np.float64]) -> NDArray[np.float64]:
        values_HWK = values_NK.reshape(*size, -1)
        blurred = scipy.ndimage.gaussian_filter(values_HWK, sigma, mode="constant", axes=tuple(range(len(size))))
        return blurred.reshape(values_NK.shape)

    return _Normalized(filtered, math.prod(size))


def _alike(image_CHW: NDArray[Any], crf: DenseCrf) -> _Normalized:
    places = [axis.ravel() / crf.alike_px for axis in np.indices(image_CHW.shape[1:])]
    colours = [channel.ravel() / crf.alike_intensity for channel in image_CHW.astype(np.float64)]
    return _Normalized(gaussian_filter_of(np.stack([*places, *colours], axis=1)), places[0].size)


def gaussian_filter_of(features_ND: NDArray[np.float64]) -> Any:
    """The filter sum_j exp(-|f_i - f_j|^2 / 2) v_j of values_NK, up to one factor for all, approximated in N D^2.

    Values are splatted onto a lattice, blurred along each of its D + 1 directions and read back.
    """
    splat_MN, blurs_MM = _lattice(features_ND)

    def filtered(values_NK: NDArray[np.float64]) -> NDArray[np.float64]:
        on_lattice = splat_MN @ values_NK
        # Blurs do not quite commute at the lattice's border: the mean of both orders keeps the filter symmetric.
        there, back = on_lattice, on_lattice
        for blur in blurs_MM:
            there = there + blur @ there
        for blur in reversed(blurs_MM):
            back = back + blur @ back
        return splat_MN.T @ (there + back) / 2

    return filtered


def _lattice(features_ND: NDArray[np.float64]) -> tuple[Any, list[Any]]:
    """The splatting matrix (MN), and half the sum of both neighbours along each direction (MM)."""
    pixels, dims = features_ND.shape
    keys, weights = _simplices(features_ND)
    points, which = _numbered(keys.reshape(-1, dims + 1))
    pixel = np.repeat(np.arange(pixels), dims + 1)
    splat = scipy.sparse.csr_matrix((weights.ravel(), (which, pixel)), shape=(len(points.keys), pixels))
    blurs = [_blur(points, direction) for direction in range(dims + 1)]
    return splat, blurs


def _simplices(features_ND: NDArray[np.float64]) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The D + 1 lattice points around each pixel (N, D + 1 points, D + 1 coordinates), and their weights."""
    elevated = _elevated(features_ND)
    step = elevated.shape[1]
    nearest = np.rint(elevated / step).astype(np.int64) * step
    # Coordinates by their distance from the nearest point, largest first; ties in the order they have.
    order = np.argsort(-(elevated - nearest), axis=1, kind="stable")
    rank = np.argsort(order, axis=1, kind="stable")
    # A point of the lattice has coordinates that sum to 0: as many of the extreme ones as it takes are moved on.
    rank += nearest.sum(axis=1, keepdims=True) // step
    for wrong, sign in ((rank < 0, 1), (rank >= step, -1)):
        nearest[wrong] += sign * step
        rank[wrong] += sign * step
    sorted_offsets = np.empty_like(elevated)
    np.put_along_axis(sorted_offsets, rank, (elevated - nearest) / step, axis=1)
    weights = np.empty_like(elevated)
    weights[:, 0] = 1 - sorted_offsets[:, 0] + sorted_offsets[:, -1]
    weights[:, 1:] = (sorted_offsets[:, :-1] - sorted_offsets[:, 1:])[:, ::-1]
    point = np.arange(step)[:, None]
    return nearest[:, None] + np.where(rank[:, None] < step - point, point, point - step), weights


def _elevated(features_ND: NDArray[np.float64]) -> NDArray[np.float64]:
    """Features in the hyperplane of D + 1 coordinates that sum to 0, scaled so that one blur is one deviation."""
    dims = features_ND.shape[1]
    axis = np.arange(1, dims + 1)
    scaled = features_ND * ((dims + 1) * np.sqrt(2 / 3) / np.sqrt(axis * (axis + 1)))
    later = np.cumsum(scaled[:, ::-1], axis=1)[:, ::-1]
    return np.concatenate([later, np.zeros((len(later), 1))], axis=1) - np.concatenate(
        [np.zeros((len(later), 1)), axis * scaled], axis=1
    )


class _Points:
    """The lattice points in use, each by one number, so that a neighbour is found by a search in sorted numbers."""

    def __init__(self, corners: NDArray[np.int64]) -> None:
        # A margin of one step in every coordinate keeps the neighbours' numbers apart.
        step = corners.shape[1]
        self.low = corners.min(axis=0) - step
        spans = [int(span) for span in corners.max(axis=0) + step - self.low + 1]
        # The last coordinate follows from the others.
        self.strides = [1]
        for span in spans[:-2]:
            self.strides.append(self.strides[-1] * span)
        if self.strides[-1] * spans[-2] >= 2**63:
            raise DataError("the image's values are too far apart for this deviation: give a larger alike_intensity")
        self.keys: NDArray[np.int64] = np.unique(self.numbers(corners))

    def numbers(self, corners: NDArray[np.int64]) -> NDArray[np.int64]:
        return (corners - self.low)[:, :-1] @ np.array(self.strides, dtype=np.int64)

    def shift(self, direction: int, sign: int) -> int:
        """What one step along a direction adds to a point's number."""
        step = len(self.strides) + 1
        move = np.full(step, sign, dtype=np.int64)
        move[direction] -= sign * step
        return int(move[:-1] @ np.array(self.strides, dtype=np.int64))


def _numbered(corners: NDArray[np.int64]) -> tuple[_Points, NDArray[np.intp]]:
    points = _Points(corners)
    return points, np.searchsorted(points.keys, points.numbers(corners))


def _blur(points: _Points, direction: int) -> Any:
    count = len(points.keys)
    total = scipy.sparse.csr_matrix((count, count))
    for sign in (1, -1):
        wanted = points.keys + points.shift(direction, sign)
        found = np.minimum(np.searchsorted(points.keys, wanted), count - 1)
        (rows,) = np.nonzero(points.keys[found] == wanted)
        total = total + scipy.sparse.csr_matrix((np.full(len(rows), 0.5), (rows, found[rows])), shape=(count, count))
    return total
