"""How a runtime wants a quantized network written: each fuses another pattern, and states it in its own file."""

from dataclasses import dataclass
from typing import Literal

Carrier = Literal["max_pool", "concat", "shuffle", "nearest"]


@dataclass(frozen=True, kw_only=True)
class Rules:
    """The placement that one runtime fuses; a constant in that runtime's file."""

    runtime: str = ""
    """The word of the runtime, by which a network knows what was chosen for it alone; none for what is only looked at
    in torch."""
    activations: Literal["uint8", "int8"]
    """uint8: asymmetric, any zero point; int8: symmetric, zero point 0."""
    carriers: frozenset[Carrier]
    """Operators that only move values: they stay in integers, their inputs quantized like their output."""
    behind_carriers: bool
    """A second pair behind a carrier whose input already lies on the same grid: some runtimes need it to
    see that the carrier is an integer operator, others run it as work of its own."""
    outputs: bool
    """Quantize what a convolution (and its activation) puts out, even where no convolution reads it: the
    runtime has integer kernels for nothing else. The convolution of the logits then stays in float."""
    adds: Literal["both", "skip", "none"]
    """Of a residual addition: quantize both inputs, only the skip (not the convolution it fuses into), or neither."""
    one_scale_concat: bool
    """All inputs and the output of a concatenation share one scale."""
    transposed_as_convolution: bool
    """Write transposed convolutions as convolution + DepthToSpace (exact); those that cannot be stay in float."""
    transposed_multiple: int = 1
    """A transposed convolution whose input channels are no multiple of this is rewritten too."""
    padding_beyond_kernel: bool = True
    """Whether a convolution of one input channel a group may be padded by its kernel's size or more where its input
    has a zero point; otherwise it stays in float."""
    padded_groups_of_volumes: bool = True
    """Whether a grouped 3-D convolution may be padded where its input has a zero point; otherwise it stays in float."""
    channels_under_even_kernels: int = 0
    """A convolution with fewer input channels than this, and an even side of 4 or more, stays in float."""
    extremes: bool = True
    """Whether a largest or smallest value over axes may be rounded; otherwise what reads it stays in float."""
    pairs_in_16_bits: bool = False
    """On some processors the runtime adds products of two neighbours in 16 bits: weights then get steps with which
    no such sum is cut off (export/quantization/saturation.py)."""
    sums_with_bias: bool = False
    """Whether a layer's bias is rounded to the grid of its sums, to be added up with them in integers; otherwise it is
    added in float."""
    fills_in: bool = False
    """Whether the runtime puts a layer in float, between pairs of one scale, into integers by itself: then such a layer
    reads through a scale for each channel, all alike, which keeps it in float."""
    least_channels: int = 0
    """Convolutions with fewer input or output channels stay in float."""
    reads_bits: bool = True
    """Whether it takes integer weights that the file unpacks from few bits (export/packed.py); else they are int8."""
