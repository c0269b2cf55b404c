"""Layers fitted to what they should answer: exact where that can be, and held back where little is seen."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from compress.editing import least_squares
from compress.editing.least_squares import LeastSquares, fit_layer


def test_the_refit_finds_the_answer_where_there_is_one() -> None:
    torch.manual_seed(0)
    wanted, offset = torch.randn(5, 3, dtype=torch.float64), torch.randn(3, dtype=torch.float64)
    fit = LeastSquares(5, 3)
    for _ in range(4):
        z = torch.randn(50, 5, dtype=torch.float64)
        z[:, 4] = 0
        fit.add(z, z @ wanted + offset)
    start = torch.zeros(5, 3)
    start[4] = 7.0
    matrix, found = fit.solved(start)
    assert torch.allclose(matrix[:4], wanted[:4], atol=1e-3)
    assert torch.allclose(found, offset, atol=1e-3)
    assert torch.allclose(matrix[4], torch.full((3,), 7.0, dtype=torch.float64)), "what was never seen stays"


def test_sums_can_be_joined_and_know_the_error() -> None:
    z, y = torch.randn(60, 5), torch.randn(60, 3)
    whole, first, second = (LeastSquares(5, 3) for _ in range(3))
    whole.add(z, y)
    first.add(z[:20], y[:20])
    second.add(z[20:], y[20:])
    first.join(second)
    assert first.rows == whole.rows == 60
    matrix, offset = first.solved(torch.zeros(5, 3), 0.1)
    assert torch.allclose(matrix, whole.solved(torch.zeros(5, 3), 0.1)[0])
    assert first.error(matrix, offset) == pytest.approx(float((z.double() @ matrix + offset - y).square().sum()))
    assert torch.allclose(first.covariance(), z.double().T.cov(correction=0))


def noisy(rows: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Inputs (1C1W) of a 1x1 layer, and answers that one of their 40 channels gives, with as much noise again."""
    z = torch.randn(1, 40, 1, rows, generator=generator)
    return z, z[:, :1] + torch.randn(1, 1, 1, rows, generator=generator)


@pytest.mark.parametrize(("rows", "factor"), [(6, 0.5), (4000, 1.01)])
def test_where_little_is_seen_a_fit_is_held_back(rows: int, factor: float, monkeypatch: pytest.MonkeyPatch) -> None:
    draw, pulls = torch.Generator().manual_seed(0), least_squares.PULLS
    cases, (z, y) = [noisy(rows, draw) for _ in range(8)], noisy(4000, draw)

    def error(pulls: tuple[float, ...]) -> float:
        monkeypatch.setattr(least_squares, "PULLS", pulls)
        layer = nn.Conv2d(40, 1, 1)
        nn.init.zeros_(layer.weight)
        fit_layer(layer, cases, "layer", "prune")
        return float((layer(z) - y).square().mean().detach())

    # Nothing can be better than 1, the noise; a layer left as it began has 2.
    assert 0.95 < error(pulls) < min(2.0, factor * error(pulls[:1]))


def test_with_one_case_nothing_is_left_to_check_a_fit_on() -> None:
    layer = nn.Conv2d(40, 1, 1)
    z, y = noisy(400, torch.Generator().manual_seed(0))
    fit_layer(layer, [(z, y)], "layer", "prune")
    assert (layer(z) - y).square().mean() < 1.1
