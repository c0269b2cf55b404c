"""Answers brought back to the size of the image: by probabilities as the field does it, or by labels."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

from compress.data.dataset.cases import Fit
from compress.data.dataset.restore import labels_at
from compress.data.folder import Folder
from compress.task import Task

SIZES = {2: ((8, 10), (19, 33)), 3: ((4, 6, 5), (9, 11, 4))}


def logits(classes: int, size: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(classes).normal(0, 3, (classes, *size)).astype(np.float32)


@pytest.mark.parametrize("axes", SIZES)
@pytest.mark.parametrize("classes", [1, 2, 5])
def test_probabilities_are_interpolated_and_the_largest_wins(axes: int, classes: int) -> None:
    size, original = SIZES[axes]
    given = logits(classes, size)
    mode = "bilinear" if axes == 2 else "trilinear"
    wide = torch.from_numpy(given).double()[None]
    shares = torch.sigmoid(wide) if classes == 1 else torch.softmax(wide, 1)
    large = F.interpolate(shares, original, mode=mode, align_corners=False)[0].numpy()
    expected = (large[0] > 0.5) if classes == 1 else large.argmax(0)
    found = labels_at(given, original)
    assert (found.shape, found.dtype) == (original, np.uint8)
    first, second = np.sort(large, 0)[-2:] if classes > 1 else (large[0], np.full(original, 0.5))
    clear = np.abs(first - second) > 1e-6
    assert clear.mean() > 0.99
    assert np.array_equal(found[clear], expected[clear])


def test_one_logit_and_two_classes_of_which_one_is_0_are_the_same() -> None:
    one = logits(1, (8, 10))
    two = np.concatenate([np.zeros_like(one), one])
    assert np.array_equal(labels_at(one, (31, 17)), labels_at(two, (31, 17)))


def test_a_logit_shared_by_all_classes_changes_nothing_however_large() -> None:
    given = logits(3, (8, 10)).round(1)
    assert np.array_equal(labels_at(given, (20, 20)), labels_at(given + np.float32(2**17), (20, 20)))


def test_an_edge_becomes_smoother_than_by_labels() -> None:
    rows, columns = np.mgrid[:16, :16]
    # A disc whose edge the logits know to a fraction of a pixel.
    inside = (5.3 - np.hypot(rows - 7.5, columns - 7.5)).astype(np.float32)
    large_rows, large_columns = (np.mgrid[:128, :128] + 0.5) / 8 - 0.5
    truth = np.hypot(large_rows - 7.5, large_columns - 7.5) < 5.3
    errors = [
        (np.asarray(labels, bool) != truth).mean()
        for labels in (
            labels_at(inside[None], (128, 128)),
            Fit(size=(16, 16)).restore(np.uint8(inside > 0), (128, 128)),
        )
    ]
    assert errors[0] < 0.4 * errors[1]


def task_of(root: Path, how: str, restore: str, size: tuple[int, int] = (16, 16)) -> Task:
    for name in ("images", "masks"):
        (root / name).mkdir(exist_ok=True)
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 255, (40, 24)).astype(np.uint8)).save(root / "images/a.png")
    Image.fromarray(np.ones((40, 24), np.uint8)).save(root / "masks/a.png")
    (root / "split.csv").write_text("image,mask,split\nimages/a.png,masks/a.png,test\n")
    made: Any = Folder(root=root, size=size, fit=how, restore=restore, calibration=0)  # type: ignore[arg-type]
    return Task(data=made(channels=1, classes=2), net=nn.Conv2d(1, 2, 1), seed=0)


@pytest.mark.parametrize("how", ["resize", "pad", "tile"])
def test_scores_and_latency_take_the_same_labels_in_the_way_that_is_asked_for(tmp_path: Path, how: str) -> None:
    given = logits(2, (16, 16))[None]
    found = {}
    for restore in ("probabilities", "labels"):
        task = task_of(tmp_path, how, restore)
        case = task.data.cases["test"][0]
        labels_HW = found[restore] = task.labels(lambda _: given, case)
        assert labels_HW.shape == (40, 24)
        # The truth is all foreground: recall is the share that is called so.
        assert task.score(lambda _: given, case)[0][0, 5] == pytest.approx(labels_HW.mean())
    assert np.array_equal(found["probabilities"], found["labels"]) == (how == "tile")
    if how != "tile":
        inside = given[0, :, :, :10] if how == "pad" else given[0]
        assert np.array_equal(found["probabilities"], labels_at(inside, (40, 24)))


def test_an_image_of_the_networks_size_is_its_logits_argmax(tmp_path: Path) -> None:
    task, given = task_of(tmp_path, "resize", "probabilities", (40, 24)), logits(2, (40, 24))[None]
    assert np.array_equal(task.labels(lambda _: given, task.data.cases["test"][0]), given[0].argmax(0))


def test_the_way_is_part_of_the_fingerprint(tmp_path: Path) -> None:
    prints = {task_of(tmp_path, "resize", restore).data.fingerprint() for restore in ("probabilities", "labels")}
    assert len(prints) == 2


def test_what_the_network_answers_is_asked_once_and_spoils_nothing_for_training(tmp_path: Path) -> None:
    task = task_of(tmp_path, "resize", "labels")
    assert task.logits == 2
    assert not task.example.is_inference()
    assert dataclasses.replace(task, net=nn.Conv2d(1, 1, 1)).logits == 1
