"""An epoch's batches: augmented train cases, made ahead in threads, or once and cached.

Legend: B batch, C channels, K classes, H height, W width (of volumes, depth before them).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from compress.data.dataset.cases import Dataset
from compress.train import parallel
from compress.train.array_cache import ArrayCache, Name
from compress.train.augment import augmentation, augmented
from compress.train.objective import Batch
from compress.train.plan import Plan
from export.host import usable_cpus

CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}
"""The layout, by the number of axes, in which convolutions are fastest, in bf16 above all."""


@dataclass(frozen=True, kw_only=True)
class ViewCache:
    """Augmented images and masks, made once for each view."""

    images: ArrayCache
    masks: ArrayCache

    def has(self, names: Sequence[Name]) -> bool:
        """Whether all of the batch of these names is there."""
        return self.images.has(names) and self.masks.has(names)

    def load(self, names: Sequence[Name]) -> Batch:
        """The batch of these names, all of which is there."""
        return _batch(self.images.load(names), self.masks.load(names), names)

    def store(self, batch: Batch) -> Batch:
        """The batch as `load` gives it: images rounded to 16 bits."""
        images = self.images.store(batch.names, batch.image_BCHW.numpy())
        masks = self.masks.store(batch.names, batch.mask_BHW.numpy())
        return _batch(images, masks, batch.names)


def view_cache(folder: Path, plan: Plan, data: Dataset) -> ViewCache | None:
    """The cache of this training's views; None if every epoch has new ones."""
    if plan.views is None:
        return None
    views, cases, size = plan.views, len(data.cases["train"]), data.fit.size
    return ViewCache(
        images=ArrayCache(folder / "images.f16", views, cases, (data.channels, *size), "float16"),
        masks=ArrayCache(folder / "masks.u8", views, cases, size, "uint8"),
    )


def batches(
    data: Dataset, plan: Plan, epoch: int, seed: int, cache: ViewCache | None = None, ahead: int = 0
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
    cached = [cache is not None and cache.has(each) for each in names]
    # Of several processes each makes its share.
    missing = [each[parallel.share(len(each))] for each, there in zip(names, cached, strict=True) if not there]
    made = _made(partial(_augmented, data, plan, seed), missing, ahead)
    for each, there in zip(names, cached, strict=True):
        if cache is not None and there:
            yield cache.load(each)
        else:
            whole = _whole(next(made), each)
            yield whole if cache is None else cache.store(whole)


def _whole(part: Batch, names: tuple[Name, ...]) -> Batch:
    """The batch of these names, of which this process made a part."""
    if parallel.size() == 1:
        return part
    image_BCHW, mask_BHW = (parallel.put_together(tensor, len(names)) for tensor in (part.image_BCHW, part.mask_BHW))
    return Batch(image_BCHW=channels_last(image_BCHW), mask_BHW=mask_BHW, names=names)


def ahead_of_gpu() -> int:
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
        images.append(data.normalized(image_CHW.clamp(0, 1).numpy(), case))
        masks.append(mask_HW.numpy())
    return _batch(np.stack(images), np.stack(masks), names)


def _batch(image_BCHW: np.ndarray, mask_BHW: np.ndarray, names: Sequence[Name]) -> Batch:
    return Batch(
        image_BCHW=channels_last(torch.from_numpy(image_BCHW).float()),
        mask_BHW=torch.from_numpy(mask_BHW).long(),
        names=tuple(names),
    )


def channels_last(tensor: Tensor) -> Tensor:
    """An image's or a weight's values in the layout in which convolutions are fastest."""
    layout = CHANNELS_LAST.get(tensor.dim())
    return tensor if layout is None else tensor.contiguous(memory_format=layout)
