"""Blocks that begin as the trained layers of their stretch: fewer channels, thin layers in the place of each."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from structures import example, made
from swaps import SMALL_SMP, check_it_travels, task_of
from torch import Tensor, nn

from compress.editing.blocks.candidates import Candidate, candidates, kinds
from compress.editing.blocks.choice import changed
from compress.editing.blocks.fitting import begin, mend
from compress.editing.blocks.seen import Error, seen_at
from compress.editing.blocks.stretches import Stretch, stretches
from compress.editing.layer_replacement import SkippedSites
from compress.measure.macs import macs_of
from compress.storage.description import build_net, described
from compress.task import Task

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def task(folder: Path, weights: Path) -> Task:
    return task_of(folder, weights)


def found_in(net: nn.Module, image: Tensor) -> dict[str, Stretch]:
    torch.manual_seed(0)
    found = stretches(net.eval(), torch.randn(image.shape), SkippedSites(word="blocks"))
    return {each.name: each for each in found}


def begun(net: nn.Module, stretch: Stretch, step: Any, images: list[Tensor]) -> Candidate:
    """A block fitted to what its stretch answers for these images."""
    seen = [seen_at(net, stretch, image) for image in images]
    (block,) = candidates(stretch, kinds([step]), 0, lambda: [each.into for each in seen])
    begin(block, seen)
    return block


def off(net: nn.Module, block: Candidate, image: Tensor) -> float:
    """The error of a block on one image."""
    seen, error = seen_at(net, block.stretch, image), Error()
    with torch.no_grad():
        error.add(block.block(seen.into), seen.out)
    return error.share()


def noise(shape: tuple[int, ...], count: int = 3) -> list[Tensor]:
    return [torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in range(count)]


class Doubled(nn.Module):
    """Two convolutions, the channels between which, or the kernels of which, say less than they could."""

    def __init__(self, what: str, dims: int = 2) -> None:
        super().__init__()
        conv, norm = (nn.Conv2d, nn.BatchNorm2d) if dims == 2 else (nn.Conv3d, nn.BatchNorm3d)
        self.stem, self.head = conv(1, 16, 1), nn.Sequential(conv(16, 16, 3, padding=1), conv(16, 2, 1))
        self.body = nn.Sequential(
            conv(16, 16, 3, padding=1), norm(16), nn.ReLU(), conv(16, 16, 3, padding=1, bias=False), norm(16), nn.ReLU()
        )
        with torch.no_grad():
            for layer in (self.body[0], self.body[3]):
                layer.weight.copy_(SIMPLE[what](layer.weight))
            if what == "copied channels":
                self.body[0].bias[8:] = self.body[0].bias[:8]

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(self.stem(x)))


def copied_channels(weight: Tensor) -> Tensor:
    """The second half of the outputs as the first."""
    return torch.cat([weight[:8], weight[:8]])


def one_filter(weight: Tensor) -> Tensor:
    """Of one spatial filter for each input channel."""
    return weight[:, :, :1, :1, ...] * torch.randn(1, *weight.shape[1:], generator=torch.Generator().manual_seed(0))


def few_ranks(weight: Tensor) -> Tensor:
    """A quarter of the ranks over the input and over the output channels."""
    mix = torch.randn(16, 4, generator=torch.Generator().manual_seed(0))
    return torch.einsum("oa,ib,ab...->oi...", mix, mix, weight[:4, :4])


SIMPLE = {"copied channels": copied_channels, "one filter": one_filter, "few ranks": few_ranks}
BEGINNINGS = [
    pytest.param("copied channels", {"narrow": {"share": 0.5}}, 2, id="narrow"),
    pytest.param("copied channels", {"narrow": {"share": 0.5}}, 3, id="narrow in volumes"),
    pytest.param("one filter", {"depthwise_separable": {}}, 2, id="separated"),
    pytest.param("few ranks", {"lowrank": {"rank": 0.25}}, 2, id="tucker"),
    pytest.param("few ranks", {"lowrank": {"how": "svd", "rank": 0.25}}, 2, id="svd"),
]


@pytest.mark.parametrize(("what", "step", "dims"), BEGINNINGS)
def test_what_trained_layers_do_not_need_is_left_out_without_a_loss(what: str, step: Any, dims: int) -> None:
    torch.manual_seed(1)
    net = Doubled(what, dims).eval()
    shape = (1, 1, *[8] * dims)
    stretch = found_in(net, torch.zeros(shape))["body"]
    block = begun(net, stretch, step, noise(shape))
    assert block.macs < 0.7 * stretch.macs and block.params < 0.7 * stretch.params
    assert off(net, block, noise(shape, 4)[3]) < 1e-3


NETWORKS: dict[str, tuple[Any, tuple[int, ...], str]] = {
    "smp": (
        SMALL_SMP,
        (1, 1, 32, 32),
        "encoder.layer1",
    ),
    "MONAI": (
        {
            "monai": {
                "arch": "UNet",
                "in_channels": 1,
                "classes": 2,
                "options": {"spatial_dims": 2, "channels": [16, 16, 16], "strides": [2, 2], "num_res_units": 2},
            }
        },
        (1, 1, 16, 16),
        "model.1",
    ),
}


@pytest.mark.parametrize("name", [pytest.param("smp", marks=pytest.mark.slow), "MONAI"])
def test_stages_of_others_networks_become_narrower_with_all_that_is_in_them(name: str, tmp_path: Path) -> None:
    """Residual blocks in a row; half of a U-Net with its skip, the widths of which shrink where they are inside."""
    network, shape, stage = NETWORKS[name]
    torch.manual_seed(0)
    net = build_net(network).eval()
    stretch = found_in(net, torch.zeros(shape))[stage]
    block = begun(net, stretch, {"narrow": {"share": 0.5}}, noise(shape, 2))
    assert block.macs < 0.75 * stretch.macs
    smaller, _ = changed(net, [block])
    check_it_travels(described(smaller), torch.zeros(shape), tmp_path, 1e-3)


@pytest.mark.parametrize("step", [{"narrow": {"share": 0.5}}, "depthwise_separable", {"lowrank": {"rank": 0.3}}])
def test_begun_from_trained_layers_a_block_is_nearer_than_a_fresh_one(step: Any, task: Task) -> None:
    images = [torch.from_numpy(each) for each in task.probes(most=4)]
    stretch = found_in(task.net, task.example)["encoder.2"]
    block = begun(task.net, stretch, step if isinstance(step, dict) else {step: {}}, images[:3])
    fresh = begun(task.net, stretch, {"inverted_residual": {"expand": 1}}, images[:3])
    assert off(task.net, block, images[3]) < 0.5 * off(task.net, fresh, images[3])


def test_convolutions_in_a_row_become_thin_each_in_its_own_place(task: Task, tmp_path: Path) -> None:
    """What stands in the place of several modules is described, and mended, by their names."""
    net: Any = copy.deepcopy(task.net)
    images = [torch.from_numpy(each) for each in task.probes(most=4)]
    found = found_in(net, task.example)
    row = found["decoder.0.3 to decoder.0.5"]
    blocks = [
        begun(net, row, {"depthwise_separable": {}}, images),
        begun(net, found["encoder.2"], {"narrow": {"share": 0.5}}, images),
        begun(net, found["decoder.1"], {"pointwise": {}}, images),
    ]
    smaller, copies = changed(net, blocks)
    assert type(smaller.get_submodule("decoder.0.3")) is nn.Sequential
    assert type(smaller.get_submodule("decoder.0.4")) is nn.BatchNorm2d
    assert macs_of(smaller, task.example) == macs_of(net, task.example) - sum(
        each.stretch.macs - each.macs for each in blocks
    )
    before = distance(smaller, net, images)
    mend(smaller, copies, net, images)
    assert distance(smaller, net, images) < 0.9 * before
    check_it_travels(described(smaller), task.example, tmp_path, 1e-3)


def distance(net: nn.Module, other: nn.Module, images: list[Tensor]) -> float:
    error = Error()
    with torch.no_grad():
        for image in images:
            error.add(net(image), other(image))
    return error.share()


def test_a_fresh_block_begins_as_far_as_it_can_with_trained_layers(task: Task) -> None:
    """At half the size, with the first convolution of the stretch."""
    images = [torch.from_numpy(each) for each in task.probes(most=4)]
    stretch = found_in(task.net, task.example)["encoder.1"]
    block = begun(task.net, stretch, {"zoomed": {}}, images[:3])
    first: Any = block.block.get_submodule("0")
    own: Any = task.net.get_submodule("encoder.1.0")
    assert torch.equal(first.weight, own.weight) and first.stride == (2, 2)
    half = begun(task.net, stretch, {"zoomed": {"share": 0.5}}, images[:3])
    assert off(task.net, block, images[3]) < off(task.net, half, images[3])


def test_what_has_no_channels_between_is_not_narrowed() -> None:
    net = nn.Sequential(made("residual"), nn.Conv2d(2, 2, 1)).eval()
    for stretch in found_in(net, example("residual")).values():
        narrow = candidates(stretch, kinds([{"narrow": {"share": 0.5}}]), 0, lambda s=stretch: [torch.randn(s.into)])
        assert bool(narrow) == (len(stretch.convs) > 1), stretch.name
