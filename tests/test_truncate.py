"""A UNet++ cut to a lower level: the same weights, the answer its head gave before, and a level chosen by score."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image
from pydantic import ValidationError
from torch import Tensor, nn
from zoo import made

from compress.data.folder import Folder
from compress.errors import PassError
from compress.passes.sparsify import Sparsify
from compress.passes.truncate import Truncate
from compress.storage.description import Description, build_net, described
from compress.storage.weights import load_net, save_net
from compress.task import Task
from compress.train import sparsity

UNETPP = {"classes": 3, "in_channels": 1, "width": 4, "level": 3}


pytestmark = pytest.mark.usefixtures("one_thread")


def unetpp(**options: object) -> Any:
    torch.manual_seed(0)
    return build_net({"unetpp": {**UNETPP, **options}}).eval()


def heard() -> Any:
    """A task that only listens."""
    said: list[str] = []
    return SimpleNamespace(note=said.append, said=said)


def answers(net: nn.Module, x: Tensor) -> list[Tensor]:
    """What each head answers, the deepest first: only the network as a whole is put into training."""
    net.training = True
    deep = list(net(x))
    net.training = False
    return deep


X = torch.randn(1, 1, 16, 16, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("level", [1, 2])
def test_the_cut_network_answers_as_its_head_did_before(level: int) -> None:
    net, task = unetpp(), heard()
    cut = Truncate(level=level)(net, task)
    assert torch.equal(cut(X), answers(net, X)[3 - level])
    assert cut.description == {"unetpp": {**UNETPP, "level": level}}
    assert len(answers(cut, X)) == level
    before, after = (sum(weight.numel() for weight in part.parameters()) for part in (net, cut))
    assert task.said == [f"truncate: cut from L3 to L{level}: {before:,} -> {after:,} parameters"]


def test_the_given_network_is_not_changed() -> None:
    net = unetpp()
    Truncate(level=1)(net, heard())
    assert net.level == 3 and net.description == {"unetpp": UNETPP} and len(net.heads) == 3


def test_a_cut_network_is_saved_and_loaded(tmp_path: Path) -> None:
    cut = Truncate(level=2)(unetpp(), heard())
    save_net(cut, Description(network=cut.description), tmp_path / "net.safetensors")  # type: ignore[arg-type]
    assert torch.equal(load_net(tmp_path / "net.safetensors").eval()(X), cut(X))


def test_a_network_whose_layers_changed_before_is_cut_with_its_changes(tmp_path: Path) -> None:
    net = unetpp()
    # Half of the channels inside X(0, 0) and inside X(0, 3), as pruning takes them out.
    for name in ("0_0", "0_3"):
        first, norm, _, second = net.nodes[name][:4]
        for layer in (first, norm):
            layer.weight, layer.bias = (nn.Parameter(tensor.detach()[:2]) for tensor in (layer.weight, layer.bias))
        norm.running_mean, norm.running_var = norm.running_mean[:2], norm.running_var[:2]
        first.out_channels = norm.num_features = second.in_channels = 2
        second.weight = nn.Parameter(second.weight.detach()[:, :2])
    net.nodes["1_0"][0] = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1, groups=4), nn.Conv2d(4, 8, 1))
    net = described(net).eval()
    cut = Truncate(level=2)(net, heard())
    assert torch.equal(cut(X), answers(net, X)[1])
    begun, layers = cut.description["changed"]["net"], cut.description["changed"]["layers"]  # type: ignore[index]
    assert begun == {"unetpp": {**UNETPP, "level": 2}}
    assert {name.split(".")[1] for name in layers} == {"0_0", "1_0"}
    save_net(cut, Description(network=cut.description), tmp_path / "net.safetensors")  # type: ignore[arg-type]
    assert torch.equal(load_net(tmp_path / "net.safetensors").eval()(X), cut(X))


def test_what_was_sparse_stays_sparse() -> None:
    thin = Sparsify(pattern="unstructured", ratio=0.5)(unetpp(), heard())
    cut = Truncate(level=1)(thin, heard())
    assert sparsity.masks(cut).keys() == {name for name in sparsity.masks(thin) if name in cut.state_dict()}
    assert len(sparsity.masks(build_net(cut.description))) == len(sparsity.masks(cut)) == 8  # type: ignore[arg-type]


def test_a_network_can_be_cut_twice() -> None:
    net = unetpp()
    twice = Truncate(level=1)(Truncate(level=2)(net, heard()), heard())
    assert torch.equal(twice(X), answers(net, X)[2])


def test_the_level_it_has_cuts_nothing_and_says_so() -> None:
    task = heard()
    net = unetpp()
    assert torch.equal(Truncate(level=3)(net, task)(X), net(X))
    assert task.said == ["truncate: nothing was cut: the network stays L3"]


# --- what it refuses ---


def test_a_network_that_is_not_nested_is_refused() -> None:
    with pytest.raises(PassError, match=r"^truncate: a UNetModule is not nested: only a unetpp network"):
        Truncate(level=1)(made("unet of one class"), heard())


def test_a_level_without_a_head_is_refused() -> None:
    with pytest.raises(PassError, match=r"^truncate: there is no trained head at level 2: .*without deep_supervision"):
        Truncate(level=2)(unetpp(deep_supervision=False), heard())


def test_a_level_above_the_network_is_refused() -> None:
    with pytest.raises(PassError, match=r"^truncate: level 4 is more than the network has: it is L3$"):
        Truncate(level=4)(unetpp(), heard())


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({}, "level"),
        ({"level": 0}, "a whole number from 1 to 8, or the word auto"),
        ({"level": True}, "a whole number from 1 to 8, or the word auto"),
        ({"level": "all"}, "a whole number from 1 to 8, or the word auto"),
        ({"level": "auto"}, "needs max_drop"),
        ({"level": 2, "max_drop": 0.01}, "max_drop goes with level: auto"),
        ({"level": "auto", "max_drop": -0.1}, "greater than or equal to 0"),
    ],
)
def test_options_that_do_not_go_together_are_refused(options: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        Truncate(**options)


# --- auto ---


@pytest.fixture
def task(folder: Path) -> Any:
    data = Folder(root=folder, size=(32, 32))(channels=1, classes=3)
    task = Task(data=data, net=unetpp(), seed=0)
    said: list[str] = []
    object.__setattr__(task, "note", said.append)
    object.__setattr__(task, "said", said)
    return task


def knowing(*levels: int) -> nn.Module:
    """A network whose heads at these levels know the bright squares by their brightness; the others know nothing."""
    net = unetpp(norm="none")
    for weight in net.parameters():
        nn.init.zeros_(weight)
    with torch.no_grad():
        for name, node in net.nodes.items():
            if name.startswith("0_"):
                node[0].weight[0, 0, 1, 1] = node[2].weight[0, 0, 1, 1] = 1
        for level in levels:
            net.heads[str(level)].weight[1, 0] = 1
            net.heads[str(level)].bias[1] = -0.6
    return net


@pytest.mark.parametrize(("known", "chosen"), [((1, 2, 3), 1), ((2, 3), 2), ((3,), 3)])
def test_the_lowest_level_within_the_drop_is_taken(known: tuple[int, ...], chosen: int, task: Any) -> None:
    cut = Truncate(level="auto", max_drop=0.01)(knowing(*known), task)
    assert cut.level == chosen
    assert task.said[0].endswith(f": L{chosen} is the lowest level within 0.01")
    assert task.said[0].startswith("truncate: validation Dice L1 0.") and ", L3 0.5000:" in task.said[0]
    assert ("nothing was cut" in task.said[1]) == (chosen == 3)


def test_a_wide_drop_takes_the_lowest_level(task: Any) -> None:
    assert Truncate(level="auto", max_drop=0.9)(knowing(3), task).level == 1


def test_auto_looks_at_validation_cases_and_needs_some(task: Any) -> None:
    assert Truncate(level="auto", max_drop=0.1).uses == ("val",) and Truncate(level=1).uses == ()
    task.data.cases["val"].clear()
    with pytest.raises(PassError, match=r"^truncate: there are no validation cases to choose a level by"):
        Truncate(level="auto", max_drop=0.1)(unetpp(), task)


def test_auto_needs_foreground_to_score(task: Any, tmp_path: Path) -> None:
    Image.new("L", (32, 32)).save(tmp_path / "empty.png")
    for case in task.data.cases["val"]:
        object.__setattr__(case, "mask", tmp_path / "empty.png")
    with pytest.raises(PassError, match=r"^truncate: L3 has no validation Dice: no validation case has any foreground"):
        Truncate(level="auto", max_drop=0.1)(knowing(), task)


def test_auto_without_deep_supervision_is_refused(task: Any) -> None:
    with pytest.raises(PassError, match="no trained head at level 1"):
        Truncate(level="auto", max_drop=0.1)(unetpp(deep_supervision=False), task)
