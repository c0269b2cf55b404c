"""Chained residual pooling (Lin et al. 2017, arXiv 1611.06612, section 3.2)."""

from torch import Tensor, nn


class ChainedPooling(nn.Module):
    """The rectified input, and what ever longer chains of pooling and convolution make of it, added up."""

    def __init__(self, channels: int, stages: int = 4) -> None:
        super().__init__()
        self.relu = nn.ReLU()
        self.pool = nn.MaxPool2d(5, stride=1, padding=2)
        self.convs = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=1, bias=False) for _ in range(stages))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        total = chain = self.relu(x_BCHW)
        for conv in self.convs:
            chain = conv(self.pool(chain))
            total = total + chain
        return total
