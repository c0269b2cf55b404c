"""The one training loop (Lightning Fabric): epochs, validation, best state, resume.

Legend: B batch, C channels, K classes, H height, W width (of volumes, depth before them).
"""

from __future__ import annotations

import io
import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from compress import progress
from compress.data.dataset.cases import Dataset
from compress.errors import PassError, WeightsError
from compress.measure.segmentation import score_case
from compress.task import labels_from_logits
from compress.train import sparsity
from compress.train.array_cache import Name, Shelf
from compress.train.augment import Augment, Changes, Preset, augmentation, augmented
from compress.train.fast_batch_norm import fast_batch_norms
from compress.train.objective import Batch, Objective, fitted
from export.device import usable_cpus
from export.files import make_folder, write_bytes

Log = Callable[[str], None]


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
) -> Outcome:
    """Train `net` in place to its best state of the second half by validation Dice, or leave it as it came if that
    is better and the plan keeps the start.

    Each epoch ends in `folder`/training.pt; a run that was interrupted goes on after the last
    whole epoch and ends where an uninterrupted one ends.

    Args:
        views: where a plan that counts its views keeps them; None: in `folder`.

    Raises:
        WeightsError: if training.pt belongs to another network.
        PassError: if the loss is not finite before there is a state worth keeping.
    """
    fabric = Fabric(accelerator="auto", devices=1, precision=precision(net, data))
    checkpoint = make_folder(folder) / "training.pt"
    torch.manual_seed(seed)
    length = math.ceil(len(data.cases["train"]) / data.batch)
    state = _State.fresh(_channels_last(net), objective, plan)
    if checkpoint.exists():
        state.load(checkpoint)
        best = f" (best validation Dice {state.best:.4f})" if state.best_weights else ""
        log(f"going on after epoch {state.epoch}{best}")
    state.move(fabric)
    if plan.keep_start and state.started is None:
        state.started = validation_dice(state.net, data, fabric)
        state.note(0, state.started)
        log(f"before training: val Dice {state.started:.4f}")
    epochs = math.ceil(plan.steps / length)
    # Before it the rate is high: scores rise and fall, and one of them is the best by chance.
    half = epochs // 2
    shelves = shelves_in(views or folder, plan, data)
    with progress.steps("training", plan.steps, done=min(state.epoch * length, plan.steps)) as step:
        for epoch in range(state.epoch, epochs):
            if plan.patience is not None and epoch - max(state.best_epoch, half) > plan.patience:
                log(f"stopped: no better validation score since epoch {state.best_epoch}")
                break
            # Dropout and the like are a function of seed and epoch, as the batches are.
            torch.manual_seed(seed + epoch)
            stream = islice(batches(data, plan, epoch, seed, shelves, _ahead()), plan.steps - epoch * length)
            with fast_batch_norms(state.net):
                loss = state.train(stream, fabric, step)
            if not math.isfinite(loss):
                log(f"stopped: the loss was no longer finite in epoch {epoch + 1}; a lower rate would help")
                break
            score = validation_dice(state.average.module, data, fabric)
            state.note(epoch + 1, score, counts=epoch >= half)
            state.save(checkpoint)
            log(f"epoch {epoch + 1}/{epochs}  loss {loss:.4f}  val Dice {score:.4f}")
    if not state.best_weights:
        raise PassError("training: the loss did not stay finite until the rate fell; lower the rate")
    net.load_state_dict(state.best_weights)
    return Outcome(started=state.started, best=state.best, best_epoch=state.best_epoch, epochs=state.epoch)


CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}
"""The layout, by the number of axes, in which convolutions are fastest, in bf16 above all."""


def _channels_last(net: nn.Module) -> nn.Module:
    for parameter in net.parameters():
        parameter.data = _last(parameter.data)
    return net


def _last(tensor: Tensor) -> Tensor:
    layout = CHANNELS_LAST.get(tensor.dim())
    return tensor if layout is None else tensor.contiguous(memory_format=layout)


@dataclass(kw_only=True)
class _State:
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
    def fresh(net: nn.Module, objective: Objective, plan: Plan) -> _State:
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
        return _State(
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
            with fabric.autocast():
                loss = self.objective(self.net, batch.to(fabric.device))
            losses.append(loss.item())
            if not math.isfinite(losses[-1]):
                if len(losses) == 1 and self.epoch == 0:
                    raise PassError("training: the loss is not finite on the first batch; check the weights")
                return losses[-1]
            fabric.backward(loss)
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
                f"{path}: does not belong to this network and loss ({str(error).splitlines()[0]}); --fresh starts over"
            ) from None
        self.average.load_state_dict(read["average"])
        self.optimizer.load_state_dict(read["optimizer"])
        self.schedule.load_state_dict(read["schedule"])
        self.epoch, self.started, self.best = read["epoch"], read["started"], read["best"]
        self.best_epoch, self.best_weights = read["best_epoch"], read["best_weights"]


@dataclass(frozen=True, kw_only=True)
class Shelves:
    """Augmented images and masks, made once for each view."""

    images: Shelf
    masks: Shelf

    def hold(self, names: Sequence[Name]) -> bool:
        """Whether all of the batch of these names is there."""
        return self.images.hold(names) and self.masks.hold(names)

    def batch(self, names: Sequence[Name]) -> Batch:
        """The batch of these names, all of which is there."""
        return _batch(self.images.take(names), self.masks.take(names), names)

    def keep(self, batch: Batch) -> Batch:
        """The batch as it will be found: images rounded to 16 bits."""
        images = self.images.put(batch.names, batch.image_BCHW.numpy())
        masks = self.masks.put(batch.names, batch.mask_BHW.numpy())
        return _batch(images, masks, batch.names)


def shelves_in(folder: Path, plan: Plan, data: Dataset) -> Shelves | None:
    """Where this training keeps its views; None if every epoch has new ones."""
    if plan.views is None:
        return None
    views, cases, size = plan.views, len(data.cases["train"]), data.fit.size
    return Shelves(
        images=Shelf(folder / "images.f16", views, cases, (data.channels, *size), "float16"),
        masks=Shelf(folder / "masks.u8", views, cases, size, "uint8"),
    )


def batches(
    data: Dataset, plan: Plan, epoch: int, seed: int, shelves: Shelves | None = None, ahead: int = 0
) -> Iterator[Batch]:
    """One epoch of augmented cases; a function of seed and epoch alone.

    Args:
        ahead: how many batches are made at once, each in a thread; 0 makes each when it is asked for.
    """
    order = np.random.default_rng((seed, epoch)).permutation(len(data.cases["train"]))
    view = epoch if plan.views is None else epoch % plan.views
    names: list[tuple[Name, ...]] = []
    for start in range(0, len(order), data.batch):
        chosen = order[start : start + data.batch]
        if len(chosen) == 1 and len(order) > 1:
            # BatchNorm has no variance over a single case at the deepest level.
            chosen = np.append(chosen, order[0])
        names.append(tuple((view, int(index)) for index in chosen))
    there = [shelves is not None and shelves.hold(each) for each in names]
    missing = [each for each, kept in zip(names, there, strict=True) if not kept]
    made = _made(partial(_augmented, data, plan, seed), missing, ahead)
    for each, kept in zip(names, there, strict=True):
        if shelves is None:
            yield next(made)
        else:
            yield shelves.batch(each) if kept else shelves.keep(next(made))


def _ahead() -> int:
    """Threads that augment ahead of a GPU; beside a training on the CPU they would only take its cores."""
    return min(8, usable_cpus() - 1) if torch.cuda.is_available() else 0


def _made(make: Callable[[Sequence[Name]], Batch], names: Sequence[Sequence[Name]], ahead: int) -> Iterator[Batch]:
    """The batches of these names, in their order."""
    if ahead == 0:
        yield from map(make, names)
        return
    pool, left = ThreadPoolExecutor(ahead), iter(names)
    try:
        coming = deque(pool.submit(make, each) for each in islice(left, ahead))
        while coming:
            batch = coming.popleft().result()
            coming.extend(pool.submit(make, each) for each in islice(left, 1))
            yield batch
    finally:
        pool.shutdown(cancel_futures=True)


def _augmented(data: Dataset, plan: Plan, seed: int, names: Sequence[Name]) -> Batch:
    transform = augmentation(plan.augment)
    images, masks = [], []
    for view, index in names:
        case = data.cases["train"][index]
        image_CHW, mask_HW = augmented(transform, data.pixels(case), data.fitted_mask(case), (seed, view, index))
        images.append(data.normalization(image_CHW.clamp(0, 1).numpy()))
        masks.append(mask_HW.numpy())
    return _batch(np.stack(images), np.stack(masks), names)


def _batch(image_BCHW: np.ndarray, mask_BHW: np.ndarray, names: Sequence[Name]) -> Batch:
    return Batch(
        image_BCHW=_last(torch.from_numpy(image_BCHW).float()),
        mask_BHW=torch.from_numpy(mask_BHW).long(),
        names=tuple(names),
    )


@torch.no_grad()
def validation_dice(net: nn.Module, data: Dataset, fabric: Fabric) -> float:
    """Mean foreground Dice over the validation cases at the network's size."""
    net.eval()
    classes = len(data.class_names)
    values = []
    for case in data.cases["val"]:
        with fabric.autocast():
            logits_BKHW = net(fabric.to_device(torch.from_numpy(data.image(case)[None]))).float()
        truth_HW = fitted(torch.from_numpy(data.fitted_mask(case))[None], logits_BKHW)[0].numpy()
        labels_HW = labels_from_logits(logits_BKHW.cpu().numpy())[0]
        values.append(score_case(labels_HW, truth_HW, classes=classes, ruler=None, ignore=data.ignore)[0][:, 0])
    per_class = np.nanmean(np.stack(values), axis=0)
    return float(np.nanmean(per_class))


def precision(net: nn.Module, data: Dataset) -> Literal["bf16-mixed", "32-true"]:
    """bf16 where the hardware multiplies in it, and rightly; emulated bf16 is slower than fp32."""
    if torch.cuda.is_available():
        return "bf16-mixed" if torch.cuda.is_bf16_supported(including_emulation=False) else "32-true"
    if not torch.ops.mkldnn._is_mkldnn_bf16_supported() or _outgrown(net, data):
        return "32-true"
    return "bf16-mixed"


@torch.no_grad()
def _outgrown(net: nn.Module, data: Dataset) -> bool:
    """Whether a 3-D convolution is larger than its input along some axis.

    What torch 2.13 gives as the gradient of such a weight in bf16 on the CPU has memory in it that nothing was
    written to: now and then it is NaN.
    """
    found: list[bool] = []

    def look(conv: nn.Module, given: tuple[Tensor, ...]) -> None:
        assert isinstance(conv, nn.Conv3d)
        found.append(any(side < kernel for side, kernel in zip(given[0].shape[2:], conv.kernel_size, strict=True)))

    handles = [module.register_forward_pre_hook(look) for module in net.modules() if isinstance(module, nn.Conv3d)]
    if handles:
        was_training = net.training
        net.eval()(torch.zeros(1, data.channels, *data.fit.size))
        net.train(was_training)
    for handle in handles:
        handle.remove()
    return any(found)
