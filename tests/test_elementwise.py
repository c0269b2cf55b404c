"""Channels go through every elementwise operation: a network pruned before it is the original without them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compress.editing.pruning.removal import Cut, without
from compress.editing.pruning.trial import prunable, trial_of
from compress.errors import ExportError

IMAGE = torch.randn(1, 2, 6, 6, generator=torch.Generator().manual_seed(0))
WEIGHT = torch.rand(8, generator=torch.Generator().manual_seed(1))
ELEMENTWISE: dict[str, Callable[[Tensor], Tensor]] = {
    "hardswish": F.hardswish,
    "hardsigmoid": F.hardsigmoid,
    "hardtanh": F.hardtanh,
    "relu6": F.relu6,
    "logsigmoid": F.logsigmoid,
    "softplus": F.softplus,
    "softsign": F.softsign,
    "softshrink": F.softshrink,
    "hardshrink": F.hardshrink,
    "tanhshrink": F.tanhshrink,
    "threshold": lambda x: F.threshold(x, 0.1, 0.2),
    "mish": F.mish,
    "celu": F.celu,
    "selu": F.selu,
    "rrelu": F.rrelu,
    "gelu tanh": lambda x: F.gelu(x, approximate="tanh"),
    "where scalar": lambda x: torch.where(x > 0, x, 0.1),
    "where scalar first": lambda x: torch.where(x > 0, 0.1, x),
    "where scalars": lambda x: torch.where(x > 0, 0.1, 0.3),
    "where tensors": lambda x: torch.where(x > 0, x, x * 0.1),
    "masked_fill": lambda x: x.masked_fill(x < 0, 0.3),
    "masked_fill tensor": lambda x: x.masked_fill(x < 0, torch.tensor(0.3)),
    "clamp": lambda x: x.clamp(-0.3, 0.4),
    "clamp tensors": lambda x: torch.clamp(x, torch.tensor(-0.3), x.abs()),
    "rsqrt": lambda x: torch.rsqrt(x.abs() + 1),
    "rsub": lambda x: 1 - x,
    "rsub tensor": lambda x: torch.rsub(x, x.abs()),
    "lerp": lambda x: torch.lerp(x, x.abs(), 0.3),
    "addcmul": lambda x: torch.addcmul(x, x, x, value=0.5),
    "addcdiv": lambda x: torch.addcdiv(x, x, x.abs() + 1),
    "nan_to_num": lambda x: torch.nan_to_num(x.log()),
    "logit": lambda x: torch.logit(x, eps=1e-3),
    "expit": torch.special.expit,
    "floor_divide": lambda x: torch.floor_divide(x, 0.25),
    "true_divide": lambda x: torch.true_divide(x, 3),
    "float_power": lambda x: x.abs().pow(1.5),
    "xlogy": lambda x: torch.xlogy(x, x.abs() + 1),
    "logaddexp": lambda x: torch.logaddexp(x, x * 2),
    "heaviside": lambda x: x * torch.heaviside(x, torch.tensor(1.0)),
    "copysign": lambda x: torch.copysign(x, x.flip(-1)),
    "ldexp": lambda x: torch.ldexp(x, torch.tensor(1)),
    "sinc": torch.sinc,
    "hardswish in place": lambda x: F.hardswish(x.clone(), inplace=True),
    "masked_fill in place": lambda x: x.clone().masked_fill_(x < 0, 0.3),
}


class Net(nn.Module):
    """A convolution, an operation, and a convolution over what it gives."""

    def __init__(self, then: Callable[[Tensor], Tensor] | nn.Module, made: int = 8, left: int = 8) -> None:
        super().__init__()
        self.first, self.then, self.last = nn.Conv2d(2, made, 3, padding=1), then, nn.Conv2d(left, 2, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.then(self.first(x)))


def cut(net: nn.Module, units: tuple[int, ...]) -> nn.Module:
    """The network without these channels, made by its first layer."""
    bundles, _ = prunable(trial_of(net, IMAGE))
    (bundle,) = (one for one in bundles if one.group.layers == ("first",))
    assert bundle.group.prunable, bundle.group.reason
    return without(net, [Cut(bundle=bundle, units=units)])


@torch.no_grad()
def same(net: Net, units: tuple[int, ...]) -> None:
    """Without these channels it answers what it answered with them not read."""
    smaller = cut(net, units)
    net.last.weight[:, list(units)] = 0
    torch.testing.assert_close(smaller(IMAGE), net(IMAGE), rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_an_elementwise_operation_leaves_channels_what_they_are(name: str) -> None:
    torch.manual_seed(0)
    net = Net(ELEMENTWISE[name]).eval()
    same(net, (0, 3, 4))
    assert not torch.equal(net(IMAGE), net(IMAGE + 1)), "the operation passes something on"


def test_prelu_loses_its_own_weights_of_channels_that_go() -> None:
    torch.manual_seed(0)
    prelu = nn.PReLU(8)
    prelu.weight.data = WEIGHT.clone()
    same(Net(prelu), (1, 6))


@pytest.mark.parametrize("of", [lambda x: F.glu(x, 1), nn.GLU(1), lambda x: F.glu(x, -3)])
def test_the_two_channels_of_a_gate_go_together(of: Callable[[Tensor], Tensor]) -> None:
    torch.manual_seed(0)
    net = Net(of, made=8, left=4).eval()
    smaller = cut(net, (0, 2))
    assert smaller.first.out_channels == 4 and smaller.last.in_channels == 2
    same(net, (0, 2))


def test_a_gate_along_rows_has_nothing_to_do_with_channels() -> None:
    torch.manual_seed(0)
    same(Net(lambda x: F.glu(x, 2)).eval(), (0, 5))


def test_what_is_as_large_as_values_make_it_is_refused() -> None:
    net = Net(lambda x: x + torch.where(x > 0)[0].numel()).eval()
    with pytest.raises(ExportError, match="depends on the values"):
        cut(net, (0,))
