"""Latency: a stub of known delay is timed right, and artifacts really take turns."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
from pydantic import ValidationError

from compress.measure import latency
from compress.measure.latency import Samples, Timing, interleaved, samples_for
from export.clock import timed


def stub(delay_ms: float) -> Callable[[int], None]:
    return lambda number: time.sleep(delay_ms / 1000)


class Clock:
    """A clock that only moves when something runs: what is timed is exactly what was asked for."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        self.ran: list[str] = []
        monkeypatch.setattr(latency.time, "perf_counter", lambda: self.now)

    def run(self, name: str, *delays_ms: float) -> Callable[[int], None]:
        """A run that takes these times, over and over."""
        delays = itertools.cycle(delays_ms)

        def once(number: int) -> None:
            self.ran.append(name)
            self.now += next(delays) / 1000

        return once


def test_a_stub_of_known_delay_is_measured() -> None:
    found = interleaved({"stub": stub(5)}, Timing(samples=40, seconds=5, warm_up=0.1), seed=0)["stub"].as_dict()
    assert found["n"] == 40
    # A sleep never ends early; on a busy host it ends late now and then.
    assert 5 <= found["p50"] < 10
    assert found["p50"] <= found["p90"] <= found["p95"] <= found["p99"] <= found["max"]


def test_twice_the_delay_is_twice_the_time() -> None:
    found = interleaved({"fast": stub(4), "slow": stub(8)}, Timing(samples=30, seconds=5, warm_up=0), seed=0)
    fast, slow = (found[name].as_dict()["p50"] for name in ("fast", "slow"))
    assert slow / fast == pytest.approx(2, rel=0.2)


def test_percentiles_are_those_of_the_times() -> None:
    found = Samples(times_ms=[float(time) for time in range(1, 101)], settled=True).as_dict()
    assert found == {
        "min": 1.0,
        "p50": 50.5,
        "p90": 90.1,
        "p95": 95.05,
        "p99": 99.01,
        "max": 100.0,
        # The 40th and the 61st: of 100, fewer than 40 lie below the median 1.8 % of the time, fewer than 41 2.8 %.
        "p50_limits": [40.0, 61.0],
        "n": 100,
        "screening": True,
        "settled": True,
    }
    assert not Samples(times_ms=[1.0] * 459).as_dict()["screening"]


@pytest.mark.parametrize(("percentile", "fewest"), [(50, 7), (90, 44), (95, 90), (99, 459)])
def test_a_percentile_is_bounded_by_enough_samples(percentile: int, fewest: int) -> None:
    assert samples_for(percentile) == fewest
    share = percentile / 100
    assert 1 - share**fewest >= 0.99 > 1 - share ** (fewest - 1)


def test_artifacts_take_turns_in_short_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    runs = {name: clock.run(name, 10) for name in "abc"}
    found = interleaved(runs, Timing(samples=200, seconds=60, warm_up=0), seed=0)
    assert all(len(each.times_ms) == 200 for each in found.values())
    # After the warm-ups, in order, each round has every artifact once: one untimed run and ten timed ones.
    rounds = [clock.ran[15:][start : start + 33] for start in range(0, 33 * 20, 33)]
    assert all(each.count(name) == 11 for each in rounds for name in "abc")
    assert all(len([*itertools.groupby(each)]) == 3 for each in rounds)


def test_fast_and_slow_are_spread_over_the_same_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    runs = {"fast": clock.run("fast", 1), "slow": clock.run("slow", 100), "half": clock.run("half", 10)}
    found = interleaved(runs, Timing(samples=45, seconds=60, warm_up=0), seed=0, blocks={"half": 5})
    assert {name: len(each.times_ms) for name, each in found.items()} == {"fast": 45, "slow": 45, "half": 23}
    last = clock.ran[-20:]
    assert {"fast", "slow", "half"} == set(last)


def test_the_order_of_turns_changes_and_is_the_same_for_the_same_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    def order(seed: int) -> list[str]:
        clock = Clock(monkeypatch)
        interleaved({n: clock.run(n, 110) for n in "abc"}, Timing(samples=200, seconds=60, warm_up=0), seed)
        rounds = [clock.ran[15:][start : start + 33] for start in range(0, 33 * 20, 33)]
        return ["".join(dict.fromkeys(each)) for each in rounds]

    assert order(0) == order(0)
    assert order(0) != order(1)
    assert len(set(order(0))) > 3
    assert all(sorted(each) == ["a", "b", "c"] for each in order(0))


def test_each_block_starts_with_a_run_that_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    # Warm-up takes five runs; then the first of eleven, which is slow, is never timed.
    run = clock.run("a", *[110.0] * 5, *[900.0, *[110.0] * 10] * 3)
    found = interleaved({"a": run}, Timing(samples=30, seconds=60, warm_up=0), seed=0)["a"]
    assert found.times_ms == pytest.approx([110.0] * 30)


def test_a_slow_artifact_stops_at_its_time_and_is_labelled_screening(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    runs = {"slow": clock.run("slow", 1000), "fast": clock.run("fast", 1)}
    found = interleaved(runs, Timing(samples=459, seconds=5, warm_up=0), seed=0)
    assert len(found["slow"].times_ms) == 5
    assert found["slow"].as_dict()["screening"]
    assert len(found["fast"].times_ms) == 459
    assert not found["fast"].as_dict()["screening"]


def test_every_input_is_used_in_turn() -> None:
    seen: list[int] = []
    interleaved({"a": seen.append}, Timing(samples=20, seconds=5, warm_up=0), seed=0)
    assert set(seen) == set(range(20))


def test_each_block_and_each_warm_up_moves_the_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    steps: list[int] = []
    timing = Timing(samples=12, seconds=60, warm_up=0)
    interleaved({n: clock.run(n, 110) for n in "ab"}, timing, 0, lambda: steps.append(1))
    assert len(steps) == 2 * (1 + 2)


def test_warm_up_ends_when_three_windows_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    # Two windows of falling times, then steady ones.
    run = clock.run("a", *[200.0] * 5, *[150.0] * 5, *[100.0] * 1000)
    assert latency._warm_up(partial(timed, run), seconds=4)
    assert len(clock.ran) == 25


def test_warm_up_lasts_a_quarter_of_its_time_even_if_windows_agree_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    assert latency._warm_up(partial(timed, clock.run("a", 1)), seconds=2)
    assert 0.5 <= clock.now < 0.51


def test_warm_up_that_never_settles_stops_by_its_limit_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    times = np.random.default_rng(0).uniform(5, 50, 1000)
    assert not latency._warm_up(partial(timed, clock.run("a", *times)), seconds=2)
    assert 2 < clock.now < 2.3
    found = interleaved({"a": clock.run("a", *times)}, Timing(samples=10, seconds=5, warm_up=0.5), seed=0)["a"]
    assert not found.settled
    assert not found.as_dict()["settled"]


@pytest.mark.parametrize("option", [{"samples": 9}, {"threads": 0}, {"seconds": 0}, {"warm_up": -1}, {"runs": 5}])
def test_options_out_of_range_are_refused(option: dict[str, float]) -> None:
    with pytest.raises(ValidationError):
        Timing(**option)  # type: ignore[arg-type]
