"""Dense connections (Huang et al. 2017, arXiv 1608.06993): each layer reads the answers of all before it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import torch
from torch import Tensor, nn


class DenseBlock(nn.Module):
    """Layers that each read the input and all answers so far, side by side, and add their own to them."""

    def __init__(
        self,
        layers: Iterable[nn.Module],
        *,
        keep: Literal["all", "new"] = "all",
        newest: Literal["first", "last"] = "last",
    ) -> None:
        """Connect the layers.

        Args:
            layers: each must take the channels of the input and of the answers before it.
            keep: whether the block's answer holds its input too, or what its layers made alone.
            newest: where in the channels a layer's answer goes.
        """
        super().__init__()
        self.layers = nn.ModuleList(layers)
        self.keep_input, self.newest_first = keep == "all", newest == "first"

    def forward(self, x_BCHW: Tensor) -> Tensor:
        known = [x_BCHW]
        for layer in self.layers:
            made = layer(known[0] if len(known) == 1 else self._joined(known))
            known.append(made)
        return self._joined(known if self.keep_input else known[1:])

    def _joined(self, known: list[Tensor]) -> Tensor:
        return torch.cat(known[::-1] if self.newest_first else known, dim=1)


class BottleneckLayer(nn.Sequential):
    """One layer of DenseNet-BC: a 1x1 and a 3x3 convolution, each behind batch norm and ReLU."""

    def __init__(self, before: int, growth: int, *, hidden: int, dilation: int = 1) -> None:
        """Build the layer; its parts have torchvision's names."""
        super().__init__()
        self.norm1 = nn.BatchNorm2d(before)
        self.relu1 = nn.ReLU(inplace=True)
        self.conv1 = nn.Conv2d(before, hidden, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(hidden)
        self.relu2 = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(hidden, growth, 3, padding=dilation, dilation=dilation, bias=False)
