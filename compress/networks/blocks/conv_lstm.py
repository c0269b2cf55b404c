"""The convolutional LSTM (Shi et al. 2015, arXiv 1506.04214), over a fixed number of frames."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class ConvLSTM(nn.Module):
    """What remains of a sequence: state_BCHW = net(frames), the frames each BCHW, the last one read last.

    As usual, and other than in the paper's equation 3, gates do not read the cell: such weights would
    belong to one size of image. The hidden state starts at zero, so the first frame needs no convolution of it.
    """

    def __init__(self, before: int, after: int, kernel: int = 3) -> None:
        super().__init__()
        self.frame = nn.Conv2d(before, 4 * after, kernel, padding=kernel // 2)
        self.hidden = nn.Conv2d(after, 4 * after, kernel, padding=kernel // 2, bias=False)

    def forward(self, frames: Sequence[Tensor]) -> Tensor:
        hidden, cell = self._step(self.frame(frames[0]), None)
        for frame_BCHW in frames[1:]:
            hidden, cell = self._step(self.frame(frame_BCHW) + self.hidden(hidden), cell)
        return hidden

    def _step(self, gates_BGHW: Tensor, cell_BCHW: Tensor | None) -> tuple[Tensor, Tensor]:
        enter, forget, leave, new = gates_BGHW.chunk(4, dim=1)
        entering_BCHW = enter.sigmoid() * new.tanh()
        cell_BCHW = entering_BCHW if cell_BCHW is None else forget.sigmoid() * cell_BCHW + entering_BCHW
        return leave.sigmoid() * torch.tanh(cell_BCHW), cell_BCHW
