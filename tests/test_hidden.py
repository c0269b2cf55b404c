"""Networks that hide methods of nn.Module work all the same, or are refused by the name that hides."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

from compress.editing.layer_replacement import sites, swap
from compress.errors import RecipeError
from compress.networks.foreign.hidden import uncovered
from export.modules import put

IMAGE = torch.zeros(1, 2, 8, 8)


class Net(nn.Module):
    """Two layers, one called by its name and one through what the network keeps under `hidden`."""

    def __init__(self, hidden: str, keep: Any) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(2, 4, 1), nn.Conv2d(4, 2, 1)
        self.hidden = hidden
        setattr(self, hidden, keep(self.last))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found = getattr(self, self.hidden)
        last = found["a"] if isinstance(found, dict) else found[0] if isinstance(found, list | tuple) else self.last
        return last(self.first(x))


@pytest.mark.parametrize(
    ("hidden", "keep"),
    [
        ("modules", lambda layer: [layer]),
        ("children", lambda layer: (layer, 1)),
        ("parameters", lambda layer: {"a": layer}),
        ("buffers", lambda layer: {"a": layer}),
        ("train", lambda layer: 3),
        ("to", lambda layer: "cpu"),
        ("state_dict", lambda layer: [layer]),
        ("named_modules", lambda layer: [layer]),
        ("eval", lambda layer: 0.5),
        ("apply", lambda layer: {1, 2}),
    ],
)
def test_a_hidden_method_can_be_called_and_what_hides_it_read(hidden: str, keep: Any) -> None:
    net = copy.deepcopy(uncovered(Net(hidden, keep), "net.py"))
    assert [name for name, _ in net.named_modules()] == ["", "first", "last"]
    assert len(list(net.modules())) == 3 and len(list(net.parameters())) == 4
    assert next(iter(net.modules())) is net, "a copy's method is that of the copy"
    assert set(net.eval().state_dict()) == {"first.weight", "first.bias", "last.weight", "last.bias"}
    assert not net.training and net.to("cpu")(IMAGE).shape == (1, 2, 8, 8)
    torch.export.export(net, (IMAGE,), strict=False)


@pytest.mark.parametrize("keep", [lambda layer: [layer], lambda layer: (layer,), lambda layer: {"a": layer}])
@pytest.mark.parametrize("hidden", ["modules", "stages"])
def test_a_layer_is_replaced_in_the_lists_that_a_network_keeps_too(hidden: str, keep: Any) -> None:
    net = uncovered(Net(hidden, keep), "net.py").eval()
    (site,) = (site for site in sites(net, IMAGE, (nn.Conv2d,)) if site.name == "last")
    new = nn.Sequential(nn.Conv2d(4, 1, 1), nn.Conv2d(1, 2, 1))
    with torch.no_grad():
        assert swap(net, site, new, IMAGE) is None
        torch.testing.assert_close(net(IMAGE), new(net.first(IMAGE)))
        put(net, ["last"], site.module)
        torch.testing.assert_close(net(IMAGE), site.module(net.first(IMAGE)))


def test_train_that_gives_nothing_back_gives_the_network_back() -> None:
    class Forgets(nn.Module):
        def train(self, mode: bool = True) -> None:  # type: ignore[override]
            super().train(mode)

    net = copy.deepcopy(uncovered(nn.Sequential(Forgets()), "net.py"))
    assert net[0].eval() is net[0] and not net[0].training


class Branches(nn.Module):
    """A method of its own under a name of torch's."""

    def children(self) -> list[int]:
        return [1, 2]


@pytest.mark.parametrize(
    ("net", "told"),
    [(Net("train", lambda _: False), "Net.train is a bool"), (Branches(), "Branches.children is its own")],
)
def test_what_cannot_be_called_is_refused_by_its_name(net: nn.Module, told: str) -> None:
    with pytest.raises(RecipeError, match=told):
        uncovered(nn.Sequential(net), "net.py")
