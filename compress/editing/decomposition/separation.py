"""A convolution as a depthwise one followed by a 1x1 (Guo et al. 2018, "Network Decoupling", arXiv 1808.05517).

Legend: O output channels, I input channels, k kernel positions, R rank.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from compress.networks.blocks.branches import Branches


@torch.no_grad()
def separated(conv: Any, rank: int, *, bias: bool) -> nn.Sequential:
    """The depthwise and the pointwise convolution nearest to a kernel (Guo et al. 2018).

    Where there are more filters for an input channel, they are depthwise convolutions side by side: one with
    several outputs for each input is the same, but runtimes have no fast kernel for it (2.3 times slower at
    16 channels on ONNX Runtime's CPU provider, 1.9 on OpenVINO's).

    Args:
        bias: whether the pointwise convolution has one; where the convolution has none, it begins at zero.
    """
    inside, outside = conv.in_channels, conv.out_channels
    left_IOR, sizes_IR, right_IRk = torch.linalg.svd(
        conv.weight.double().flatten(2).transpose(0, 1), full_matrices=False
    )
    options = {name: getattr(conv, name) for name in ("kernel_size", "stride", "padding", "dilation", "padding_mode")}
    deep = [type(conv)(inside, inside, groups=inside, bias=False, **options) for _ in range(rank)]
    point = type(conv)(inside * rank, outside, 1, bias=bias)
    for index, layer in enumerate(deep):
        layer.weight.copy_(right_IRk[:, index].reshape(layer.weight.shape))
    mixed_ORI = (left_IOR * sizes_IR[:, None]).permute(1, 2, 0)[:, :rank]
    point.weight.copy_(mixed_ORI.reshape(point.weight.shape))
    if bias:
        point.bias.copy_(torch.zeros(outside) if conv.bias is None else conv.bias)
    return nn.Sequential(deep[0] if rank == 1 else Branches(*deep), point).to(conv.weight.dtype).eval()
