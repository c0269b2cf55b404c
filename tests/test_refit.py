"""What is left of a pruned network, fitted to what was there."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from pruning import widths, with_copies
from swaps import Describe, describes, dice, task_of, without_calibration
from swaps import stand_in as calibrated
from torch import nn

from compress.errors import PassError
from compress.passes.prune import Prune

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def describe(monkeypatch: pytest.MonkeyPatch) -> Describe:
    return describes(monkeypatch)


def test_a_fit_gives_what_a_copy_did_to_the_channel_that_stays(describe: Describe) -> None:
    net, image = describe(with_copies()), torch.randn(1, 1, 32, 32)
    notes: list[str] = []
    task = calibrated(image, notes)
    cut = Prune(ratio=0.5, multiple=1)(net, task)
    fitted = Prune(ratio=0.5, multiple=1, refit=True)(net, task)
    assert widths(fitted) == widths(cut) == [4, 4, 4, 3]
    whole = net(image)
    varies = (whole - whole.mean((2, 3), keepdim=True)).norm()
    assert (cut(image) - whole).norm() > 0.1 * varies
    assert (fitted(image) - whole).norm() < 0.01 * varies
    assert any(line.startswith("3 layers fitted to 3 calibration cases, where 100.0%") for line in notes), notes


def test_what_cannot_be_fitted_is_named(describe: Describe) -> None:
    torch.manual_seed(0)
    net = describe(
        nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(16, 16, 3, padding=1, groups=16),
            nn.ConvTranspose2d(16, 16, 3, stride=2, padding=1),
            nn.Conv2d(16, 3, 1),
        )
    )
    notes: list[str] = []
    Prune(ratio=0.5, multiple=8, refit=True)(net, calibrated(torch.randn(1, 1, 16, 16), notes))
    assert "prune: not refitted: kept 2: a convolution in groups is thin already" in notes
    assert "prune: not refitted: kept 3: what its kernel writes overlaps" in notes
    assert any(line.startswith("1 layers fitted") for line in notes)


def test_a_fit_keeps_most_of_a_trained_network(folder: Path, weights: Path) -> None:
    task = task_of(folder, weights)
    cut, fitted = (Prune(ratio=0.5, multiple=4, refit=refit)(task.net, task) for refit in (False, True))
    assert dice(task, fitted) > dice(task, cut) + 0.1
    assert Prune(ratio=0.5).uses == ()
    assert Prune(ratio=0.5, refit=True).uses == ("calibration",)
    with pytest.raises(PassError, match=r"prune: there are no calibration cases; .*or set refit: false"):
        Prune(ratio=0.5, multiple=4, refit=True)(task.net, without_calibration(task))
