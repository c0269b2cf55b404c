"""A network that answers otherwise each time is told so, with what draws random numbers or changes."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from compress.networks.foreign.repeatable import draws, of_the_batch, why_otherwise

IMAGE = torch.rand(1, 2, 8, 8, generator=torch.Generator().manual_seed(0))


class Net(nn.Module):
    """A convolution and what is done to its answer."""

    def __init__(self, then: Callable[[Any, torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.conv, self.then, self.calls = nn.Conv2d(2, 2, 1), then, 0
        self.register_buffer("mean", torch.zeros(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.then(self, self.conv(x))


def counts(net: Any, x: torch.Tensor) -> torch.Tensor:
    net.calls += 1
    return x * net.calls


def averages(net: Any, x: torch.Tensor) -> torch.Tensor:
    net.mean.lerp_(x.mean(), 0.1)
    return x + net.mean


class Stays(nn.Dropout):
    """Training for ever (Monte Carlo dropout)."""

    def train(self, mode: bool = True) -> nn.Module:
        return super().train(True)


@pytest.mark.parametrize(
    ("then", "told"),
    [
        (lambda _, x: F.dropout(x, 0.5), "draws random numbers in dropout (test_repeatable.py, line"),
        (lambda _, x: F.dropout2d(x, 0.5), "in dropout2d (test_repeatable.py"),
        (lambda _, x: F.alpha_dropout(x, 0.5, training=True), "in alpha_dropout (test_repeatable.py"),
        (lambda _, x: x + torch.rand_like(x), "in rand_like (test_repeatable.py"),
        (lambda _, x: x + torch.randn(1), "in randn (test_repeatable.py"),
        (lambda _, x: F.gumbel_softmax(x, dim=1), "in gumbel_softmax (test_repeatable.py"),
        (lambda _, x: x * torch.bernoulli(torch.full_like(x, 0.5)), "in bernoulli (test_repeatable.py"),
        (lambda _, x: Stays()(x), "in dropout (test_repeatable.py"),
        (counts, "it changes calls whenever it is called"),
        (averages, "it changes mean whenever it is called"),
        (lambda _, x: x * random.random(), "random numbers that are not torch's"),
    ],
)
def test_what_makes_answers_differ_is_told(then: Any, told: str) -> None:
    why = why_otherwise(Net(then), IMAGE)
    assert why is not None and told in why


@pytest.mark.parametrize(
    "then",
    [lambda net, x: F.dropout(x, 0.5, training=net.training), lambda _, x: F.dropout(x, 0.0), lambda _, x: x],
)
def test_what_answers_the_same_is_let_through(then: Any) -> None:
    assert why_otherwise(Net(then), IMAGE) is None


def test_random_numbers_are_seen_without_values() -> None:
    with torch.device("meta"):
        assert draws(Net(lambda _, x: F.dropout(x, 0.5)), IMAGE.to("meta"))
        assert not draws(Net(lambda net, x: F.dropout(x, 0.5, training=net.training)), IMAGE.to("meta"))


def test_answers_that_depend_on_the_batch_are_noted() -> None:
    images = [IMAGE, 5 * IMAGE]
    bare = nn.Sequential(nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2, track_running_stats=False))
    assert "(1: batch norms without running statistics)" in str(of_the_batch(bare, images))
    assert of_the_batch(nn.Sequential(nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2), nn.InstanceNorm2d(2)), images) is None
    assert of_the_batch(Net(lambda _, x: x.view(1, 2, 8, 8)), images) is None, "it takes one image only"
