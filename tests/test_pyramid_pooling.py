"""Pyramid pooling: the means of parts, whether these are equally large or overlap."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from compress.networks.blocks.pyramid_pooling import PyramidPooling


@pytest.mark.parametrize("size", [(12, 18), (12, 10), (5, 7), (2, 3)])
def test_every_branch_reads_the_means_of_its_parts(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    net = PyramidPooling(8).eval()
    x = torch.randn(1, 8, *size)
    with torch.no_grad():
        answer = net(x)
        assert answer.shape == (1, 16, *size)
        assert torch.equal(answer[:, :8], x)
        for place, (branch, parts) in enumerate(zip(net.branches, (1, 2, 3, 6), strict=True)):
            mean = branch(F.adaptive_avg_pool2d(x, parts))
            enlarged = F.interpolate(mean, size, mode="bilinear", align_corners=True)
            torch.testing.assert_close(answer[:, 8 + 2 * place : 10 + 2 * place], enlarged)


def test_equally_large_parts_are_exported_as_ordinary_pooling() -> None:
    graph = torch.export.export(PyramidPooling(8).eval(), (torch.randn(1, 8, 12, 18),)).graph
    called = [str(node.target) for node in graph.nodes if node.op == "call_function"]
    assert sum("avg_pool2d" in name for name in called) == 3
    assert not any("adaptive" in name for name in called)
