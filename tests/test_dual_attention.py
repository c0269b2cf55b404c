"""Position and channel attention start as nothing, and weigh pixels and channels."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from compress.networks.blocks.dual_attention import ChannelAttention, PositionAttention


def test_fresh_attention_changes_nothing() -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 8, 4, 6)
    assert torch.equal(PositionAttention(8)(x), x)
    assert torch.equal(ChannelAttention()(x), x)


def test_pixels_are_read_by_likeness_wherever_they_are() -> None:
    torch.manual_seed(0)
    net, x = PositionAttention(8), torch.randn(1, 8, 3, 4)
    torch.nn.init.ones_(net.share)
    order = torch.randperm(12)
    with torch.no_grad():
        # Attention knows no places: pixels in another order get the same answers, in that order.
        moved = x.flatten(2)[..., order].unflatten(2, (3, 4))
        torch.testing.assert_close(net(moved).flatten(2), net(x).flatten(2)[..., order])
        first = torch.stack([net.query(x)[0, :, 0, 0] @ key for key in net.key(x)[0].flatten(1).T])
        read = net.value(x)[0].flatten(1) @ F.softmax(first, dim=0)
        torch.testing.assert_close(net(x)[0, :, 0, 0], x[0, :, 0, 0] + read)


def test_channels_read_the_ones_least_alike_most() -> None:
    net = ChannelAttention()
    torch.nn.init.ones_(net.share)
    x = torch.tensor([[3.0, 0.0], [0.0, 3.0]]).reshape(1, 2, 1, 2)
    with torch.no_grad():
        added = (net(x) - x).reshape(2, 2)
    # Orthogonal channels: likeness 9 on the diagonal and 0 off it, so each reads the other but for e**-9.
    torch.testing.assert_close(added, torch.tensor([[0.0, 3.0], [3.0, 0.0]]), atol=1e-3, rtol=0)
