"""How much a channel adds to what others say already, on real cases.

Pruning by the norm of weights keeps copies of one strong channel and drops the only one of another kind. Here channels
are taken greedily, each time the one from which most of all that is not yet explained can be computed linearly
(interpolative decomposition: Chee et al. 2022, arXiv 2108.00065, section 3). Fitting the next layer to those that stay
(compress/editing/least_squares.py) then makes good what they explain.

Legend: R rows (one for each pixel that is looked at), C channels of a layer's input, U units of a bundle.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from compress.editing.layer_replacement import CONVS, TRANSPOSED, answer, watched
from compress.editing.least_squares import LeastSquares, rows
from compress.editing.pruning.dependency.groups import Bundle

ROWS = 4096
"""Pixels of one case that are looked at, drawn anew for each."""
_SMALL = 1e-9
"""Of all that there is to explain: what is left then is rounding."""
_ALIKE = 1e-6
"""How little two units may differ in what they explain to be called copies."""


@torch.no_grad()
def interpolative_scores(net: nn.Module, bundles: Sequence[Bundle], inputs: Iterable[Tensor]) -> list[Tensor | None]:
    """For each bundle, the share of what its readers take in that each unit explains beyond the units before it.

    Args:
        inputs: images (1C...), as the network takes them.

    Returns:
        (U) for each prunable bundle, falling in the order in which units were taken; None for the others,
        and where no convolution or linear layer reads the channels.
    """
    reading = [_readers(net, bundle) if bundle.group.prunable else {} for bundle in bundles]
    seen = _seen({name for readers in reading for name in readers}, net, inputs)
    # A layer may be there and never called.
    reading = [{name: place for name, place in readers.items() if name in seen} for readers in reading]
    return [
        _gains(_kernel(readers, bundle, seen)) if readers else None
        for bundle, readers in zip(bundles, reading, strict=True)
    ]


def _readers(net: nn.Module, bundle: Bundle) -> dict[str, tuple[str, int]]:
    """By their names the layers that mix the bundle's channels into others, and where in their weights they read."""
    found = {}
    for name, axis in bundle.units[0]:
        owner, _, last = name.rpartition(".")
        layer: Any = net.get_submodule(owner)
        mixes = isinstance(layer, nn.Linear) or (isinstance(layer, (*CONVS, *TRANSPOSED)) and layer.groups == 1)
        if mixes and last == "weight" and axis == _reading_axis(layer):
            found[owner] = (name, axis)
    return found


def _seen(names: Iterable[str], net: nn.Module, inputs: Iterable[Tensor]) -> Mapping[str, Tensor]:
    """For each layer, the covariance (CC) of what it takes in, each channel as large as the layer's weights make it.

    Divided by what all of them come to, so that layers can be compared.
    """
    layers: dict[nn.Module, str] = {net.get_submodule(name): name for name in names}
    sums: dict[nn.Module, LeastSquares] = {}
    draw = torch.Generator().manual_seed(0)

    def see(layer: nn.Module, into: Tensor, _: Tensor) -> None:
        z_RC = rows(into, layer)
        if len(z_RC) > ROWS:
            z_RC = z_RC[torch.randint(len(z_RC), (ROWS,), generator=draw)]
        # Of what they should answer nothing is asked.
        sums.setdefault(layer, LeastSquares(z_RC.shape[1], 0)).add(z_RC, z_RC[:, :0])

    with watched(layers, see):
        for image in inputs:
            answer(net, image)
    return {layers[layer]: _weighed(total.covariance(), layer) for layer, total in sums.items()}


def _weighed(covariance_CC: Tensor, layer: Any) -> Tensor:
    size_C = layer.weight.double().movedim(_reading_axis(layer), 0).flatten(1).norm(dim=1)
    weighed = covariance_CC * torch.outer(size_C, size_C)
    return weighed / weighed.trace().clamp_min(torch.finfo(torch.float64).tiny)


def _reading_axis(layer: nn.Module) -> int:
    """The axis of a layer's weight along which it reads."""
    return 0 if isinstance(layer, TRANSPOSED) else 1


def _kernel(readers: Mapping[str, tuple[str, int]], bundle: Bundle, seen: Mapping[str, Tensor]) -> Tensor:
    """How alike the units are (UU), over all that read them; the first channel of one with the first of the other."""
    total = torch.zeros(len(bundle.units), len(bundle.units), dtype=torch.float64)
    for name, place in readers.items():
        for position in range(max(len(unit[place]) for unit in bundle.units)):
            has = [number for number, unit in enumerate(bundle.units) if position < len(unit[place])]
            at = [bundle.units[number][place][position] for number in has]
            total[torch.tensor(has)[:, None], has] += seen[name][at][:, at]
    return total


def _gains(kernel_UU: Tensor) -> Tensor:
    """What each unit explains when its turn comes: of those that are left the one that explains most."""
    left, gains = kernel_UU.clone(), torch.zeros(len(kernel_UU), dtype=torch.float64)
    waiting = torch.ones(len(left), dtype=torch.bool)
    last = torch.inf
    for _ in range(len(left)):
        own = left.diagonal().clamp_min(0)
        explained = torch.where(waiting, left.square().sum(0) / own.clamp_min(torch.finfo(torch.float64).tiny), -1.0)
        explained[waiting & (own <= _SMALL * kernel_UU.trace())] = 0.0
        # Of copies, which explain alike, the largest: a fit to a faint one is held back more than it should be.
        alike = explained >= explained.max() * (1 - _ALIKE)
        unit = int(torch.where(alike & waiting, own, -1.0).argmax())
        # Later is never worth more: with those before it a unit may explain what it did not alone.
        last = min(last * (1 - _ALIKE), float(explained[unit]))
        gains[unit], waiting[unit] = last, False
        if last > 0:
            left -= torch.outer(left[:, unit], left[unit]) / left[unit, unit].clone()
    return gains
