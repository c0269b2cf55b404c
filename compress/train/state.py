"""Everything that an interrupted training needs to go on as if nothing had happened."""

from __future__ import annotations

import io
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from compress import progress
from compress.errors import PassError, WeightsError
from compress.train import bits, parallel, sparsity
from compress.train.objective import Batch, Objective
from compress.train.plan import Plan
from export.errors import first_line
from export.files import write_bytes


@dataclass(kw_only=True)
class State:
    """Everything that an interrupted training needs to go on as if nothing had happened."""

    net: nn.Module
    objective: Objective
    average: AveragedModel
    optimizer: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LRScheduler
    epoch: int = 0
    started: float | None = None
    best: float = -1.0
    best_epoch: int = 0
    best_weights: Mapping[str, Tensor]
    model: Any = None
    """The network as Fabric wraps it."""
    masks: Mapping[str, Tensor] = field(default_factory=dict)
    """Where weights stay zero."""

    @staticmethod
    def fresh(net: nn.Module, objective: Objective, plan: Plan) -> State:
        bits.hold(net)
        learned = [*net.parameters(), *objective.parameters()]
        optimizer = torch.optim.AdamW(learned, lr=plan.rate, weight_decay=plan.weight_decay)
        schedule: torch.optim.lr_scheduler.LRScheduler
        if plan.schedule == "poly":
            schedule = torch.optim.lr_scheduler.PolynomialLR(optimizer, total_iters=plan.steps, power=0.9)
        else:
            schedule = torch.optim.lr_scheduler.OneCycleLR(
                optimizer, max_lr=plan.rate, total_steps=plan.steps + 1, pct_start=0.15
            )
        average = AveragedModel(net, multi_avg_fn=get_ema_multi_avg_fn(plan.average), use_buffers=True)
        return State(
            net=net, objective=objective, average=average, optimizer=optimizer, schedule=schedule, best_weights={}
        )

    def move(self, fabric: Fabric) -> None:
        """Put everything where it is trained."""
        self.model, self.optimizer = fabric.setup(self.net, self.optimizer)
        self.average.to(fabric.device)
        self.objective.to(fabric.device)
        self.masks = sparsity.masks(self.net)

    def train(self, stream: Iterable[Batch], fabric: Fabric, step: progress.Step) -> float:
        """One epoch; returns the mean loss, or the one that was not finite, at which it stops.

        Raises:
            PassError: if that is the loss of the very first batch.
        """
        self.net.train()
        losses: list[float] = []
        for batch in stream:
            with fabric.autocast(), parallel.shared(self.net):
                loss = self.objective(self.net, batch.to(fabric.device))
            losses.append(loss.item())
            if not math.isfinite(losses[-1]):
                if len(losses) == 1 and self.epoch == 0:
                    raise PassError("training: the loss is not finite on the first batch; check the weights")
                return losses[-1]
            fabric.backward(loss)
            parallel.add_up_gradients(self.net.parameters(), self.objective.parameters())
            fabric.clip_gradients(self.model, self.optimizer, max_norm=5.0)
            self.optimizer.step()
            sparsity.apply(self.net, self.masks)
            self.optimizer.zero_grad(set_to_none=True)
            self.schedule.step()
            self.average.update_parameters(self.net)
            step()
        return float(np.mean(losses))

    def note(self, epoch: int, score: float, *, counts: bool = True) -> None:
        self.epoch = epoch
        if counts and (score > self.best or not self.best_weights):
            self.best, self.best_epoch = score, epoch
            self.best_weights = {
                name: tensor.detach().cpu().clone() for name, tensor in self.average.module.state_dict().items()
            }

    def save(self, path: Path) -> None:
        buffer = io.BytesIO()
        torch.save(
            {
                "net": self.net.state_dict(),
                "objective": self.objective.state_dict(),
                "average": self.average.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "schedule": self.schedule.state_dict(),
                "epoch": self.epoch,
                "started": self.started,
                "best": self.best,
                "best_epoch": self.best_epoch,
                "best_weights": dict(self.best_weights),
            },
            buffer,
        )
        write_bytes(path, buffer.getvalue())

    def load(self, path: Path) -> None:
        try:
            read = torch.load(path, map_location="cpu", weights_only=True)
            self.net.load_state_dict(read["net"])
            self.objective.load_state_dict(read["objective"])
        except (RuntimeError, KeyError) as error:
            raise WeightsError(
                f"{path}: does not belong to this network and loss ({first_line(error)}); --fresh starts over"
            ) from None
        self.average.load_state_dict(read["average"])
        self.optimizer.load_state_dict(read["optimizer"])
        self.schedule.load_state_dict(read["schedule"])
        self.epoch, self.started, self.best = read["epoch"], read["started"], read["best"]
        self.best_epoch, self.best_weights = read["best_epoch"], read["best_weights"]
