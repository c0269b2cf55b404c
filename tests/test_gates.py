"""Gates: what may honestly be said of one limit on one measured number."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pydantic import ValidationError

from compress.gates.judging.judge import (
    COLLAPSE,
    FEWEST,
    LEVEL,
    RELEASE,
    Drop,
    Gate,
    _resampling,
    drops,
    judge,
    paired_drop,
    rule,
    step_drop,
    upper_limit,
    upper_limits,
)
from compress.gates.judging.verdict import Ruling, Verdict
from compress.measure.latency import Samples, limits, samples_for
from compress.measure.row import Row
from compress.measure.segmentation import METRICS, Scores
from compress.report.report import Report

Values = NDArray[np.float64]
NERVE = ("nerve",)


def scores(
    dice_NK: Any, classes: Sequence[str] = NERVE, units: Sequence[str] | None = None, hd95: Any = None
) -> Scores:
    """Scores with this Dice for every case and class; where it is NaN, the class is absent."""
    dice_NK = np.asarray(dice_NK, float).reshape(-1, len(classes))
    values_NKM = np.repeat(dice_NK[:, :, None], len(METRICS), axis=2)
    values_NKM[:, :, METRICS.index("hd95")] = 20 * (1 - dice_NK) if hd95 is None else np.reshape(hd95, dice_NK.shape)
    names = tuple(f"case_{place:03d}" for place in range(len(dice_NK)))
    return Scores(
        cases=names,
        units=names if units is None else tuple(units),
        class_names=tuple(classes),
        values_NKM=values_NKM,
        false_alarms=(0,) * len(classes),
        absent=tuple(int(count) for count in np.isnan(dice_NK).sum(axis=0)),
    )


def row(step: str, backend: str = "onnxruntime", device: str = "cpu", **more: Any) -> Row:
    if isinstance(more.get("scores"), Scores):
        more["scores"] = more["scores"].as_dict()
    if "p50" in more:
        p50 = more.pop("p50")
        times = {f"p{p}": round(p50 * (1 + p / 1000), 3) for p in (50, 90, 95, 99)}
        more["latency_ms"] = {**times, "n": more.pop("n", 459)}
    return Row(
        **{"step": step, "backend": backend, "device": device, "status": "measured", "params": 1, "macs": 1, **more}
    )


def ruled(gate: tuple[Any, dict[str, Any]], *rows: Row) -> list[Verdict]:
    name, options = gate
    return judge([(name, Gate(**options))], rows)


def verdict(gate: tuple[Any, dict[str, Any]], *rows: Row) -> Verdict:
    (only,) = ruled(gate, *rows)
    return only


def drop_gate(before: Any, after: Any, margin: float = 0.01, **more: Any) -> Verdict:
    """The verdict on a Dice drop of one class."""
    was, now = (one if isinstance(one, Scores) else scores(one) for one in (before, after))
    return verdict(
        ("dice_drop", {"at_most": margin, **more}), row("baseline", "torch", scores=was), row("01-int8", scores=now)
    )


def lost(n: int, mean: float, spread: float = 0.001) -> tuple[Values, Values]:
    """Dice before and after, with this mean drop exactly."""
    noise = np.random.default_rng(n).normal(0, spread, n)
    return np.full(n, 0.9), 0.9 - (noise - noise.mean() + mean)


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
    assert drops(rows, rows[1])["mean"]["drop"] == pytest.approx(0.0075)  # type: ignore[index]
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


# Numbers measured once


def test_size_is_judged_even_where_the_artifact_cannot_run() -> None:
    built = row("01-int8", "tensorrt", "rtx_40", status="built", reason="no NVIDIA driver", size_mb=2.0)
    assert verdict(("size_mb", {"at_most": 2.0}), built).verdict == "holds"
    assert verdict(("size_mb", {"at_most": 1.9}), built).verdict == "fails"


def test_a_gate_on_an_absent_device_does_not_hold() -> None:
    absent = row("01-int8", "tensorrt", "rtx_40", status="not measured", reason="no NVIDIA driver")
    for gate in (("dice_drop", {"at_most": 1}), ("latency_ms", {"at_most": 99}), ("size_mb", {"at_most": 99})):
        found = verdict(gate, absent)
        assert (found.verdict, found.reason) == ("inconclusive", "not measured: no NVIDIA driver")
        assert (found.device, found.backend) == ("rtx_40", "tensorrt")


def test_a_gate_on_what_the_recipe_never_builds_does_not_hold_and_names_it() -> None:
    here = row("01-int8", size_mb=1.0)
    for options, named in (
        ({"device": "orin_nano"}, "device 'orin_nano'"),
        ({"backend": "openvino"}, "backend 'openvino'"),
        ({"device": "cpu", "backend": "openvino"}, "device 'cpu' and backend 'openvino'"),
    ):
        found = verdict(("size_mb", {"at_most": 9, **options}), here)
        assert (found.verdict, found.reason) == ("inconclusive", f"not measured: nothing was built for {named}")
    assert verdict(("size_mb", {"at_most": 9})).verdict == "inconclusive"


def test_only_the_last_step_is_judged_and_every_artifact_of_it() -> None:
    rows = [row("baseline", size_mb=9), row("01-int8", size_mb=1), row("01-int8", "openvino", size_mb=3)]
    found = ruled(("size_mb", {"at_most": 2}), *rows)
    assert [(one.backend, one.verdict) for one in found] == [("onnxruntime", "holds"), ("openvino", "fails")]


def test_parity_is_the_share_of_pixels_that_change_class() -> None:
    gate = ("parity", {"at_most": 0.005})
    assert verdict(gate, row("01-int8", parity={"flipped": 0.005})).verdict == "holds"
    assert verdict(gate, row("01-int8", parity={"flipped": 0.006})).verdict == "fails"
    for parity in (None, {"flipped": math.nan}):
        assert verdict(gate, row("01-int8", parity=parity)).verdict == "inconclusive"


def test_latency_is_judged_at_the_percentile_asked_for() -> None:
    timed = row("01-int8", p50=10)
    assert verdict(("latency_ms", {"at_most": 10.6}), timed).verdict == "holds"
    assert verdict(("latency_ms", {"at_most": 10.6, "percentile": 95}), timed).verdict == "fails"
    missing = verdict(("latency_ms", {"at_most": 99}), row("01-int8"))
    assert (missing.verdict, missing.reason) == ("inconclusive", "not measured: its latency")


@pytest.mark.parametrize(("percentile", "needed"), [(90, 44), (95, 90), (99, 459)])
def test_a_percentile_needs_enough_samples(percentile: int, needed: int) -> None:
    gate = ("latency_ms", {"at_most": 99, "percentile": percentile})
    few = verdict(gate, row("01-int8", p50=10, n=needed - 1))
    assert few.verdict == "inconclusive"
    assert (
        few.reason == f"p{percentile} needs {needed} samples, there are {needed - 1}: raise latency samples, or seconds"
    )
    assert few.value == pytest.approx(10 * (1 + percentile / 1000))
    assert verdict(gate, row("01-int8", p50=10, n=needed)).verdict == "holds"
    assert samples_for(percentile) == needed


def times(samples: Sequence[float]) -> dict[str, Any]:
    return Samples(times_ms=list(samples)).as_dict()


@pytest.mark.parametrize(
    ("percentile", "samples", "limit", "ruling"),
    [
        # Twenty samples are too few for p95, and all of them are far past the limit.
        (95, np.linspace(216, 275, 20), 33, "fails"),
        (99, np.linspace(216, 275, 20), 33, "fails"),
        (50, np.linspace(216, 275, 5), 33, "fails"),
        (90, [*[10.0] * 15, *[90.0] * 15], 33, "fails"),
        # Three samples say nothing of a median: all lie on one side of it every fourth time.
        (50, [216.0, 220.0, 275.0], 33, "inconclusive"),
        # Fast as they are, they are too few to hold.
        (95, np.linspace(1, 2, 20), 33, "inconclusive"),
        (99, np.linspace(1, 2, 458), 33, "inconclusive"),
        # A few slow ones may be the five in a hundred.
        (95, [*[10.0] * 19, 90.0], 33, "inconclusive"),
    ],
)
def test_too_few_samples_can_exclude_a_limit_and_never_hold_it(
    percentile: int, samples: Sequence[float], limit: float, ruling: str
) -> None:
    found = verdict(
        ("latency_ms", {"at_most": limit, "percentile": percentile}), row("01-int8", latency_ms=times(samples))
    )
    assert found.verdict == ruling, found.reason
    assert ("which exclude the limit" in found.reason) is (ruling == "fails")


@pytest.mark.parametrize(
    ("percentile", "before", "now", "ruling"),
    [
        # Slower than the baseline on every sample: no speed-up of 2.
        (95, np.linspace(10, 11, 80), np.linspace(20, 22, 20), "fails"),
        (50, np.linspace(10, 11, 6), np.linspace(20, 22, 6), "fails"),
        # What the slowest hundredth of the baseline takes, 20 samples do not bound.
        (99, np.linspace(10, 11, 20), np.linspace(20, 22, 20), "inconclusive"),
        (95, np.linspace(50, 55, 20), np.linspace(10, 11, 20), "inconclusive"),
    ],
)
def test_too_few_samples_can_exclude_a_speed_up_and_never_hold_it(
    percentile: int, before: Sequence[float], now: Sequence[float], ruling: str
) -> None:
    rows = row("baseline", latency_ms=times(before)), row("01-int8", latency_ms=times(now))
    assert verdict(("speedup", {"at_least": 2, "percentile": percentile}), *rows).verdict == ruling


@pytest.mark.parametrize("percentile", [50, 90, 95])
@pytest.mark.parametrize("n", [20, 60, 200])
def test_limits_of_a_percentile_hold_it_as_often_as_they_say(percentile: int, n: int) -> None:
    rng = np.random.default_rng(percentile + n)
    true = float(-np.log(1 - percentile / 100))
    found = [limits(times(rng.exponential(size=n)), percentile, LEVEL) for _ in range(400)]
    # 400 draws of a coverage of 0.95 fall under 0.92 once in three hundred times.
    assert np.mean([low <= true for low, _ in found]) >= 0.92
    assert np.mean([true <= high for _, high in found]) >= 0.92


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


def test_a_speed_up_is_over_the_same_backend_unless_another_is_named() -> None:
    rows = [row("baseline", "torch", p50=40), row("baseline", p50=20), row("01-int8", p50=10)]
    own = verdict(("speedup", {"at_least": 2.5}), *rows)
    assert (own.verdict, own.value, own.bound) == ("fails", 2, "at_least")
    over = verdict(("speedup", {"at_least": 2.5, "over": "torch"}), *rows)
    assert (over.verdict, over.value) == ("holds", 4)


def test_a_speed_up_over_another_step_is_over_its_own_backend_and_device() -> None:
    rows = [
        row("baseline", p50=90),
        row("int8_alone", p50=20),
        row("int8_alone", "openvino", p50=12),
        row("02-int8", p50=10),
        row("02-int8", "openvino", p50=15),
    ]
    found = ruled(("speedup", {"at_least": 1.0, "over": "int8_alone"}), *rows)
    assert [(one.backend, one.value, one.verdict) for one in found] == [
        ("onnxruntime", 2.0, "holds"),
        ("openvino", 0.8, "fails"),
    ]
    assert {one.as_dict()["over"] for one in found} == {"int8_alone"}
    alone = verdict(("speedup", {"at_least": 1.0, "over": "int8_alone"}), rows[0], rows[3])
    assert (alone.verdict, alone.reason) == ("inconclusive", "not measured: int8_alone on onnxruntime")


def test_a_step_that_could_only_be_built_is_no_measure_of_speed() -> None:
    rows = [row("int8_alone", "tensorrt", "rtx_40", status="built"), row("02-int8", "tensorrt", "rtx_40", p50=1)]
    found = verdict(("speedup", {"at_least": 1.0, "over": "int8_alone"}), *rows)
    assert (found.verdict, found.reason) == ("inconclusive", "not measured: int8_alone on tensorrt")


def test_how_many_times_smaller_is_over_the_baselines_artifact_on_the_same_backend() -> None:
    engine = ("tensorrt", "rtx_40")
    rows = [
        row("baseline", "torch", size_mb=100),
        row("baseline", size_mb=90),
        row("baseline", *engine, status="built", size_mb=60),
        row("01-prune", size_mb=45),
        row("02-int8", size_mb=2),
        row("02-int8", *engine, status="built", size_mb=2),
    ]
    found = ruled(("smaller", {"at_least": 40}), *rows)
    assert [(one.backend, one.value, one.verdict) for one in found] == [
        ("onnxruntime", 45, "holds"),
        ("tensorrt", 30, "fails"),
    ]
    assert ruled(("smaller", {"at_least": 40, "over": "torch"}), *rows)[0].value == 50
    assert ruled(("smaller", {"at_least": 40, "over": "01-prune"}), *rows)[0].value == 22.5
    (lost,) = ruled(("smaller", {"at_least": 1}), rows[4])
    assert (lost.verdict, lost.reason) == ("inconclusive", "not measured: the baseline on onnxruntime")
    none = row("02-int8", *engine, status="not measured", reason="no NVIDIA driver")
    assert verdict(("smaller", {"at_least": 1}), *rows[:3], none).reason == "not measured: no NVIDIA driver"


def test_bit_operations_are_judged_by_how_many_times_fewer_they_are() -> None:
    rows = [row("baseline", bit_operations=3200), row("01-int8", bit_operations=80)]
    assert verdict(("fewer_bit_operations", {"at_least": 40}), *rows).verdict == "holds"
    found = verdict(("fewer_bit_operations", {"at_least": 40.1}), *rows)
    assert (found.verdict, found.value) == ("fails", 40)
    assert verdict(("fewer_bit_operations", {"at_least": 1}), rows[0], row("01-int8")).verdict == "inconclusive"


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


def test_a_speed_up_needs_a_baseline_of_enough_samples() -> None:
    now = row("01-int8", p50=10)
    assert verdict(("speedup", {"at_least": 1}), now).reason == "not measured: the baseline on onnxruntime"
    untimed = verdict(("speedup", {"at_least": 1}), row("baseline"), now)
    assert (untimed.verdict, untimed.reason) == ("inconclusive", "not measured: the baseline on onnxruntime")
    few = verdict(("speedup", {"at_least": 1, "percentile": 99}), row("baseline", p50=20, n=100), now)
    assert few.reason == "p99 needs 459 samples, there are 100: raise latency samples, or seconds"


def test_a_speed_up_is_over_its_own_device_or_the_hosts_cpu_and_no_other() -> None:
    now = row("01-int8", "tensorrt", "rtx_40", p50=1)
    here = row("baseline", "tensorrt", "rtx_40", p50=3)
    elsewhere = row("baseline", "tensorrt", "rtx_30", p50=30)
    cpu = row("baseline", "onnxruntime", "cpu", p50=50)
    assert verdict(("speedup", {"at_least": 1}), elsewhere, here, now).value == 3
    assert verdict(("speedup", {"at_least": 1, "over": "onnxruntime"}), here, cpu, now).value == 50
    assert verdict(("speedup", {"at_least": 1}), elsewhere, now).verdict == "inconclusive"


# The exit code


@pytest.mark.parametrize(
    ("rulings", "code"),
    [
        ([], 0),
        (["holds", "holds"], 0),
        (["holds", "inconclusive"], 3),
        (["inconclusive", "fails"], 1),
        (["holds", "fails"], 1),
    ],
)
def test_only_an_explicit_pass_of_every_gate_is_0(rulings: list[Ruling], code: int) -> None:
    sizes: dict[str, float] = {"holds": 1.0, "fails": 3.0, "inconclusive": math.nan}
    gates = [("parity", Gate(at_most=2, backend=f"{place}")) for place in range(len(rulings))]
    rows = [row("01-int8", f"{place}", parity={"flipped": sizes[ruling]}) for place, ruling in enumerate(rulings)]
    report = Report(
        name="x",
        seed=0,
        recipe={},
        versions={},
        host={},
        cases={},
        data={},
        steps=[],
        rows=rows,
        gates=judge(gates, rows),  # type: ignore[arg-type]
    )
    assert [gate.verdict for gate in report.gates] == rulings
    assert report.exit_code == code


@pytest.mark.parametrize("options", [{}, {"at_most": 1, "at_least": 1}])
def test_a_gate_has_one_limit(options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match="needs one limit: at_most or at_least"):
        Gate(**options)


# The upper limit


def test_one_case_has_no_upper_limit() -> None:
    assert upper_limit(np.array([0.1])) == math.inf


def test_equal_drops_are_their_own_limit() -> None:
    for value in (0.0, 0.25, -0.1):
        assert upper_limit(np.full(40, value)) == pytest.approx(value, abs=1e-12)


def test_the_limit_is_the_same_every_time_and_for_one_as_for_many() -> None:
    samples = np.random.default_rng(0).exponential(0.01, (5, 149))
    one_by_one = [upper_limit(sample) for sample in samples]
    np.testing.assert_allclose(one_by_one, upper_limits(samples), rtol=1e-12)
    assert one_by_one == [upper_limit(sample) for sample in samples]


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


def test_a_verdict_on_answers_that_hold_on_some_processors_only_says_so() -> None:
    told = {"measured_on": "AMX", "differs_on": ["AVX2 without VNNI"]}
    before, after = row("baseline", p50=2, scores=scores([0.9] * 40)), scores([0.9] * 40)
    gates = (("dice_drop", {"at_most": 0.01}), ("parity", {"at_most": 0.1}), ("latency_ms", {"at_most": 9}))
    more = {"scores": after, "p50": 1, "parity": {"flipped": 0.0}}
    for gate in gates:
        said = verdict(gate, before, row("01-int8", processors=told, **more)).reason
        assert ("on AMX; not shown for AVX2 without VNNI" in said) is (gate[0] != "latency_ms")
        assert "AMX" not in verdict(gate, before, row("01-int8", processors={**told, "differs_on": []}, **more)).reason
