"""Ranges of activations: one pass over the cases, histograms that grow, and estimates from their sums."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from shared_fixtures import write_recipe
from zoo import image, made

from compress.editing.calibration import calibrated
from compress.errors import PassError
from compress.passes.int8 import Int8
from compress.recipe import load
from export.capture import folded_graph
from export.quantization.observers import BINS, Histogram, Histograms, sample
from export.quantization.range_estimators import Percentile, least_divergence, least_squared_error

ESTIMATORS = {"mse": least_squared_error, "entropy": least_divergence, "percentile": Percentile(percent=99.9)}


def histogram(*parts: np.ndarray) -> Histogram:
    """Of all parts, seen one after the other."""
    found = Histogram()
    low, high = np.inf, -np.inf
    for part in parts:
        low, high = min(low, part.min()), max(high, part.max())
        found.range = (float(low), float(high))
        found.count(part, found.range)
    return found


@pytest.mark.parametrize(
    "values",
    [
        np.random.default_rng(0).normal(size=5000),
        np.abs(np.random.default_rng(1).standard_cauchy(size=5000)),
        np.random.default_rng(2).normal(40, 1e-3, size=500),
        np.r_[0.0, 0.0, np.full(50, -7.25)],
    ],
    ids=["both signs", "a long tail", "far from zero", "two values"],
)
def test_counts_are_those_of_a_range_known_from_the_start(values: np.ndarray) -> None:
    ordered = values[np.argsort(np.abs(values))]
    grown = histogram(*np.array_split(ordered, 7))
    whole = histogram(values)
    assert grown.exponent == whole.exponent and grown.first == whole.first
    assert grown.counts.sum() == len(values)
    at_once = Histogram(range=whole.range)
    at_once.count(ordered, whole.range)
    assert np.array_equal(grown.counts, at_once.counts)
    assert BINS / 2 < len(grown.counts) <= BINS


def test_what_was_zero_at_first_counts_as_zero_later() -> None:
    found = histogram(np.zeros(10), np.r_[0.5, 1.0])
    assert found.counts[-found.first] == 10 and found.counts.sum() == 12


@pytest.mark.parametrize("name", ["entropy", "percentile"])
def test_a_range_lies_within_what_was_seen_and_leaves_out_a_lone_outlier(name: str) -> None:
    values = np.r_[np.random.default_rng(0).normal(size=20000).clip(-4, 4), 400.0]
    low, high = ESTIMATORS[name](histogram(values))
    assert -4.01 < low < -1 and 1 < high < 100


def test_the_least_squared_error_is_as_low_as_any_range_has() -> None:
    values = np.abs(np.random.default_rng(0).standard_t(3, size=20000))
    _, high = least_squared_error(histogram(values))

    def error(end: float) -> float:
        step = end / 255
        return float(np.square(np.clip(np.round(values / step), 0, 255) * step - values).sum())

    best = min(error(end) for end in np.linspace(0.05, 1.0, 400) * values.max())
    assert error(high) < 1.05 * best


def test_a_sample_takes_its_values_from_every_column() -> None:
    columns = torch.arange(512.0).repeat(512, 1)[None, None]
    taken = sample(columns)
    assert 0.4 * 2**16 < len(taken) <= 2**16
    assert len(taken.unique()) == 512


def test_the_network_is_run_once_for_each_case_and_its_layout_stays() -> None:
    graph = folded_graph(made("unet"), image(), ())
    strides = [parameter.stride() for parameter in graph.parameters()]
    shown = []
    ranges = calibrated(graph, (shown.append(seed) or image(seed) for seed in (1, 2)), least_squared_error, 2)
    assert shown == [1, 2] and ranges
    assert [parameter.stride() for parameter in graph.parameters()] == strides
    again = Histograms()
    exact = calibrated(graph, iter([image(1), image(2)]), None, 2)
    for name, (low, high) in ranges.items():
        assert exact[name][0] <= low + 1e-6 and high <= exact[name][1] + 1e-6
    assert again.ranges == {}


def with_constant(task: Any, count: int) -> Any:
    """The task with so many calibration cases in which every pixel is the same."""
    data = task.data

    class Constant(type(data)):  # type: ignore[misc]
        def images(self, cases: Any) -> Any:
            for place, found in enumerate(super().images(cases)):
                yield np.full_like(found, 0.5) if place < count else found

    fields = {each.name: getattr(data, each.name) for each in dataclasses.fields(data)}
    return dataclasses.replace(task, data=Constant(**fields))


@pytest.mark.parametrize("count", [2, 8])
def test_cases_that_show_nothing_are_told_and_refused_where_all_are(
    count: int, tmp_path: Path, recipe: dict[str, Any]
) -> None:
    notes: list[str] = []
    task = with_constant(load(write_recipe(tmp_path, recipe)).task(), count)
    task = dataclasses.replace(task, note=notes.append)
    if count == 8:
        with pytest.raises(PassError, match="every pixel is the same in each of the 8 calibration cases"):
            Int8(effort="fast")(task.net, task)
        return
    Int8(effort="fast")(task.net, task)
    (warning,) = (note for note in notes if note.startswith("warning"))
    assert "in 2 of 8 calibration cases" in warning
    assert all(case.name in warning for case in task.data.cases["calibration"][:2])
