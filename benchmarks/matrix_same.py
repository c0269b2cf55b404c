"""Whether two answers are the same network's: within a tolerance, or no further than the network is from itself."""

from __future__ import annotations

import copy

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

NEAR = 1e-3
"""How far an artifact's float logits may be from torch's, of the largest."""
NEAR_INT8 = 0.1
"""The same in integers, where a rounding that falls the other way moves what follows by a whole step: on average, and
at least. Some deep networks with random weights are chaotic; they may differ by what they differ from themselves."""
SHAKEN, SHAKEN_INT8 = 1e-6, 1e-5
"""By how much, relatively, all numbers of a network are changed to see how far it then is from itself: by a few of a
float's last digits, and by what makes some roundings to integers fall the other way."""
CHAOTIC = "shaken, it differs from itself"


def compared(answer: NDArray[np.float32], net: nn.Module, image: Tensor, near: float, shaken: float) -> str:
    """How far an answer is from that of the network in torch.

    Raises:
        AssertionError: if it is further than `near`, and than twice what the network is from itself, shaken.
    """
    with torch.no_grad():
        wanted = net(image).numpy()
    assert answer.shape == wanted.shape, f"the answer is {answer.shape}, not {wanted.shape}"
    apart = apart_on_average(answer, wanted)
    if apart <= near:
        return f"differs by {apart:.0e}"
    itself = from_itself(net, image, shaken)
    assert apart <= 2 * itself, f"its logits differ from torch's by {apart:.1%}, more than {near:.1%}"
    return f"{CHAOTIC} by {itself:.1%}, from torch's by {apart:.1%}"


@torch.no_grad()
def from_itself(net: nn.Module, image: Tensor, by: float) -> float:
    """How far the answer goes when every number in the network is changed a little, as a runtime that adds in
    another order does: the most of four times.
    """
    wanted, found = net(image), []
    for seed in range(4):
        draw = torch.Generator().manual_seed(seed)
        shaken = copy.deepcopy(net)
        for tensor in (*shaken.parameters(), *shaken.buffers()):
            if tensor.is_floating_point():
                tensor.data.mul_(1 + by * torch.randn(tensor.shape, generator=draw))
        found.append(apart_on_average(shaken(image).numpy(), wanted.numpy()))
    return max(found)


def apart_on_average(answer: NDArray[np.float32], wanted: NDArray[np.float32]) -> float:
    """How far two answers are from each other, of the second's size: in integers, single pixels may go far."""
    return float(np.abs(answer - wanted).mean() / max(1e-6, float(np.abs(wanted).mean())))
