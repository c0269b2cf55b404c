"""Gates on time: percentiles, how many samples bound them, and what a speed-up is over."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from judged import row, ruled, times, verdict

from compress.gates.judging.non_inferiority import LEVEL
from compress.measure.latency import limits, samples_for


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
