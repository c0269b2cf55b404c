"""Data that is read once: the same arrays, and no more of them than fit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from shared_fixtures import write_recipe

from compress.data.dataset import remembered as module
from compress.data.dataset.cases import Dataset
from compress.data.dataset.remembered import remembered
from compress.recipe import load


def test_images_and_masks_are_read_once_and_are_the_same(
    tmp_path: Path, recipe: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    data = load(write_recipe(tmp_path, recipe)).task().data
    read: list[str] = []
    plain = Dataset.whole_pixels
    monkeypatch.setattr(Dataset, "whole_pixels", lambda own, case: read.append(case.name) or plain(own, case))
    kept, cases = remembered(data), data.cases["test"][:3]
    for _ in range(2):
        for case in cases:
            assert np.array_equal(kept.whole_pixels(case), plain(data, case))
            assert np.array_equal(kept.mask(case), data.mask(case))
    assert read == [case.name for case in cases]
    assert kept.fingerprint() == data.fingerprint() and remembered(kept).cases == data.cases
    # Under other numbers the same pixels are read again: a copy knows nothing.
    assert replace(kept, tolerance=1.0).whole_pixels(cases[0]) is not kept.whole_pixels(cases[0])


def test_what_does_not_fit_is_read_each_time(
    tmp_path: Path, recipe: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    data = load(write_recipe(tmp_path, recipe)).task().data
    first, second = data.cases["test"][:2]
    monkeypatch.setattr(module, "MOST_BYTES", data.whole_pixels(first).nbytes)
    kept = remembered(data)
    assert kept.whole_pixels(first) is kept.whole_pixels(first)
    assert kept.whole_pixels(second) is not kept.whole_pixels(second)
