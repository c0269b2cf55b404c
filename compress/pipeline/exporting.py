"""A network as an ONNX file: quantized as its runtime wants it, or with the types of 16 bits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from torch import Tensor, nn

from export.artifact import Artifact
from export.half.network import Half
from export.quantization.quantized import Quantized
from export.quantization.rules import Rules
from export.to_onnx import Style, to_onnx


def placed(net: nn.Module, rules: Rules | None) -> nn.Module:
    """The module to export for a runtime: itself, quantized as its rules say, or with the types of 16 bits."""
    if isinstance(net, Quantized):
        assert rules is not None
        return net.placed(rules)
    return net.typed() if isinstance(net, Half) else net


def written(
    net: nn.Module,
    rules: Rules | None,
    example: Tensor,
    to: Path,
    style: Style,
    metadata: Mapping[str, str],
    as_placed: nn.Module | None = None,
) -> Artifact:
    """The network's file, with its sidecar.

    Args:
        as_placed: what `placed` gives, where it is known already.
    """
    as_placed = placed(net, rules) if as_placed is None else as_placed
    if not isinstance(net, Half):
        return to_onnx(as_placed, example, to, style, metadata)
    style = replace(style, opset=max(style.opset, net.format.least_opset))
    artifact = to_onnx(as_placed, example, to, style, metadata)
    reasons = {"type": net.format.word, "float32": net.reasons()}
    return replace(artifact, made={**artifact.made, "half": reasons}).sealed()
