"""The upper limit of a mean paired drop, and how often it lets through what it should not."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from judged import Values

from compress.gates.judging.non_inferiority import LEVEL, _resampling, lower_and_upper_limit, upper_limit, upper_limits
from compress.measure.segmentation import RELEASE


def test_one_case_has_no_upper_limit() -> None:
    assert upper_limit(np.array([0.1])) == math.inf
    assert lower_and_upper_limit(np.array([0.1])) == (-math.inf, math.inf)


def test_equal_drops_are_their_own_limit() -> None:
    for value in (0.0, 0.25, -0.1):
        assert upper_limit(np.full(40, value)) == pytest.approx(value, abs=1e-12)


def test_the_limit_is_the_same_every_time_and_for_one_as_for_many() -> None:
    samples = np.random.default_rng(0).exponential(0.01, (5, 149))
    one_by_one = [upper_limit(sample) for sample in samples]
    np.testing.assert_allclose(one_by_one, upper_limits(samples), rtol=1e-12)
    assert one_by_one == [upper_limit(sample) for sample in samples]


def test_the_lower_limit_is_that_of_the_gains() -> None:
    for sample in np.random.default_rng(0).exponential(0.01, (5, 149)):
        lower, upper = lower_and_upper_limit(sample)
        assert (lower, upper) == pytest.approx((-upper_limit(-sample), upper_limit(sample)), rel=1e-12)


def test_the_limit_of_normal_drops_is_that_of_students_t() -> None:
    sample = np.random.default_rng(0).normal(0, 1, 400)
    student = sample.mean() + 1.6486 * sample.std(ddof=1) / 20
    assert upper_limit(sample) == pytest.approx(student, abs=0.02)


def collapsing(rng: np.random.Generator, shape: tuple[int, int]) -> Values:
    """2 % of cases lose 0.5, the others nothing but noise; the mean is 0.01."""
    return np.where(rng.random(shape) < 0.02, 0.5, 0.0) + rng.normal(0, 0.01, shape)


MARGIN = 0.01
AT_THE_MARGIN: dict[str, Callable[[np.random.Generator, tuple[int, int]], Values]] = {
    "normal": lambda rng, shape: rng.normal(MARGIN, 0.03, shape),
    "exponential": lambda rng, shape: rng.exponential(MARGIN, shape),
    "shifted exponential": lambda rng, shape: rng.exponential(0.05, shape) - 0.05 + MARGIN,
    "gamma": lambda rng, shape: rng.gamma(0.5, 2 * MARGIN, shape),
    "rare collapse": collapsing,
}
RUNS = 6_000
# The shape that is hardest to tell; others, on demand.
EXTREMES = ("rare collapse",)


def false_passes(name: str, limits: Callable[[Values], Values], n: int = RELEASE, runs: int = RUNS) -> float:
    """How often a drop whose true mean is the margin would be let through."""
    rng = np.random.default_rng(2024)
    passed = 0
    for _ in range(runs // 500):
        passed += int((limits(AT_THE_MARGIN[name](rng, (500, n))) < MARGIN).sum())
    return passed / runs


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in EXTREMES else pytest.mark.slow) for name in AT_THE_MARGIN]
)
def test_a_drop_at_the_margin_is_let_through_at_most_6_percent_of_the_time(name: str) -> None:
    assert false_passes(name, upper_limits) <= 0.06


def test_a_bootstrap_alone_would_let_rare_collapses_through_twice_as_often() -> None:
    def percentile(drops_SN: Values) -> Values:
        return np.asarray(np.quantile(drops_SN @ _resampling(drops_SN.shape[1]).T, LEVEL, axis=1))

    assert false_passes("rare collapse", percentile, runs=2_000) > 0.10


def test_a_mean_alone_would_be_a_coin_flip() -> None:
    assert 0.45 < false_passes("normal", lambda drops_SN: np.asarray(drops_SN.mean(axis=1))) < 0.55
