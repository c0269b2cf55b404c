"""Recovery: what is learnt, what is kept, and that an interruption changes nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from shared_fixtures import SIZE, write_recipe
from torch import Tensor, nn

from compress.cache import Cache
from compress.errors import PassError, RecipeError
from compress.networks.unet import UNet
from compress.passes.distill import Distill
from compress.pipeline.first_key import first_key
from compress.pipeline.stages import baseline, chain
from compress.recipe import load
from compress.task import Task
from compress.train.array_cache import ArrayCache
from compress.train.distillation import (
    Features,
    attention,
    channel_divergence,
    divergence,
    mimicry,
    pairs,
    pairwise,
    two_or_more,
)
from compress.train.objective import Batch
from compress.train.range_test import _rate
from compress.train.teacher import Taught, Teacher, Terms
from compress.train.training import supervised
from export.files import make_folder


@pytest.fixture
def task(tmp_path: Path, recipe: dict[str, object]) -> Task:
    return replace(load(write_recipe(tmp_path, recipe)).task(), folder=tmp_path)


def damaged(task: Task, noise: float = 0.25) -> nn.Module:
    """The trained network with noise on its weights: something to recover from."""
    torch.manual_seed(3)
    net = UNet(classes=3, width=8, depth=2)()
    net.load_state_dict(task.net.state_dict())
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(noise * torch.randn_like(parameter))
    net.description = task.net.description  # type: ignore[assignment]
    return net.eval()


def heard(task: Task) -> tuple[Task, list[str]]:
    lines: list[str] = []
    return replace(task, note=lines.append), lines


def weights_of(net: nn.Module) -> Tensor:
    return torch.cat([tensor.flatten().double() for tensor in net.state_dict().values()])


# --- the pass ---


def test_a_damaged_network_recovers_and_the_one_given_is_not_changed(task: Task) -> None:
    task, lines = heard(task)
    net = damaged(task)
    before = weights_of(net)
    after = Distill(epochs=8, rate=5e-3, average=0.5, augment="flips")(net, task)
    assert torch.equal(weights_of(net), before)
    assert not after.training
    started, best = (float(part.split()[-1]) for part in lines[-1].split(" (")[0].split(" -> "))
    assert best > started + 0.02, lines


def test_recovery_that_ends_below_its_start_returns_the_start_and_says_so(task: Task) -> None:
    task, lines = heard(task)
    # At this rate two steps ruin any network.
    after = Distill(steps=2, rate=0.9, average=0.0)(task.net, task)
    assert torch.equal(weights_of(after), weights_of(task.net))
    assert "the starting state is returned" in lines[-1]


ALONE: dict[str, dict[str, Any]] = {
    "logits": {"logits": 1.0, "temperature": 4.0},
    "channels": {"logits": 0.0, "channels": 1.0},
    "pairwise": {"logits": 0.0, "pairwise": 1.0},
    "attention": {"logits": 0.0, "attention": 1.0},
}


PARTS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "logits": lambda ours, theirs: divergence(ours, theirs, 4.0),
    "channels": lambda ours, theirs: channel_divergence(ours, theirs, 2.0),
    "pairwise": pairwise,
    "attention": attention,
}


def apart(net: nn.Module, task: Task, part: str) -> float:
    """How far a network is from the teacher in what a part of the teacher says, on validation cases."""
    names = [name for name, _ in Features(net, task.example).stages]
    found = []
    for image in task.data.images(task.data.cases["val"]):
        with torch.no_grad(), Features.watching(net, names) as ours, Features.watching(task.net, names) as theirs:
            answers = net(torch.from_numpy(image)), task.net(torch.from_numpy(image))
        maps = [answers] if part in ("logits", "channels") else [(ours[name], theirs[name]) for name in names]
        found += [PARTS[part](*each) for each in maps]
    return float(torch.stack(found).mean())


# Those that compare in other ways, for which the others stand.
FEW = [part if part in ("logits", "pairwise") else pytest.param(part, marks=pytest.mark.slow) for part in ALONE]


@pytest.mark.parametrize("part", FEW)
def test_each_part_of_the_teacher_brings_a_damaged_network_back_to_it_in_that(part: str, task: Task) -> None:
    net = damaged(task, 0.1)
    after = Distill(steps=10, rate=3e-3, truth=0, average=0.0, augment="none", **ALONE[part])(net, task)
    assert apart(after, task, part) < 0.5 * apart(net, task, part)
    assert set(after.state_dict()) == set(task.net.state_dict())


def test_features_are_learnt_through_adapters(task: Task) -> None:
    student = damaged(task)
    torch.manual_seed(0)
    none = dict.fromkeys(("truth", "logits", "channels", "pairwise", "attention"), 0.0)
    teacher = Teacher(task.net, None)
    objective = Taught(
        student,
        teacher,
        task.example,
        Terms(**none, features=1.0, temperature=1.0),
        supervised(Distill().loss, task.data),
    )
    images = torch.cat([torch.from_numpy(image) for image in task.data.images(task.data.cases["train"])])
    batch = Batch(image_BCHW=images, mask_BHW=torch.zeros(len(images), SIZE, SIZE, dtype=torch.long), names=())
    optimizer = torch.optim.Adam([*student.parameters(), *objective.parameters()], lr=1e-2)
    losses = []
    for _ in range(20):
        loss = objective(student, batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


def test_a_narrower_student_mimics_features_through_adapters_that_do_not_stay(task: Task) -> None:
    torch.manual_seed(1)
    student = UNet(classes=3, width=4, depth=2)()
    student.description = {"unet": {"classes": 3, "width": 4, "depth": 2}}  # type: ignore[assignment]
    after = Distill(steps=2, rate=1e-3, features=1.0)(student, task)
    assert set(after.state_dict()) == set(student.state_dict())


def test_the_teacher_s_kept_answers_teach_as_its_fresh_ones_do(task: Task, tmp_path: Path) -> None:
    kept = Distill(epochs=2, rate=1e-3, views=2)(damaged(task), replace(task, folder=tmp_path / "kept"))
    fresh = Distill(epochs=2, rate=1e-3)(damaged(task), replace(task, folder=tmp_path / "fresh"))
    # 16 bits of a logit and of a pixel are all the difference.
    assert (weights_of(kept) - weights_of(fresh)).norm() < 0.02 * weights_of(fresh).norm()


def test_a_second_step_finds_the_views_and_the_answers_of_the_first(task: Task, tmp_path: Path) -> None:
    asked: list[int] = []
    task.net.register_forward_hook(lambda *_: asked.append(1))
    step = Distill(epochs=2, rate=1e-3, views=2)
    alone = step(damaged(task), replace(task, folder=tmp_path / "alone"))
    shared = replace(task, views=tmp_path / "views")
    step(damaged(task, 0.1), replace(shared, folder=tmp_path / "first"))
    once = len(asked)
    again = step(damaged(task), replace(shared, folder=tmp_path / "second"))
    # Once for the shape of the answer: every answer itself is there.
    assert len(asked) == once + 1
    assert torch.equal(weights_of(again), weights_of(alone))
    other = Distill(epochs=1, rate=1e-3, views=2, augment="flips")
    other(damaged(task), replace(shared, folder=tmp_path / "third"))
    assert len(asked) > once + 2, "other views are other answers"


def test_the_rate_is_found_and_said(task: Task) -> None:
    task, lines = heard(task)
    Distill(steps=6)(damaged(task), task)
    assert any(line.startswith("learning rate ") for line in lines)


def test_the_rate_is_well_below_where_the_loss_rises_however_batches_differ() -> None:
    rates = np.geomspace(1e-5, 1e-1, 32)
    batch = np.resize([1.0, 3.0, 0.4, 2.0], 32)
    falls = np.where(rates < 1e-3, 1.0, np.where(rates < 1e-2, 0.6, 5.0))
    assert 5e-4 < _rate(rates, batch * falls) < 3e-3
    flat = np.where(rates < 2e-2, 1.0, 2.0)
    assert 2e-3 < _rate(rates, batch * flat) < 1e-2
    broken = np.where(rates < 1e-3, 1.0, np.nan)
    assert _rate(rates, batch * broken) < 3e-4


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"epochs": 1, "steps": 2}, "epochs and steps are both given"),
        ({"truth": 0, "teacher": 0}, "nothing to learn from"),
        ({"rate": 0}, "greater than 0"),
        ({"epoch": 1}, "did you mean 'epochs'"),
    ],
)
def test_wrong_options_are_told_in_words(
    options: dict[str, Any], told: str, tmp_path: Path, recipe: dict[str, Any]
) -> None:
    with pytest.raises(RecipeError, match=told):
        load(write_recipe(tmp_path, {**recipe, "passes": [{"distill": options}]}))


def test_a_loss_that_is_not_finite_stops_it_with_the_reason(task: Task) -> None:
    net = damaged(task)
    with torch.no_grad():
        next(net.parameters()).fill_(float("nan"))
    with pytest.raises(PassError, match="not finite"):
        Distill(steps=2, rate=1e-3)(net, task)


def test_without_validation_cases_it_refuses(task: Task) -> None:
    cases = {**task.data.cases, "val": ()}
    with pytest.raises(PassError, match="no val cases"):
        Distill(steps=1)(task.net, replace(task, data=replace(task.data, cases=cases)))


# --- resuming ---


def killed(path: Path, out: Path, line: str) -> int:
    """`compress run` in a process of its own, killed without warning when its log says `line`."""
    command = [sys.executable, "-m", "compress", "run", str(path), "--out", str(out)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)
    log = out / "tiny" / "log.txt"
    begun = time.monotonic()
    while process.poll() is None and time.monotonic() - begun < 300:
        if log.exists() and line in log.read_text():
            process.send_signal(signal.SIGKILL)
            break
        time.sleep(0.02)
    return process.wait(timeout=500)


def passed(path: Path, folder: Path) -> tuple[nn.Module, list[str]]:
    """The network after the recipe's passes, on one thread as above, and what was said."""
    lines: list[str] = []
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        recipe = load(path)
        task, cache = recipe.task(), Cache(make_folder(folder))
        begun = baseline(task, first_key(recipe, task), cache, lines.append)
        return chain(recipe.passes, begun, task, cache, lines.append)[-1].net, lines
    finally:
        torch.set_num_threads(threads)


@pytest.mark.slow
def test_a_killed_distillation_goes_on_and_ends_where_an_undisturbed_one_ends(
    tmp_path: Path, recipe: dict[str, Any]
) -> None:
    steps = [{"distill": {"epochs": 10, "rate": 2e-3, "views": 2, "patience": 10}}]
    path = write_recipe(tmp_path, {**recipe, "passes": steps, "devices": ["cpu"]})
    assert killed(path, tmp_path / "killed", "epoch 3/10") == -signal.SIGKILL
    resumed, said = passed(path, tmp_path / "killed" / "tiny")
    assert any("going on after epoch" in line for line in said)
    whole, said = passed(path, tmp_path / "whole")
    assert not any("going on after epoch" in line for line in said)
    ours, theirs = resumed.state_dict(), whole.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_other_options_begin_anew(task: Task, tmp_path: Path) -> None:
    Distill(epochs=1, rate=1e-3)(damaged(task), task)
    task, lines = heard(task)
    Distill(epochs=2, rate=1e-3)(damaged(task), task)
    assert not any("going on" in line for line in lines)


# --- the losses ---

Loss = Callable[[Tensor, Tensor], Tensor]
LOSSES: dict[str, Loss] = {
    "divergence": lambda ours, theirs: divergence(ours, theirs, 2.0),
    "channel_divergence": lambda ours, theirs: channel_divergence(ours, theirs, 4.0),
    "pairwise": pairwise,
    "attention": attention,
    "mimicry": mimicry,
}


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("shape", [(2, 3, 16, 16), (1, 2, 8, 8, 8)])
def test_a_loss_is_zero_for_equal_maps_and_above_for_others(name: str, shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    theirs, ours = torch.randn(shape), torch.randn(shape, requires_grad=True)
    assert LOSSES[name](theirs, theirs).item() == pytest.approx(0, abs=1e-6)
    loss = LOSSES[name](ours, theirs)
    assert loss.item() > 1e-4
    loss.backward()
    assert torch.isfinite(ours.grad).all() and ours.grad.abs().sum() > 0


def test_divergence_is_torch_s_own() -> None:
    torch.manual_seed(0)
    ours, theirs = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4)
    expected = F.kl_div(ours.log_softmax(1), theirs.softmax(1), reduction="none").sum(1).mean()
    assert divergence(ours, theirs, 1.0).item() == pytest.approx(expected.item(), rel=1e-5)


def test_one_logit_teaches_as_the_two_it_stands_for() -> None:
    logit = torch.randn(1, 1, 4, 4)
    assert torch.allclose(two_or_more(logit).softmax(1)[:, 1], logit.sigmoid()[:, 0])


# --- features ---


def test_stages_of_two_widths_belong_together_by_their_order() -> None:
    example = torch.zeros(1, 1, SIZE, SIZE)
    wide, narrow = (Features(UNet(classes=3, width=width, depth=2)(), example) for width in (8, 4))
    assert [shape[1:] for _, shape in wide.stages] == [(s, s) for s in (SIZE, SIZE // 2, SIZE // 4, SIZE // 2, SIZE)]
    assert pairs(narrow, wide) == [(place, place) for place in range(5)]
    # Not the logits, which the other terms compare.
    assert wide.stages[-1][1][0] == 8


def test_stages_of_another_depth_are_paired_where_sizes_agree() -> None:
    example = torch.zeros(1, 1, SIZE, SIZE)
    deep, shallow = (Features(UNet(classes=3, width=4, depth=depth)(), example) for depth in (3, 2))
    found = pairs(shallow, deep)
    assert len(found) >= 4
    assert all(shallow.stages[i][1][1:] == deep.stages[j][1][1:] for i, j in found)


def test_an_array_cache_survives_and_only_whole_batches_count(tmp_path: Path) -> None:
    names = ((0, 1), (1, 0))
    logits = np.random.default_rng(0).normal(size=(2, 3, 4, 4)).astype(np.float32)
    stored = ArrayCache(tmp_path / "logits.f16", 2, 2, (3, 4, 4), "float16").store(names, logits)
    again = ArrayCache(tmp_path / "logits.f16", 2, 2, (3, 4, 4), "float16")
    assert np.array_equal(again.load(names), stored) and np.allclose(stored, logits, atol=2e-3)
    assert again.has(names)
    assert not again.has(((0, 0), (1, 0)))
