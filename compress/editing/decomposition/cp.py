"""CP: a kernel as a sum of products of one vector for each of its axes.

Legend: O output channels, I input channels, k kernel positions, R rank.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from compress.editing.decomposition.ranks import Array

STEPS, TRIAL = 60, 10
BEGINNINGS = (True, False, False, False)
"""Whether to begin with singular vectors: good for a trained kernel, but a term may die there."""
MOST_TERMS = 30.0
"""The largest norm of the terms, relative to that of the kernel: beyond it they cancel each other."""


class Unstable(Exception):
    """A decomposition that went wrong, and how."""


def cp_weights(kernel_OIk: Array, rank: int, seed: int) -> list[Array]:
    """The weight of each layer: alternating least squares, the best of some beginnings, with a ridge that fades away.

    Terms that grow against each other may have no best approximation at all; the ridge holds them
    while the fit is coarse. tensorly's own `parafac` takes minutes for one wide layer.
    """
    size = np.linalg.norm(kernel_OIk)
    kernel, random = kernel_OIk / size, np.random.default_rng(seed)
    ridges = np.geomspace(1e-2, 1e-8, STEPS)
    try:
        begun = [_fitted(kernel, _begun(kernel, rank, random, vectors), ridges[:TRIAL]) for vectors in BEGINNINGS]
        best = min(begun, key=lambda factors: float(np.linalg.norm(kernel - _product(factors))))
        factors = _fitted(kernel, best, ridges[TRIAL:])
    except np.linalg.LinAlgError:
        raise Unstable("cp is not solvable for its kernel; lower the rank, or use tucker") from None
    sizes = [or_one(np.linalg.norm(factor, axis=0)) for factor in factors]
    terms = np.prod(sizes, axis=0)
    if not np.linalg.norm(terms) <= MOST_TERMS:
        raise Unstable(
            f"cp is ill conditioned for its kernel: its terms are over {MOST_TERMS:g} times what they sum to; "
            "lower the rank, or use tucker"
        )
    output, input_, *along = (factor / norm for factor, norm in zip(factors, sizes, strict=True))
    return [input_.T, *(factor.T for factor in along), output * terms * size]


def _begun(kernel: Array, rank: int, random: np.random.Generator, vectors: bool) -> list[Array]:
    """A factor for each axis: noise, or its singular vectors, with noise where they are fewer than the rank."""
    factors: list[Array] = []
    for axis, length in enumerate(kernel.shape):
        factor = random.normal(size=(length, rank)) / math.sqrt(length)
        if vectors:
            matrix = np.moveaxis(kernel, axis, 0).reshape(length, -1)
            first = np.linalg.eigh(matrix @ matrix.T)[1][:, ::-1][:, :rank]
            factor[:, : first.shape[1]] = first
        factors.append(factor)
    return factors


def _fitted(kernel: Array, factors: Sequence[Array], ridges: Array) -> list[Array]:
    factors = list(factors)
    for ridge in ridges:
        for mode in range(kernel.ndim):
            others = np.prod([one.T @ one for axis, one in enumerate(factors) if axis != mode], axis=0)
            others += ridge * np.trace(others) / len(others) * np.eye(len(others))
            factors[mode] = np.linalg.solve(others, _against(kernel, factors, mode).T).T
        sizes = [or_one(np.linalg.norm(factor, axis=0)) for factor in factors]
        even = np.prod(sizes, axis=0) ** (1 / kernel.ndim)
        factors = [factor / norm * even for factor, norm in zip(factors, sizes, strict=True)]
    return factors


def _product(factors: Sequence[Array]) -> Array:
    """The sum of the factors' terms."""
    return np.reshape(factors[0] @ _rest(factors), [len(factor) for factor in factors])


def _rest(factors: Sequence[Array]) -> Array:
    """The terms without their first factor: (R, all other axes)."""
    rest: Array = factors[-1].T
    for factor in reversed(factors[1:-1]):
        rest = np.einsum("nr,r...->rn...", factor, rest)
    return rest.reshape(len(rest), -1)


def _against(kernel: Array, factors: Sequence[Array], mode: int) -> Array:
    """The kernel times every factor but that of `mode`, summed over their axes: (length of the mode, R)."""
    if mode == 0:
        return kernel.reshape(len(kernel), -1) @ _rest(factors).T
    left: Array = (factors[0].T @ kernel.reshape(len(kernel), -1)).reshape(-1, *kernel.shape[1:])
    for axis in reversed(range(1, kernel.ndim)):
        if axis != mode:
            left = np.einsum("rn...,nr->r...", np.moveaxis(left, axis, 1), factors[axis])
    return left.T


def or_one(sizes: Array) -> Array:
    """Norms to divide by: 1 where there is nothing."""
    return np.where(sizes > 0, sizes, 1.0)
