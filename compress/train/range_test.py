"""The learning rate, from a short range test (Smith 2017, arXiv 1506.01186, section 3.3)."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import nn

from compress.train.objective import Batch, Objective

LOWEST, HIGHEST = 1e-5, 1e-1
SHARE = 0.2
"""Of the rate from which on the loss rises: one cycle's peak must stay clear of it."""
RISEN = 1.15
"""Times the lowest smoothed loss, above which it has risen: what varies from batch to batch is less."""


@dataclass(frozen=True, kw_only=True)
class Found:
    """A learning rate, and what a step took."""

    rate: float
    seconds: float
    """Median time of one step."""


def range_test(net: nn.Module, objective: Objective, batches: Iterable[Batch], steps: int, fabric: Fabric) -> Found:
    """Train a copy with a rate that grows geometrically from 1e-5 to 0.1; the answer is a fifth of what the loss bears.

    Neither the network nor the objective is changed.
    """
    net, objective = copy.deepcopy(net).train().to(fabric.device), copy.deepcopy(objective)
    objective.to(fabric.device)
    optimizer = torch.optim.AdamW([*net.parameters(), *objective.parameters()], lr=LOWEST)
    rates = np.geomspace(LOWEST, HIGHEST, steps)
    losses, times = [], []
    for rate, batch in zip(rates, batches, strict=False):
        begun = time.perf_counter()
        for group in optimizer.param_groups:
            group["lr"] = float(rate)
        with fabric.autocast():
            loss = objective(net, batch.to(fabric.device))
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 5.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(loss.item())
        times.append(time.perf_counter() - begun)
        if not np.isfinite(losses[-1]) or losses[-1] > 4 * min(losses):
            break
    return Found(rate=_rate(rates[: len(losses)], np.asarray(losses)), seconds=float(np.median(times)))


def _rate(rates: np.ndarray, losses: np.ndarray) -> float:
    """A fifth of the largest rate before the smoothed loss rises for good, rounded to two digits.

    The lowest loss itself says little where the network is trained already: it is flat for decades.
    """
    finite = np.isfinite(losses)
    smooth, average = [], losses[0]
    for place, loss in enumerate(losses[finite]):
        average = 0.8 * average + 0.2 * loss if place else loss
        smooth.append(average)
    fine = [rate for rate, loss in zip(rates[finite], smooth, strict=True) if loss <= RISEN * min(smooth)]
    return float(f"{np.clip(SHARE * max(fine, default=LOWEST), LOWEST, HIGHEST / 10):.1e}")
