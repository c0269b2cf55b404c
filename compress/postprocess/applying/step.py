"""What a step after the network is to the rest: a dataclass whose fields are the recipe's options.

Legend: C channels, K classes (or the one of a sigmoid), H height, W width (of volumes, depth before them).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import ClassVar, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from compress.data.dataset.cases import FloatArray, MaskArray, Spacing

Kind = Literal["probabilities", "labels"]


@dataclass(frozen=True, kw_only=True)
class Setting:
    """The network and the data that steps are for."""

    class_names: tuple[str, ...]
    """Background first."""
    logits: int
    """How many the network gives for each pixel; 1 is a sigmoid's."""
    dims: int
    """2 for images, 3 for volumes."""
    spacing_known: bool
    """Whether the data says how long a pixel is in mm."""

    def unknown(self, names: Sequence[str]) -> Iterator[str]:
        """What is wrong with names that are none of the foreground classes, a sentence without its end for each."""
        foreground = self.class_names[1:]
        for name in names:
            if name == self.class_names[0]:
                yield f"'{name}' is the background, which takes what no other class does; name foreground classes"
            elif name not in foreground:
                near = get_close_matches(name, foreground, n=1)
                meant = f"did you mean '{near[0]}'?" if near else f"there are {', '.join(foreground)}"
                yield f"there is no class '{name}'; {meant}"


class Step(Protocol):
    """What every step says of itself."""

    on: ClassVar[Kind]
    """What it is given."""
    gives: ClassVar[Kind]
    """What it gives: of steps in turn none is given probabilities once there are labels."""

    def faults(self, setting: Setting) -> Iterator[str]:
        """Why it cannot be applied there, a sentence without its end for each reason."""
        ...


class OnProbabilities(Step, Protocol):
    """Changes probabilities, at the size at which the network answers."""

    def __call__(self, probabilities_KHW: FloatArray, image_CHW: FloatArray) -> FloatArray:
        """Other probabilities of the same pixels, of an image scaled to 0..1."""
        ...


class Chooses(Step, Protocol):
    """Makes labels of probabilities."""

    def least(self, class_names: Sequence[str]) -> NDArray[np.float32]:
        """The probability that each class needs (K of all classes, background first): see `labels_of`."""
        ...


class OnLabels(Step, Protocol):
    """Changes labels, at the size of the image."""

    def __call__(self, labels_HW: MaskArray, class_names: Sequence[str], spacing: Spacing | None) -> MaskArray:
        """Other labels of the same pixels, of this spacing in mm where that is known."""
        ...
