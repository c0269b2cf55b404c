"""What is done to every network in integers at last: layers that need float, what is told, and its description."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from torch import nn

from compress.editing.mixed_precision import not_coarser, with_exact
from compress.editing.precisions.choice import Wanted, chosen
from compress.storage.integers import description_of
from export.quantization.quantized import Quantized

if TYPE_CHECKING:
    from compress.task import Task


def finished(quantized: Quantized, net: nn.Module, task: Task, wanted: Wanted | None, word: str) -> Quantized:
    """The network with layers in float where `wanted` or the CPUs need that, and its description.

    Args:
        net: the network in float that it was made from.
        word: of the pass, for what is told.

    Raises:
        PassError: as `chosen`.
    """
    if wanted is not None and (wanted.max_drop is not None or wanted.faster):
        quantized = chosen(quantized, task, wanted)
    quantized = with_exact(quantized, not_coarser(quantized, task, word))
    for line in _about_concatenations(quantized, word):
        task.note(line)
    quantized.description = description_of(quantized, net, task)
    return quantized


def _about_concatenations(quantized: Quantized, word: str) -> Iterator[str]:
    """What is done about inputs of concatenations that would keep too few levels beside wider ones."""
    for stretched, done in (
        (True, "stretched, exactly and at no cost, with the weights that read them"),
        (
            False,
            "not stretched, because more than convolutions of 8 bits reads them: OpenVINO gets "
            "a scale of their own for them",
        ),
    ):
        found = [each for each in quantized.narrow() if each.stretched == stretched]
        if found:
            fewest = min(found, key=lambda each: each.levels)
            yield (
                f"{word}: {len(found)} inputs of concatenations are much narrower than what they are joined with "
                f"({fewest.name} would keep {fewest.levels:.0f} of 255 levels); they are {done}"
            )
