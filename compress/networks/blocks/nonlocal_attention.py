"""The non-local block (Wang et al. 2018, arXiv 1711.07971): every pixel reads every other, weighed by likeness.

Legend: N pixels that ask, M pixels that answer (fewer, when keys and values are pooled), I inner channels.
"""

from __future__ import annotations

from torch import Tensor, nn


class NonLocal(nn.Module):
    """The embedded Gaussian version, added to its input; keys and values are max-pooled by `pool`.

    Its last norm starts with a scale of 0, so that a fresh block changes nothing (section 4.1 of the paper).
    Both sides of the input must be at least `pool`.
    """

    def __init__(self, channels: int, inner: int, pool: int) -> None:
        super().__init__()
        self.query = nn.Conv2d(channels, inner, 1)
        self.key = nn.Sequential(nn.Conv2d(channels, inner, 1), nn.MaxPool2d(pool))
        self.value = nn.Sequential(nn.Conv2d(channels, inner, 1), nn.MaxPool2d(pool))
        self.out = nn.Sequential(nn.Conv2d(inner, channels, 1), nn.BatchNorm2d(channels))
        nn.init.zeros_(self.out[1].weight)  # type: ignore[arg-type]

    def forward(self, x_BCHW: Tensor) -> Tensor:
        query_BIN, key_BIM, value_BIM = (layer(x_BCHW).flatten(2) for layer in (self.query, self.key, self.value))
        weights_BNM = (query_BIN.transpose(1, 2) @ key_BIM).softmax(dim=2)
        read_BIN = value_BIM @ weights_BNM.transpose(1, 2)
        return x_BCHW + self.out(read_BIN.unflatten(2, x_BCHW.shape[2:]))
