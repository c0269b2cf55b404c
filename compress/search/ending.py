"""The end of a search: what may be on the front is timed once more, all of it in one session."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from compress.cache import key_of, versions
from compress.measure.latency import Timing
from compress.search.bench import Bench
from compress.search.front import Goals, front_of
from compress.search.objectives.judging.objective import Measured, Place
from compress.search.objectives.latency_ms import LatencyMs
from compress.search.trial import Trial

NEAR = 0.95
"""A trial may be on the front if it would be with so much of its latency: what two sessions differ by."""
MOST = 24
"""Artifacts that are open at once."""

Builds = Callable[[Trial], tuple[Any, Any]]


def may_be_on_the_front(goals: Goals, trials: Sequence[Trial]) -> list[Trial]:
    """The finished trials of the front, and those that a little less latency would bring there; at most `MOST`."""
    sure = front_of(goals, trials)
    near = [
        trial
        for trial in trials
        if trial.state == "finished"
        and trial not in sure
        and any(each.number == trial.number for each in front_of(goals, [*sure, _faster(trial)]))
    ]
    return [*sure, *near][:MOST]


def timed_again(
    bench: Bench, trials: Sequence[Trial], builds: Builds, timing: Timing, log: Callable[[str], None]
) -> list[Trial]:
    """Those that may be on the front, timed in turns with one another and the uncompressed network."""
    candidates, found = may_be_on_the_front(bench.goals, trials), {}
    for place in bench.clock.places if candidates else ():
        made = {str(trial.number): builds(trial) for trial in candidates}
        given = {name: (built[place], task) for name, (built, task) in made.items()}
        key = key_of([(name, build.key) for name, (build, _) in given.items()], timing, versions())
        log(f"timing {len(given)} artifacts in turns: {place}")

        def work(place: Place = place, given: Mapping[str, Any] = given) -> dict[str, Any]:
            return bench.clock.together(given, place, timing)

        found[place] = bench.cache.value(f"final-{place.backend}-{place.device}", key, work)
    return [
        _with_times(trial, {place: record[str(trial.number)] for place, record in found.items()})
        for trial in candidates
    ]


def _with_times(trial: Trial, times: Mapping[Place, Any]) -> Trial:
    measured = {
        place: replace(found, latency_ms=times.get(place, found.latency_ms)) for place, found in trial.measured.items()
    }
    return replace(trial, measured=measured)


def _faster(trial: Trial) -> Trial:
    return replace(trial, measured={place: _sooner(found) for place, found in trial.measured.items()})


def _sooner(found: Measured) -> Measured:
    if found.latency_ms is None:
        return found
    percentiles = {
        name: value * NEAR for name, value in found.latency_ms.items() if name in ("p50", "p90", "p95", "p99")
    }
    return replace(found, latency_ms={**found.latency_ms, **percentiles})


def places_timed(goals: Goals) -> list[Place]:
    """Where an objective asks for times."""
    timed = [goals.place(each) for _, each in goals.objectives if isinstance(each, LatencyMs)]
    return [place for place in goals.places if place in timed]
