"""Squeeze-and-excitation scales channels, all pixels alike."""

from __future__ import annotations

import torch

from compress.networks.blocks.squeeze_excite import SqueezeExcite


def test_a_channel_is_scaled_by_one_number_that_only_means_decide() -> None:
    torch.manual_seed(0)
    net, x = SqueezeExcite(32), torch.rand(2, 32, 5, 7) + 1
    with torch.no_grad():
        factor = net(x) / x
        # The same means with the pixels in another order.
        turned = net(x.flip(2)) / x.flip(2)
    torch.testing.assert_close(factor, factor[..., :1, :1].expand_as(factor))
    torch.testing.assert_close(factor, turned)
    assert 0 < factor.min() < factor.max() < 1


def test_few_channels_are_squeezed_into_one() -> None:
    assert SqueezeExcite(4)(torch.ones(1, 4, 2, 2)).shape == (1, 4, 2, 2)
