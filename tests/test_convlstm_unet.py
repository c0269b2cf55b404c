"""The U-Net with a convolutional LSTM: every frame reaches the answer, and frames must be whole."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError

from compress.networks.convlstm_unet import ConvLSTMUNet


@pytest.mark.parametrize("memory", ["bottleneck", "features"])
def test_every_frame_reaches_the_answer(memory: str) -> None:
    torch.manual_seed(0)
    shape = ConvLSTMUNet(classes=1, in_channels=6, frames=3, width=4, depth=1, memory=memory)  # type: ignore[arg-type]
    image = torch.randn(1, 6, 8, 8, requires_grad=True)
    shape().eval()(image).square().sum().backward()
    assert image.grad is not None
    assert all(frame.abs().max() > 0 for frame in image.grad.chunk(3, dim=1))


def test_channels_that_are_not_whole_frames_are_refused_with_a_number_that_fits() -> None:
    with pytest.raises(ValidationError, match=r"in_channels 4 is no multiple of frames 3: .* 6 would fit"):
        ConvLSTMUNet(classes=1, in_channels=4, frames=3)


def test_instance_norm_needs_more_than_one_pixel() -> None:
    shape = ConvLSTMUNet(classes=1, width=4, depth=2, norm="instance")
    assert shape.check_size((4, 4)) == "instance norm needs more than one pixel: pad to 8x8 or set a smaller depth"
    assert shape.check_size((4, 8)) is None
