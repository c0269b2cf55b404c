"""How long, how fast and on what a network is trained."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from compress.train.augment import Augment, Changes, Preset


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How long, how fast and on what a network is trained."""

    steps: int
    """In all; an epoch ends, and is validated and kept, each time every train case was seen."""
    rate: float
    weight_decay: float = 1e-4
    schedule: Literal["one_cycle", "poly"] = "one_cycle"
    average: float = 0.99
    augment: Preset | Augment | Changes = "strong"
    views: int | None = None
    """Each case is augmented in so many ways, again and again; None: in a new one every epoch."""
    patience: int | None = None
    """Epochs of the second half without a better validation score after which it stops; None: never."""
    keep_start: bool = False
    """Whether the network as it came counts among the states of which the best is returned."""
