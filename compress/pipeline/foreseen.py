"""What can be said of devices and gates before anything is built: what is not here, and which gates can never hold."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from compress.contracts import Timed
from compress.errors import MissingExtra, SurroundingsError
from compress.gates.judging.scene import Scene, Spot
from compress.pipeline.bounds import foreseen_floor
from compress.pipeline.deployment import Deployment, deployments, target_on, without_power_modes
from compress.recipe import Recipe
from export.floor import Work
from export.registry import find_backend, find_device, is_for_signs


def spots(recipe: Recipe) -> list[Spot]:
    """Every runtime of every device of the recipe; one for convolutions of signs where a pass makes such."""
    found = []
    chains = (recipe.passes, *recipe.compare.values())
    signs = any(getattr(step, "makes_signs", False) for chain in chains for _, step in chain)
    integers = any(step.ensures == "integers" for _, step in recipe.passes)
    lost: dict[str, str] = {}
    for each in deployments(recipe.devices, recipe.latency.threads):
        if is_for_signs(each.backend) and not signs:
            continue
        missing = _not_installed(each)
        away = missing or lost.get(each.device.name)
        try:
            away = away or each.not_here()
        except SurroundingsError as error:
            # Asked once: each of its runtimes would wait as long for nothing.
            away = lost[each.device.name] = str(error)
        found.append(
            Spot(
                device=each.device.name,
                backend=each.backend,
                unbuilt=missing,
                unmeasured=away,
                unreached=each.device.name in lost,
                takes_integers=each.rules is not None if integers else not each.kind.runs_modules,
            )
        )
    return found


def with_floors(recipe: Recipe, found: Sequence[Spot], work: Work) -> list[Spot]:
    """The spots, each with the time that the network cannot beat there.

    Args:
        work: that of the network as it comes.
    """
    floors = {each.name: foreseen_floor(each, work, recipe.passes) for each in recipe.devices}
    return [replace(spot, floor=floors[spot.device][0], surely=floors[spot.device][1]) for spot in found]


def not_installed(backend: str) -> str | None:
    """How to install what a runtime lacks; None where it lacks nothing."""
    try:
        find_backend(backend).check_installed()
    except MissingExtra as error:
        return str(error)
    return None


def _not_installed(at: Deployment) -> str | None:
    """The same, but for what is built on a device elsewhere: there it is asked for."""
    if at.kind.builds_on_device and not at.target.is_this_host:
        return None
    return not_installed(at.backend)


def of_devices(recipe: Recipe, found: Sequence[Spot]) -> Iterator[str]:
    """A sentence for each device that is not here, and for each runtime that is not installed."""
    for index, device in enumerate(each.name for each in recipe.devices):
        here = [spot for spot in found if spot.device == device]
        for spot in here:
            if spot.unbuilt:
                yield f"devices[{index}] ({device}): nothing is built for {spot.backend}: {spot.unbuilt}"
        yield from (f"devices[{index}] ({device}): {why}" for why in _unmeasured(here))


def _unmeasured(here: Sequence[Spot]) -> Iterator[str]:
    """What of one device is not measured: all of it, with the first reason, or some runtimes, each with its own."""
    built = [spot for spot in here if not spot.unbuilt]
    away = [spot for spot in built if spot.unmeasured]
    if away and len(away) < len(built):
        yield from (f"what is built for {spot.backend} is not measured: {spot.unmeasured}" for spot in away)
    elif away:
        what = "a run ends at once, with exit code 4" if away[0].unreached else "what is built for it is not measured"
        yield f"{what}: {away[0].unmeasured}"


def of_power_modes(recipe: Recipe, found: Sequence[Spot]) -> Iterator[str]:
    """A sentence for each device that is reached, and has no power modes though the recipe names one."""
    asked = {spot.device for spot in found if not spot.unmeasured}
    for index, device in enumerate(recipe.devices):
        if device.name in asked and (why := without_power_modes(target_on(device, recipe.latency.threads))):
            yield f"devices[{index}] ({device.name}): {why}"


def of_passes(recipe: Recipe) -> Iterator[str]:
    """A sentence for each pass that measures on a device that is not here, or on a runtime that is not installed."""
    for index, (word, step) in enumerate(recipe.passes):
        if not isinstance(step, Timed) or step.latency_ms is None:
            continue
        at = Deployment(backend=step.backend, target=target_on(find_device(step.device, step.python), step.threads))
        missing = _not_installed(at) or at.not_here()
        if missing:
            yield f"passes[{index}] ({word}): latency_ms: it measures on what is not here: {missing}"


def scene(recipe: Recipe, found: Sequence[Spot], classes: Sequence[str] | None, tests: int | None) -> Scene:
    """What the gates of a recipe will meet.

    Args:
        classes: foreground classes; None where the data could not be read.
        tests: independent test cases; None where the data could not be read.
    """
    passes = recipe.passes
    return Scene(
        devices=[device.name for device in recipe.devices],
        spots=found,
        integers=any(step.ensures != "float" for _, step in passes),
        last_step=f"{len(passes):02d}-{passes[-1][0]}" if passes else "baseline",
        samples=recipe.latency.samples,
        classes=classes,
        tests=tests,
    )


def contradictions(recipe: Recipe, met: Scene) -> Iterator[str]:
    """A sentence for each gate that the recipe itself keeps from ever holding, with what would be right."""
    for index, (word, gate) in enumerate(recipe.gates):
        yield from (f"gates[{index}] ({word}): {fault}" for fault in gate.never_holds(met))


def doubts(recipe: Recipe, met: Scene) -> Iterator[str]:
    """A sentence for each gate that cannot hold with this data or on this host."""
    for index, (word, gate) in enumerate(recipe.gates):
        yield from (f"gates[{index}] ({word}): {doubt}" for doubt in gate.cannot_hold(met))
