"""What a channel is worth: by its weights, by the loss, and by what it adds to the others."""

from __future__ import annotations

import dataclasses
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from pruning import ALL, pruned, unet, widths, with_copies
from shared_fixtures import write_recipe
from structures import example, made
from swaps import Describe, describes, task_of, without_calibration
from swaps import stand_in as calibrated
from torch import Tensor, nn

from compress.editing.pruning.dependency.groups import Bundle
from compress.editing.pruning.importance import Criterion, importance
from compress.editing.pruning.interpolative import interpolative_scores
from compress.editing.pruning.trial import prunable, trial_of
from compress.errors import PassError
from compress.passes.prune import Prune
from compress.recipe import load
from compress.task import Task

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def describe(monkeypatch: pytest.MonkeyPatch) -> Describe:
    return describes(monkeypatch)


DEAD = [1, 4, 6, 11]


@cache
def with_dead_channels() -> tuple[nn.Module, tuple[Bundle, ...]]:
    """A U-Net four of whose first 16 channels do nothing, and its bundles."""
    net = unet()
    with torch.no_grad():
        # Nothing goes in, nothing comes out, and nobody reads it; alike, so that none is far from the others.
        net.get_submodule("encoder.0.0").weight[DEAD] = 0  # type: ignore[index, operator]
        net.get_submodule("encoder.0.1").weight[DEAD] = 0  # type: ignore[index, operator]
        net.get_submodule("encoder.0.1").bias[DEAD] = 0  # type: ignore[index, operator]
        net.get_submodule("encoder.0.3").weight[:, DEAD] = 0  # type: ignore[index, operator]
    return net, tuple(prunable(trial_of(net, torch.zeros(1, 1, 32, 32)))[0])


def scores(by: Criterion, task: Task) -> list[Tensor | None]:
    net, bundles = with_dead_channels()
    return importance(net, bundles, by, task)


@pytest.mark.parametrize("by", ["l1", "l2", "bn", "taylor", "fpgm", "lamp", "hessian", "interpolative"])
def test_a_channel_that_does_nothing_matters_least(by: Criterion, data: Task) -> None:
    first = scores(by, data)[0]
    assert first is not None
    assert sorted(first.argsort()[:4].tolist()) == DEAD
    assert first.sort().values[4] > first[DEAD].max()


@pytest.fixture
def data(tmp_path: Path, recipe: dict[str, object]) -> Task:
    """Real cases of three classes."""
    return dataclasses.replace(load(write_recipe(tmp_path, recipe)).task(), net=unet())


@pytest.mark.parametrize("by", ["taylor", "random", "hessian"])
def test_the_same_seed_weighs_the_same(by: Criterion, data: Task) -> None:
    found = [torch.cat([score for score in scores(by, data) if score is not None]) for _ in range(2)]
    assert torch.equal(*found)
    assert (Prune(ratio=0.5, by=by).uses == ("train",)) is (by != "random")  # type: ignore[arg-type]


def test_another_seed_is_another_chance(data: Task) -> None:
    first, second = scores("random", data)[0], scores("random", dataclasses.replace(data, seed=1))[0]
    assert first is not None and second is not None
    assert not torch.equal(first, second)


def test_gradients_need_train_cases(data: Task) -> None:
    empty = dataclasses.replace(data.data, cases={**data.data.cases, "train": ()})
    with pytest.raises(PassError, match="look at train cases, and there are none"):
        scores("taylor", dataclasses.replace(data, data=empty))


def test_a_criterion_without_anything_to_go_by_says_so() -> None:
    with pytest.raises(PassError, match="by: bn has nothing to go by there"):
        pruned(unet(norm="none"), ratio=0.5, by="bn")


def test_of_copies_one_stays_however_large_they_are(describe: Describe) -> None:
    net: Any = with_copies()
    with torch.no_grad():
        # Two of the four kinds of channels are so large that a norm would keep both copies of them.
        for place in (0, 1, 4, 5):
            net[0].weight[place] *= 5
            net[0].bias[place] *= 5
    net, image = describe(net), torch.randn(1, 1, 32, 32)
    whole = net(image)
    varies = (whole - whole.mean((2, 3), keepdim=True)).norm()

    def error(by: str) -> float:
        small = Prune(ratio=0.5, multiple=1, by=by, refit=True)(net, calibrated(image, []))  # type: ignore[arg-type]
        assert widths(small) == [4, 4, 4, 3]
        return float(((small(image) - whole).norm() / varies).detach())

    assert error("l2") > 0.05
    assert error("interpolative") < 0.02


def test_what_channels_add_falls_and_nothing_is_added_by_a_copy() -> None:
    net: Any = with_copies().eval()
    bundles, _ = prunable(trial_of(net, torch.zeros(1, 1, 32, 32)))
    for score in interpolative_scores(net, bundles, [torch.randn(1, 1, 32, 32)])[:3]:
        assert score is not None
        largest = score.sort(descending=True).values
        assert (largest[4:] < 1e-6 * largest[0]).all()
        assert (largest[:4] > 1e-4 * largest[0]).all()
        taken = set((score.argsort(descending=True)[:4] % 4).tolist())
        assert taken == {0, 1, 2, 3}


@pytest.mark.parametrize("name", ALL)
def test_channels_of_every_structure_are_compared(name: str) -> None:
    net, image = made(name), example(name, 5)
    bundles, _ = prunable(trial_of(net, example(name)))
    for bundle, score in zip(bundles, interpolative_scores(net, bundles, [image, -image]), strict=True):
        assert bundle.group.prunable or score is None
        if score is not None:
            assert len(score) == len(bundle.units)
            assert torch.isfinite(score).all()
            assert (score >= 0).all()
            assert score.max() > 0


def test_comparing_channels_takes_calibration_cases(folder: Path, weights: Path) -> None:
    task = task_of(folder, weights)
    assert Prune(ratio=0.5, by="interpolative").uses == ("calibration",)
    with pytest.raises(PassError, match=r"prune: by: interpolative: there are no calibration cases; .*or use by: l2"):
        Prune(ratio=0.5, multiple=4, by="interpolative")(task.net, without_calibration(task))
