"""`compress check`: all that can be seen of a recipe in seconds, before hours of work rest on it.

A mistake is what a run would stop at, or what makes its result worthless; a warning is what a person should know. All
are found together. What a mistake hides (an image that cannot be read, a network that cannot be built) is left out.

Shape legend: C channels, H height, W width (of volumes, depth before them).
"""

from __future__ import annotations

import difflib
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import numpy as np
from torch import nn

from compress.data.dataset import normal
from compress.data.dataset.cases import ROLES, Case, Dataset, MaskArray, Role
from compress.data.dataset.subgroups import subgroups
from compress.data.dataset.tiles import by
from compress.data.synthetic import Synthetic
from compress.errors import SegpressError
from compress.measure.segmentation import DICE
from compress.measure.skill import LITTLE
from compress.pipeline import foreseen
from compress.pipeline.baseline_skill import refuse_chance
from compress.pipeline.bounds import work_of
from compress.progress import bar
from compress.recipe import Recipe
from compress.storage.description import shape_of
from compress.task import Task
from export.backends.torch import infer_from_module
from export.capture import capture
from export.errors import first_line
from export.graph import convolutions, layer_name
from export.quantization.placement import matches
from export.to_onnx import Style, to_onnx

NAMING = ("keep", "where")
"""Options of passes that name layers."""
RENAMING = ("blocks", "depthwise", "lowrank", "truncate")
"""Passes after which layers have other names than before."""

Say = Callable[[str], None]
Value = TypeVar("Value")

LOOKED_AT = 12
"""Cases of each role whose files are decoded; fewer where they are large."""
MOST_BYTES = 200e6
"""Of the images that are decoded, together."""
DRAWN = 4
"""Phantoms of each role, which are drawn when they are asked for."""
SCORED = 8
"""Test cases that the uncompressed network is scored on."""
SECONDS = 6.0
"""Scoring ends after so long, whatever it has got to; of two cases at least."""


@dataclass(kw_only=True)
class Findings:
    """What a check found out."""

    name: str
    """The recipe's, which its own sentences begin with and need not here."""
    mistakes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    facts: list[str] = field(default_factory=list)
    """What was looked at, and what it gave."""

    def tried(self, act: Callable[[], Value]) -> Value | None:
        """What `act` gives; None where it refuses, which is then a mistake."""
        try:
            return act()
        except SegpressError as error:
            self.mistakes.append(str(error).removeprefix(f"{self.name}: "))
            return None


def check(recipe: Recipe, say: Say) -> Findings:
    """Look at a recipe's weights, data, normalization, baseline, passes, devices and gates.

    Args:
        say: told what is being done, a line at a time.
    """
    found = Findings(name=recipe.name)
    if recipe.weights is not None or not trains(recipe):
        say("reading the weights")
    net = _network(recipe, found)
    fits = _size_fits(recipe, found)
    with _data(recipe, found, say) as data:
        if data is not None:
            # The names of classes may be known from the weights alone.
            named = net is not None or getattr(recipe.data, "classes", None) is not None
            wrong = recipe.postprocess_faults(data) if named else []
            found.mistakes += wrong
            # The baseline is scored all the same: without what cannot be applied to it.
            recipe = replace(recipe, postprocess=()) if wrong else recipe
            _roles(recipe, data, found)
            test, apart = data.cases["test"], recipe.scoring.subgroups
            found.tried(lambda: subgroups(test, apart))
            few = replace(data, cases={role: _some(data.cases[role]) for role in ROLES})
            whole = _files(few, found, say)
            if fits and whole:
                _answers(recipe, net, few, found, say)
        if not trains(recipe):
            _gates(recipe, data, net if fits else None, found)
    return found


def trains(recipe: Recipe) -> bool:
    """Whether the recipe is one for `compress train`, and for nothing else."""
    return recipe.train is not None and not recipe.passes


def _network(recipe: Recipe, found: Findings) -> nn.Module | None:
    """The trained network; None where there is none, or none is needed."""
    if recipe.train is not None and trains(recipe) and (recipe.weights is None or recipe.train.widen):
        # What is widened begins as the weights of a narrower network, which are not its own.
        if recipe.weights is not None and not recipe.weights.is_file():
            found.mistakes.append(f"train: widen: {recipe.weights}: no such weights file")
        return None
    return found.tried(recipe.trained)


def _size_fits(recipe: Recipe, found: Findings) -> bool:
    size = tuple(recipe.data.size)
    fault = shape_of(recipe.network).check_size(size)
    if fault:
        found.mistakes.append(f"data: input is {by(size)}; {fault}")
    return not fault


@contextmanager
def _data(recipe: Recipe, found: Findings, say: Say) -> Iterator[Dataset | None]:
    """The data, nothing of it read yet; of phantoms a few, drawn for the check and gone after it."""
    shape, kind = shape_of(recipe.network), recipe.named().data
    with TemporaryDirectory() as folder:
        if isinstance(kind, Synthetic):
            say("drawing a few phantoms")
            kind = kind.few(DRAWN, Path(folder))
        data: Dataset | None = found.tried(lambda: kind(channels=shape.in_channels, classes=shape.classes))
        if data is not None and isinstance(kind, Synthetic):
            data = replace(data, source="phantoms")
        yield data


def _roles(recipe: Recipe, data: Dataset, found: Findings) -> None:
    """Whether every split has the cases that something needs of it."""
    if trains(recipe):
        needed: list[tuple[str, Sequence[Role]]] = [("training needs it", ("train", "val"))]
    else:
        needed = [("nothing can be measured without it", ("test",))]
        needed += [(f"{where} uses it", step.uses) for where, step in _passes(recipe)]
    for why, roles in needed:
        for role in roles:
            if not data.cases[role]:
                remedy = "; or set data calibration, train cases set aside for it" if role == "calibration" else ""
                found.mistakes.append(f"{data.source}: the split '{role}' is empty, and {why}{remedy}")
    there = _count(recipe, data, "calibration")
    for where, step in _passes(recipe):
        asked = getattr(step, "calibrate", None)
        if asked is not None and "calibration" in step.uses and 0 < there < asked:
            found.mistakes.append(
                f"{where}: calibrate is {asked}, but there are {there} calibration cases; lower it or raise data "
                "calibration"
            )


def _passes(recipe: Recipe) -> Iterator[tuple[str, Any]]:
    """Every pass, with its place in the recipe."""
    return chain.from_iterable(_chains(recipe))


def _chains(recipe: Recipe) -> Iterator[list[tuple[str, Any]]]:
    """The recipe's own passes, then each chain that they are compared with."""
    yield [(f"passes[{index}] ({word})", step) for index, (word, step) in enumerate(recipe.passes)]
    for title, steps in recipe.compare.items():
        yield [(f"compare.{title}[{index}] ({word})", step) for index, (word, step) in enumerate(steps)]


def _count(recipe: Recipe, data: Dataset, role: Role) -> int:
    """How many independent cases a role has: patients, where they are known."""
    if isinstance(recipe.data, Synthetic):
        return int(getattr(recipe.data, role))
    return len({case.unit for case in data.cases[role]} if role == "test" else data.cases[role])


def _some(cases: Sequence[Case]) -> list[Case]:
    """A few, spread over the split: neighbours in it are often frames of one patient."""
    whole = list({(case.image, case.mask): case for case in cases}.values())
    most = min(LOOKED_AT, len(whole))
    sizes = [case.image.stat().st_size for case in whole[:most]]
    most = min(most, max(2, int(MOST_BYTES / len(ROLES) / max(1.0, float(np.mean(sizes or [1]))))))
    places = np.linspace(0, len(whole) - 1, most).round().astype(int)
    return [whole[place] for place in places] if whole else []


def _files(few: Dataset, found: Findings, say: Say) -> bool:
    """Decode images and masks; whether all could be read, and have the classes that the network has."""
    cases = [case for role in ROLES for case in few.cases[role]]
    say(f"decoding {len(cases)} images and masks")
    faults = few.faults(cases)
    kinds: dict[str, list[str]] = {}
    for fault in faults:
        kinds.setdefault(_kind(fault), []).append(fault)
    for alike in kinds.values():
        more = f" (and {len(alike) - 1} more like it, of {len(cases)} looked at)" if len(alike) > 1 else ""
        found.mistakes.append(alike[0] + more)
    if cases and not faults:
        found.facts.append(f"{few.source}: {len(cases)} images and masks decoded")
        _classes(few, cases, found)
    return not faults and bool(cases)


def _kind(fault: str) -> str:
    """What is wrong, without the file and the numbers."""
    return " ".join(word for word in fault.split() if word.isalpha())


def _classes(few: Dataset, cases: Sequence[Case], found: Findings) -> None:
    """Warn of classes that no mask has."""
    seen = {int(index) for case in cases for index in np.unique(few.mask(case))}
    missing = [name for index, name in enumerate(few.class_names) if index and index not in seen]
    if missing:
        what = "any foreground" if len(missing) == len(few.class_names) - 1 else ", ".join(missing)
        found.warnings.append(f"{few.source}: none of the {len(cases)} masks looked at has {what}")


def _answers(recipe: Recipe, net: nn.Module | None, few: Dataset, found: Findings, say: Say) -> None:
    """What the network sees, and how well it answers."""
    seen = [case for role in ROLES for case in few.cases[role]][:: max(1, LOOKED_AT // 3)]
    pixels = [few.pixels(case) for case in seen]
    normalized = found.tried(lambda: recipe.normalized(few, recipe.stored_normalization()))
    if normalized is None:
        return
    mistakes, warnings = normal.judged(normalized, pixels, recipe.normalization_from())
    found.mistakes += mistakes
    untold = normal.untold(recipe.normalization_from()) if net is not None else []
    found.warnings += [*warnings, *untold, *normal.colours(few, seen[0], pixels)]
    task = None if net is None else found.tried(lambda: recipe.task_of(net, normalized))
    if task is None or trains(recipe):
        return
    # Before anything is inferred: what a network keeps from inference cannot be captured.
    say("drawing the network's graph, as it leaves torch")
    found.tried(lambda: _graph(recipe, task, found))
    if few.cases["test"]:
        say("scoring the uncompressed network on a few test cases")
        if found.tried(lambda: _baseline(task, found)):
            say("comparing its answers with other cases' masks")
            judged = any(gate.reads_scores for _, gate in recipe.gates)
            found.tried(lambda: refuse_chance(task, judged, found.warnings.append))


def _baseline(task: Task, found: Findings) -> bool:
    """The Dice of the uncompressed network on a few test cases, those first that have most classes.

    Returns:
        Whether it finds something, and in time for being asked once more.
    """
    masks = {case.name: task.data.mask(case) for case in task.data.cases["test"]}
    cases = sorted(task.data.cases["test"], key=lambda case: -_many(masks[case.name], task.data.ignore))[:SCORED]
    scored, begun = [], time.perf_counter()
    for case in bar(cases, "scoring the baseline", len(cases)):
        scored.append(_scored(task, case))
        if len(scored) > 1 and time.perf_counter() - begun > SECONDS:
            break
    dice_NK = np.stack(scored)
    defined_K = ~np.isnan(dice_NK).all(axis=0)
    dice = {
        name: float(np.nanmean(dice_NK[:, index])) if defined_K[index] else math.nan
        for index, name in enumerate(task.data.class_names[1:])
    }
    told = ", ".join(f"{name} {'in none' if math.isnan(value) else f'{value:.3f}'}" for name, value in dice.items())
    found.facts.append(f"baseline in torch over {len(scored)} test cases, Dice: {told}")
    _judge_baseline(task, dice, any(_many(masks[case.name], task.data.ignore) for case in cases[: len(scored)]), found)
    return len(scored) == len(cases) and bool(np.nansum(dice_NK))


def _many(mask_HW: MaskArray, ignore: int | None) -> int:
    """How many foreground classes a mask has."""
    return len(set(np.unique(mask_HW).tolist()) - {0, ignore})


def _scored(task: Task, case: Case) -> np.ndarray:
    try:
        return task.score(infer_from_module(task.net), case, surfaces=False).values_KM[:, DICE]
    except RuntimeError as error:
        # The network is anybody's; what its layers say of a shape they cannot take is torch's own text.
        raise SegpressError(f"network: it fails on an input of {by(task.data.fit.size)}: {first_line(error)}") from None


def _judge_baseline(task: Task, dice: dict[str, float], there: bool, found: Findings) -> None:
    """A network that finds nothing was given something else than in training."""
    known = {name: value for name, value in dice.items() if not math.isnan(value)}
    if there and known and max(known.values()) == 0:
        found.mistakes.append(
            f"baseline: Dice is 0 for every class: the network was trained on something else than it is given here; "
            f"correct the normalization ({task.data.normalization}), the weights, the size, or the class "
            f" indices of the masks ({', '.join(f'{n} {name}' for n, name in enumerate(task.data.class_names))})"
        )
        return
    weak = [f"{name} {value:.3f}" for name, value in known.items() if value < LITTLE]
    if there and weak:
        found.warnings.append(
            f"baseline: Dice is under {LITTLE} ({', '.join(weak)}): a drop from so little says little; was the network "
            "trained on such images, with this normalization and these class indices?"
        )


def _graph(recipe: Recipe, task: Task, found: Findings) -> None:
    """Whether the network can leave torch, and the layers that options name are in it."""
    graph = capture(task.net, task.example, task.dynamic)
    with TemporaryDirectory() as folder:
        # Not all that can be captured has a translation to ONNX.
        to_onnx(task.net, task.example, Path(folder) / "model.onnx", Style(opset=recipe.opset, dynamic=recipe.dynamic))
    layers = [layer_name(node) for node in convolutions(graph)]
    modules = [name for name, _ in task.net.named_modules() if name]
    for steps in _chains(recipe):
        for where, step in _before_renaming(steps):
            for option, pattern in _patterns(step):
                if not any(matches(name, pattern) for name in (*layers, *modules)):
                    near = difflib.get_close_matches(pattern, modules, n=1, cutoff=0.3)
                    meant = f"did you mean '{near[0]}'?" if near else f"there are {', '.join(layers[:8])}, ..."
                    found.mistakes.append(f"{where}: {option}: '{pattern}' names no layer of the network; {meant}")


def _before_renaming(steps: Sequence[tuple[str, Any]]) -> Iterator[tuple[str, Any]]:
    """The passes up to the first that makes layers with names of their own, that one included."""
    for where, step in steps:
        yield where, step
        if type(step).__name__.lower() in RENAMING:
            return


def _patterns(step: Any) -> Iterator[tuple[str, str]]:
    """Each name of a layer that a pass is given, with its option."""
    for option in NAMING:
        given = getattr(step, option, ())
        yield from ((option, pattern) for pattern in ([given] if isinstance(given, str) else given))


def _gates(recipe: Recipe, data: Dataset | None, net: nn.Module | None, found: Findings) -> None:
    """What is not here, and which gates can never hold."""
    spots = foreseen.spots(recipe)
    if net is not None and any(device.peaks for device in recipe.devices):
        # What is wrong with a network that fails on its input has been said.
        with suppress(RuntimeError):
            shape = (1, shape_of(recipe.network).in_channels, *recipe.data.size)
            spots = foreseen.with_floors(recipe, spots, work_of(net, shape))
    tests = None if data is None else _count(recipe, data, "test")
    classes = None if data is None else data.class_names[1:]
    scene = foreseen.scene(recipe, spots, classes, tests)
    found.mistakes += [*foreseen.of_power_modes(recipe, spots), *foreseen.of_passes(recipe)]
    found.mistakes += foreseen.contradictions(recipe, scene)
    away = list(foreseen.of_devices(recipe, spots))
    found.warnings += [*away, *_briefly(foreseen.doubts(recipe, scene), {spot.unmeasured for spot in spots}, away)]
    if not recipe.gates:
        found.warnings.append("no gates: nothing will be judged")


def _briefly(doubts: Iterable[str], reasons: Iterable[str | None], told: Sequence[str]) -> Iterator[str]:
    """Doubts of gates, without the reasons that a warning of a device has told already."""
    known = [reason for reason in reasons if reason and any(line.endswith(reason) for line in told)]
    for doubt in doubts:
        said = next((reason for reason in known if f" is not measured: {reason}" in doubt), None)
        yield doubt if said is None else doubt.replace(f" measured: {said}", " measured (see devices)")
