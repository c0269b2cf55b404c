"""Additive attention gates on a grid, for volumes (Oktay et al. 2018, arXiv 1804.03999, section 2)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class GridAttention3d(nn.Module):
    """A skip, weighed at each voxel by how much the coarser signal asks for it, and transformed.

    The attention is computed on the grid of the signal: the skip is brought to it by a strided
    convolution, and the weights back by trilinear interpolation.
    """

    def __init__(self, channels: int, signal_channels: int) -> None:
        """A gate for a skip of `channels`, asked by a signal of half its resolution."""
        super().__init__()
        self.theta = nn.Conv3d(channels, channels, 2, stride=2, bias=False)
        self.phi = nn.Conv3d(signal_channels, channels, 1)
        self.psi = nn.Conv3d(channels, 1, 1)
        self.transform = nn.Sequential(nn.Conv3d(channels, channels, 1), nn.BatchNorm3d(channels))

    def forward(self, skip_BCDHW: Tensor, signal_BCDHW: Tensor) -> Tensor:
        """The weighed skip, of its own size.

        Args:
            skip_BCDHW: even sides.
            signal_BCDHW: half as long along every side.
        """
        asked = F.relu(self.theta(skip_BCDHW) + self.phi(signal_BCDHW))
        weight_B1DHW = F.interpolate(torch.sigmoid(self.psi(asked)), scale_factor=2.0, mode="trilinear")
        return self.transform(weight_B1DHW * skip_BCDHW)


class MultiAttention3d(nn.Module):
    """Several gates side by side on one skip, combined into as many channels as it has."""

    def __init__(self, channels: int, signal_channels: int, gates: int) -> None:
        super().__init__()
        self.gates = nn.ModuleList(GridAttention3d(channels, signal_channels) for _ in range(gates))
        self.combine = nn.Sequential(
            nn.Conv3d(gates * channels, channels, 1), nn.BatchNorm3d(channels), nn.ReLU(inplace=True)
        )

    def forward(self, skip_BCDHW: Tensor, signal_BCDHW: Tensor) -> Tensor:
        """The gated skip, of its own size and width."""
        return self.combine(torch.cat([gate(skip_BCDHW, signal_BCDHW) for gate in self.gates], dim=1))
