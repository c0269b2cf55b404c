"""UNet 3+'s classification-guided module opens and closes the whole image."""

import pytest
import torch

from compress.networks.unet3p import UNet3P, UNet3PModule
from export.choice import labels_from_logits


def guided(classes: int, present: float) -> UNet3PModule:
    """A small network whose score of presence is so far above its score of absence, whatever the image."""
    torch.manual_seed(0)
    net = UNet3P(classes=classes, width=2, depth=2, guided=True)()
    assert isinstance(net, UNet3PModule) and net.presence is not None
    torch.nn.init.zeros_(net.presence.score.weight)
    net.presence.score.bias = torch.nn.Parameter(torch.tensor([0.0, present]))
    return net


def answers(net: UNet3PModule) -> torch.Tensor | tuple[torch.Tensor, ...]:
    torch.manual_seed(1)
    return net(torch.randn(2, 3, 16, 16))


@pytest.mark.parametrize("classes", [1, 3])
def test_an_image_without_foreground_is_all_background(classes: int) -> None:
    logits = answers(guided(classes, present=-1.0).eval())
    assert isinstance(logits, torch.Tensor)
    assert not labels_from_logits(logits.detach().numpy()).any()


def test_an_image_with_foreground_keeps_its_logits() -> None:
    net = guided(2, present=1.0).eval()
    kept = answers(net)
    net.presence = None
    assert isinstance(kept, torch.Tensor) and kept.abs().max() > 0
    torch.testing.assert_close(kept, answers(net))


@pytest.mark.parametrize(("classes", "background"), [(1, 0), (3, 1)])
def test_in_training_the_chance_of_foreground_moves_its_logits_alone(classes: int, background: int) -> None:
    seldom, often = answers(guided(classes, -2.0).train()), answers(guided(classes, 2.0).train())
    assert len(seldom) == len(often) == 3
    for less, more in zip(seldom, often, strict=True):
        torch.testing.assert_close(less[:, :background], more[:, :background])
        torch.testing.assert_close(
            more[:, background:] - less[:, background:], torch.full_like(more[:, background:], 2)
        )
