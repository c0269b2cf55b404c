"""Biases, corrected by what rounded weights change on average (Nagel et al. 2019, arXiv 1906.04721, section 4.2).

Legend: O output channels, C input channels of a group, T taps of the kernel (flat).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, fx

from export.graph import CONVS, TRANSPOSED, bias_of, constant, groups_of, set_constant
from export.quantization.carriers import source_of

_ROOM = 2.0**30
"""Steps of a layer's sums that a corrected bias may reach: half of what 32 bits hold."""


def correct_bias(graph: fx.GraphModule, node: fx.Node, weight_OCT: Tensor, scale: fx.Node, input_scale: float) -> None:
    """Take from a layer's bias what the rounding of its weight adds for an average input, in place.

    Nothing happens where the mean of each channel that it reads is not known, or is not that any more.

    Args:
        node: a layer.
        weight_OCT: its weight, not rounded yet, as `by_output` lays it out.
        scale: reads the scale of each output channel.
        input_scale: the step of what the layer reads.
    """
    mean_C = source_of(node.args[0]).meta.get("mean_C")
    transposed = node.target in TRANSPOSED
    if mean_C is None or "stretched_input" in node.meta or node.target not in (*CONVS, *TRANSPOSED):
        return
    groups = groups_of(node)
    if transposed and groups > 1:
        return
    scale_O = constant(graph, scale).double()
    last = node.meta["grid"].largest if "grid" in node.meta else 127
    rounded_OCT = (weight_OCT / scale_O[:, None, None]).round().clamp(-last, last) * scale_O[:, None, None]
    added_O = _added((rounded_OCT - weight_OCT).sum(2), mean_C.double(), groups)
    if transposed:
        # Of the taps of a transposed convolution each output pixel sees one in as many as the stride has pixels.
        strides = node.args[3] if len(node.args) > 3 else [1]
        added_O = added_O / math.prod(strides)  # type: ignore[arg-type]
    bias_O = bias_of(graph, node)
    corrected_O = (torch.zeros_like(added_O) if bias_O is None else bias_O.double()) - added_O
    if bool((corrected_O.abs() <= _ROOM * scale_O * input_scale).all()):
        set_constant(graph, node, 2, corrected_O.to(weight_OCT.dtype))


def _added(change_OC: Tensor, mean_C: Tensor, groups: int) -> Tensor:
    """What changed weights, summed over their taps, add to each output channel on average, away from the edge."""
    # Output channels lie group by group; each reads the channels of its group.
    mean_OC = mean_C.reshape(groups, -1).repeat_interleave(change_OC.shape[0] // groups, dim=0)
    return (change_OC * mean_OC).sum(1)
