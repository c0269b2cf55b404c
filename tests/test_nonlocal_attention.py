"""The non-local block starts as nothing, and reads pixels by likeness."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from compress.networks.blocks.nonlocal_attention import NonLocal


def test_a_fresh_block_changes_nothing() -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 8, 8, 12)
    assert torch.equal(NonLocal(8, 2, pool=4).eval()(x), x)


def test_every_pixel_reads_the_pooled_ones_by_likeness() -> None:
    torch.manual_seed(0)
    net, x = NonLocal(4, 3, pool=2).eval(), torch.randn(1, 4, 4, 6)
    torch.nn.init.ones_(net.out[1].weight)  # type: ignore[arg-type]
    with torch.no_grad():
        query, key, value = net.query(x)[0], net.key(x)[0], net.value(x)[0]
        read = torch.zeros_like(query)
        for row in range(4):
            for column in range(6):
                likeness = torch.stack([query[:, row, column] @ key[:, i, j] for i in range(2) for j in range(3)])
                read[:, row, column] = value.flatten(1) @ F.softmax(likeness, dim=0)
        torch.testing.assert_close(net(x), x + net.out(read[None]))
