"""The one training loop (Lightning Fabric): epochs, validation, best state, resume.

Legend: B batch, C channels, K classes, H height, W width.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from compress import progress
from compress.data.cases import Dataset
from compress.errors import WeightsError
from compress.measure import score_case
from compress.task import labels_from_logits
from compress.train.augment import augmentation, augmented
from compress.train.losses import DiceCrossEntropy
from compress.train.training import Training
from export.files import make_folder, write_bytes

Log = Callable[[str], None]


def fit(training: Training, net: nn.Module, data: Dataset, folder: Path, seed: int, log: Log = print) -> float:
    """Train `net` in place to its best validation state; returns that mean foreground Dice.

    Each epoch ends in `folder`/training.pt; a run that was interrupted goes on after the last
    whole epoch and ends where an uninterrupted one ends.

    Raises:
        WeightsError: if training.pt belongs to another network.
    """
    fabric = Fabric(accelerator="auto", devices=1, precision=_precision())
    checkpoint = make_folder(folder) / "training.pt"
    torch.manual_seed(seed)
    steps = math.ceil(len(data.cases["train"]) / data.batch)
    state = _State.fresh(_channels_last(net), training, steps)
    if checkpoint.exists():
        state.load(checkpoint)
        log(f"going on after epoch {state.epoch} (best validation Dice {state.best:.4f})")
    model, optimizer = fabric.setup(state.net, state.optimizer)
    state.average.to(fabric.device)
    lose = DiceCrossEntropy(data.ignore)
    with progress.steps("training", training.epochs * steps, done=state.epoch * steps) as step:
        for epoch in range(state.epoch, training.epochs):
            model.train()
            total = 0.0
            for image_BCHW, mask_BHW in batches(data, training, epoch, seed):
                logits_BKHW = model(fabric.to_device(image_BCHW))
                loss = lose(logits_BKHW, centre_crop(fabric.to_device(mask_BHW), logits_BKHW))
                fabric.backward(loss)
                fabric.clip_gradients(model, optimizer, max_norm=5.0)
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
                state.schedule.step()
                state.average.update_parameters(state.net)
                total += loss.item()
                step()
            score = validation_dice(state.average.module, data, fabric)
            state.note(epoch + 1, score)
            state.save(checkpoint)
            log(f"epoch {epoch + 1}/{training.epochs}  loss {total / steps:.4f}  val Dice {score:.4f}")
    net.load_state_dict(state.best_weights)
    return state.best


def _channels_last(net: nn.Module) -> nn.Module:
    """The layout in which convolutions are fastest, in bf16 above all."""
    for parameter in net.parameters():
        if parameter.dim() == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    return net


@dataclass(kw_only=True)
class _State:
    """Everything that an interrupted training needs to go on as if nothing had happened."""

    net: nn.Module
    average: AveragedModel
    optimizer: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LRScheduler
    epoch: int = 0
    best: float = -1.0
    best_weights: Mapping[str, Tensor]

    @staticmethod
    def fresh(net: nn.Module, training: Training, steps: int) -> _State:
        optimizer = torch.optim.AdamW(net.parameters(), lr=training.rate, weight_decay=training.weight_decay)
        total = training.epochs * steps
        schedule: torch.optim.lr_scheduler.LRScheduler
        if training.schedule == "poly":
            schedule = torch.optim.lr_scheduler.PolynomialLR(optimizer, total_iters=total, power=0.9)
        else:
            schedule = torch.optim.lr_scheduler.OneCycleLR(
                optimizer, max_lr=training.rate, total_steps=total + 1, pct_start=0.15
            )
        average = AveragedModel(net, multi_avg_fn=get_ema_multi_avg_fn(training.average), use_buffers=True)
        return _State(net=net, average=average, optimizer=optimizer, schedule=schedule, best_weights={})

    def note(self, epoch: int, score: float) -> None:
        self.epoch = epoch
        if score > self.best or not self.best_weights:
            self.best = score
            self.best_weights = {
                name: tensor.detach().cpu().clone() for name, tensor in self.average.module.state_dict().items()
            }

    def save(self, path: Path) -> None:
        buffer = io.BytesIO()
        torch.save(
            {
                "net": self.net.state_dict(),
                "average": self.average.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "schedule": self.schedule.state_dict(),
                "epoch": self.epoch,
                "best": self.best,
                "best_weights": dict(self.best_weights),
            },
            buffer,
        )
        write_bytes(path, buffer.getvalue())

    def load(self, path: Path) -> None:
        try:
            read = torch.load(path, map_location="cpu", weights_only=True)
            self.net.load_state_dict(read["net"])
        except (RuntimeError, KeyError) as error:
            raise WeightsError(
                f"{path}: does not belong to this network ({str(error).splitlines()[0]}); --fresh starts over"
            ) from None
        self.average.load_state_dict(read["average"])
        self.optimizer.load_state_dict(read["optimizer"])
        self.schedule.load_state_dict(read["schedule"])
        self.epoch, self.best, self.best_weights = read["epoch"], read["best"], read["best_weights"]


def batches(data: Dataset, training: Training, epoch: int, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """One epoch of augmented (image_BCHW, mask_BHW); a function of seed and epoch alone."""
    transform = augmentation(training.augment)
    order = np.random.default_rng((seed, epoch)).permutation(len(data.cases["train"]))
    for start in range(0, len(order), data.batch):
        chosen = order[start : start + data.batch]
        if len(chosen) == 1 and len(order) > 1:
            # BatchNorm has no variance over a single case at the deepest level.
            chosen = np.append(chosen, order[0])
        images, masks = [], []
        for index in chosen:
            case = data.cases["train"][index]
            image_CHW, mask_HW = augmented(
                transform, data.pixels(case), data.fitted_mask(case), (seed, epoch, int(index))
            )
            images.append(torch.from_numpy(data.normalization(image_CHW.clamp(0, 1).numpy())))
            masks.append(mask_HW)
        yield torch.stack(images).contiguous(memory_format=torch.channels_last), torch.stack(masks)


@torch.no_grad()
def validation_dice(net: nn.Module, data: Dataset, fabric: Fabric) -> float:
    """Mean foreground Dice over the validation cases at the network's size."""
    net.eval()
    classes = len(data.class_names)
    values = []
    for case in data.cases["val"]:
        with fabric.autocast():
            logits_BKHW = net(fabric.to_device(torch.from_numpy(data.image(case)[None]))).float()
        truth_HW = centre_crop(torch.from_numpy(data.fitted_mask(case))[None], logits_BKHW)[0].numpy()
        labels_HW = labels_from_logits(logits_BKHW.cpu().numpy())[0]
        values.append(score_case(labels_HW, truth_HW, classes=classes, ruler=None, ignore=data.ignore)[0][:, 0])
    per_class = np.nanmean(np.stack(values), axis=0)
    return float(np.nanmean(per_class))


def centre_crop(mask_BHW: Tensor, logits_BKHW: Tensor) -> Tensor:
    """The part of a mask that an unpadded network predicts; the whole mask for a padded one."""
    height, width = logits_BKHW.shape[-2:]
    top, left = (mask_BHW.shape[-2] - height) // 2, (mask_BHW.shape[-1] - width) // 2
    return mask_BHW[..., top : top + height, left : left + width]


def _precision() -> Literal["bf16-mixed", "32-true"]:
    """bf16 where the hardware multiplies in it; emulated bf16 is slower than fp32."""
    if torch.cuda.is_available():
        return "bf16-mixed" if torch.cuda.is_bf16_supported(including_emulation=False) else "32-true"
    return "bf16-mixed" if torch.ops.mkldnn._is_mkldnn_bf16_supported() else "32-true"
