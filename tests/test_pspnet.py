"""PSPNet: its second head answers in training alone."""

from __future__ import annotations

import torch

from compress.networks.pspnet import PSPNet


def test_the_second_head_answers_in_training_alone() -> None:
    torch.manual_seed(0)
    net = PSPNet(classes=2, width=4, layers=(1, 1, 1, 1))()
    image = torch.randn(2, 3, 48, 40)
    best, second = net(image)
    assert best.shape == second.shape == (2, 2, 48, 40)
    assert net.eval()(image).shape == (2, 2, 48, 40)
    alone = PSPNet(classes=2, width=4, layers=(1, 1, 1, 1), auxiliary=False)()
    assert isinstance(alone(image), torch.Tensor)
