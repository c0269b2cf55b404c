"""Dense atrous convolution (Gu et al. 2019, arXiv 1903.02740, section III-B)."""

from torch import Tensor, nn


class DenseAtrous(nn.Module):
    """The input, and four chains of ever more dilated convolutions, which share their weights, added up."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.rate1, self.rate3, self.rate5 = (
            nn.Conv2d(channels, channels, 3, padding=rate, dilation=rate) for rate in (1, 3, 5)
        )
        self.point = nn.Conv2d(channels, channels, 1)
        self.relu = nn.ReLU()

    def forward(self, x_BCHW: Tensor) -> Tensor:
        chains = (
            (self.rate1,),
            (self.rate3, self.point),
            (self.rate1, self.rate3, self.point),
            (self.rate1, self.rate3, self.rate5, self.point),
        )
        total = x_BCHW
        for chain in chains:
            answer = x_BCHW
            for conv in chain:
                answer = conv(answer)
            total = total + self.relu(answer)
        return total
