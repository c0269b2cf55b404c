"""The two gates of CBAM (Woo et al. 2018, arXiv 1807.06521): which channels matter, and where."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class ChannelGate(nn.Module):
    """Scales each channel by what its mean and its largest value say of it (section 3, eq. 2); BCHW to BCHW."""

    def __init__(self, channels: int, reduction: int = 16) -> None:
        super().__init__()
        hidden = max(channels // reduction, 1)
        self.squeeze = nn.Conv2d(channels, hidden, 1, bias=False)
        self.act = nn.ReLU()
        self.excite = nn.Conv2d(hidden, channels, 1, bias=False)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        mean, largest = x_BCHW.mean((2, 3), keepdim=True), x_BCHW.amax((2, 3), keepdim=True)
        return x_BCHW * torch.sigmoid(self._score(mean) + self._score(largest))

    def _score(self, x_BC11: Tensor) -> Tensor:
        return self.excite(self.act(self.squeeze(x_BC11)))


class SpatialGate(nn.Module):
    """Scales each pixel by what the mean and the largest of its channels say of it (eq. 3); BCHW to BCHW."""

    def __init__(self, kernel: int = 7) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 1, kernel, padding=kernel // 2, bias=False)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        seen = torch.cat([x_BCHW.mean(1, keepdim=True), x_BCHW.amax(1, keepdim=True)], dim=1)
        return x_BCHW * torch.sigmoid(self.conv(seen))
