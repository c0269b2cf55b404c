"""The U: an encoder that halves the resolution, a decoder that doubles it, and skips between their levels."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn


class UShape(nn.Module):
    """logits_BKHW = net(image_BCHW) of one block a level, from full resolution to the lowest and back.

    Args:
        encoder: one block a level, the first at full resolution; a 2x2 max pooling stands before each other one.
        up: what doubles the resolution, from the lowest level to full resolution.
        decoder: one block for each of `up`; reads the skip and what came up, concatenated in this order.
        head: from the last block's features to the logits.
        gates: one for each of `up`, or none at all: skip = gate(skip, what came up).
    """

    def __init__(
        self,
        *,
        encoder: Iterable[nn.Module],
        up: Iterable[nn.Module],
        decoder: Iterable[nn.Module],
        head: nn.Module,
        gates: Iterable[nn.Module] = (),
    ) -> None:
        super().__init__()
        self.encoder, self.pool = nn.ModuleList(encoder), nn.MaxPool2d(2)
        self.up, self.gates, self.decoder = nn.ModuleList(up), nn.ModuleList(gates), nn.ModuleList(decoder)
        self.head = head

    def forward(self, image_BCHW: Tensor) -> Tensor:
        return self.head(self.decoded(self.encoded(image_BCHW)))

    def encoded(self, x_BCHW: Tensor) -> list[Tensor]:
        """The features of every level of the encoder, those at full resolution first."""
        levels = [self.encoder[0](x_BCHW)]
        for block in list(self.encoder)[1:]:
            levels.append(block(self.pool(levels[-1])))
        return levels

    def decoded(self, levels: list[Tensor]) -> Tensor:
        """The last features before the head, at full resolution, of those of every level of the encoder."""
        *skips, x_BCHW = levels
        for index, (rise, block) in enumerate(zip(self.up, self.decoder, strict=True)):
            x_BCHW, skip_BCHW = rise(x_BCHW), skips[-1 - index]
            if self.gates:
                skip_BCHW = self.gates[index](skip_BCHW, x_BCHW)
            x_BCHW = block(torch.cat([skip_BCHW, x_BCHW], dim=1))
        return x_BCHW
