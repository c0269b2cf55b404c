"""The additive attention gate of Attention U-Net (Oktay et al. 2018, arXiv 1804.03999), on one resolution."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import relu


class AttentionGate(nn.Module):
    """Scales every pixel of a skip by one number from 0 to 1, which the skip and a gating signal decide together.

    skip_BCHW = gate(skip_BCHW, signal_BGHW), both of one size; `inner` channels in between. The paper
    takes the signal from one level below and resamples; here, as in the widespread 2-D networks
    (LeeJunHyun/Image_Segmentation), it has come up already, and every 1x1 convolution has a batch norm.
    """

    def __init__(self, skip: int, signal: int, inner: int) -> None:
        super().__init__()
        self.signal = nn.Sequential(nn.Conv2d(signal, inner, 1), nn.BatchNorm2d(inner))
        self.skip = nn.Sequential(nn.Conv2d(skip, inner, 1), nn.BatchNorm2d(inner))
        self.weight = nn.Sequential(nn.Conv2d(inner, 1, 1), nn.BatchNorm2d(1), nn.Sigmoid())

    def forward(self, skip_BCHW: Tensor, signal_BGHW: Tensor) -> Tensor:
        return skip_BCHW * self.weight(relu(self.signal(signal_BGHW) + self.skip(skip_BCHW)))
