"""Convolutions of signs that begin near what they replace, fitted to real cases.

A channel x is best told by its mean and a sign: x ~ mean + deviation * sign(x - mean). So the threshold begins as the
mean, and the weight is multiplied by the deviation. Scale, bias and the shortcut's gain are then, for each output
channel, the three numbers with which the layer comes nearest to what it answered before, in squares.

Legend: O output channels, F features (sum of signs, shortcut, 1), P pixels of all cases.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from compress.editing.activations import reconstruction_pairs, seen_by
from compress.editing.layer_replacement import Site, swap
from compress.networks.blocks.signed_conv import SignedConv

NORMAL = 0.8
"""Mean absolute deviation over standard deviation, of a normal distribution."""
REACH = 1.5
"""Standard deviations from the threshold in which gradients flow."""


def put_signs(
    net: nn.Module, original: nn.Module, site: Site, example: Tensor, inputs: Callable[[], Iterable[Tensor]]
) -> str | None:
    """Replace a convolution by one of signs, in place; None, or why the network would not run with it.

    Args:
        original: the network as it was before any layer was replaced.
        inputs: images (1C...) of real cases.
    """
    mean, deviation = _moments(into for pairs in seen_by(net, site, inputs()) for into, _ in pairs)
    layer = SignedConv(_without_bias(site.module))
    shape = layer.threshold.shape
    with torch.no_grad():
        layer.threshold.copy_(mean.reshape(shape))
        layer.spread.copy_((REACH * deviation).reshape(shape).clamp_min(1e-3))
        layer.conv.weight.mul_((NORMAL * deviation).reshape(1, *shape))
    reason = swap(net, site, layer.eval(), example)
    if reason is None:
        _fit(layer, reconstruction_pairs(net, original, site, inputs))
    return reason


def _without_bias(conv: Any) -> Any:
    made = type(conv)(
        conv.in_channels, conv.out_channels, conv.kernel_size, conv.stride, conv.padding, conv.dilation, bias=False
    )
    made.weight = nn.Parameter(conv.weight.detach().clone())
    return made


def _moments(images: Iterable[Tensor]) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each channel."""
    count, total, squares = 0, torch.zeros(()), torch.zeros(())
    for image in images:
        by_channel = image.double().transpose(0, 1).flatten(1)
        count += by_channel.shape[1]
        total, squares = total + by_channel.sum(1), squares + by_channel.square().sum(1)
    mean = total / count
    return mean.float(), (squares / count - mean.square()).clamp_min(0).sqrt().float()


@torch.no_grad()
def _fit(layer: SignedConv, pairs: Iterable[tuple[Tensor, Tensor]]) -> None:
    """Scale, bias and gain, by least squares over (input, what is wanted)."""
    outside = layer.conv.out_channels
    count = 3 if layer.shortcut else 2
    squares_OFF = torch.zeros(outside, count, count, dtype=torch.float64)
    wanted_OF = torch.zeros(outside, count, dtype=torch.float64)
    for into, want in pairs:
        features_OFP = _features(layer, into)
        want_OP = want.double().transpose(0, 1).flatten(1)
        squares_OFF += features_OFP @ features_OFP.mT
        wanted_OF += (features_OFP @ want_OP[..., None])[..., 0]
    # A feature that says nothing must not make the others large.
    ridge = 1e-6 * squares_OFF.diagonal(dim1=1, dim2=2).mean(1).clamp_min(1e-6)
    found_OF = torch.linalg.solve(squares_OFF + ridge[:, None, None] * torch.eye(count), wanted_OF).float()
    for parameter, place in ((layer.scale, 0), (layer.bias, 1), *([(layer.gain, 2)] if layer.shortcut else [])):
        parameter.copy_(found_OF[:, place].reshape(parameter.shape))


def _features(layer: SignedConv, into: Tensor) -> Tensor:
    sums = layer.conv(torch.where(into >= layer.threshold, 1.0, -1.0))
    parts = [sums, torch.ones_like(sums), *([layer.beside(into)] if layer.shortcut else [])]
    return torch.stack([part.double().transpose(0, 1).flatten(1) for part in parts], 1)
