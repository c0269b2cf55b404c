"""How many ranks a matrix needs: by the energy that they keep, or by what is not noise (variational Bayes)."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar

Array = NDArray[np.floating[Any]]


def by_energy(spectrum: Array, energy: float) -> int:
    """The smallest rank, 1 at least, whose squared singular values are this share of all."""
    shares = np.cumsum(spectrum**2) / np.sum(spectrum**2)
    # What rounding leaves of a whole is a whole.
    return min(int(np.searchsorted(shares, energy - 1e-12)) + 1, len(spectrum))


def vbmf_rank(spectrum: Array, shape: tuple[int, int]) -> int:
    """The rank of what is not noise in a matrix with these singular values; 0 if all may be noise.

    Empirical variational Bayesian matrix factorization has an analytic solution: the singular values
    over a threshold stay, and the noise variance minimizes a function of one variable (Nakajima,
    Sugiyama, Babacan and Tomioka 2013, "Global Analytic Solution of Fully-observed Variational
    Bayesian Matrix Factorization", JMLR 14; the constant 2.5129 is theirs).
    """
    small, large = min(shape), max(shape)
    alpha = small / large
    least = 2.5129 * math.sqrt(alpha)
    over = (1 + least) * (1 + alpha / least)
    squares = np.asarray(spectrum, np.float64) ** 2
    most = squares.sum() / (small * large)

    def energy(log_variance: float) -> float:
        """The free energy, but for what does not depend on the variance."""
        x = squares / (large * math.exp(log_variance))
        kept = x[x > over]
        tau = (kept - (1 + alpha) + np.sqrt((kept - (1 + alpha)) ** 2 - 4 * alpha)) / 2
        of_kept = np.sum(kept - tau + np.log(tau + 1) + alpha * np.log(tau / alpha + 1))
        # Each x is under a logarithm too, which is the variance's but for a constant: so zeros need no care.
        return float(x[x <= over].sum() + of_kept + small * log_variance)

    rest = squares[math.ceil(small / (1 + alpha)) - 1 :]
    lower = max(rest[0] / (large * over), rest.mean() / large, most * 1e-14)
    grid = np.linspace(math.log(lower), math.log(most), 65)
    best = int(np.argmin([energy(point) for point in grid]))
    around = (grid[max(best - 1, 0)], grid[min(best + 1, len(grid) - 1)])
    found = minimize_scalar(energy, bounds=around, method="bounded")
    log_variance = min((float(found.x), float(grid[best])), key=energy)
    return int(np.sum(squares > large * math.exp(log_variance) * over))
