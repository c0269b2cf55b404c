"""An attention gate scales the pixels of a skip, all channels alike."""

from __future__ import annotations

import torch

from compress.networks.blocks.attention_gate import AttentionGate


def test_a_gate_scales_each_pixel_by_one_number_from_0_to_1() -> None:
    torch.manual_seed(0)
    gate = AttentionGate(4, 6, 2).eval()
    skip, signal = torch.rand(2, 4, 5, 7) + 1, torch.randn(2, 6, 5, 7)
    with torch.no_grad():
        factor = gate(skip, signal) / skip
        another = gate(skip, torch.randn(2, 6, 5, 7)) / skip
    torch.testing.assert_close(factor, factor[:, :1].expand_as(factor))
    assert 0 < factor.min() < factor.max() < 1
    assert not torch.allclose(factor, another, atol=1e-3)
