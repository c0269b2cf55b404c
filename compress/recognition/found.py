"""What the masks mean, and what the network wants to see, put together of what was looked at and what was said."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from compress.data.dataset.cases import Case, Normalization
from compress.data.dataset.dicom import Window
from compress.data.dataset.images import Images
from compress.data.dataset.masks import IGNORE, IGNORED
from compress.data.dataset.tiles import by
from compress.errors import DataError, SegpressError
from compress.networks.foreign.checks import check_logits
from compress.recognition import inputs
from compress.recognition.inputs import Judge, Size, Tried, Way
from compress.recognition.masks import Stored, are_indices, stored_values
from compress.recognition.network import Recognized
from compress.storage.description import read_description, shape_of

Ask = Callable[[str, str, str], str]
ALIKE = 0.01
"""Sizes whose Dice differs by less are not told apart."""


@dataclass(frozen=True, kw_only=True)
class Meaning:
    """The classes, and which of them each stored value is."""

    stored: Stored
    names: tuple[str, ...]
    order: tuple[int, ...] | None
    """The class index of each stored value; None where that is to be found out."""
    scored: bool = False
    """Whether the order was found by what the network answers."""
    unnamed: bool = False
    """Whether nobody has said the names of the classes."""

    @property
    def plain(self) -> bool:
        """Whether masks hold class indices."""
        return self.order == self.stored.values and not self.stored.colours and not self.stored.labels

    @property
    def ignore(self) -> int | None:
        return IGNORED if self.plain and IGNORED in self.stored.values and len(self.names) <= IGNORED else None

    @property
    def sentences(self) -> list[str]:
        if self.plain:
            return [f"masks: class indices ({self.stored})"]
        if self.stored.labels:
            sure = " (in the order that scores best)" if self.scored and len(self.stored.labels) > 2 else ""
            return [f"masks: labels {self.stored}; classes {', '.join(self.names)}{sure}"]
        pairs = ", ".join(f"{value} is {name}" for value, name in (self.written() or {}).items())
        many = self.scored and len(self.stored.values) > 2
        return [f"masks: {pairs}" + (" (the order that scores best)" if many else "")]

    def in_order(self, order: tuple[int, ...]) -> Meaning:
        if self.order is not None:
            return self
        named = {index: label for index, label in zip(order, self.stored.labels, strict=False) if index}
        names = tuple(named.get(index, name) for index, name in enumerate(self.names))
        return replace(self, order=order, scored=True, names=names if self.unnamed else self.names)

    def named(self, names: tuple[str, ...]) -> Meaning:
        if len(names) != len(self.names) or len(set(names)) != len(names) or not all(names):
            raise SegpressError(f"--classes: {len(self.names)} different names are needed, background first: {names}")
        return replace(self, names=names)

    def written(self) -> dict[str, str] | None:
        """`masks` of a recipe; None where it needs none."""
        if self.plain or self.order is None:
            return None
        pairs = zip(self.stored.values, self.order, strict=True)
        return {
            self.stored.told(value): IGNORE if index == IGNORED else self.names[index]
            for value, index in pairs
            if not self.stored.labels
            or (value and (index == IGNORED or self.stored.labels[value] != self.names[index]))
        } or None


def meaning_of(
    cases: Sequence[Case], classes: int, masks: Mapping[Any, Any] | None, names: tuple[str, ...] | None
) -> Meaning:
    """What masks hold, and what can be said of it before the network is asked.

    Raises:
        DataError: if they cannot be read, or hold a value of which `masks` says nothing.
    """
    found = stored_values([case.mask for case in cases])
    count = max(2, classes)
    plain = ("background", *(("foreground",) if count == 2 else (f"class {index}" for index in range(1, count))))
    told = [str(name) for name in (masks or {}).values() if not str(name).isdecimal() and name != IGNORE]
    if names is None and len(dict.fromkeys(told)) == count:
        names = ("background", *(name for name in dict.fromkeys(told) if name != "background"))
    meaning = Meaning(stored=found, names=plain, order=None, unnamed=names is None)
    meaning = meaning if names is None else meaning.named(names)
    if masks is not None:
        return replace(meaning, order=tuple(_index(value, found, masks, meaning.names) for value in found.values))
    if len(found.values) < 2:
        raise DataError(
            f"{cases[0].mask.parent}: {found.looked_at} masks hold nothing but {found}: no class is in them"
        )
    return replace(meaning, order=found.values) if are_indices(found, count) else meaning


def _index(value: int, found: Stored, masks: Mapping[Any, Any], names: Sequence[str]) -> int:
    told = found.told(value)
    if value == 0 and found.labels:
        return 0
    target = next(
        (
            each
            for key, each in masks.items()
            if str(key) in (told, told.strip("'")) or str(key).lower() == told.strip("'")
        ),
        None,
    )
    if target is None:
        raise DataError(f"--masks: says nothing of {told}, which masks hold ({found})")
    if target == IGNORE:
        return IGNORED
    if target in names:
        return names.index(target)
    if str(target).isdecimal() and int(target) < len(names):
        return int(target)
    raise DataError(
        f"--masks: {told} is to be '{target}', and the classes are {', '.join(names)}; --classes names them"
    )


@dataclass(frozen=True, kw_only=True)
class Input:
    """How the network wants its images."""

    size: Size
    normalization: Normalization
    order: tuple[int, ...]
    """The class of each stored value."""
    of_size: str
    of_normalization: str
    sentences: tuple[str, ...]
    classes: tuple[str, ...] | None = None
    """The names stored with the weights."""


def input_of(
    known: Recognized,
    weights: Path,
    cases: Sequence[Case],
    meaning: Meaning,
    size: Size | None,
    normalization: str | None,
    window: Window | None,
    ask: Ask,
) -> Input:
    """The size and the normalization that the network was most likely trained with.

    Raises:
        SegpressError: if it finds nothing whatever it is given, or sizes are alike and nobody says which.
    """
    shape, described = shape_of(known.network), read_description(weights)
    judge = replace(_judge(known, cases, meaning), reader=Images(window=window, channels=shape.in_channels))
    stored_with = described.normalization if described is not None else None
    sizes = _sizes(shape.check_size, [case.image for case in cases])
    if described is not None and described.size is not None:
        size = size or (described.size[0], described.size[1])
    if size is not None:
        sizes = _fits(shape.check_size, size)
    middle = min(sizes, key=lambda each: abs(math.prod(each) - 256**2))
    head = getattr(shape, "head", None)
    if head is not None:
        # Any normalization tells logits from probabilities.
        check_logits(known.net, judge.inputs(middle), head)
    judge = judge.within(inputs.SECONDS, middle, 16 + len(sizes))
    tried = _ways(judge, middle, normalization, stored_with)
    _check_finds(tried, normalization is not None or stored_with is not None)
    scored = inputs.tried_sizes(judge, tried[0].way, sizes) if size is None else [(tried[0].dice, middle)]
    chosen = _chosen(scored, ask)
    if chosen != middle:
        tried = _ways(judge, chosen, normalization, stored_with)
    best = tried[0]
    of_size = "As given." if size is not None else f"Dice by size: {_told_sizes(scored)}."
    told = _told_ways(tried, len(judge.images))
    return Input(
        size=chosen,
        normalization=best.way.normalization,
        order=meaning.order or best.order,
        of_size=of_size,
        of_normalization=told,
        sentences=(f"size: {by(chosen)} ({of_size.rstrip('.')})", f"normalization: {told}"),
        classes=described.classes if described is not None else None,
    )


def _judge(known: Recognized, cases: Sequence[Case], meaning: Meaning) -> Judge:
    """The network with a few cases, those first whose masks hold most."""
    shape = shape_of(known.network)
    some = [cases[place] for place in np.linspace(0, len(cases) - 1, min(40, len(cases))).round().astype(int)]
    held = {case.name: len(np.unique(meaning.stored.read(case.mask))) for case in some}
    chosen = sorted(some, key=lambda case: -held[case.name])[: inputs.CASES]
    found = meaning.stored
    return Judge(
        net=known.net,
        channels=shape.in_channels,
        classes=shape.classes,
        images=[case.image for case in chosen],
        masks=[case.mask for case in chosen],
        found=found,
        order=meaning.order,
    )


def _sizes(fault: Callable[[Size], str | None], images: Sequence[Path]) -> list[Size]:
    """Usual sizes that the network takes, and that of most images where they are not large."""
    counts = Counter(Images().size(path) for path in images[:200])
    usual = counts.most_common(1)[0][0]
    own = [(usual[0], usual[1])] if counts[usual] > len(images[:200]) / 2 and max(usual) <= 640 else []
    largest = max(max(size) for size in counts)
    sizes = [*own, *((side, side) for side in inputs.SIDES if side <= 1.3 * largest)]
    taken = [size for size in dict.fromkeys(sizes) if fault(size) is None]
    return taken or _fits(fault, (256, 256))


def _fits(fault: Callable[[Size], str | None], size: Size) -> list[Size]:
    wrong = fault(size)
    if wrong is not None:
        raise SegpressError(f"--size: input is {by(size)}; {wrong}")
    return [size]


def _ways(judge: Judge, size: Size, given: str | None, kept: Normalization | None) -> list[Tried]:
    if given is None and kept is None:
        return inputs.tried_ways(judge, size)
    normalization = kept if given is None else _given(given, judge.channels)
    assert normalization is not None
    title = "that of the weights" if given is None else "as given"
    return [judge.tried(Way(title=title, normalization=normalization), size)]


def _given(text: str, channels: int) -> Normalization:
    known = {"imagenet": inputs.IMAGENET, "unit": inputs.UNIT}
    if text.lower() in known:
        return known[text.lower()]
    try:
        if ":" in text:
            return Normalization(**yaml.safe_load(text if "{" in text else f"{{{text}}}"))
        numbers = [float(part) for part in text.replace(";", ",").split(",")]
        half = len(numbers) // 2
        if len(numbers) not in (2, 2 * channels):
            raise ValueError
        return Normalization(mean=tuple(numbers[:half]), std=tuple(numbers[half:]))
    except (ValueError, TypeError, yaml.YAMLError):
        raise SegpressError(
            f"--normalization: '{text}' is not imagenet, unit, the means and then the deviations of {channels} "
            "channels of pixels in 0..1, such as 0.4,0.2, or what a recipe says, such as 'z_score: image'"
        ) from None


def _chosen(scored: Sequence[tuple[float, Size]], ask: Ask) -> Size:
    """The size that scores best, unless quite other ones score the same."""
    alike = [size for dice, size in scored if scored[0][0] - dice < ALIKE]
    areas = [math.prod(size) for size in alike]
    if max(areas) <= 3 * min(areas):
        return scored[0][1]
    answer = ask(
        f"the network's input size, which cannot be told (Dice by size: {_told_sizes(scored)})",
        by(scored[0][1]),
        "--size HEIGHTxWIDTH",
    )
    sides = answer.lower().split("x")
    if len(sides) != 2 or not all(side.strip().isdecimal() for side in sides):
        raise SegpressError(f"--size: '{answer}' is not a height and a width, such as 256x256")
    return int(sides[0]), int(sides[1])


def _told_sizes(scored: Sequence[tuple[float, Size]]) -> str:
    return ", ".join(f"{by(size)} {dice:.3f}" for dice, size in scored[:4])


def _told_ways(tried: Sequence[Tried], cases: int) -> str:
    best, others = tried[0], tried[1:3]
    beside = ", ".join(f"{each.way.title} {each.dice:.3f}" for each in others)
    sure = "" if not others or best.dice - others[0].dice >= inputs.SURE else ", not told apart from the next"
    return f"{best.way.title}: Dice {best.dice:.3f} on {cases} case{'s' * (cases > 1)}{sure}" + (
        f" ({beside})" if beside else ""
    )


def _check_finds(tried: Sequence[Tried], given: bool) -> None:
    if tried[0].dice >= inputs.FINDS:
        return
    what = "with that normalization" if given else f"with any of {len(tried)} normalizations"
    flags = "--size, --masks or --network" if given else "--normalization, --size or --masks"
    raise SegpressError(
        f"the network finds nothing in these images {what} (Dice {tried[0].dice:.3f}): they, their masks or its size "
        f"are not those of its training; say what it was trained with ({flags})"
    )
