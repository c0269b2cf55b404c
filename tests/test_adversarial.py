"""Adversarial training: the critic learns, the network's loss has its term, and neither outlives training."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from shared_fixtures import blob, write_recipe
from torch import Tensor, nn

from compress.commands.train import train
from compress.data.dataset.cases import Dataset
from compress.data.folder import Folder
from compress.errors import RecipeError
from compress.networks.unet import UNet
from compress.recipe import load, schema
from compress.train.adversarial import Adversarial, Luc, SegAN
from compress.train.losses.comparison import compared
from compress.train.losses.sum import DiceCrossEntropy
from compress.train.objective import Batch, Supervised
from compress.train.training import Training

WAYS = [Luc(weight=0.3, rate=1e-3), SegAN(rate=1e-3)]
IDS = ["luc", "segan"]


def batch(count: int = 4, seed: int = 0) -> Batch:
    images, masks = zip(*(blob(np.random.default_rng((seed, place))) for place in range(count)), strict=True)
    image = torch.from_numpy(np.stack(images)[:, None].astype(np.float32) / 255 - 0.45) / 0.2
    return Batch(image_BCHW=image, mask_BHW=torch.from_numpy(np.stack(masks)).long(), names=((0, 0),) * count)


def net(**options: Any) -> nn.Module:
    torch.manual_seed(3)
    return UNet(classes=3, width=4, depth=1, norm="none", **options)()


def objective(way: Any, seed: int = 0, ignore: int | None = None) -> Adversarial:
    return Adversarial(Supervised(DiceCrossEntropy(ignore)), way, channels=1, classes=3, ignore=ignore, seed=seed)


def critics_loss(made: Adversarial, of: nn.Module, on: Batch) -> float:
    with torch.no_grad():
        seen = compared(of(on.image_BCHW), on.mask_BHW, None)
        return made.way.critics_loss(made.critic, on.image_BCHW, seen.probability_BKS, seen.truth_BKS).item()


@pytest.mark.parametrize("way", WAYS, ids=IDS)
def test_the_critic_learns_while_the_network_stands_still(way: Any) -> None:
    made, still = objective(way), net()
    before = critics_loss(made, still, batch(seed=9))
    for seed in range(8):
        made(still, batch(seed=seed))
    assert critics_loss(made, still, batch(seed=9)) < before - 0.02


@pytest.mark.parametrize("way", WAYS, ids=IDS)
def test_the_networks_loss_is_the_supervised_one_and_the_term(way: Any) -> None:
    made, given = objective(way), batch()
    student = net()
    loss = made(student, given)
    logits = student(given.image_BCHW)
    seen = compared(logits, given.mask_BHW, None)
    # The critic took its step before the term was computed.
    term = way.networks_loss(made.critic, given.image_BCHW, seen.probability_BKS, seen.truth_BKS)
    assert term > 0
    assert loss.item() == pytest.approx((DiceCrossEntropy()(logits, given.mask_BHW) + way.weight * term).item())


@pytest.mark.parametrize("way", WAYS, ids=IDS)
def test_the_network_follows_the_term_and_the_critic_is_not_pulled_along(way: Any) -> None:
    made, given, student = objective(way), batch(), net()
    before = [parameter.clone() for parameter in made.critic.parameters()]
    loss = made(student, given)
    stepped = [parameter.clone() for parameter in made.critic.parameters()]
    slopes = [None if parameter.grad is None else parameter.grad.clone() for parameter in made.critic.parameters()]
    loss.backward()
    assert not all(torch.equal(old, new) for old, new in zip(before, stepped, strict=True))
    for parameter, weight, slope in zip(made.critic.parameters(), stepped, slopes, strict=True):
        assert parameter.requires_grad
        assert torch.equal(parameter, weight)
        assert slope is not None and parameter.grad is not None and torch.equal(parameter.grad, slope)
    ours = [parameter.grad.clone() for parameter in student.parameters() if parameter.grad is not None]
    plain = net()
    Supervised(DiceCrossEntropy())(plain, given).backward()
    theirs = [parameter.grad for parameter in plain.parameters() if parameter.grad is not None]
    assert any(not torch.allclose(a, b) for a, b in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("way", WAYS, ids=IDS)
def test_the_right_mask_leaves_the_least_to_the_critic(way: Any) -> None:
    made, given = objective(way), batch()
    seen = compared(net()(given.image_BCHW).detach(), given.mask_BHW, None)
    for seed in range(6):
        made(net(), batch(seed=seed))
    wrong, right = (
        way.networks_loss(made.critic, given.image_BCHW, chance, seen.truth_BKS).item()
        for chance in (seen.probability_BKS, seen.truth_BKS)
    )
    assert right < wrong


@pytest.mark.parametrize("way", WAYS, ids=IDS)
@pytest.mark.parametrize("padding", [1, 0])
def test_volumes_have_critics_too(way: Any, padding: int) -> None:
    generator = torch.Generator().manual_seed(0)
    given = Batch(
        image_BCHW=torch.randn(2, 1, 16, 18, 20, generator=generator),
        mask_BHW=torch.randint(0, 3, (2, 16, 18, 20), generator=generator),
        names=((0, 0),) * 2,
    )
    made = Adversarial(Supervised(DiceCrossEntropy()), way, channels=1, classes=3, ignore=None, seed=0, dims=3)
    torch.manual_seed(0)
    student = nn.Conv3d(1, 3, 3, padding=padding)
    before = [tensor.clone() for tensor in made.critic.parameters()]
    made(student, given).backward()
    assert student.weight.grad is not None and student.weight.grad.abs().sum() > 0
    assert any(not torch.equal(old, new) for old, new in zip(before, made.critic.parameters(), strict=True))


def test_the_critic_is_not_among_the_parameters_but_in_the_state() -> None:
    for way in WAYS:
        made = objective(way)
        assert not list(made.parameters())
        made(net(), batch())
        state = made.state_dict()["_extra_state"]
        assert set(state) == {"critic", "optimizer"}
        assert state["optimizer"]["state"]


def test_the_critic_and_its_optimizer_go_where_the_objective_goes() -> None:
    made = objective(Luc())
    made(net(), batch())
    made.double()
    assert {parameter.dtype for parameter in made.critic.parameters()} == {torch.float64}
    for state in made.optimizer.state.values():
        assert state["exp_avg"].dtype == state["exp_avg_sq"].dtype == torch.float64
        assert state["step"].dtype == torch.float32


def test_segans_critic_stays_within_its_bound() -> None:
    made = objective(SegAN(rate=0.1, clip=0.03))
    for seed in range(3):
        made(net(), batch(seed=seed))
    assert max(parameter.abs().max().item() for parameter in made.critic.parameters()) == pytest.approx(0.03)


def test_a_critic_does_not_depend_on_what_was_drawn_before() -> None:
    torch.manual_seed(1)
    first = objective(Luc(), seed=4)
    drawn = torch.rand(1)
    second = objective(Luc(), seed=4)
    torch.manual_seed(1)
    assert torch.equal(torch.rand(1), drawn)
    for ours, theirs in zip(first.critic.parameters(), second.critic.parameters(), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("way", WAYS, ids=IDS)
def test_ignored_pixels_do_not_reach_the_critic(way: Any) -> None:
    given = batch()
    mask = given.mask_BHW.clone()
    mask[:, :9] = 255
    image = given.image_BCHW
    logits = net()(image).detach()
    changed = logits.clone()
    changed[:, :, :9] += 5 * torch.randn_like(changed[:, :, :9])

    class Says(nn.Module):
        def __init__(self, what: Tensor) -> None:
            super().__init__()
            self.what = nn.Parameter(what)

        def forward(self, _: Tensor) -> Tensor:
            return self.what

    hidden = Batch(image_BCHW=image, mask_BHW=mask, names=given.names)
    losses = [objective(way, ignore=255)(Says(what), hidden).item() for what in (logits, changed)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


@pytest.mark.parametrize("way", WAYS, ids=IDS)
def test_unpadded_and_deeply_supervised_networks_have_critics_too(way: Any) -> None:
    class Deep(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = net()

        def forward(self, image: Tensor) -> list[Tensor]:
            full = self.net(image)
            return [full, nn.functional.avg_pool2d(full, 2)]

    assert objective(way)(net(padded=False), batch()).isfinite()
    assert objective(way)(Deep(), batch()).isfinite()


@pytest.fixture
def data(folder: Path) -> Dataset:
    return Folder(root=folder, size=(32, 32), batch=4)(channels=1, classes=3)


def quiet(_: str) -> None:
    """A log nobody reads."""


@pytest.mark.parametrize("way", IDS)
def test_an_interrupted_training_ends_where_an_uninterrupted_one_ends(way: str, data: Dataset, tmp_path: Path) -> None:
    training = Training(epochs=3, rate=5e-3, augment="flips", average=0.5, adversarial=way)  # type: ignore[arg-type]
    whole, resumed = net(), net()
    score = training(whole, data, tmp_path / "whole", 5, quiet)

    def stop_after_the_second(line: str) -> None:
        if line.startswith("epoch 2"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        training(net(), data, tmp_path / "parts", 5, stop_after_the_second)
    assert training(resumed, data, tmp_path / "parts", 5, quiet) == score
    states = [torch.load(tmp_path / part / "training.pt", weights_only=True) for part in ("whole", "parts")]
    for key in ("net", "average"):
        for name, tensor in states[0][key].items():
            assert torch.equal(tensor, states[1][key][name]), name
    critics = [state["objective"]["_extra_state"]["critic"] for state in states]
    for name, tensor in critics[0].items():
        assert torch.equal(tensor, critics[1][name]), name


def test_what_is_saved_has_no_critic(recipe: dict[str, object], tmp_path: Path) -> None:
    options = {"classes": 3, "in_channels": 1, "width": 4, "depth": 1}
    recipe["network"] = {"unet": options}
    recipe["train"] = {"epochs": 1, "adversarial": {"segan": {"weight": 0.5}}}
    path = train(load(write_recipe(tmp_path, recipe)), tmp_path / "out", say=quiet)
    assert set(load_file(path)) == set(UNet(**options)().state_dict())
    assert "critic" not in json.dumps(json.loads(path.with_suffix(".json").read_text()))


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ("seg_an", "train: no option 'adversarial.seg_an'; did you mean 'segan'?"),
        ({"luc": {"wieght": 1}}, "train: no option 'adversarial.luc.wieght'; did you mean 'weight'?"),
        ({"luc": {}, "segan": {}}, "one of luc and segan, with its options"),
        ({"luc": {"rate": 2}}, "train: adversarial.luc.rate: 2: input should be less than 1"),
        (["luc"], "train: adversarial: ['luc']: it is a word, luc or segan, or one of them with its options"),
    ],
)
def test_a_mistake_is_told_with_its_place(given: Any, sentence: str, recipe: dict[str, object], tmp_path: Path) -> None:
    recipe["train"] = {"adversarial": given}
    with pytest.raises(RecipeError) as caught:
        load(write_recipe(tmp_path, recipe))
    assert sentence in str(caught.value)


def test_a_word_is_that_way_with_its_defaults(recipe: dict[str, object], tmp_path: Path) -> None:
    for given in ("luc", {"luc": None}, {"luc": {"weight": 0.1}}):
        recipe["train"] = {"adversarial": given}
        training = load(write_recipe(tmp_path, recipe)).train
        assert training is not None and training.adversarial is not None
        assert training.adversarial.way == Luc()
    assert Training().adversarial is None
    assert list(schema()["$defs"]["Adversary"]["properties"]) == ["luc", "segan"]
