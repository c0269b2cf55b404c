"""How a network is trained: the recipe's `train`."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from torch import nn

from compress.data.dataset.cases import Dataset
from compress.errors import DataError, RecipeError
from compress.progress import bar
from compress.train.adversarial import Adversarial, OneWay
from compress.train.augment import Augment, Changes, PresetOrMore
from compress.train.losses.combined import DiceCE
from compress.train.losses.sum import Losses, OneOrMore, Sum
from compress.train.objective import Supervised

if TYPE_CHECKING:
    from compress.train.objective import Objective

Log = Callable[[str], None]


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class Training:
    """How a network is trained: a loss, AdamW, a moving average of the weights."""

    epochs: Annotated[int, Field(ge=1)] = 60
    rate: Annotated[float, Field(gt=0, lt=1)] = 1e-3
    """Peak learning rate."""
    weight_decay: Annotated[float, Field(ge=0)] = 1e-4
    schedule: Literal["one_cycle", "poly"] = "one_cycle"
    """one_cycle: Smith 2017 (arXiv 1708.07120); poly: (1 - t)^0.9, as DeepLab (arXiv 1606.00915)."""
    loss: OneOrMore = Losses(dice_ce=DiceCE())
    """A loss (`tversky`), one with options (`{tversky: {alpha: 0.3}}`), or a sum (`{dice: 1.0, boundary: 0.01}`)."""
    adversarial: OneWay | None = None
    """A critic that learns beside the network: `luc`, `segan`, or one of them with options."""
    augment: PresetOrMore = Augment()
    """A preset (`none`, `flips`, `strong`), or one with changes (`{preset: strong, elastic: 0.5}`)."""
    average: Annotated[float, Field(ge=0, lt=1)] = 0.99
    """Decay of the exponential moving average that is validated and kept; 0 keeps the plain weights."""
    devices: Annotated[int, Field(ge=1)] = 1
    """Processes that share each batch, every one on a GPU of its own, or on its part of the CPU's cores."""
    widen: bool = False
    """The network's weights are those of the same network with fewer channels: start from copies of them."""

    def objective(self, data: Dataset, seed: int) -> Objective:
        """What each step minimises: a new one each time, since some learn on their own.

        Raises:
            RecipeError: if the loss does not fit the data's classes.
            DataError: if the loss needs the classes' shares and there is no train mask to take them from.
        """
        supervision = supervised(self.loss, data)
        if self.adversarial is None:
            return supervision
        return Adversarial(
            supervision,
            self.adversarial.way,
            channels=data.channels,
            classes=len(data.class_names),
            ignore=data.ignore,
            seed=seed,
            dims=len(data.fit.size),
        )

    def __call__(self, net: nn.Module, data: Dataset, folder: Path, seed: int, log: Log = print) -> float:
        """Train `net` in place to its best state of the second half; returns its validation Dice (see loop.py)."""
        from compress.train.loop import fit
        from compress.train.plan import Plan

        data = training_data(data)
        plan = Plan(
            steps=self.epochs * math.ceil(len(data.cases["train"]) / data.batch),
            rate=self.rate,
            weight_decay=self.weight_decay,
            schedule=self.schedule,
            average=self.average,
            augment=training_augmentation(self.augment, data),
        )
        return fit(plan, self.objective(data, seed), net, data, folder, seed, log, devices=self.devices).best


def supervised(loss: Losses, data: Dataset) -> Supervised:
    """The loss against the masks.

    Raises:
        RecipeError: if the loss does not fit the data's classes.
        DataError: if the loss needs the classes' shares and there is no train mask to take them from.
    """
    fault = loss.fault(data.class_names)
    if fault:
        raise RecipeError("train", [fault])
    return Supervised(Sum(loss, data.ignore, class_shares(data) if loss.asks_shares else None))


def training_data(data: Dataset) -> Dataset:
    """The data as training takes it: whole images where others see their tiles."""
    if data.fit.how != "tile":
        return data
    return replace(data, cases={**data.cases, "train": data.whole_cases("train")})


def training_augmentation(augment: Augment, data: Dataset) -> Changes:
    """How a train case changes; of a whole image, another crop each time, where a tile would always be the same."""
    return Changes(augment=augment, crop=data.fit.size if data.fit.how == "tile" else None, axes=data.reader.axes)


def class_shares(data: Dataset) -> tuple[float, ...]:
    """Each class's share of the pixels of the train masks, ignored ones left out.

    Raises:
        DataError: if no pixel is left.
    """
    count_K = np.zeros(256)
    # A case may be there once for each of its tiles.
    cases = list({case.mask: case for case in data.cases["train"]}.values())
    for case in bar(cases, "counting the classes", len(cases)):
        count_K += np.bincount(data.mask(case).ravel(), minlength=256)
    if data.ignore is not None:
        count_K[data.ignore] = 0
    count_K = count_K[: len(data.class_names)]
    if count_K.sum() == 0:
        raise DataError(f"{data.source}: the train masks hold no pixel of any class, so classes cannot be balanced")
    return tuple((count_K / count_K.sum()).tolist())
