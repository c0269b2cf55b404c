"""Training: it learns, goes on where it was interrupted, and refuses what belongs to another network."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from compress.data.dataset.cases import Dataset
from compress.data.folder import Folder
from compress.errors import WeightsError
from compress.networks.unet import UNet
from compress.train import loop
from compress.train.augment import augmentation, augmented
from compress.train.batches import batches, view_cache
from compress.train.losses.sum import DiceCrossEntropy
from compress.train.objective import Supervised
from compress.train.plan import Plan
from compress.train.training import Training
from export.files import make_folder

TRAINING = Training(epochs=3, rate=5e-3, augment="strong", average=0.5)


@pytest.fixture
def data(folder: Path) -> Dataset:
    return Folder(root=folder, size=(32, 32), batch=4)(channels=1, classes=3)


def small() -> nn.Module:
    torch.manual_seed(3)
    return UNet(classes=3, width=4, depth=2)()


def quiet(_: str) -> None:
    """A log nobody reads."""


def test_an_interrupted_training_ends_where_an_uninterrupted_one_ends(data: Dataset, tmp_path: Path) -> None:
    whole = small()
    score = TRAINING(whole, data, tmp_path / "whole", 5, quiet)

    def stop_after_the_second(line: str) -> None:
        if line.startswith("epoch 2"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        TRAINING(small(), data, tmp_path / "parts", 5, stop_after_the_second)
    resumed = small()
    assert TRAINING(resumed, data, tmp_path / "parts", 5, quiet) == score
    for (name, ours), theirs in zip(whole.state_dict().items(), resumed.state_dict().values(), strict=True):
        assert torch.equal(ours, theirs), name


def test_training_learns(data: Dataset, tmp_path: Path) -> None:
    training = Training(epochs=15, rate=2e-2, augment="none", average=0.5)
    assert training(small(), data, tmp_path, 5, quiet) > 0.5


def test_only_the_second_half_decides_which_state_is_best_and_when_to_stop(
    data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = iter(np.linspace(0.9, 0.1, 12))
    monkeypatch.setattr(loop, "validation_dice", lambda *_: float(next(scores)))
    told: list[str] = []
    plan = Plan(steps=10 * math.ceil(len(data.cases["train"]) / data.batch), rate=1e-3, augment="none", patience=1)
    outcome = loop.fit(plan, Supervised(DiceCrossEntropy()), small(), data, tmp_path, 5, told.append)
    # Scores fall from the first of ten epochs on: the sixth is the best that counts, and two more are waited for.
    assert (outcome.best_epoch, outcome.epochs) == (6, 8)
    assert told[-1] == "stopped: no better validation score since epoch 6"


def test_the_checkpoint_of_another_network_is_refused(data: Dataset, tmp_path: Path) -> None:
    Training(epochs=1)(small(), data, tmp_path, 5, quiet)
    with pytest.raises(WeightsError, match="does not belong to this network"):
        Training(epochs=2)(UNet(classes=3, width=8, depth=2)(), data, tmp_path, 5, quiet)


def test_an_unpadded_network_trains_on_the_centre_it_predicts(data: Dataset, tmp_path: Path) -> None:
    net = UNet(classes=3, width=4, depth=1, padded=False)()
    assert Training(epochs=1)(net, data, tmp_path, 5, quiet) >= 0


def test_augmentation_moves_image_and_mask_together_and_repeats_itself() -> None:
    mask = np.zeros((32, 32), np.uint8)
    mask[8:20, 8:20] = 1
    image = mask[None].astype(np.float32)
    transform = augmentation("strong")
    first, again, other = (augmented(transform, image, mask, (1, 2, seed)) for seed in (3, 3, 4))
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    assert not torch.equal(first[0], other[0])
    inside, outside = first[0][0][first[1] == 1], first[0][0][first[1] == 0]
    assert inside.mean() > outside.mean() + 0.3
    assert set(first[1].unique().tolist()) <= {0, 1}


def test_batches_made_ahead_are_the_same(data: Dataset, tmp_path: Path) -> None:
    data, plan = replace(data, batch=2), Plan(steps=1, rate=1e-3, views=2)
    cache = view_cache(make_folder(tmp_path / "views"), plan, data)
    assert cache is not None
    drop_out = torch.get_rng_state()
    alone = list(batches(data, plan, 0, 3))
    list(islice(batches(data, plan, 0, 3, cache, ahead=2), 2))
    ahead = list(batches(data, plan, 0, 3, cache, ahead=2))
    assert torch.equal(torch.get_rng_state(), drop_out)
    assert len(alone) == len(ahead) > 2
    for ours, theirs in zip(alone, ahead, strict=True):
        assert ours.names == theirs.names
        assert torch.equal(ours.mask_BHW, theirs.mask_BHW)
        assert torch.allclose(ours.image_BCHW, theirs.image_BCHW, atol=2e-3), "kept in 16 bits"


def test_the_loss_is_least_for_the_right_answer_and_ignores_what_it_should() -> None:
    mask = torch.tensor([[[0, 1], [2, 255]]])
    right = 20.0 * nn.functional.one_hot(torch.tensor([[[0, 1], [2, 0]]]), 3).movedim(-1, 1).float()
    lose = DiceCrossEntropy(ignore=255)
    assert lose(right, mask) < 0.05
    changed = right.clone()
    changed[..., 1, 1] = torch.tensor([0.0, 20.0, 0.0])
    assert torch.allclose(lose(changed, mask), lose(right, mask), atol=1e-3)
    assert lose(-right, mask) > 5


def test_one_logit_is_trained_as_a_sigmoid() -> None:
    logits = torch.tensor([[[[-9.0, 9.0]]]])
    assert DiceCrossEntropy()(logits, torch.tensor([[[0, 1]]])) < 0.01
    assert DiceCrossEntropy()(logits, torch.tensor([[[1, 0]]])) > 5
