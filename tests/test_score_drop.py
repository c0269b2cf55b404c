"""Drops in scores: which cases count and how, and what may honestly be said of them."""

from __future__ import annotations

import math

import numpy as np
import pytest
from judged import drop_gate, lost, row, ruled, scores, verdict

from compress.gates.judging.drop_record import baseline_drop, step_drop
from compress.gates.judging.non_inferiority import Drop, rule, upper_limit
from compress.gates.judging.paired_drop import COLLAPSE, paired_drop
from compress.measure.segmentation import FEWEST, RELEASE

# What a drop gate says


def test_a_small_drop_on_enough_cases_holds_and_is_for_release() -> None:
    found = drop_gate(*lost(RELEASE, 0.002))
    assert (found.verdict, found.reason) == ("holds", "release, 149 cases")
    assert found.value == pytest.approx(0.002, abs=1e-6)
    assert found.upper is not None
    assert found.value < found.upper < 0.01


@pytest.mark.parametrize(("n", "label"), [(FEWEST, "screening"), (RELEASE - 1, "screening"), (RELEASE, "release")])
def test_how_many_cases_there_are_decides_between_screening_and_release(n: int, label: str) -> None:
    assert drop_gate(*lost(n, 0.0)).verdict == "holds"
    assert drop_gate(*lost(n, 0.0)).reason == f"{label}, {n} cases"
    assert drop_gate(*lost(n, 0.1)).reason.startswith(f"{label}, {n} cases")


def test_a_mean_past_the_margin_fails_however_few_cases_there_are() -> None:
    for n in (1, 2, 10, 200):
        assert drop_gate(*lost(n, 0.011)).verdict == "fails"


def test_under_30_cases_it_never_holds() -> None:
    for n in (1, 2, 10, FEWEST - 1):
        found = drop_gate(np.full(n, 0.9), np.full(n, 0.95))
        assert found.verdict == "inconclusive"
        assert found.reason.startswith(f"only {n} cases; 30 are needed")


def test_a_mean_under_the_margin_whose_limit_is_not_is_inconclusive() -> None:
    found = drop_gate(*lost(149, 0.008, spread=0.05))
    assert found.verdict == "inconclusive"
    assert found.reason.startswith("release, 149 cases: the upper limit is not under the margin")


def test_a_drop_of_exactly_the_margin_neither_holds_nor_fails() -> None:
    assert rule(Drop(mean=0.01, upper=0.01, n=200, collapsed=0), 0.01)[0] == "inconclusive"


def test_identical_answers_hold_under_any_margin_but_zero() -> None:
    dice = np.random.default_rng(0).random(149)
    assert drop_gate(dice, dice, 1e-6).verdict == "holds"
    assert drop_gate(dice, dice, 0.0).verdict == "inconclusive"


def test_a_class_that_no_case_has_is_inconclusive() -> None:
    found = drop_gate(np.full(200, math.nan), np.full(200, math.nan))
    assert (found.verdict, found.reason) == ("inconclusive", "0 cases have this class")
    assert (found.value, found.upper) == (None, None)


def test_scores_that_are_not_numbers_never_hold() -> None:
    for drop in (
        Drop(mean=math.nan, upper=math.nan, n=200, collapsed=0),
        Drop(mean=0, upper=math.nan, n=200, collapsed=0),
    ):
        assert rule(drop, 0.01)[0] == "inconclusive"
    was, now = scores(np.full(200, 0.9)), scores(np.full(200, 0.9))
    missing = verdict(("dice_drop", {"at_most": 1}), row("baseline", "torch", scores=was), row("01-int8"))
    assert (missing.verdict, missing.reason) == ("inconclusive", "not measured: the baseline has no scores")
    orphan = verdict(("dice_drop", {"at_most": 1}), row("01-int8", scores=now))
    assert (orphan.verdict, orphan.reason) == ("inconclusive", "not measured: the baseline has no scores")


def test_patients_that_collapse_are_told_beside_the_verdict() -> None:
    before, after = lost(200, 0.0)
    after[:3] -= COLLAPSE + 0.05
    found = drop_gate(before, after, 0.05)
    assert (found.verdict, found.reason) == ("holds", "release, 200 cases; 3 lose more than 0.10")


# Which cases count, and how


def test_every_class_is_judged_and_one_that_fails_is_not_averaged_away() -> None:
    before = np.full((149, 2), 0.9)
    after = before - np.array([0.0, 0.015])
    classes = ("nerve", "vessel")
    rows = row("baseline", "torch", scores=scores(before, classes)), row("01-int8", scores=scores(after, classes))
    found = ruled(("dice_drop", {"at_most": 0.01}), *rows)
    assert {one.class_name: one.verdict for one in found} == {"nerve": "holds", "vessel": "fails"}
    assert baseline_drop(rows, rows[1])["mean"]["drop"] == pytest.approx(0.0075)  # type: ignore[index]
    (named,) = ruled(("dice_drop", {"at_most": 0.01, "class": "nerve"}), *rows)
    assert (named.class_name, named.verdict) == ("nerve", "holds")


def test_a_class_named_wrongly_does_not_hold() -> None:
    found = drop_gate(*lost(149, 0.0), **{"class": "nerv"})
    assert (found.verdict, found.reason) == ("inconclusive", "there is no class 'nerv'; there are nerve")


def test_cases_of_one_patient_are_averaged_first() -> None:
    # A patient with many frames weighs no more than one with a single frame.
    units = ["a"] * 8 + ["b", "c"]
    before, after = scores(np.full(10, 0.9), units=units), scores([0.7] * 8 + [0.9, 0.9], units=units)
    found = paired_drop(before, after, "nerve", "dice")
    assert found.n == 3
    assert found.mean == pytest.approx(0.2 / 3)
    assert found.collapsed == 1


def test_many_frames_of_few_patients_are_few_cases() -> None:
    units = [f"patient {place % 20}" for place in range(400)]
    found = drop_gate(scores(np.full(400, 0.9), units=units), scores(np.full(400, 0.9), units=units))
    assert found.verdict == "inconclusive"
    assert found.reason == "only 20 cases; 30 are needed; about 10 more like these would decide it"


def test_a_case_is_never_dropped_from_one_arm_only() -> None:
    # Neither arm has the class in case 0; in case 1 only the baseline was right to see nothing, in 2 only the artifact.
    before, after = scores([math.nan, math.nan, 0.0, 0.8]), scores([math.nan, 0.0, math.nan, 0.8])
    dice = paired_drop(before, after, "nerve", "dice")
    assert dice.n == 3
    assert dice.mean == pytest.approx((1 - 1 + 0) / 3)
    assert dice.collapsed == 1
    far = paired_drop(
        scores([math.nan, math.nan, 0, 0.8], hd95=[math.nan, math.nan, 30, 4]),
        scores([math.nan, 0, math.nan, 0.8], hd95=[math.nan, 50, math.nan, 6]),
        "nerve",
        "hd95",
    )
    assert far.mean == pytest.approx((50 - 30 + 2) / 3)


def test_a_false_alarm_in_every_case_fails_though_no_case_has_the_class() -> None:
    assert drop_gate(np.full(40, math.nan), np.zeros(40)).verdict == "fails"


def test_an_answer_that_got_better_holds() -> None:
    assert drop_gate(np.full(149, 0.8), np.full(149, 0.85)).verdict == "holds"


def test_a_rise_in_distance_is_judged_as_a_drop_is() -> None:
    was = row("baseline", "torch", scores=scores(np.full(149, 0.9), hd95=np.full(149, 3.0)))
    now = row("01-int8", scores=scores(np.full(149, 0.9), hd95=np.full(149, 3.5)))
    assert verdict(("hd95_rise", {"at_most": 1}), was, now).verdict == "holds"
    assert verdict(("hd95_rise", {"at_most": 0.4}), was, now).verdict == "fails"
    assert verdict(("iou_drop", {"at_most": 0.01}), was, now).verdict == "holds"


@pytest.mark.parametrize(
    ("drop", "margin", "said"),
    [
        # The upper limit is four times as far from the mean as the margin is: sixteen times the cases.
        (Drop(mean=0.0, upper=0.04, n=40, collapsed=0), 0.01, "; about 600 more like these would decide it"),
        (Drop(mean=0.004, upper=0.012, n=200, collapsed=0), 0.01, "; about 160 more like these would decide it"),
        (Drop(mean=0.0, upper=0.001, n=12, collapsed=0), 0.01, "; about 18 more like these would decide it"),
        (Drop(mean=0.0099, upper=0.02, n=40, collapsed=0), 0.01, "; the mean, 0.0099, is too near the margin, 0.01, "),
        (Drop(mean=0.01, upper=0.01, n=40, collapsed=0), 0.01, "is too near the margin"),
    ],
)
def test_an_inconclusive_drop_says_how_many_more_cases_would_decide_it(drop: Drop, margin: float, said: str) -> None:
    ruling, reason = rule(drop, margin)
    assert ruling == "inconclusive"
    assert said in reason


def test_the_cases_that_were_said_to_decide_do_decide() -> None:
    rng = np.random.default_rng(3)
    few = rng.normal(0.002, 0.03, 60)
    ruling, reason = rule(paired_drop(scores(np.full(60, 0.9)), scores(0.9 - few), "nerve", "dice"), 0.008)
    assert ruling == "inconclusive"
    more = int(reason.split("about ")[1].split()[0])
    n = 60 + more
    drops_N = np.tile(few, 40)[:n]
    assert upper_limit(drops_N) < 0.0085


@pytest.mark.parametrize("n", [2, 12, FEWEST - 1, RELEASE])
def test_a_drop_whose_lower_limit_excludes_the_margin_fails_with_however_few_cases(n: int) -> None:
    found = drop_gate(*lost(n, 0.2))
    assert found.verdict == "fails"
    assert found.reason.split(";")[0].endswith(f"{n} cases: the lower limit is past the margin too")


def test_a_drop_from_the_step_before_is_on_the_same_backend() -> None:
    rows = [
        row("baseline", "torch", scores=scores(np.full(40, 0.9))),
        row("baseline", scores=scores(np.full(40, 0.9))),
        row("01-prune", scores=scores(np.full(40, 0.8))),
        row("01-prune", "openvino", scores=scores(np.full(40, 0.5))),
        row("02-int8", scores=scores(np.full(40, 0.79))),
    ]
    assert step_drop(rows, rows[0], "baseline") is None
    found = step_drop(rows, rows[4], "01-prune")
    assert found is not None
    assert found["mean"]["drop"] == pytest.approx(0.01)
    assert found["mean"]["lower"] <= found["mean"]["drop"] <= found["mean"]["upper"]
    assert step_drop(rows, row("02-int8", "tensorrt", "rtx_40", scores=scores(np.full(40, 0.8))), "01-prune") is None


def test_the_lower_limit_mirrors_the_upper_one() -> None:
    before, after = lost(149, 0.004, spread=0.02)
    found = paired_drop(scores(before), scores(after), "nerve", "dice")
    back = paired_drop(scores(after), scores(before), "nerve", "dice")
    assert found.lower < found.mean < found.upper
    assert (back.lower, back.upper) == pytest.approx((-found.upper, -found.lower))
