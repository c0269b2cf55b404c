"""What is left of a pruned network, fitted to what was there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from pruning import widths, with_copies
from swaps import Describe, describes, dice, task_of, without_calibration
from swaps import stand_in as calibrated
from torch import nn

from compress.editing.least_squares import _rows_of
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


LAYERS = {
    "padded": (nn.Conv2d(3, 4, 3, padding=1), (2, 3, 9, 8)),
    "strided and dilated volume": (
        nn.Conv3d(4, 6, (3, 1, 3), padding=(1, 0, 1), stride=(2, 1, 1), dilation=(1, 1, 2)),
        (2, 4, 9, 8, 10),
    ),
    "reflecting": (nn.Conv2d(3, 4, 3, padding="same", dilation=2, padding_mode="reflect"), (2, 3, 9, 9)),
    "transposed": (nn.ConvTranspose2d(3, 4, 2, stride=2), (2, 3, 5, 6)),
    "linear": (nn.Linear(3, 4), (2, 5, 3)),
}


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("most", [None, 7])
def test_rows_are_what_a_layer_is_multiplied_with(name: str, most: int | None) -> None:
    layer, shape = LAYERS[name]
    into = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        ((z_RI, y_RO),) = _rows_of(layer, [(into, layer(into))], most)
        weight: Any = layer.weight.flatten(1)
        offset: Any = 0 if name == "transposed" else layer.bias
        assert torch.allclose(z_RI @ (weight if name == "transposed" else weight.T) + offset, y_RO, atol=1e-5)
    assert most is None or len(z_RI) == most
