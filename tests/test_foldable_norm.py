"""Norms of each image as batch norms: how close they begin, which cannot be, that nothing of them is left to run."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from shared_fixtures import blob
from structures import example, made
from swaps import ALL, Describe, check_it_travels, describes, dice, stand_in, task_of, told, without_calibration
from torch import Tensor, nn
from zoo import conv

from compress.errors import PassError
from compress.passes.foldable_norm import FoldableNorm
from compress.passes.int8 import Int8
from compress.storage.description import build_net
from compress.task import Task
from compress.train.losses.sum import DiceCrossEntropy
from export.capture import folded_graph

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def task(folder: Path, weights: Path) -> Task:
    return task_of(folder, weights)


@pytest.fixture
def describe(monkeypatch: pytest.MonkeyPatch) -> Describe:
    return describes(monkeypatch)


@pytest.fixture(scope="module", params=["instance", pytest.param("group", marks=pytest.mark.slow)])
def trained(request: pytest.FixtureRequest) -> nn.Module:
    """A two-level U-Net with norms of each image that has learnt the blobs."""
    torch.manual_seed(0)
    net = build_net({"unet": {"classes": 3, "in_channels": 1, "width": 8, "depth": 2, "norm": request.param}})
    train(net, steps=40)
    return net.eval()


def train(net: nn.Module, steps: int) -> None:
    optimizer, lose, rng = torch.optim.Adam(net.parameters(), lr=5e-3), DiceCrossEntropy(), np.random.default_rng(100)
    net.train()
    for _ in range(steps):
        images, masks = zip(*(blob(rng) for _ in range(8)), strict=True)
        image_BCHW = torch.from_numpy(np.stack(images)[:, None].astype(np.float32) / 255 - 0.45) / 0.2
        loss = lose(net(image_BCHW), torch.from_numpy(np.stack(masks)).long())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    net.eval()


def norms(net: nn.Module, kind: Any) -> list[str]:
    return [name for name, module in net.named_modules() if isinstance(module, kind)]


def test_a_trained_network_begins_close_to_what_it_was(task: Task, trained: nn.Module, tmp_path: Path) -> None:
    heard, notes = told(task)
    before = {name: tensor.clone() for name, tensor in trained.state_dict().items()}
    net = FoldableNorm()(trained, heard)
    assert len(norms(net, nn.BatchNorm2d)) == 10
    assert not norms(net, (nn.InstanceNorm2d, nn.GroupNorm))
    assert dice(task, trained) - dice(task, net) < 0.03
    assert all(torch.equal(tensor, trained.state_dict()[name]) for name, tensor in before.items())
    (line,) = notes
    assert line.startswith("foldable_norm: 10 norms are batch norms now (encoder.0.1, encoder.0.4,")
    assert re.search(r"on the 8 calibration cases 9\d\.\d% of the foreground keeps its class", line)
    check_it_travels(net, task.example, tmp_path)
    train(net, steps=5)
    assert dice(task, net) > 0.9, "it trains on as an ordinary network"


def test_nothing_of_a_norm_is_left_to_run_in_int8(task: Task, trained: nn.Module) -> None:
    def operations(graph: Any) -> set[str]:
        return {str(node.target) for node in graph.graph.nodes if "norm" in str(node.target)}

    net = FoldableNorm()(trained, task)
    quantized: Any = Int8()(net, task)
    assert operations(folded_graph(trained, task.example, ()))
    assert not operations(quantized.graph)
    assert dice(task, net) - dice(task, quantized) < 0.03


def test_where_there_is_one_image_the_answer_is_the_same(describe: Describe) -> None:
    torch.manual_seed(0)
    layers = [conv(3, 8), nn.InstanceNorm2d(8), nn.ReLU(), conv(8, 8), nn.InstanceNorm2d(8, affine=True)]
    net = describe(nn.Sequential(*layers, nn.PReLU(), conv(8, 2, 1)))
    nn.init.uniform_(net[4].weight, -1.5, 1.5)
    task = stand_in(torch.zeros(1, 3, 16, 16), cases=1)
    (image,) = (torch.from_numpy(image) for image in task.data.images([0]))
    with torch.no_grad():
        assert torch.allclose(FoldableNorm()(net, task)(image), net(image), atol=1e-4)


@pytest.mark.parametrize("groups", [1, 2, 8])
def test_a_group_norm_has_the_mean_and_deviation_that_it_had(describe: Describe, groups: int) -> None:
    torch.manual_seed(0)
    net = describe(nn.Sequential(conv(3, 8), nn.GroupNorm(groups, 8), conv(8, 2, 1)))
    nn.init.uniform_(net[1].weight, -1.5, 1.5)
    nn.init.normal_(net[1].bias)
    task = stand_in(torch.zeros(1, 3, 16, 16), cases=4)
    images = torch.cat([torch.from_numpy(image) for image in task.data.images(range(4))])
    new = FoldableNorm()(net, task)
    with torch.no_grad():
        ours, theirs = new[:2](images), net[:2](images)
    for wanted, got in ((theirs.mean((0, 2, 3)), ours.mean((0, 2, 3))), (theirs.std((0, 2, 3)), ours.std((0, 2, 3)))):
        assert torch.allclose(wanted, got, atol=1e-2)
    both = torch.stack([ours.flatten(), theirs.flatten()])
    assert torch.corrcoef(both)[0, 1] > 0.99, "a negative scale stays negative"


def test_an_instance_norm_with_running_statistics_is_a_batch_norm_already(describe: Describe) -> None:
    torch.manual_seed(0)
    net = describe(nn.Sequential(conv(3, 8), nn.InstanceNorm2d(8, affine=True, track_running_stats=True)))
    net.train()(torch.randn(4, 3, 16, 16) * 3 + 1)
    new = FoldableNorm()(net.eval(), stand_in(torch.zeros(1, 3, 16, 16)))
    image = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        assert torch.allclose(new(image), net(image), atol=1e-5)


class ChannelsFirst(nn.LayerNorm):
    """Layer norm over the second axis (ConvNeXt in torchvision and timm)."""

    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(
            x.permute(0, 2, 3, 1), self.normalized_shape, self.weight, self.bias, self.eps
        ).permute(0, 3, 1, 2)  # fmt: skip


class Activated(nn.GroupNorm):
    """A norm that does more."""

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(super().forward(x))


class Called(nn.Module):
    def __init__(self, norm: nn.Module, forward: Callable[[Any, Tensor], Tensor]) -> None:
        super().__init__()
        self.stem, self.norm, self.plain, self.head = conv(3, 8), norm, nn.GroupNorm(2, 8), conv(8, 2, 1)
        self.how = forward

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.plain(self.how(self, self.stem(x))))


def test_a_layer_norm_with_its_channels_second_is_replaced(describe: Describe) -> None:
    net = describe(Called(ChannelsFirst(8), lambda net, x: net.norm(x)))
    new = FoldableNorm()(net, stand_in(torch.zeros(1, 3, 16, 16)))
    assert type(new.norm) is nn.BatchNorm2d


@pytest.mark.parametrize(
    ("norm", "forward", "reason"),
    [
        (
            nn.LayerNorm(8),
            lambda net, x: net.norm(x.movedim(1, -1)).movedim(-1, 1),
            "its channels are the last axis, a batch norm's the second",
        ),
        (nn.LayerNorm((8, 16, 16)), lambda net, x: net.norm(x), "it has a weight for each pixel"),
        (Activated(2, 8), lambda net, x: net.norm(x), "it is a Activated, which computes more than a plain norm"),
        (nn.GroupNorm(2, 8), lambda net, x: x, "it is not called"),
        (nn.GroupNorm(2, 8), lambda net, x: net.norm(x) * net.norm.num_groups, "does not run .*'num_groups'"),
        (nn.InstanceNorm2d(8), lambda net, x: net.norm(x[0])[None], "it is called without a batch axis"),
        (
            nn.GroupNorm(2, 8),
            lambda net, x: net.norm(x) + net.norm(x.mean((2, 3)))[..., None, None],
            "it is called on tensors of different kinds",
        ),
    ],
)
def test_a_norm_that_no_batch_norm_can_be_is_kept(
    describe: Describe, norm: nn.Module, forward: Callable[[Any, Tensor], Tensor], reason: str
) -> None:
    net, notes = describe(Called(norm, forward)), list[str]()
    image = torch.randn(1, 3, 16, 16)
    new = FoldableNorm()(net, stand_in(image, notes))
    assert type(new.norm) is type(norm)
    assert type(new.plain) is nn.BatchNorm2d
    assert re.match(f"foldable_norm: kept norm: .*{reason}", notes[1])
    assert new(image).shape == net(image).shape


def test_volumes_and_vectors_have_batch_norms_too(describe: Describe) -> None:
    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.norm = nn.Conv3d(1, 8, 3, padding=1), nn.InstanceNorm3d(8)
            self.gate, self.head = nn.GroupNorm(2, 8), nn.Conv3d(8, 2, 1)

        def forward(self, x: Tensor) -> Tensor:
            x = self.norm(self.stem(x))
            return self.head(x * torch.sigmoid(self.gate(x.amax((2, 3, 4))))[:, :, None, None, None])

    new = FoldableNorm()(describe(Both()), stand_in(torch.zeros(1, 1, 8, 8, 8)))
    assert (type(new.norm), type(new.gate)) == (nn.BatchNorm3d, nn.BatchNorm1d)


def test_what_cannot_be_done_is_an_error(task: Task, trained: nn.Module) -> None:
    with pytest.raises(PassError, match="the network has no layer of a kind that foldable_norm replaces"):
        FoldableNorm()(task.net, task)
    with pytest.raises(PassError, match=r"where 'decodr' names no layer .*; did you mean 'decoder'"):
        FoldableNorm(where="decodr")(trained, task)
    with pytest.raises(PassError, match="foldable_norm: there are no calibration cases"):
        FoldableNorm()(trained, without_calibration(task))
    broken: Any = copy.deepcopy(trained)
    with torch.no_grad():
        broken.encoder[0][0].bias.fill_(float("nan"))
    with pytest.raises(PassError, match=r"what encoder\.0\.1 sees is not finite"):
        FoldableNorm()(broken, task)
    assert FoldableNorm().uses == ("calibration",)
    some = FoldableNorm(where=("decoder", "encoder.*.1"), calibrate=2)(trained, task)
    assert len(norms(some, nn.BatchNorm2d)) == 7


@pytest.mark.parametrize("name", ALL)
def test_every_structure_is_changed_or_says_why_not(describe: Describe, name: str, tmp_path: Path) -> None:
    net, image = describe(made(name)), example(name)
    try:
        new = FoldableNorm()(net, stand_in(image))
    except PassError as error:
        assert re.match("foldable_norm: (no norm was replaced; |the network has no layer)", str(error))
        return
    with torch.no_grad():
        assert new(image).shape == net(image).shape
        assert torch.isfinite(new(image)).all()
    check_it_travels(new, image, tmp_path, tolerance=1e-3)
