"""A network whose layers changed is described by what changed, and built again from that alone."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from structures import example, made
from torch import nn

from compress.editing.pruning.removal import Cut, without
from compress.editing.pruning.trial import prunable, trial_of
from compress.errors import PassError, WeightsError
from compress.storage.changed import rebuilt
from compress.storage.description import described


def build(network: Mapping[str, Any]) -> nn.Module:
    """Networks of structures.py, by their name."""
    if "changed" in network:
        return rebuilt(network["changed"], build)
    return made(network["name"])


def halved(name: str) -> nn.Module:
    """The network of this name without every other channel, described."""
    net = made(name)
    net.description = {"name": name}  # type: ignore[assignment]
    cuts = [
        Cut(bundle=bundle, units=tuple(range(1, len(bundle.units), 2)))
        for bundle in prunable(trial_of(net, example(name)))[0]
        if bundle.group.prunable
    ]
    return described(without(net, cuts), build)


@pytest.mark.parametrize("name", ["tied", "plain", "norms", "functional"])
def test_a_smaller_network_is_built_again_from_its_description(name: str) -> None:
    net = halved(name)
    again = build(net.description).eval()  # type: ignore[arg-type]
    again.load_state_dict(net.state_dict())
    image = example(name, 1)
    assert torch.equal(again(image), net(image))


def test_a_weight_that_layers_share_is_shared_again() -> None:
    net = halved("tied")
    again = build(net.description)  # type: ignore[arg-type]
    down, up = again.get_submodule("3.down"), again.get_submodule("3.up")
    assert down.weight is up.weight
    assert down.weight.shape == (16, 8, 2, 2)  # type: ignore[union-attr]
    assert len(list(again.parameters())) == len(list(net.parameters()))


def test_a_layer_in_two_places_is_changed_in_both() -> None:
    layer = nn.Conv2d(4, 4, 1)

    def pair(network: Mapping[str, Any]) -> nn.Module:
        shared = copy.deepcopy(layer)
        net = nn.Sequential(shared, shared)
        return rebuilt({"net": {}, "layers": network["changed"]["layers"]}, pair) if "changed" in network else net

    net = pair({})
    net.description = {}  # type: ignore[assignment]
    net[0].weight = nn.Parameter(torch.ones(2, 2, 1, 1))  # type: ignore[index, union-attr]
    net[0].bias = nn.Parameter(torch.ones(2))  # type: ignore[index, union-attr]
    net[0].in_channels = net[0].out_channels = 2  # type: ignore[index, union-attr]
    described(net, pair)
    again = pair(net.description)  # type: ignore[arg-type]
    again.load_state_dict(net.state_dict())
    assert again[0] is again[1]  # type: ignore[index]
    assert torch.equal(again(torch.ones(1, 2, 3, 3)), net(torch.ones(1, 2, 3, 3)))


def test_a_network_that_did_not_change_is_described_as_it_was() -> None:
    net = made("plain")
    net.description = {"name": "plain"}  # type: ignore[assignment]
    assert described(net, build).description == {"name": "plain"}


def test_what_cannot_be_described_is_refused() -> None:
    net = made("plain")
    net.description = {"name": "plain"}  # type: ignore[assignment]
    net.set_submodule("0", nn.RNN(3, 16))
    with pytest.raises(PassError, match="0 is now a RNN"):
        described(net, build)
    with pytest.raises(WeightsError, match="changes gone, which the network does not have"):
        rebuilt({"net": {"name": "plain"}, "layers": {"gone": {"set": {}}}}, build)
