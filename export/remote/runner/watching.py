"""An artifact that runs for some seconds while power, heat and clocks are read: what an inference costs beside time."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, Sequence

from export.clock import Run, Turn, timed
from export.remote.runner import clocks, heat, power, throttling
from export.remote.runner.power import Rails
from export.remote.runner.power_mode import mode
from export.remote.runner.sampling import Samples, sampled
from export.remote.runner.soaking import Soak, soaked
from export.remote.runner.sysfs import ROOT

Json = Dict[str, Any]
SECONDS = 3.0
"""For which an artifact runs where there are rails; without any, HEAT_SECONDS tell temperature and clocks."""
HEAT_SECONDS = 1.0
IDLE_SECONDS = 2.0
"""For which the idle machine is watched before."""
MANY = 1 << 40


@dataclass(frozen=True)
class Asked:
    """For how long an artifact is watched."""

    soak_minutes: float | None = None
    """Before, for so many minutes at most, until the temperature has settled."""
    seconds: float = SECONDS
    idle: float = IDLE_SECONDS
    kind: str = "cpu"
    """Of the device that computes: "cpu", or another that has power of its own."""
    root: Path = ROOT


def watched(run: Run, asked: Asked) -> Json:
    """What is seen while an artifact runs; what this machine does not tell is null, with the reason.

    Power in W, energy of one inference in mJ, temperatures in degrees Celsius, clocks in MHz.
    """
    rails = power.rails(asked.root, asked.kind)
    if not (rails.rails or heat.temperatures(asked.root, asked.kind) or asked.soak_minutes):
        why = rails.whole if rails.whole == power.NOTHING else f"no power ({rails.whole})"
        return {"watched": None, "why": f"{why}; {heat.NOTHING}"}
    before = throttling.state(asked.root, asked.kind)
    idle = _idle(rails, asked)
    soak = None if asked.soak_minutes is None else soaked(run, Soak(asked.soak_minutes, lambda: _leading(asked)))
    with sampled(rails, asked.root, asked.kind) as samples:
        seconds = asked.seconds if rails.rails else min(asked.seconds, HEAT_SECONDS)
        begun = time.perf_counter()
        inferences = len(timed(run, Turn(first=0, count=MANY, seconds=seconds)))
        seconds = time.perf_counter() - begun
    by = throttling.slowed_by(before, throttling.state(asked.root, asked.kind), samples.flags)
    told = {
        "seconds": seconds,
        "inferences": inferences,
        **_power(rails, samples, idle, seconds / inferences),
        **_heat_and_clocks(samples, asked),
        "throttled": None if by is None else bool(by),
        "throttled_by": by or [],
        "power_mode": mode(asked.root)[0],
        "soak": soak,
    }
    return {"watched": {**told, "unknown": _unknown(told, rails, asked.root)}, "why": None}


def _idle(rails: Rails, asked: Asked) -> Samples | None:
    """The machine at rest; None where it would tell no power."""
    if not rails.rails:
        return None
    with sampled(rails, asked.root, asked.kind) as samples:
        time.sleep(asked.idle)
    return samples


def _leading(asked: Asked) -> float | None:
    known = heat.temperatures(asked.root, asked.kind)
    name = heat.leading(known)
    return None if name is None else known[name]


def _power(rails: Rails, samples: Samples, idle: Samples | None, seconds: float) -> Json:
    """The power of each rail and of the whole, and the energy of an inference that took so many seconds."""
    read: Json = {}
    for name in rails.rails:
        if samples.is_known(name):
            at_rest = None if idle is None else idle.mean_w(name)
            read[name] = {"mean_w": samples.mean_w(name), "max_w": samples.max_w([name]), "idle_w": at_rest}
    unread = {name: "it said nothing while it was watched" for name in rails.rails if name not in read}
    total = _total(rails, read, samples)
    above = None if total is None or total["idle_w"] is None else total["mean_w"] - total["idle_w"]
    return {
        "rails": read,
        "unread": {**rails.unread, **unread},
        "total": total,
        "energy_mj": None if total is None else total["mean_w"] * seconds * 1000,
        "energy_above_idle_mj": None if above is None else above * seconds * 1000,
    }


def _total(rails: Rails, read: Json, samples: Samples) -> Json | None:
    if not rails.total or not all(name in read for name in rails.total):
        return None
    of = list(rails.total)
    mean = sum(read[name]["mean_w"] for name in of)
    if mean <= 0:
        return None
    return {
        "of": of,
        "what": rails.whole,
        "mean_w": mean,
        "max_w": samples.max_w(of),
        "idle_w": _sum([read[name]["idle_w"] for name in of]),
    }


def _sum(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if len(known) == len(values) else None


def _heat_and_clocks(samples: Samples, asked: Asked) -> Json:
    most = clocks.most(asked.root, asked.kind)
    return {
        "temperatures_c": {
            name: {"begin": degrees[0], "end": degrees[-1], "max": max(degrees)}
            for name, degrees in samples.degrees.items()
        },
        "hottest": heat.leading(samples.degrees),
        "clocks_mhz": {
            name: {"min": min(each), "mean": sum(each) / len(each), "most": most.get(name)}
            for name, each in samples.megahertz.items()
        },
    }


def _unknown(told: Json, rails: Rails, root: Path) -> dict[str, str]:
    """Why each thing that is null or empty is not known."""
    silent: list[str] = [f"{name}: {why}" for name, why in told["unread"].items() if name in rails.total]
    if rails.total and not silent:
        # A counter that stands still, as in a virtual machine, is no machine without power.
        silent = [f"{' and '.join(rails.total)} told no power while it ran"]
    reasons = {
        "power": None if told["total"] else "; ".join(silent) or rails.whole,
        "temperature": None if told["temperatures_c"] else heat.NOTHING,
        "clocks": None if told["clocks_mhz"] else clocks.NOTHING,
        "throttling": None if told["throttled"] is not None else throttling.NOTHING,
        "power_mode": None if told["power_mode"] else mode(root)[1],
    }
    return {what: why for what, why in reasons.items() if why is not None}
