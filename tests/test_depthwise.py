"""Convolutions as depthwise and 1x1 ones: what is recovered exactly, what is kept and why, what comes after."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from structures import example, made
from swaps import ALL, Describe, check_it_travels, describes, dice, stand_in, task_of, told, without_calibration
from torch import Tensor, nn
from zoo import Shared, Standardized, Tied, conv

from compress.editing.activations import agreement
from compress.editing.decomposition.separation import separated
from compress.editing.layer_replacement import macs
from compress.errors import PassError
from compress.passes.depthwise import Depthwise
from compress.passes.int8 import Int8
from compress.task import Task

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def task(folder: Path, weights: Path) -> Task:
    return task_of(folder, weights)


@pytest.fixture(scope="module")
def separate(task: Task) -> tuple[nn.Module, list[str]]:
    """The small trained U-Net with two filters a channel, and what the pass said."""
    heard, notes = told(task)
    return Depthwise(at_least=8, rank=2)(task.net, heard), notes


@pytest.fixture(scope="module")
def quantized(task: Task, separate: tuple[nn.Module, list[str]]) -> nn.Module:
    return Int8()(separate[0], task)


@pytest.fixture
def describe(monkeypatch: pytest.MonkeyPatch) -> Describe:
    return describes(monkeypatch)


def low_rank(layer: Any, rank: int) -> Any:
    """The layer with a kernel that is this many depthwise filters for each input channel, mixed."""
    torch.manual_seed(0)
    filters = torch.randn(rank, 1, layer.in_channels, *layer.kernel_size)
    mixed = torch.randn(rank, layer.out_channels, layer.in_channels, *[1] * len(layer.kernel_size))
    with torch.no_grad():
        layer.weight.copy_((filters * mixed).sum(0) / 10)
    return layer


@pytest.mark.parametrize(
    ("layer", "rank"),
    [
        (nn.Conv2d(6, 9, 3, padding=1), 1),
        (nn.Conv2d(6, 9, 3, padding=1), 3),
        (nn.Conv2d(6, 9, (5, 3), stride=(2, 1), padding=(4, 1), dilation=(2, 1), bias=False), 2),
        (nn.Conv2d(6, 9, 3, padding="same", dilation=2, padding_mode="reflect"), 1),
        (nn.Conv3d(6, 9, (3, 3, 2), stride=(1, 2, 2), padding=(1, 1, 0)), 2),
        (nn.Conv1d(6, 9, 7, padding=3, padding_mode="circular"), 1),
    ],
    ids=str,
)
def test_a_kernel_that_is_separable_is_recovered(layer: Any, rank: int) -> None:
    low_rank(layer, rank)
    image = torch.randn(2, 6, *[12] * len(layer.kernel_size))
    new = separated(layer, rank, bias=layer.bias is not None)
    with torch.no_grad():
        assert torch.allclose(new(image), layer(image), atol=1e-4)
    assert (new[1].bias is None) == (layer.bias is None)  # type: ignore[union-attr]


def test_the_error_is_that_of_the_singular_values_left_out() -> None:
    layer = conv(4, 8, bias=False)
    new: Any = separated(layer, 2, bias=False)
    filters = torch.stack([layer.weight[:, 0] for layer in new[0]])
    kernel = torch.einsum("ori,rihw->oihw", new[1].weight.view(8, 2, 4), filters)
    left_out = torch.linalg.svdvals(layer.weight.flatten(2).transpose(0, 1))[:, 2:]
    assert torch.allclose((kernel - layer.weight).norm(), left_out.norm(), rtol=1e-4)


def test_a_trained_network_survives_the_separation(task: Task, separate: tuple[nn.Module, list[str]]) -> None:
    net, notes = separate
    assert dice(task, task.net) - dice(task, net) < 0.02
    assert dice(task, Depthwise(at_least=8, rank=2, refit=False)(task.net, task)) < dice(task, net)
    assert macs(net, [task.example.shape]) < 0.5 * macs(task.net, [task.example.shape])
    assert notes[0].startswith("depthwise: 9 layers replaced (encoder.0.3, encoder.1.0,")
    assert "of the foreground keeps its class" in notes[1]
    assert notes[2:] == [
        "depthwise: kept encoder.0.0: fewer than 8 input or output channels",
        "depthwise: kept up.0, up.1: a transposed convolution has no such separation",
        "depthwise: kept head: its kernel has one position: there is nothing to separate",
    ]


def test_the_given_network_is_not_changed_and_the_result_is_the_same_twice(task: Task) -> None:
    before = {name: tensor.clone() for name, tensor in task.net.state_dict().items()}
    first, second = (Depthwise(at_least=8, calibrate=2)(task.net, task) for _ in range(2))
    after = task.net.state_dict()
    assert before.keys() == after.keys() != first.state_dict().keys()
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())
    assert all(torch.equal(tensor, second.state_dict()[name]) for name, tensor in first.state_dict().items())
    assert not first.training


def test_it_is_saved_and_loaded_and_exported(task: Task, separate: tuple[nn.Module, list[str]], tmp_path: Path) -> None:
    check_it_travels(separate[0], task.example, tmp_path)


def test_int8_after_it_costs_little(task: Task, separate: tuple[nn.Module, list[str]], quantized: nn.Module) -> None:
    assert dice(task, separate[0]) - dice(task, quantized) < 0.02


def test_what_lies_between_the_two_is_of_one_size(task: Task, separate: tuple[nn.Module, list[str]]) -> None:
    seen: list[Tensor] = []
    deep: Any = separate[0].get_submodule("decoder.1.3.0")
    handle = deep.register_forward_hook(lambda _, __, out: seen.append(out))
    with torch.no_grad():
        for image in task.data.images(task.data.cases["calibration"]):
            separate[0](torch.from_numpy(image))
    handle.remove()
    sizes = torch.cat(seen).square().mean((0, 2, 3)).sqrt()
    assert sizes.max() < 1.01
    assert (sizes > 0.99).sum() >= len(sizes) - 4, "all but dead channels"


def test_where_names_modules_patterns_and_layers(task: Task) -> None:
    heard, notes = told(task)
    net = Depthwise(at_least=8, where=("decoder", "encoder.*.3"), calibrate=1)(task.net, heard)
    changed = [name for name, module in net.named_modules() if name.count(".") == 2 and type(module) is nn.Sequential]
    assert changed == [
        *("encoder.0.3", "encoder.1.3", "encoder.2.3"),
        *("decoder.0.0", "decoder.0.3", "decoder.1.0", "decoder.1.3"),
    ]
    assert "encoder.1.0" not in " ".join(notes)


def test_a_name_that_is_no_layer_is_an_error(task: Task) -> None:
    with pytest.raises(PassError, match=r"where 'decodr' names no layer .*; did you mean 'decoder'?"):
        Depthwise(where="decodr")(task.net, task)


def test_nothing_to_do_is_an_error_with_the_reasons(task: Task) -> None:
    with pytest.raises(PassError, match=r"no layer was replaced; .*and 6 more: fewer than 64 input or output channels"):
        Depthwise(at_least=64)(task.net, task)
    with pytest.raises(PassError, match="rank 9 is all that a kernel of 9 positions has"):
        Depthwise(at_least=8, rank=9)(task.net, task)
    with pytest.raises(PassError, match="rank 5 leaves it with less than 2 times fewer multiply-accumulates"):
        Depthwise(at_least=8, rank=5)(task.net, task)


def test_calibration_cases_are_asked_for_only_where_they_are_used(task: Task) -> None:
    none = without_calibration(task)
    with pytest.raises(PassError, match=r"depthwise: there are no calibration cases; .*or set refit: false"):
        Depthwise(at_least=8)(task.net, none)
    with pytest.raises(PassError, match="calibrate is 9, but the data sets only 8 cases aside"):
        Depthwise(at_least=8, calibrate=9)(task.net, task)
    assert Depthwise().uses == ("calibration",)
    assert Depthwise(refit=False).uses == ()
    Depthwise(at_least=8, refit=False)(task.net, none)


def test_after_int8_it_is_too_late(task: Task, quantized: nn.Module) -> None:
    with pytest.raises(PassError, match="give depthwise before int8"):
        Depthwise()(quantized, task)


class Wrapped(nn.Module):
    """A convolution that something else also reads."""

    def __init__(self, layer: nn.Module, forward: Callable[[Any, Tensor], Tensor]) -> None:
        super().__init__()
        self.stem, self.layer, self.plain = conv(3, 16, 1), layer, conv(16, 16)
        self.how = forward

    def forward(self, x: Tensor) -> Tensor:
        return self.plain(self.how(self, self.stem(x)))


@pytest.mark.parametrize(
    ("layer", "forward", "reason"),
    [
        (conv(16, 16), lambda net, x: net.layer(x) * net.layer.weight.mean(), "does not run .*'weight'"),
        (conv(16, 16), lambda net, x: nn.functional.conv2d(x, net.layer.weight, padding=1), "it is not called"),
        (
            conv(16, 16),
            lambda net, x: net.layer(x) if isinstance(net.layer, nn.Conv2d) else x,
            "runs otherwise with another layer",
        ),
        (Standardized(16, 16, 3), lambda net, x: net.layer(x), "it is a Standardized"),
        (
            nn.utils.parametrizations.weight_norm(conv(16, 16)),
            lambda net, x: net.layer(x),
            "it is a ParametrizedConv2d",
        ),
        (conv(16, 16, groups=4), lambda net, x: net.layer(x), "a convolution in groups is thin already"),
        (Tied(), lambda net, x: net.layer(x), "does not run"),
    ],
)
def test_a_layer_that_is_more_than_its_call_is_kept(
    describe: Describe,
    layer: nn.Module,
    forward: Callable[[Any, Tensor], Tensor],
    reason: str,
) -> None:
    net, notes = describe(Wrapped(layer, forward)), list[str]()
    image = torch.randn(1, 3, 32, 32)
    new: Any = Depthwise()(net, stand_in(image, notes))
    assert isinstance(new.plain, nn.Sequential)
    assert type(new.layer) is type(layer)
    (line,) = (line for line in notes if line.startswith("depthwise: kept layer"))
    assert re.search(reason, line), line
    assert new(image).shape == net(image).shape


def test_a_layer_called_twice_is_replaced_once_and_a_layer_with_two_names_under_both(
    describe: Describe,
) -> None:
    net = describe(Shared())
    image = torch.randn(1, 16, 16, 16)
    new = Depthwise()(net, stand_in(image))
    assert isinstance(new.conv, nn.Sequential)
    assert new(image).shape == net(image).shape

    one = conv(16, 16)
    net = describe(nn.Sequential(conv(3, 16, 1), one, nn.ReLU(), one))
    layers: Any = Depthwise(where="3")(net, stand_in(torch.randn(1, 3, 32, 32)))
    assert layers[1] is layers[3]
    assert isinstance(layers[1], nn.Sequential)


def test_agreement_is_that_of_the_foreground() -> None:
    class Constant(nn.Module):
        def __init__(self, labels: list[int]) -> None:
            super().__init__()
            self.logits = torch.nn.functional.one_hot(torch.tensor([[labels]]), 3).permute(0, 3, 1, 2).float()

        def forward(self, x: Tensor) -> Tensor:
            return self.logits

    first, second, none = Constant([0, 0, 0, 1, 2, 2]), Constant([0, 0, 1, 1, 1, 2]), Constant([0] * 6)
    assert agreement(first, second, [torch.zeros(1)]) == 2 / 4
    assert agreement(first, none, [torch.zeros(1)]) == 0
    assert agreement(none, none, [torch.zeros(1)]) == 1


def test_answers_that_are_not_finite_are_an_error(task: Task) -> None:
    net: Any = copy.deepcopy(task.net)
    with torch.no_grad():
        net.encoder[0][1].bias.fill_(float("inf"))
    with pytest.raises(PassError, match="is not finite on the calibration cases; check the weights"):
        Depthwise(at_least=8)(net, task)


def test_a_layer_with_weights_that_are_not_finite_is_kept(task: Task) -> None:
    net: Any = copy.deepcopy(task.net)
    with torch.no_grad():
        net.decoder[1][3].weight[0] = float("nan")
    heard, notes = told(task)
    Depthwise(at_least=8, refit=False)(net, heard)
    assert "depthwise: kept decoder.1.3: its weights are not finite" in notes


@pytest.mark.parametrize("name", ALL)
def test_every_structure_is_replaced_or_says_why_not(describe: Describe, name: str, tmp_path: Path) -> None:
    net, image = describe(made(name)), example(name)
    try:
        new = Depthwise(at_least=4, rank=2)(net, stand_in(image))
    except PassError as error:
        assert re.match("depthwise: (no layer was replaced; |the network has no layer)", str(error))
        return
    with torch.no_grad():
        assert new(image).shape == net(image).shape
        assert torch.isfinite(new(image)).all()
    check_it_travels(new, image, tmp_path, tolerance=1e-3)
