"""The learning rate, from a short range test (Smith 2017, arXiv 1506.01186, section 3.3)."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import cycle, islice

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import nn

from compress.train.objective import Batch, Objective
from export.modules import copy_of

LOWEST, HIGHEST = 1e-5, 1e-1
SHARE = 0.2
"""Of the largest rate that the loss bears: one cycle's peak must stay clear of it."""
RISEN = 1.3
"""Times what it was at the lowest rate, above which a batch's loss has risen."""
BATCHES = 4
"""That take turns. Each is compared with itself: what varies from one batch to the next says nothing about the rate."""


@dataclass(frozen=True, kw_only=True)
class RangeTest:
    """A learning rate, and what a step took."""

    rate: float
    seconds: float
    """Median time of one step."""


def range_test(net: nn.Module, objective: Objective, batches: Iterable[Batch], steps: int, fabric: Fabric) -> RangeTest:
    """Train a copy with a rate that grows geometrically from 1e-5 to 0.1; the answer is a fifth of what it bears.

    Neither the network nor the objective is changed.
    """
    net, objective = copy_of(net).train().to(fabric.device), copy.deepcopy(objective)
    objective.to(fabric.device)
    optimizer = torch.optim.AdamW([*net.parameters(), *objective.parameters()], lr=LOWEST)
    rates = np.geomspace(LOWEST, HIGHEST, steps)
    losses, times = [], []
    turns = cycle(islice(batches, BATCHES))
    for rate, batch in zip(rates, turns, strict=False):
        started = time.perf_counter()
        for group in optimizer.param_groups:
            group["lr"] = float(rate)
        with fabric.autocast():
            loss = objective(net, batch.to(fabric.device))
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 5.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(loss.item())
        times.append(time.perf_counter() - started)
        if not np.isfinite(losses[-1]):
            break
    return RangeTest(rate=_rate(rates[: len(losses)], np.asarray(losses)), seconds=float(np.median(times)))


def _rate(rates: np.ndarray, losses: np.ndarray) -> float:
    """A fifth of the last rate before the smoothed loss is above what it was; rounded to two digits."""
    first = losses[:BATCHES]
    risen = losses / np.resize(first, len(losses))
    smooth = [float(np.mean(risen[max(0, index - BATCHES + 1) : index + 1])) for index in range(len(risen))]
    # A NaN is not fine either.
    risen_at = next((index for index, ratio in enumerate(smooth) if not ratio <= RISEN), len(smooth))
    best = rates[max(risen_at - 1, 0)]
    return float(f"{np.clip(SHARE * best, LOWEST, HIGHEST / 10):.1e}")
