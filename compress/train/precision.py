"""Which floating-point format a network is trained in."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from compress.data.dataset.cases import Dataset

Precision = Literal["bf16-mixed", "32-true"]


def precision(net: nn.Module, data: Dataset) -> Precision:
    """bf16 where the hardware multiplies in it, and rightly; emulated bf16 is slower than fp32."""
    if torch.cuda.is_available():
        return "bf16-mixed" if torch.cuda.is_bf16_supported(including_emulation=False) else "32-true"
    if not torch.ops.mkldnn._is_mkldnn_bf16_supported() or _outgrown(net, data):
        return "32-true"
    return "bf16-mixed"


@torch.no_grad()
def _outgrown(net: nn.Module, data: Dataset) -> bool:
    """Whether a 3-D convolution is larger than its input along some axis.

    What torch 2.13 gives as the gradient of such a weight in bf16 on the CPU has memory in it that nothing was
    written to: now and then it is NaN.
    """
    found: list[bool] = []

    def look(conv: nn.Module, given: tuple[Tensor, ...]) -> None:
        assert isinstance(conv, nn.Conv3d)
        found.append(any(side < kernel for side, kernel in zip(given[0].shape[2:], conv.kernel_size, strict=True)))

    handles = [module.register_forward_pre_hook(look) for module in net.modules() if isinstance(module, nn.Conv3d)]
    if handles:
        was_training = net.training
        net.eval()(torch.zeros(1, data.channels, *data.fit.size))
        net.train(was_training)
    for handle in handles:
        handle.remove()
    return any(found)
