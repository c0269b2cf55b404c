"""Recurrent convolutions apply the same weights again."""

from __future__ import annotations

import torch

from compress.networks.blocks.recurrent import Recurrent


def test_each_step_reads_the_input_and_the_last_answer() -> None:
    torch.manual_seed(0)
    x = torch.randn(1, 4, 6, 6)
    nets = [Recurrent(4, steps).eval() for steps in (1, 3)]
    nets[1].load_state_dict(nets[0].state_dict())
    conv = nets[0].conv
    with torch.no_grad():
        state = conv(x + conv(x))
        torch.testing.assert_close(nets[0](x), state)
        torch.testing.assert_close(nets[1](x), conv(x + conv(x + state)))
