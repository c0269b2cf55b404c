"""Checks of someone else's network: the sizes that it takes, that it answers the same twice, and in logits."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import nn

from compress.contracts import multiples
from compress.errors import WeightsError
from compress.networks.foreign.answers import tensors_in, times, without_channels
from compress.networks.foreign.asking import answer_of, built_on, built_on_meta, image_of, reason, runs_on_meta
from compress.networks.foreign.head import ForeignNetwork, Head
from compress.networks.foreign.probe import reading_of, wrong
from compress.networks.foreign.repeatable import draws, why_otherwise


def fault_of(network: ForeignNetwork, size: tuple[int, ...]) -> str | None:
    """What is wrong with an input of this size; None if the network takes it. It is asked, on the meta device."""
    reading = reading_of(network)
    net = built_on_meta(network)

    def refusal(size: Sequence[int]) -> str | None:
        answer = answer_of(net, image_of(network, size, reading.takes, "meta"))
        if isinstance(answer, Exception) and not runs_on_meta(net, network, reading):
            answer = answer_of(built_on(network, "cpu"), image_of(network, size, reading.takes, "cpu"))
        if isinstance(answer, Exception):
            return reason(answer)
        found = tensors_in(answer)[reading.output]
        shape = without_channels(found, reading.layout) if reading.channels else tuple(found.shape[1:])
        if reading.size == "own" or reading.resized or shape == tuple(size):
            return None
        return f"it answers at {times(shape)}"

    refused = refusal(size)
    if refused is None:
        return None
    for step in (2**power for power in range(1, 9)):
        wanted = [-(-side // step) * step for side in size]
        if wanted != list(size) and refusal(wanted) is None:
            return multiples(size, step)
    fits = network.input or reading.example
    return f"this network does not take it ({refused}); {times(fits)} would fit"


def check_repeatable(network: ForeignNetwork) -> None:
    """That a network, its weights not loaded yet, answers the same each time, where it draws random numbers at all.

    Raises:
        RecipeError: if not, with the lines that draw them.
    """
    reading = reading_of(network)
    with contextlib.suppress(Exception), torch.random.fork_rng(devices=[]), torch.device("meta"):
        if not draws(built_on_meta(network), image_of(network, reading.example, reading.takes, "meta")):
            return
    net, image = built_on(network, "cpu"), image_of(network, reading.example, reading.takes, "cpu")
    with torch.random.fork_rng(devices=[]):
        why = why_otherwise(net, torch.rand_like(image))
    if why is not None:
        raise wrong(why)


def check_logits(net: nn.Module, images: Iterable[np.ndarray], head: Head) -> None:
    """Whether a trained network's answers to real images (1CHW) are logits, and not probabilities.

    Raises:
        WeightsError: if they are: over 0 would mean nothing, and distillation would learn from the wrong numbers.
    """
    if head.activation is not None or getattr(getattr(net, "reading", None), "activation", "none") != "none":
        return
    with torch.no_grad():
        answers = [net.eval()(torch.from_numpy(image)) for image in images]
    if not answers or not all((answer.min() >= 0) & (answer.max() <= 1) for answer in answers):
        return
    several = answers[0].shape[1] > 1
    sums = several and all((answer.sum(1) - 1).abs().max() < 1e-3 for answer in answers)
    what = "its classes sum to 1 at every pixel" if sums else "all of its answers lie between 0 and 1"
    last = "softmax" if sums else "sigmoid"
    raise WeightsError(
        f"the network answers with probabilities, not logits: {what}; leave its last {last} out, or set head: "
        f"{{activation: {last}}} to have it undone"
    )
