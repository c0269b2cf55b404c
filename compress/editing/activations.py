"""What layers see and answer on real cases, streamed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from compress.editing.layer_replacement import Site, answer, watched
from compress.errors import PassError
from export.choice import labels_from_logits

if TYPE_CHECKING:
    from compress.data.dataset.cases import Case
    from compress.task import Task

Pair = tuple[Tensor, Tensor]
Images = Callable[[], Iterable[Tensor]]


def calibration_cases(task: Task, most: int | None, word: str, otherwise: str = "") -> Sequence[Case]:
    """The calibration cases, `most` of them where given.

    Raises:
        PassError: if there are none, or fewer than asked for.
    """
    cases = task.data.cases["calibration"]
    if not cases:
        raise PassError(
            f"{word}: there are no calibration cases; set data calibration above 0 (train cases set aside) "
            f"or give cases the split 'calibration' in split.csv{otherwise}"
        )
    if most is not None and most > len(cases):
        raise PassError(
            f"{word}: calibrate is {most}, but the data sets only {len(cases)} cases aside; "
            "lower it or raise data calibration"
        )
    return cases[:most]


def images(task: Task, cases: Sequence[Case]) -> Iterator[Tensor]:
    """The network's inputs (1C..), one at a time."""
    return (torch.from_numpy(image) for image in task.data.images(cases))


class _Enough(Exception):
    """The layer has been called for the last time; the rest of the network need not run."""


def inputs_to_fit(task: Task, most: int | None, word: str) -> Images:
    """The calibration images (1CHW) that a pass of this word fits layers to.

    Raises:
        PassError: if there are none, or fewer than `most`.
    """
    cases = calibration_cases(task, most, word, "; or set refit: false and train afterwards")
    return lambda: images(task, cases)


def seen_by(net: nn.Module, site: Site, inputs: Iterable[Tensor]) -> Iterator[list[Pair]]:
    """For each input of the network, the (input, output) of every call of the module that is now at `site`."""
    module = net.get_submodule(site.name)
    for image in inputs:
        seen: list[Pair] = []

        def see(_: nn.Module, into: Tensor, out: Tensor, seen: list[Pair] = seen) -> None:
            # What comes after may work in place.
            seen.append((into.clone(), out.clone()))
            if len(seen) == len(site.inputs):
                raise _Enough

        with watched((module,), see), suppress(_Enough):
            answer(net, image)
        yield seen


def reconstruction_pairs(net: nn.Module, original: nn.Module, site: Site, inputs: Images) -> Iterator[Pair]:
    """What a layer sees in the changed network, and what it answered in the original one on the same case.

    A layer fitted to such pairs mends the errors of those before it (Zhang et al. 2016,
    arXiv 1505.06798, section 3.3).
    """
    for now, before in zip(seen_by(net, site, inputs()), seen_by(original, site, inputs()), strict=True):
        for (into, _), (_, out) in zip(now, before, strict=True):
            yield into, out


def agreement(net: nn.Module, original: nn.Module, inputs: Iterable[Tensor]) -> float:
    """Of the pixels that either network takes for more than background, the share to which both give the same class.

    Over all pixels, background would hide what is lost. 1 if neither ever marks anything.
    """
    same = marked = 0
    for image in inputs:
        ours, theirs = (labels_from_logits(answer(one, image).numpy()) for one in (net, original))
        either = (ours > 0) | (theirs > 0)
        same += int((either & (ours == theirs)).sum())
        marked += int(either.sum())
    return same / marked if marked else 1.0


def fitted(word: str, net: nn.Module, original: nn.Module, inputs: Iterable[Tensor]) -> str:
    """What a pass says of the network whose layers it fitted."""
    same = agreement(net, original, inputs)
    return f"{word}: fitted to the calibration cases, where {same:.1%} of the foreground keeps its class"
