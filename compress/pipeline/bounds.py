"""The time that cannot be beaten, of what a run builds and of what a recipe promises."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import nn

from compress.contracts import Pass
from compress.measure.macs import macs_of
from compress.pipeline.build import Build
from export.device import Device
from export.floor import Bits, Floor, Work, floor_of
from export.layers import Layer
from export.modules import Precision
from export.registry import find_device, words

KEEPING = ("int8", "low_bit", "half", "distill", "sparsify")
"""Passes that leave every multiplication in its place; behind any other, nothing is certain of how many are left."""

BITS: Mapping[Precision, Bits] = {"float": 32, "half": 16, "integers": 8}
"""Of the operands that a network's products have at the fewest."""


def floor(build: Build) -> dict[str, Any] | None:
    """That of a step's artifact; None where it is not there, or its device's peaks are not published."""
    if build.artifact is None:
        return None
    shapes = [[1, *port.shape[1:]] for port in (build.artifact.input, build.artifact.output)]
    if any(axis == -1 for shape in shapes for axis in shape):
        shapes = []
    flags = build.artifact.made.get("flags") or {}
    work = Work(
        macs=build.stage.macs,
        weights=build.stage.params,
        values=sum(math.prod(shape) for shape in shapes),
        bits=_bits(build),
        dims=len(build.artifact.input.shape) - 2,
        sparse="sparse_weights" in flags,
    )
    found = floor_of(build.deployment.device.peaks, work)
    return None if found is None else {**asdict(found), "ms": round(found.ms, 6)}


def _bits(build: Build) -> Bits:
    """Of its narrowest weights."""
    return BITS[build.stage.precision]


def work_of(net: nn.Module, shape: Sequence[int]) -> Work:
    """That of a network in float, for an input of this shape (BCHW or BCDHW)."""
    image = torch.zeros(tuple(shape))
    with torch.no_grad():
        answer = net(image)
    return Work(
        macs=macs_of(net, image),
        weights=sum(parameter.numel() for parameter in net.parameters()),
        values=image.numel() + answer.numel(),
        dims=len(shape) - 2,
    )


def foreseen_floor(device: Device, work: Work, passes: Sequence[tuple[str, Pass]]) -> tuple[Floor | None, bool]:
    """The floor of the network as it comes, in the precision that the passes bring; and whether what they leave cannot
    beat it either, which is certain only where they leave every multiplication in its place.
    """
    words = {word for word, _ in passes}
    bits: Bits = min((BITS[each.ensures] for _, each in passes), default=BITS["float"])
    after = replace(work, bits=bits, sparse="sparsify" in words)
    return floor_of(device.peaks, after), words <= set(KEEPING)


def layers_work(layers: Sequence[Layer], shape: Sequence[int], sparse: bool) -> Work:
    """That of the layers of an ONNX file, for an input of this shape; layers whose shape is not known are left out."""
    fewest = min((layer.bits for layer in layers if layer.bits), default=32)
    bits: Bits = 8 if fewest <= 8 else 16 if fewest <= 16 else 32
    last = layers[-1].shape if layers else None
    return Work(
        macs=sum(layer.macs or 0 for layer in layers),
        # As many as would take the room that is stored, were all of them of these bits.
        weights=sum(layer.params * layer.bits for layer in layers) // bits,
        values=math.prod(shape) + math.prod(last or (0,)),
        bits=bits,
        dims=len(shape) - 2,
        sparse=sparse,
    )


def many_zeros(model: onnx.ModelProto) -> bool:
    """Whether a layer's weights can be 2:4: half of them are zero."""
    weights = (numpy_helper.to_array(each) for each in model.graph.initializer if len(each.dims) > 1)
    return any(np.mean(each == 0) > 0.45 for each in weights)


def floors(work: Work) -> dict[str, Floor]:
    """The floor on every device whose peaks are published, by its word, the slowest first."""
    devices = (find_device(word) for word in words("export.devices"))
    found = {each.word: floor for each in devices if (floor := floor_of(each.peaks, work))}
    return dict(sorted(found.items(), key=lambda pair: -pair[1].ms))
