"""Layers as products of thinner ones: exact where nothing is left out, ranks by every rule, what is kept and why."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from structures import example, made
from swaps import ALL, Describe, check_it_travels, describes, dice, stand_in, task_of, told, without_calibration
from torch import nn
from zoo import Standardized, conv

import compress.editing.decomposition.cp
from compress.editing.decomposition.cp import Unstable
from compress.editing.decomposition.layer import Decomposition, difference
from compress.editing.decomposition.ranks import by_energy, vbmf_rank
from compress.editing.layer_replacement import Site, macs, parameters
from compress.errors import PassError
from compress.passes.int8 import Int8
from compress.passes.lowrank import Lowrank
from compress.task import Task

LAYERS = [
    nn.Conv2d(6, 9, 3, padding=1),
    nn.Conv2d(6, 9, (5, 3), stride=(2, 1), padding=(4, 1), dilation=(2, 1), bias=False),
    nn.Conv2d(6, 9, 3, padding="same", dilation=2, padding_mode="reflect"),
    nn.Conv2d(6, 9, (1, 3), stride=2, padding=1),
    nn.Conv2d(6, 9, 1, stride=2),
    nn.Conv3d(6, 9, 3, stride=(1, 2, 2), padding=1, padding_mode="replicate"),
    nn.Conv3d(6, 9, (1, 3, 3), padding=(0, 1, 1)),
    nn.Conv1d(6, 9, 5, padding=2, padding_mode="circular"),
    nn.ConvTranspose2d(6, 9, 3, stride=2, padding=1, output_padding=1),
    nn.ConvTranspose3d(6, 9, 2, stride=2, bias=False),
    nn.Linear(6, 9),
]


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def task(folder: Path, weights: Path) -> Task:
    return task_of(folder, weights)


@pytest.fixture(scope="module")
def thin(task: Task) -> tuple[nn.Module, list[str]]:
    """The small trained U-Net by Tucker-2 at half of its multiply-accumulates, and what the pass said."""
    heard, notes = told(task)
    return Lowrank(at_least=8, macs=0.5)(task.net, heard), notes


@pytest.fixture(scope="module")
def quantized(task: Task, thin: tuple[nn.Module, list[str]]) -> nn.Module:
    return Int8()(thin[0], task)


@pytest.fixture
def describe(monkeypatch: pytest.MonkeyPatch) -> Describe:
    return describes(monkeypatch)


def layer_of(module: Any, how: Any) -> Decomposition:
    shape = (2, 8, 6) if isinstance(module, nn.Linear) else (2, 6, *[12] * len(module.kernel_size))
    if isinstance(module, nn.Linear) or max(module.kernel_size) == 1:
        how = "svd"
    return Decomposition(site=Site(names=("layer",), module=module, inputs=(torch.Size(shape),)), method=how)


@pytest.mark.parametrize("module", LAYERS, ids=str)
@pytest.mark.parametrize("how", ["tucker", "svd", "spatial"])
def test_at_full_rank_a_layer_is_what_it_was(module: Any, how: Any) -> None:
    if how == "spatial" and isinstance(module, nn.ConvTranspose2d | nn.ConvTranspose3d):
        pytest.skip("not decomposed: see the reasons below")
    layer = layer_of(module, how)
    new = layer.decomposed(layer.ranks(lambda spectrum, _: len(spectrum)), bias=False, seed=0)
    assert difference(module, new, layer.site.inputs[0]) < 1e-5
    assert (new[-1].bias is None) == (module.bias is None)  # type: ignore[union-attr]


@pytest.mark.parametrize("module", [one for one in LAYERS[:8] if max(one.kernel_size) > 1], ids=str)  # type: ignore[union-attr, arg-type, type-var]
def test_a_kernel_that_is_a_sum_of_terms_is_recovered_by_cp(module: Any) -> None:
    module = copy.deepcopy(module)
    random = torch.Generator().manual_seed(0)
    factors = [torch.randn(length, 3, generator=random) for length in module.weight.shape]
    axes = "oihwd"[: len(factors)]
    with torch.no_grad():
        module.weight.copy_(torch.einsum(",".join(f"{axis}r" for axis in axes) + f"->{axes}", *factors) / 10)
    layer = layer_of(module, "cp")
    new = layer.decomposed((3,), bias=False, seed=0)
    assert difference(module, new, layer.site.inputs[0]) < 1e-4
    depthwise = [one for one in new if getattr(one, "groups", 1) > 1]
    assert [sum(side > 1 for side in one.kernel_size) <= 1 for one in depthwise] == [True] * len(depthwise)  # type: ignore[union-attr, arg-type]


@pytest.mark.parametrize("how", ["tucker", "svd", "spatial", "cp"])
def test_more_ranks_come_closer(how: Any) -> None:
    torch.manual_seed(0)
    layer = layer_of(nn.Conv2d(6, 9, 3, padding=1), how)
    errors = []
    for share in (0.2, 0.5, 0.9):
        ranks = layer.ranks(lambda spectrum, _, share=share: max(1, int(share * len(spectrum))))  # type: ignore[misc]
        new = layer.decomposed(ranks, bias=False, seed=0)
        errors.append(difference(layer.site.module, new, layer.site.inputs[0]))
    assert errors == sorted(errors, reverse=True)
    assert errors[0] < 1.0


@pytest.mark.parametrize("how", ["tucker", "svd", "spatial", "cp"])
def test_its_size_is_that_of_its_layers(how: Any) -> None:
    layer = layer_of(nn.Conv2d(6, 9, 3, padding=1), how)
    ranks = layer.ranks(lambda spectrum, _: 2)
    new = layer.decomposed(ranks, bias=False, seed=0)
    assert layer.size(ranks).macs == macs(new, layer.site.inputs)
    assert layer.size(ranks).params == parameters(new)
    assert layer.size().macs == 9 * 6 * 9 * 12 * 12 * 2


def test_terms_that_cancel_each_other_are_no_decomposition() -> None:
    # The sum of a x a x b over all places of b has rank 3, but sums of two ever larger terms come ever closer.
    a, b = torch.eye(6)[0], torch.eye(6)[1]
    kernel = sum(torch.einsum("o,i,h->oih", *[b if one == place else a for one in range(3)]) for place in range(3))
    module = nn.Conv1d(6, 6, 6, bias=False)
    with torch.no_grad():
        module.weight.copy_(kernel)
    new = layer_of(module, "cp")
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Unstable, match=r"ill conditioned .*; lower the rank"):
        patch.setattr(compress.editing.decomposition.cp, "STEPS", 1000)
        patch.setattr(compress.editing.decomposition.cp, "MOST_TERMS", 2.5)
        new.decomposed((2,), bias=False, seed=0)


def test_energy_is_the_share_of_squared_singular_values() -> None:
    spectrum = np.array([3.0, 2.0, 1.0, 0.0])
    assert [by_energy(spectrum, share) for share in (0.01, 9 / 14, 0.65, 13 / 14, 0.95, 1.0)] == [1, 1, 2, 2, 3, 3]


@pytest.mark.parametrize(("shape", "rank"), [((64, 576), 5), ((64, 576), 20), ((128, 128), 0), ((40, 30), 3)])
@pytest.mark.parametrize("noise", [1e-6, 0.02, 3.0])
def test_variational_bayes_finds_the_rank_under_noise(shape: tuple[int, int], rank: int, noise: float) -> None:
    random = np.random.default_rng(0)
    signal = random.normal(size=(shape[0], rank)) @ random.normal(size=(rank, shape[1])) * noise
    matrix = signal + noise * random.normal(size=shape)
    assert vbmf_rank(np.linalg.svd(matrix, compute_uv=False), shape) == rank


def test_variational_bayes_keeps_all_that_is_exact() -> None:
    random = np.random.default_rng(0)
    matrix = random.normal(size=(30, 4)) @ random.normal(size=(4, 50))
    assert vbmf_rank(np.linalg.svd(matrix, compute_uv=False), matrix.shape) == 4


def test_variational_bayes_finds_little_rank_in_weak_signals() -> None:
    random = np.random.default_rng(0)
    left, right = (np.linalg.qr(random.normal(size=(size, 10)))[0] for size in (100, 200))
    # The largest singular value of noise is about sqrt(100) + sqrt(200) = 24.
    matrix = left @ np.diag([100, 90, 80, 70, 60, 5, 4, 3, 2, 1]) @ right.T + random.normal(size=(100, 200))
    assert vbmf_rank(np.linalg.svd(matrix, compute_uv=False), matrix.shape) == 5


def test_a_trained_network_survives_at_half_its_size(task: Task, thin: tuple[nn.Module, list[str]]) -> None:
    net, notes = thin
    assert 0.4 < macs(net, [task.example.shape]) / macs(task.net, [task.example.shape]) <= 0.5
    assert dice(task, task.net) - dice(task, net) < 0.1
    without = Lowrank(at_least=8, macs=0.5, refit=False)(task.net, task)
    assert dice(task, without) < dice(task, net)
    assert re.match(r"lowrank: \d+ layers decomposed by tucker, with their ranks: encoder\.0\.3 \d+x\d+, ", notes[0])
    assert "lowrank: kept encoder.0.0, head: fewer than 8 input or output channels" in notes


@pytest.mark.parametrize("how", ["svd", *(pytest.param(how, marks=pytest.mark.slow) for how in ("spatial", "cp"))])
def test_the_others_do_too(task: Task, how: Any) -> None:
    net = Lowrank(how=how, at_least=8, macs=0.6)(task.net, task)
    assert macs(net, [task.example.shape]) <= 0.6 * macs(task.net, [task.example.shape])
    assert dice(task, task.net) - dice(task, net) < 0.05


def test_the_target_may_be_parameters(task: Task) -> None:
    net = Lowrank(at_least=8, params=0.4, refit=False)(task.net, task)
    assert 0.3 < parameters(net) / parameters(task.net) <= 0.4


def test_ranks_are_given_or_shares(task: Task) -> None:
    heard, notes = told(task)
    Lowrank(at_least=8, where="decoder.0", rank=3, most_error=1, refit=False)(task.net, heard)
    assert "ranks: decoder.0.0 3x3, decoder.0.3 3x3;" in notes[0]
    heard, notes = told(task)
    Lowrank(at_least=8, where="decoder.0", rank=0.25, most_error=1, refit=False)(task.net, heard)
    assert "ranks: decoder.0.0 4x8, decoder.0.3 4x4;" in notes[0]
    heard, notes = told(task)
    Lowrank(at_least=8, where="decoder.0", energy=0.5, most_error=1, refit=False)(task.net, heard)
    assert notes[0].startswith("lowrank: 2 layers decomposed by tucker")


def test_the_given_network_is_not_changed_and_the_result_is_the_same_twice(task: Task) -> None:
    before = {name: tensor.clone() for name, tensor in task.net.state_dict().items()}
    first, second = (Lowrank(at_least=8, rank=0.5, calibrate=2)(task.net, task).state_dict() for _ in range(2))
    assert all(torch.equal(tensor, second[name]) for name, tensor in first.items())
    assert all(torch.equal(tensor, task.net.state_dict()[name]) for name, tensor in before.items())
    assert first.keys() != before.keys()


def test_it_is_saved_and_loaded_and_exported(task: Task, thin: tuple[nn.Module, list[str]], tmp_path: Path) -> None:
    check_it_travels(thin[0], task.example, tmp_path)


def test_int8_after_it_costs_little(task: Task, thin: tuple[nn.Module, list[str]], quantized: nn.Module) -> None:
    assert dice(task, thin[0]) - dice(task, quantized) < 0.02


def test_two_rules_for_the_ranks_are_refused() -> None:
    with pytest.raises(ValidationError, match="rank and macs are rules for the same ranks; give one of them"):
        Lowrank(rank=4, macs=0.5)
    for wrong in ({"rank": 0}, {"rank": 1.5}, {"energy": 0}, {"macs": 1.0}, {"how": "tt"}):
        with pytest.raises(ValidationError):
            Lowrank(**wrong)  # type: ignore[arg-type]


def test_what_cannot_be_done_is_an_error_with_the_reasons(task: Task, quantized: nn.Module) -> None:
    with pytest.raises(PassError, match=r"macs 0\.01 cannot be reached: with rank 1 in every layer .* would be left"):
        Lowrank(at_least=8, macs=0.01)(task.net, task)
    with pytest.raises(PassError, match=r"no layer was replaced; .*less than 1.3 times fewer multiply-accumulates"):
        Lowrank(at_least=8, rank=1.0)(task.net, task)
    with pytest.raises(PassError, match="where 'decodr' names no layer"):
        Lowrank(where="decodr")(task.net, task)
    with pytest.raises(PassError, match=r"lowrank: there are no calibration cases; .*set refit: false"):
        Lowrank()(task.net, without_calibration(task))
    with pytest.raises(PassError, match="give lowrank before int8"):
        Lowrank()(quantized, task)
    assert (Lowrank().uses, Lowrank(refit=False).uses) == (("calibration",), ())


def test_layers_are_kept_for_their_reasons(describe: Describe) -> None:
    torch.manual_seed(0)
    dead = conv(16, 16)
    nn.init.zeros_(dead.weight)
    net = describe(
        nn.Sequential(
            *(conv(3, 16), conv(16, 16, groups=4), Standardized(16, 16, 3), dead),
            *(nn.ConvTranspose2d(16, 16, 2, stride=2), conv(16, 16), nn.Conv2d(16, 2, 1)),
        )
    )
    notes: list[str] = []
    image = torch.zeros(1, 3, 16, 16)
    new: Any = Lowrank(how="spatial", rank=0.2, refit=False)(net, stand_in(image, notes))
    assert isinstance(new[5], nn.Sequential)
    assert notes[1:] == [
        "lowrank: kept 0, 6: fewer than 16 input or output channels",
        "lowrank: kept 1: a convolution in groups is thin already",
        "lowrank: kept 2: it is a Standardized, which may compute more than a plain layer",
        "lowrank: kept 3: its weights are zero or not finite",
        "lowrank: kept 4: spatial does not decompose a transposed convolution; tucker and svd do",
    ]
    with pytest.MonkeyPatch.context() as patch, pytest.raises(PassError, match="cp is ill conditioned for its kernel"):
        patch.setattr(compress.editing.decomposition.cp, "MOST_TERMS", 0.1)
        Lowrank(how="cp", where="5", rank=3)(net, stand_in(image))
    with pytest.raises(PassError, match="variational Bayes finds only noise in its kernel; give rank"):
        Lowrank(where="5")(net, stand_in(image))
    with pytest.raises(PassError, match=r"its answer to noise would change by more than 0\.2 of its size"):
        Lowrank(where="5", rank=1, most_error=0.2)(net, stand_in(image))


@pytest.mark.parametrize("how", ["tucker", "svd"])
def test_linear_and_transposed_layers_are_fitted_too(describe: Describe, how: Any) -> None:
    torch.manual_seed(0)

    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.linear = nn.Conv2d(3, 32, 1), nn.Linear(32, 64, bias=False)
            self.up, self.head = nn.ConvTranspose2d(64, 32, 2, stride=2), nn.Conv2d(32, 2, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.linear(self.stem(x).permute(0, 2, 3, 1)).relu()
            return self.head(self.up(x.permute(0, 3, 1, 2)))

    net = describe(Mixed())
    image = torch.randn(1, 3, 16, 16)
    answers = {}
    for refit in (False, True):
        new = Lowrank(how=how, rank=0.3, refit=refit)(net, stand_in(image))
        assert [type(part).__name__ for part in new.linear] == ["Linear", "Linear"]  # type: ignore[union-attr]
        with torch.no_grad():
            answers[refit] = float((new(image) - net(image)).norm() / net(image).norm())
    # Colours come as three numbers for each pixel: a fit that has seen them needs no more ranks.
    assert answers[True] < answers[False]


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize(
    "how", ["tucker", *(pytest.param(how, marks=pytest.mark.slow) for how in ("cp", "svd", "spatial"))]
)
def test_every_structure_is_decomposed_or_says_why_not(
    describe: Describe, name: str, how: Any, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    net, image = describe(made(name)), example(name)
    try:
        new = Lowrank(how=how, at_least=4, rank=0.4)(net, stand_in(image))
    except PassError as error:
        assert re.match("lowrank: (no layer was replaced; |the network has no layer)", str(error))
        return
    with torch.no_grad():
        assert new(image).shape == net(image).shape
        assert torch.isfinite(new(image)).all()
    if how == "tucker":
        check_it_travels(new, image, tmp_path, tolerance=1e-3)
