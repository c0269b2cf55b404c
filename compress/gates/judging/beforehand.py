"""What can be said of a gate before anything is built: that it never holds, or cannot here, and what would be right."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from compress.gates.judging.artifacts import OfArtifacts, applies, is_device
from compress.gates.judging.scene import Scene, Spot
from compress.measure.latency import samples_for
from compress.measure.segmentation import FEWEST
from export.floor import Floor
from export.reach import HERE
from export.registry import words


class OfRatio(OfArtifacts, Protocol):
    """A gate on a ratio."""

    @property
    def over(self) -> str | None: ...


class OfScores(OfArtifacts, Protocol):
    """A gate on scores of a class, or of each."""

    @property
    def class_name(self) -> str | None: ...


def where(gate: OfArtifacts, scene: Scene) -> list[Spot]:
    """The artifacts that a gate will judge."""
    return [spot for spot in scene.judged if applies(gate, spot)]


def nowhere(gate: OfArtifacts, scene: Scene) -> Iterator[str]:
    """Never: it applies to nothing that the recipe builds."""
    if where(gate, scene):
        return
    on = f" for {gate.device}" if gate.device else ""
    if not any(is_device(gate.device, name) for name in scene.devices):
        known = ", ".join(scene.devices)
        yield f"never holds: the recipe builds nothing for the device '{gate.device}'; add it to devices ({known})"
    elif some := [spot for spot in scene.spots if applies(gate, spot)]:
        yield f"never holds: after {scene.last_step.partition('-')[2]} there is no {some[0].backend} artifact{on}"
    else:
        there = dict.fromkeys(spot.backend for spot in scene.judged if is_device(gate.device, spot.device))
        yield f"never holds: nothing of {gate.backend} is built{on}; there are {', '.join(there)}"


def unknown_class(class_name: str | None, scene: Scene) -> Iterator[str]:
    """Never: the data has no such class."""
    known = scene.classes
    if class_name is None or known is None or class_name in known:
        return
    near = difflib.get_close_matches(class_name, known, n=1)
    meant = f"did you mean '{near[0]}'?" if near else f"there are {', '.join(known)}"
    yield f"never holds: there is no foreground class '{class_name}'; {meant}"


def few_samples(percentile: int, scene: Scene) -> Iterator[str]:
    """Never: the recipe takes fewer samples than bound the percentile."""
    needed = samples_for(percentile)
    if scene.samples < needed:
        yield (
            f"never holds: the percentile {percentile} needs {needed} samples; "
            f"set latency samples, {scene.samples}, to that"
        )


def under_floor(gate: OfArtifacts, scene: Scene) -> Iterator[str]:
    """Never: no kernel is so fast on the device, and no pass takes operations away."""
    for spot, floor in _floors_above(gate, scene)[:1]:
        if spot.surely:
            yield (
                f"never holds: on {spot.device} the network cannot take less than {floor.ms:.3g} ms, for its "
                f"{floor.by} alone, and no pass takes any away; allow more, or prune before"
            )


def far_to_floor(gate: OfArtifacts, scene: Scene) -> Iterator[str]:
    """Not unless the passes take so many operations away, at least."""
    for spot, floor in _floors_above(gate, scene)[:1]:
        if spot.surely:
            continue
        if floor.by == "operations":
            # Rounded down, so that it is not more than is certain.
            factor = math.floor(10 * floor.ms / gate.bound.limit) / 10
            needs = f"at least {factor:.1f} times fewer operations than the network has"
        else:
            needs = "fewer weights than the network has"
        yield (
            f"{gate.bound.limit:g} ms on {spot.device} needs {needs}, whose {floor.by} alone take {floor.ms:.3g} ms "
            "there at the published peaks; kernels do not reach these, so that it takes more than that"
        )


def _floors_above(gate: OfArtifacts, scene: Scene) -> list[tuple[Spot, Floor]]:
    """The devices where the bound is below what cannot be beaten, the furthest first."""
    found = [(spot, spot.floor) for spot in where(gate, scene) if spot.floor and spot.floor.ms > gate.bound.limit]
    return sorted(found, key=lambda pair: -pair[1].ms)


def over_nothing(gate: OfRatio, scene: Scene) -> Iterator[str]:
    """Never: there is nothing that the ratio could be over, or it is over what is judged."""
    judged = where(gate, scene)
    if gate.over is None or not judged:
        return
    if gate.over in words("export.backends"):
        built = {(spot.device, spot.backend) for spot in scene.spots}
        lost = [spot for spot in judged if not {(spot.device, gate.over), ("cpu", gate.over)} & built]
        if lost:
            yield f"never holds: no baseline of {gate.over} is built beside {lost[0].title}"
    elif gate.over == scene.last_step and gate.bound.limit > 1:
        yield f"never holds: {gate.over} is the step that is judged, and it is compared with itself; name another step"


def not_measured(gate: OfArtifacts, scene: Scene) -> Iterator[str]:
    """Not here: an artifact that it judges cannot run."""
    return _lost(gate, scene, "measured", lambda spot: spot.unmeasured)


def not_built(gate: OfArtifacts, scene: Scene) -> Iterator[str]:
    """Not here: an artifact that it judges cannot be built."""
    return _lost(gate, scene, "built", lambda spot: spot.unbuilt)


def measured_nowhere(scene: Scene) -> Iterator[str]:
    """Not here: nothing at all can run, the baseline included."""
    reasons = [spot.unmeasured for spot in scene.spots]
    if reasons and all(reasons):
        yield f"cannot hold from this host, since nothing is measured: {reasons[0]}"


def _lost(gate: OfArtifacts, scene: Scene, verb: str, reason: Callable[[Spot], str | None]) -> Iterator[str]:
    judged = where(gate, scene)
    lost = [spot for spot in judged if reason(spot)]
    if lost:
        more = f" (and {len(lost) - 1} more)" if len(lost) > 1 else ""
        rest = _rest(judged, [spot for spot in judged if spot not in lost])
        yield f"cannot hold from this host, since {lost[0].title}{more} is not {verb}: {reason(lost[0])}{rest}"


def _rest(judged: Sequence[Spot], here: Sequence[Spot]) -> str:
    """How to judge only what is here, where a device or a runtime parts it from what is not."""
    for option in ("device", "backend"):
        lost = {getattr(spot, option) for spot in judged if spot not in here}
        left = [getattr(spot, option) for spot in here if getattr(spot, option) not in lost]
        if left and option == "device" and any(is_device(left[0], name) for name in lost):
            # Its word alone means it at every host.
            left[0] += f"@{HERE}"
        if left:
            return f"; to judge only what is here, give {option}: {left[0]}"
    return ""


def few_cases(scene: Scene) -> Iterator[str]:
    """Not with this data: a drop never holds on so few independent cases."""
    if scene.tests and scene.tests < FEWEST:
        yield f"cannot hold: there are {scene.tests} independent test cases, and {FEWEST} are needed"


# All of it for one kind of gate: assigned in its class, each is a method there.


def no_drop_to_judge(gate: OfScores, scene: Scene) -> Iterator[str]:
    """Never: a drop of nothing that is built, or of no class that there is."""
    yield from nowhere(gate, scene)
    yield from unknown_class(gate.class_name, scene)


def no_drop_here(gate: OfScores, scene: Scene) -> Iterator[str]:
    """Not here: nothing runs of which scores could drop, or the test cases are too few."""
    yield from not_measured(gate, scene)
    yield from few_cases(scene)


def no_ratio_to_judge(gate: OfRatio, scene: Scene) -> Iterator[str]:
    """Never: a ratio of nothing that is built, or over nothing that is."""
    yield from nowhere(gate, scene)
    yield from over_nothing(gate, scene)
