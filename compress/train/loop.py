"""The one training loop (Lightning Fabric): epochs, validation, best state, resume.

Legend: B batch, C channels, K classes, H height, W width (of volumes, depth before them).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import nn

from compress import progress
from compress.data.dataset.cases import Dataset
from compress.errors import PassError
from compress.measure.segmentation import score_case
from compress.train import parallel
from compress.train.batches import ViewCache, ahead_of_gpu, batches, channels_last, view_cache
from compress.train.fabric import fabric_for
from compress.train.fast_batch_norm import fast_batch_norms
from compress.train.objective import Objective, fitted
from compress.train.plan import Plan
from compress.train.precision import Precision, precision
from compress.train.state import State
from export.choice import labels_from_logits
from export.files import make_folder

Log = Callable[[str], None]
APART = 2**20
"""Between the seeds of two processes that train together."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a training went; scores are mean foreground Dice on the validation cases."""

    started: float | None
    """The score before the first step; None if it was not asked for."""
    best: float
    best_epoch: int
    """0 is the network as it came."""
    epochs: int
    """Epochs done; fewer than planned if it stopped early."""


def fit(
    plan: Plan,
    objective: Objective,
    net: nn.Module,
    data: Dataset,
    folder: Path,
    seed: int,
    log: Log = print,
    views: Path | None = None,
    devices: int = 1,
) -> Outcome:
    """Train `net` in place to its best state of the second half by validation Dice, or leave it as it came if that
    is better and the plan keeps the start.

    Each epoch ends in `folder`/training.pt; a run that was interrupted goes on after the last
    whole epoch and ends where an uninterrupted one ends.

    Args:
        views: where a plan that counts its views keeps them; None: in `folder`.
        devices: processes that train together, each on a GPU of its own, or on its share of the CPU's cores
            (parallel.py).

    Raises:
        WeightsError: if training.pt belongs to another network.
        PassError: if the loss is not finite before there is a state worth keeping, or there are fewer devices.
        SurroundingsError: if one of several processes ends too early.
    """
    views = views or folder
    # Found once, before several look for them.
    view_cache(make_folder(views), plan, data)
    work = partial(_fit, plan, objective, net, data, make_folder(folder), seed, views, precision(net, data))
    if devices == 1:
        return work(log=log)
    outcome: Outcome = parallel.by_many(devices, work, log=log)
    return outcome


def _fit(
    plan: Plan,
    objective: Objective,
    net: nn.Module,
    data: Dataset,
    folder: Path,
    seed: int,
    views: Path,
    how_precise: Precision,
    log: Log,
) -> Outcome:
    fabric = fabric_for(how_precise, parallel.device())
    checkpoint = folder / "training.pt"
    torch.manual_seed(seed)
    state = State.fresh(_to_channels_last(net), objective, plan)
    if checkpoint.exists():
        state.load(checkpoint)
        best = f" (best validation Dice {state.best:.4f})" if state.best_weights else ""
        log(f"going on after epoch {state.epoch}{best}")
    state.move(fabric)
    if plan.keep_start and state.started is None:
        state.started = validation_dice(state.net, data, fabric)
        state.note(0, state.started)
        log(f"before training: val Dice {state.started:.4f}")
    epochs = _Epochs(plan=plan, data=data, seed=seed, fabric=fabric, log=log)
    epochs.run(state, checkpoint, view_cache(views, plan, data))
    if not state.best_weights:
        raise PassError("training: the loss did not stay finite until the rate fell; lower the rate")
    net.load_state_dict(state.best_weights)
    return Outcome(started=state.started, best=state.best, best_epoch=state.best_epoch, epochs=state.epoch)


@dataclass(frozen=True, kw_only=True)
class _Epochs:
    """The epochs of one training, each validated and kept."""

    plan: Plan
    data: Dataset
    seed: int
    fabric: Fabric
    log: Log

    def run(self, state: State, checkpoint: Path, cache: ViewCache | None) -> None:
        """All epochs that the state has not seen yet, until nothing gets better any more."""
        plan, data = self.plan, self.data
        length = math.ceil(len(data.cases["train"]) / data.batch)
        epochs = math.ceil(plan.steps / length)
        # Before it the rate is high: scores rise and fall, and one of them is the best by chance.
        half = epochs // 2
        with progress.steps("training", plan.steps, done=min(state.epoch * length, plan.steps)) as step:
            for epoch in range(state.epoch, epochs):
                if plan.patience is not None and epoch - max(state.best_epoch, half) > plan.patience:
                    self.log(f"stopped: no better validation score since epoch {state.best_epoch}")
                    break
                # Dropout and the like are a function of seed and epoch, as the batches are, and differ among processes.
                torch.manual_seed(self.seed + epoch + APART * parallel.rank())
                stream = batches(data, plan, epoch, self.seed, cache, ahead_of_gpu())
                with (fast_batch_norms if parallel.size() == 1 else parallel.shared_batch_norms)(state.net):
                    loss = state.train(islice(stream, plan.steps - epoch * length), self.fabric, step)
                if not math.isfinite(loss):
                    self.log(f"stopped: the loss was no longer finite in epoch {epoch + 1}; a lower rate would help")
                    break
                score = validation_dice(state.average.module, data, self.fabric)
                state.note(epoch + 1, score, counts=epoch >= half)
                if parallel.rank() == 0:
                    state.save(checkpoint)
                self.log(f"epoch {epoch + 1}/{epochs}  loss {loss:.4f}  val Dice {score:.4f}")


def _to_channels_last(net: nn.Module) -> nn.Module:
    for parameter in net.parameters():
        parameter.data = channels_last(parameter.data)
    return net


@torch.no_grad()
def validation_dice(net: nn.Module, data: Dataset, fabric: Fabric) -> float:
    """Mean foreground Dice over the validation cases at the network's size."""
    net.eval()
    classes, cases = len(data.class_names), data.cases["val"]
    # Of several processes each scores every n-th case; what it leaves to others is 0.
    values = torch.zeros(len(cases), classes - 1, dtype=torch.float64)
    for index in range(parallel.rank(), len(cases), parallel.size()):
        case = cases[index]
        with fabric.autocast():
            logits_BKHW = net(fabric.to_device(torch.from_numpy(data.image(case)[None]))).float()
        truth_HW = fitted(torch.from_numpy(data.fitted_mask(case))[None], logits_BKHW)[0].numpy()
        labels_HW = labels_from_logits(logits_BKHW.cpu().numpy())[0]
        scores = score_case(labels_HW, truth_HW, classes=classes, ruler=None, ignore=data.ignore)
        values[index] = torch.from_numpy(scores.values_KM[:, 0])
    return _mean_of_classes(parallel.summed(values.to(fabric.device)).cpu().numpy())


def _mean_of_classes(dice_NK: np.ndarray) -> float:
    """The mean over the classes that some case has; NaN where there is none."""
    means = [dice_N[~np.isnan(dice_N)].mean() for dice_N in dice_NK.T if not np.isnan(dice_N).all()]
    return float(np.mean(means)) if means else math.nan
