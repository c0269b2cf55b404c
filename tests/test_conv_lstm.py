"""The convolutional LSTM computes its equations, over as many frames as it is given."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from compress.networks.blocks.conv_lstm import ConvLSTM


def frames(number: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(2, 3, 5, 7, generator=generator) for _ in range(number)]


def written_out(net: ConvLSTM, inputs: list[Tensor], after: int) -> Tensor:
    """Shi et al. 2015, equation 3 without the terms that read the cell, one convolution for each gate and source."""
    assert net.frame.bias is not None
    from_frame, from_hidden, bias = (
        list(each.split(after)) for each in (net.frame.weight, net.hidden.weight, net.frame.bias)
    )
    hidden = cell = torch.zeros(2, after, 5, 7)
    for frame in inputs:
        enter, forget, leave, new = (
            F.conv2d(frame, from_frame[gate], bias[gate], padding=1) + F.conv2d(hidden, from_hidden[gate], padding=1)
            for gate in range(4)
        )
        cell = torch.sigmoid(forget) * cell + torch.sigmoid(enter) * torch.tanh(new)
        hidden = torch.sigmoid(leave) * torch.tanh(cell)
    return hidden


def test_it_computes_its_equations_for_any_number_of_frames() -> None:
    torch.manual_seed(0)
    net = ConvLSTM(3, 4)
    for number in (1, 2, 4):
        torch.testing.assert_close(net(frames(number)), written_out(net, frames(number), 4))


def test_the_order_of_the_frames_counts() -> None:
    torch.manual_seed(0)
    net = ConvLSTM(3, 4)
    assert not torch.allclose(net(frames(3)), net(frames(3)[::-1]), atol=1e-3)
