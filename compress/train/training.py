"""How a network is trained: the recipe's `train`."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from torch import nn

from compress.data.cases import Dataset

if TYPE_CHECKING:
    from compress.train.objective import Objective

Log = Callable[[str], None]


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class Training:
    """How a network is trained: Dice + cross entropy, AdamW, a moving average of the weights."""

    epochs: Annotated[int, Field(ge=1)] = 60
    rate: Annotated[float, Field(gt=0, lt=1)] = 1e-3
    """Peak learning rate."""
    weight_decay: Annotated[float, Field(ge=0)] = 1e-4
    schedule: Literal["one_cycle", "poly"] = "one_cycle"
    """one_cycle: Smith 2017 (arXiv 1708.07120); poly: (1 - t)^0.9, as DeepLab (arXiv 1606.00915)."""
    augment: Literal["none", "flips", "strong"] = "strong"
    average: Annotated[float, Field(ge=0, lt=1)] = 0.99
    """Decay of the exponential moving average that is validated and kept; 0 keeps the plain weights."""
    widen: bool = False
    """The network's weights are those of the same network with fewer channels: start from copies of them."""

    def objective(self, ignore: int | None) -> Objective:
        """What each step minimises: a new one each time, since some learn on their own."""
        from compress.train.losses import DiceCrossEntropy
        from compress.train.objective import Supervised

        return Supervised(DiceCrossEntropy(ignore))

    def __call__(self, net: nn.Module, data: Dataset, folder: Path, seed: int, log: Log = print) -> float:
        """Train `net` in place to its best validation state; returns that mean foreground Dice (see loop.py)."""
        from compress.train.loop import Plan, fit

        plan = Plan(
            steps=self.epochs * math.ceil(len(data.cases["train"]) / data.batch),
            rate=self.rate,
            weight_decay=self.weight_decay,
            schedule=self.schedule,
            average=self.average,
            augment=self.augment,
        )
        return fit(plan, self.objective(data.ignore), net, data, folder, seed, log).best
