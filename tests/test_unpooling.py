"""Unpooling by comparisons is torch's unpooling by indices."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from compress.networks.blocks.unpooling import pooled, unpooled


@pytest.mark.parametrize("size", [(8, 12), (9, 6), (7, 11), (2, 3)])
@pytest.mark.parametrize("ties", [False, True])
def test_pooling_and_unpooling_are_torchs(size: tuple[int, int], ties: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 3, *size, generator=generator)
    if ties:
        # After a ReLU in few bits most windows have equal values.
        x = x.round().relu()
    values, places = pooled(x)
    expected, where = F.max_pool2d(x, 2, return_indices=True)
    assert torch.equal(values, expected)
    made = torch.randn(expected.shape, generator=generator)
    assert torch.equal(unpooled(made, places), F.max_unpool2d(made, where, 2, output_size=size))


def test_gradients_go_to_the_places_alone() -> None:
    x = torch.randn(1, 2, 6, 7, generator=torch.Generator().manual_seed(0), requires_grad=True)
    values, places = pooled(x)
    unpooled(values, places).square().sum().backward()
    again = x.detach().clone().requires_grad_(True)
    kept, where = F.max_pool2d(again, 2, return_indices=True)
    F.max_unpool2d(kept, where, 2, output_size=(6, 7)).square().sum().backward()
    assert x.grad is not None and again.grad is not None
    torch.testing.assert_close(x.grad, again.grad)
