"""Dense prediction cells are data: what each branch reads and does, and data that makes no cell is refused."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F

from compress.errors import WeightsError
from compress.networks.blocks.dense_prediction_cell import PUBLISHED, Branch, DensePredictionCell
from compress.storage.description import shape_of


def test_a_branch_with_rates_reads_as_many_pixels_apart_along_each_axis() -> None:
    net = DensePredictionCell([Branch(rate=(2, 5))], 1, 1).train()
    x = torch.zeros(1, 1, 15, 15, requires_grad=True)
    depthwise = net.branches[0][0][0]
    torch.nn.init.ones_(depthwise.weight)
    depthwise(x)[0, 0, 7, 7].backward()
    assert x.grad is not None
    assert x.grad[0, 0].nonzero().tolist() == [[row, column] for row in (5, 7, 9) for column in (2, 7, 12)]


@pytest.mark.parametrize("size", [(8, 8), (7, 10)])
@pytest.mark.parametrize("grid", [(1, 1), (2, 4), (4, 1)])
def test_a_branch_with_a_grid_reads_the_means_of_its_parts(grid: tuple[int, int], size: tuple[int, int]) -> None:
    net = DensePredictionCell([Branch(grid=grid)], 3, 2).eval()
    x = torch.randn(1, 3, *size)
    with torch.no_grad():
        mean = net.branches[0].conv(F.adaptive_avg_pool2d(x, grid))
        torch.testing.assert_close(net(x), F.interpolate(mean, size, mode="bilinear", align_corners=True))


def test_branches_read_the_features_or_an_earlier_branch_and_all_stand_in_the_answer() -> None:
    net = DensePredictionCell([Branch(), Branch(reads=1), Branch(reads=0, grid=(1, 1))], 3, 2).eval()
    x = torch.randn(1, 3, 4, 4)
    first, second, third = net.branches
    with torch.no_grad():
        torch.testing.assert_close(net(x), torch.cat([first(x), second(first(x)), third(x)], 1))
    assert net.channels == 6


def test_the_released_cell_has_the_rates_that_its_file_has() -> None:
    net = DensePredictionCell(PUBLISHED, 8, 4)
    assert [branch[0][0].dilation for branch in net.branches] == [(1, 6), (18, 15), (6, 3), (1, 1), (6, 21)]
    assert [branch[0][0].in_channels for branch in net.branches] == [8, 4, 4, 4, 4]


@pytest.mark.parametrize(
    ("cell", "why"),
    [
        ([], "at least 1 item"),
        ([{"reads": 1}], "branch 1 reads 1; it may read 0 to 0"),
        ([{}, {"reads": 3}], "branch 2 reads 3; it may read 0 to 1"),
        ([{"rate": [1, 3], "grid": [1, 2]}], "has a rate and a grid: it is one of them"),
        ([{"rate": [0, 3]}], "greater than or equal to 1"),
        ([{"rate": [3]}], "rate"),
        ([{"kernel": 3}], "kernel"),
    ],
)
def test_a_cell_that_cannot_be_is_refused(cell: list[dict[str, Any]], why: str) -> None:
    with pytest.raises(WeightsError, match=why):
        shape_of({"dense_prediction": {"classes": 2, "cell": cell}})
