"""FCN: scores are enlarged bilinearly before training, and lie where the image is."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from compress.networks.fcn import FCN, FCNModule


@pytest.mark.parametrize("stride", [32, 16, 8])
@pytest.mark.parametrize("size", [(1, 1), (31, 33), (40, 16)])
def test_every_size_works(stride: int, size: tuple[int, int]) -> None:
    for up in ("transposed", "bilinear"):
        net = FCN(classes=2, in_channels=1, width=1, stride=stride, up=up)().eval()  # type: ignore[arg-type]
        with torch.no_grad():
            assert net(torch.zeros(1, 1, *size)).shape == (1, 2, *size)


def test_up_sampling_begins_as_a_bilinear_one_of_each_class_alone() -> None:
    net = FCN(classes=3, width=1)()
    assert isinstance(net, FCNModule)
    x = torch.zeros(1, 3, 5, 5)
    x[:, 1] = torch.arange(5.0)
    for up, factor in zip(net.up, (2, 2, 8), strict=True):
        assert isinstance(up, nn.ConvTranspose2d)
        with torch.no_grad():
            enlarged = up(x)
        assert not enlarged[:, (0, 2)].any()
        inside = enlarged[0, 1, 3 * factor, 2 * factor : 4 * factor]
        torch.testing.assert_close(inside.diff(), torch.full((2 * factor - 1,), 1 / factor))


def test_scores_and_image_have_one_middle() -> None:
    # A map read through the crops must not be shifted: a symmetric network of a symmetric image answers symmetrically.
    torch.manual_seed(0)
    for stride in (32, 16, 8):
        net = FCN(classes=2, in_channels=1, width=1, stride=stride)().eval()  # type: ignore[arg-type]
        for module in net.modules():
            if isinstance(module, nn.Conv2d):
                module.weight.data = module.weight.data.abs() + module.weight.data.abs().flip(3)
        # At this side every pooling halves evenly.
        side = 32 * 7 - 198 + 32
        image = torch.rand(1, 1, side, side)
        with torch.no_grad():
            answer = net(image + image.flip(3))
        torch.testing.assert_close(answer, answer.flip(3), rtol=1e-4, atol=1e-4 * float(answer.abs().max()))
