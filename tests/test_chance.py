"""A baseline whose answers fit other cases' masks, or masks that are turned, is no baseline."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from compress.data.dataset import cases
from compress.data.dataset.cases import MaskArray
from compress.errors import DataError
from compress.pipeline import chance
from compress.pipeline.baseline_skill import refuse_without
from compress.pipeline.chance import Fit, fit_of

SIDE = 24


def mask(rng: np.random.Generator) -> MaskArray:
    """A blob in the upper left, at another place in each case."""
    mask_HW = np.zeros((SIDE, SIDE), np.uint8)
    top, left = rng.integers(1, 4), rng.integers(1, 9)
    mask_HW[top : top + 6, left : left + 5] = 1
    return mask_HW


Answer = Callable[[list[MaskArray], int], NDArray[Any]]


def found(monkeypatch: pytest.MonkeyPatch, answer: Answer, count: int = 40) -> Fit | None:
    """What is found of answers to so many cases."""
    masks = [mask(np.random.default_rng(seed)) for seed in range(count)]
    answered = ((answer(masks, place).astype(np.uint8), masks[place]) for place in range(count))
    monkeypatch.setattr(chance, "_answered", lambda _: answered)
    data = SimpleNamespace(fit=cases.Fit(size=(SIDE, SIDE)), class_names=("background", "blob"), ignore=None)
    return fit_of(SimpleNamespace(data=data))  # type: ignore[arg-type]


def test_a_good_baseline_is_known_on_few_cases(monkeypatch: pytest.MonkeyPatch) -> None:
    told = found(monkeypatch, lambda masks, place: masks[place])
    assert told is not None and told.fault is None and told.better
    assert told.cases <= chance.FEWEST + 2


def test_a_weak_baseline_that_is_better_than_chance_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    told = found(monkeypatch, lambda masks, place: masks[place] if place % 3 else np.zeros((SIDE, SIDE)))
    assert told is not None and told.fault is None


def test_answers_to_other_images_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    told = found(monkeypatch, lambda masks, place: masks[(place * 7 + 3) % len(masks)])
    assert told is not None and told.fault is not None
    assert told.dice > 0.1 and "as well as their own" in told.fault


@pytest.mark.parametrize(
    ("turn", "way"),
    [
        (lambda mask_HW: mask_HW[:, ::-1], "mirrored left to right"),
        (lambda mask_HW: mask_HW[::-1], "mirrored top to bottom"),
        (lambda mask_HW: mask_HW[::-1, ::-1], "turned by 180 degrees"),
        (lambda mask_HW: mask_HW.T, "with their axes exchanged"),
        (lambda mask_HW: np.rot90(mask_HW, 3), "turned by 270 degrees"),
    ],
)
def test_masks_that_lie_otherwise_are_told_with_the_way(
    turn: Callable[[MaskArray], MaskArray], way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = found(monkeypatch, lambda masks, place: turn(masks[place]))
    assert told is not None and told.turned == way and "far better (Dice 1.000" in (told.fault or "")


def test_few_cases_tell_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    assert found(monkeypatch, lambda masks, place: masks[place] * 0, count=chance.FEWEST - 1) is None


def test_masks_that_are_all_alike_tell_nothing_of_chance(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chance, "ALIKE", 0.0)
    told = found(monkeypatch, lambda masks, place: masks[0])
    assert told is not None and told.better and np.isnan(told.others)


@pytest.mark.parametrize(("judged", "cases", "refused"), [(True, 40, True), (False, 40, False), (True, 12, False)])
def test_chance_is_refused_where_a_gate_could_hold(
    judged: bool, cases: int, refused: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    fault = Fit(cases=cases, dice=0.2, others=0.2, better=False)
    monkeypatch.setattr("compress.pipeline.baseline_skill.fit_of", lambda _: fault)
    monkeypatch.setattr("compress.pipeline.baseline_skill._refuse_blind", lambda *_: False)
    task, lines = SimpleNamespace(data=SimpleNamespace(source="data")), list[str]()
    if refused:
        with pytest.raises(DataError, match="as well as their own"):
            refuse_without(task, judged, lines.append)  # type: ignore[arg-type]
    else:
        refuse_without(task, judged, lines.append)  # type: ignore[arg-type]
        assert lines == [fault.fault]
