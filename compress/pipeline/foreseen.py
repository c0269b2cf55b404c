"""What can be said of devices and gates before anything is built: what is not here, and which gates can never hold."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from compress.contracts import Timed
from compress.errors import MissingExtra
from compress.gates.judging.judge import DROPS, OF_FILE, Gate, Name
from compress.measure.latency import samples_for
from compress.measure.segmentation import FEWEST
from compress.pipeline.deployment import Deployment, deployments, target_on
from compress.recipe import Recipe
from export.registry import find_backend, words

TIMED = ("latency_ms", "speedup")


@dataclass(frozen=True, kw_only=True)
class Spot:
    """A runtime on a device, and why nothing can be said of it here."""

    device: str
    backend: str
    unbuilt: str | None
    """Why no artifact is built; None if one is."""
    unmeasured: str | None
    """Why it is not measured; None if it is."""
    takes_integers: bool
    """Whether the runtime takes quantized networks."""

    @property
    def title(self) -> str:
        return f"{self.backend} on {self.device}"


@dataclass(frozen=True, kw_only=True)
class Scene:
    """What gates will meet."""

    recipe: Recipe
    spots: Sequence[Spot]
    classes: Sequence[str] | None
    """Foreground classes; None where the data could not be read."""
    tests: int | None
    """Independent test cases; None where the data could not be read."""

    @property
    def judged(self) -> list[Spot]:
        """Where the last step has an artifact: some runtimes take no integers, as torch, which only simulates them."""
        integers = any(word == "int8" for word, _ in self.recipe.passes)
        return [spot for spot in self.spots if spot.takes_integers or not integers]


def spots(recipe: Recipe) -> list[Spot]:
    """Every runtime of every device of the recipe."""
    found = []
    for each in deployments(recipe.devices, recipe.latency.threads or 1):
        missing = not_installed(each.backend)
        found.append(
            Spot(
                device=each.device.name,
                backend=each.backend,
                unbuilt=missing,
                unmeasured=missing or each.not_here(),
                takes_integers=each.rules is not None,
            )
        )
    return found


def not_installed(backend: str) -> str | None:
    """How to install what a runtime lacks; None where it lacks nothing."""
    try:
        find_backend(backend).check_installed()
    except MissingExtra as error:
        return str(error)
    return None


def of_devices(recipe: Recipe, found: Sequence[Spot]) -> Iterator[str]:
    """A sentence for each device that is not here, and for each runtime that is not installed."""
    for place, device in enumerate(recipe.devices):
        here = [spot for spot in found if spot.device == device]
        for spot in here:
            if spot.unbuilt:
                yield f"devices[{place}] ({device}): nothing is built for {spot.backend}: {spot.unbuilt}"
        away = next((spot.unmeasured for spot in here if spot.unmeasured and not spot.unbuilt), None)
        if away:
            yield f"devices[{place}] ({device}): what is built for it is not measured: {away}"


def of_passes(recipe: Recipe) -> Iterator[str]:
    """A sentence for each pass that measures on a device that is not here, or on a runtime that is not installed."""
    for place, (word, step) in enumerate(recipe.passes):
        if not isinstance(step, Timed) or step.latency_ms is None:
            continue
        at = Deployment(backend=step.backend, target=target_on(step.device, step.threads or 1))
        missing = not_installed(at.backend) or at.not_here()
        if missing:
            yield f"passes[{place}] ({word}): latency_ms: it measures on what is not here: {missing}"


def contradictions(scene: Scene) -> Iterator[str]:
    """A sentence for each gate that the recipe itself keeps from ever holding, with what would be right."""
    for place, (name, gate) in enumerate(scene.recipe.gates):
        for fault in (_nowhere(scene, gate), _no_class(scene, gate), _few_samples(scene, name, gate)):
            if fault:
                yield f"gates[{place}] ({name}): {fault}"
        # Where it applies nowhere, there is nothing that a ratio could be over.
        over = None if _nowhere(scene, gate) else _over_nothing(scene, gate)
        if over:
            yield f"gates[{place}] ({name}): {over}"


def doubts(scene: Scene) -> Iterator[str]:
    """A sentence for each gate that cannot hold with this data or on this host."""
    for place, (name, gate) in enumerate(scene.recipe.gates):
        for doubt in (_unmeasured(scene, name, gate), _few_cases(scene, name)):
            if doubt:
                yield f"gates[{place}] ({name}): {doubt}"


def _where(scene: Scene, gate: Gate) -> list[Spot]:
    return _of_gate(scene.judged, gate)


def _of_gate(spots: Sequence[Spot], gate: Gate) -> list[Spot]:
    return [spot for spot in spots if gate.device in (None, spot.device) and gate.backend in (None, spot.backend)]


def _nowhere(scene: Scene, gate: Gate) -> str | None:
    devices = scene.recipe.devices
    if _where(scene, gate):
        return None
    if gate.device is not None and gate.device not in devices:
        known = ", ".join(devices)
        return f"never holds: the recipe builds nothing for the device '{gate.device}'; add it to devices ({known})"
    on = f" for {gate.device}" if gate.device else ""
    for spot in _of_gate(scene.spots, gate):
        return f"never holds: after int8 there is no {spot.backend} artifact{on}, since it takes no integers"
    there = dict.fromkeys(spot.backend for spot in scene.judged if gate.device in (None, spot.device))
    return f"never holds: nothing of {gate.backend} is built{on}; there are {', '.join(there)}"


def _no_class(scene: Scene, gate: Gate) -> str | None:
    name, known = gate.class_name, scene.classes
    if name is None or known is None or name in known:
        return None
    near = difflib.get_close_matches(name, known, n=1)
    meant = f"did you mean '{near[0]}'?" if near else f"there are {', '.join(known)}"
    return f"never holds: there is no foreground class '{name}'; {meant}"


def _few_samples(scene: Scene, name: Name, gate: Gate) -> str | None:
    needed, there = samples_for(gate.percentile), scene.recipe.latency.samples
    if name not in TIMED or there >= needed:
        return None
    return (
        f"never holds: the percentile {gate.percentile} needs {needed} samples; set latency samples, {there}, to that"
    )


def _over_nothing(scene: Scene, gate: Gate) -> str | None:
    if gate.over is None:
        return None
    where = _where(scene, gate)
    if gate.over in words("export.backends"):
        built = {(spot.device, spot.backend) for spot in scene.spots}
        lost = [spot for spot in where if not {(spot.device, gate.over), ("cpu", gate.over)} & built]
        return f"never holds: no baseline of {gate.over} is built beside {lost[0].title}" if lost else None
    passes = scene.recipe.passes
    last = f"{len(passes):02d}-{passes[-1][0]}" if passes else "baseline"
    if gate.over == last and gate.limit > 1:
        return f"never holds: {gate.over} is the step that is judged, and it is compared with itself; name another step"
    return None


def _unmeasured(scene: Scene, name: Name, gate: Gate) -> str | None:
    where = _where(scene, gate)
    reasons = {spot.title: spot.unbuilt if name in OF_FILE else spot.unmeasured for spot in where}
    lost = {title: reason for title, reason in reasons.items() if reason}
    if not lost:
        return None
    first, reason = next(iter(lost.items()))
    more = f" (and {len(lost) - 1} more)" if len(lost) > 1 else ""
    verb = "built" if name in OF_FILE else "measured"
    rest = _rest(where, [spot for spot in where if not reasons[spot.title]])
    return f"cannot hold on this host, since {first}{more} is not {verb}: {reason}{rest}"


def _rest(where: Sequence[Spot], here: Sequence[Spot]) -> str:
    """How to judge only what is here, where a device or a runtime parts it from what is not."""
    for option in ("device", "backend"):
        lost = {getattr(spot, option) for spot in where if spot not in here}
        left = [getattr(spot, option) for spot in here if getattr(spot, option) not in lost]
        if left:
            return f"; to judge only what is here, give {option}: {left[0]}"
    return ""


def _few_cases(scene: Scene, name: Name) -> str | None:
    if name not in DROPS or not scene.tests or scene.tests >= FEWEST:
        return None
    return f"cannot hold: there are {scene.tests} independent test cases, and {FEWEST} are needed"
