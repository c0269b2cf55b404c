"""Every network is of its reference's size, says what input it takes, learns, and is saved and loaded as it was.

The sizes stand in tests/networks/<word>.yaml, with where they are from.
"""

from __future__ import annotations

from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
import torch
from rows import TABLES, WORDS, Row, rows
from torch import Tensor, nn

from compress.measure.macs import macs_of
from compress.networks.foreign.shapes import ShapesAlone
from compress.storage.description import Description, build_net, shape_of
from compress.storage.weights import load_net, save_net
from export.modules import copy_of

pytestmark = pytest.mark.usefixtures("one_thread")


def built(row: Row) -> nn.Module:
    torch.manual_seed(0)
    return build_net(row.network).eval()


def test_every_network_has_sizes_and_a_toy() -> None:
    assert sorted(path.stem for path in TABLES.glob("*.yaml")) == WORDS
    assert {param.values[0].word for param in rows(toy=True)} == set(WORDS)


@pytest.fixture
def sizes_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """On the meta device batch norm and drawing weights are many small operations, and none of them multiplies."""

    def looked(x: Tensor, mean: Tensor | None, *_: object, **__: object) -> Tensor:
        assert mean is None or len(mean) == x.shape[1]
        return x

    monkeypatch.setattr("torch.nn.functional.batch_norm", looked)
    for draw in ("normal_", "uniform_"):
        monkeypatch.setattr(torch.Tensor, draw, lambda self, *_, **__: self)


@pytest.mark.parametrize("row", rows(toy=False))
def test_parameters_and_macs_are_those_of_the_reference(row: Row, sizes_alone: None) -> None:
    assert shape_of(row.network).check_size(row.input) is None
    with torch.device("meta"):
        net = build_net(row.network).eval()
        assert sum(tensor.numel() for tensor in net.parameters()) == row.params
        if row.gmacs is not None:
            with ShapesAlone():
                macs = macs_of(net, row.example(device="meta"))
            assert macs / 1e9 == pytest.approx(row.gmacs, rel=0.01)


@pytest.mark.parametrize(
    "network",
    [
        {"hdense_unet": {"classes": 1, "layers": [1, 1, 1, 1], "growth": 2, "last_width": 4, "dropout": 0.5}},
        {"residual_unet3d": {"classes": 1, "width": 2, "dropout": 0.5}},
        {"thin_unet": {"classes": 1, "width": 4, "depth": 1, "dropout": [0.5, 0.5]}},
        {"unet_v2": {"classes": 1, "encoder": "pvt_v2_b0", "width": 4, "drop_path": 0.5}},
    ],
    ids=lambda network: str(*network),
)
def test_what_is_dropped_in_training_is_as_asked_for(network: dict[str, dict[str, Any]]) -> None:
    ((word, options),) = network.items()
    rate = "drop_path" if word == "unet_v2" else "dropout"
    none = [0.0, 0.0] if word == "thin_unet" else 0.0
    with torch.device("meta"):
        rates = {True: dropped(build_net(network)), False: dropped(build_net({word: {**options, rate: none}}))}
    assert max(rates[True]) == 0.5 and max(rates[False], default=0.0) == 0.0


def dropped(net: nn.Module) -> list[float]:
    """The shares that are dropped: of values or of whole paths."""
    rates = (getattr(module, "p", getattr(module, "drop_prob", None)) for module in net.modules())
    return [rate for rate in rates if isinstance(rate, float)]


@pytest.fixture(scope="module", params=rows(toy=True))
def row(request: pytest.FixtureRequest) -> Row:
    return request.param


@pytest.fixture(scope="module")
def net(row: Row) -> nn.Module:
    """The toy in evaluation mode, which no test changes."""
    return built(row)


def test_it_answers_with_logits_of_the_size_of_its_input(row: Row, net: nn.Module) -> None:
    shape = shape_of(row.network)
    assert shape.dims == len(row.input)
    with torch.no_grad():
        logits = net(row.example(batch=2))
    assert logits.shape == (2, shape.classes, *(row.answer or row.input))
    assert torch.isfinite(logits).all()


def test_a_size_it_does_not_take_is_refused_with_one_that_it_takes(row: Row, net: nn.Module) -> None:
    shape = shape_of(row.network)
    odd = tuple(side + 1 for side in row.input)
    fault = shape.check_size(odd)
    if fault is None:
        with torch.no_grad():
            answer = net(torch.randn(1, shape.in_channels, *odd))
        assert answer.shape[2:] == odd
    else:
        assert "would fit" in fault or "pad to" in fault


def test_a_gradient_reaches_all_that_training_answers_with(row: Row, net: nn.Module) -> None:
    net = copy_of(net).train()
    answers = net(row.example(batch=2))
    answers = answers if isinstance(answers, tuple) else (answers,)
    sum(answer.square().mean() for answer in answers).backward()
    dead = [name for name, tensor in net.named_parameters() if tensor.grad is None]
    assert not [name for name in dead if not any(fnmatch(name, pattern) for pattern in row.dead)]
    assert not [pattern for pattern in row.dead if not any(fnmatch(name, pattern) for name in dead)]
    assert all(torch.isfinite(tensor.grad).all() for tensor in net.parameters() if tensor.grad is not None)


def test_saved_and_loaded_it_is_the_same(row: Row, net: nn.Module, tmp_path: Path) -> None:
    image = row.example()
    save_net(net, Description(network=net.description), tmp_path / "net.safetensors")  # type: ignore[arg-type]
    again = load_net(tmp_path / "net.safetensors")
    with torch.no_grad():
        assert torch.equal(again(image), net(image))
