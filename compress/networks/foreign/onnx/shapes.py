"""ONNX's operators that move, cut, join or pad, in torch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from compress.networks.foreign.onnx.node import Node, Operator, Value, number, tensor, whole
from compress.networks.foreign.onnx.padding import padded


def _shape(node: Node, x: Value) -> Value:
    sides = list(x.shape)[slice(node.get("start", 0), node.get("end", None))]
    open_ended = any(isinstance(side, torch.SymInt) for side in sides)
    return np.array(sides, dtype=object if open_ended else np.int64)


def _reshape(node: Node, x: Tensor, shape: Value) -> Tensor:
    wanted = whole(shape)
    if not node.get("allowzero", 0):
        wanted = [
            x.shape[axis] if not isinstance(side, torch.SymInt) and side == 0 else side
            for axis, side in enumerate(wanted)
        ]
    return x.reshape(wanted)


def _flatten(node: Node, x: Tensor) -> Tensor:
    axis = node.get("axis", 1)
    return x.reshape(math.prod(x.shape[:axis]), -1)


def _squeeze(node: Node, x: Tensor, axes: Value = None) -> Tensor:
    axes = node.get("axes", None) if axes is None else whole(axes)
    return x.squeeze() if axes is None else x.squeeze(tuple(axes))


def _unsqueeze(node: Node, x: Tensor, axes: Value = None) -> Tensor:
    axes = node.get("axes", None) if axes is None else whole(axes)
    rank = x.dim() + len(axes)
    for axis in sorted(axis % rank for axis in axes):
        x = x.unsqueeze(axis)
    return x


def _transpose(node: Node, x: Tensor) -> Tensor:
    return x.permute(node.get("perm", list(reversed(range(x.dim())))))


def _concat(node: Node, *values: Value) -> Tensor:
    like = next(value for value in values if isinstance(value, Tensor))
    return torch.cat([tensor(value, like) for value in values], dim=node.get("axis", 0))


def _split(node: Node, x: Tensor, sizes: Value = None) -> tuple[Tensor, ...]:
    axis = node.get("axis", 0)
    given = node.get("split", None) if sizes is None else whole(sizes)
    if given is None:
        count = node.get("num_outputs", len(node.outputs))
        given = -(-x.shape[axis] // count)
    return x.split(given, dim=axis)


def slices(node: Node, rank: int, given: Sequence[Value]) -> tuple[list[Any], list[Any], list[int], list[int]]:
    """(starts, ends, axes, steps) of a Slice, by its attributes or by its inputs."""
    values: list[Any] = [*given, None, None, None, None]
    starts, ends, axes, steps = values[:4]
    starts = node.get("starts", []) if starts is None else whole(starts)
    ends = node.get("ends", []) if ends is None else whole(ends)
    axes = node.get("axes", list(range(len(starts)))) if axes is None else whole(axes)
    steps = [1] * len(starts) if steps is None else whole(steps)
    return starts, ends, [axis % rank for axis in axes], steps


def _slice(node: Node, x: Tensor, *given: Value) -> Tensor:
    for start, end, axis, step in zip(*slices(node, x.dim(), given), strict=True):
        index: list[slice] = [slice(None)] * x.dim()
        if step > 0:
            index[axis] = slice(start, end, step)
            x = x[tuple(index)]
        else:
            places = list(range(x.shape[axis]))[slice(start, None if end < -(2**30) else end, step)]
            x = x.index_select(axis, torch.tensor(places, device=x.device))
    return x


def _gather(node: Node, x: Value, indices: Value) -> Tensor:
    axis = node.get("axis", 0)
    if isinstance(indices, Tensor):
        x = tensor(x, indices)
        places = torch.where(indices < 0, indices + x.shape[axis], indices)
    elif indices.ndim == 0:
        return x.select(axis, int(indices))
    else:
        places = tensor(np.where(indices < 0, indices + x.shape[axis], indices), x)
    taken = x.index_select(axis, places.reshape(-1))
    axis %= x.dim()
    return taken.reshape(*x.shape[:axis], *places.shape, *x.shape[axis + 1 :])


def _gather_nd(node: Node, x: Tensor, indices: Value) -> Tensor:
    if isinstance(indices, Tensor) or node.get("batch_dims", 0):
        raise ValueError("takes places that depend on the values of the image, which is not taken")
    depth = indices.shape[-1]
    sides = list(x.shape[:depth])
    flat = np.zeros(indices.shape[:-1], np.int64)
    for axis, side in enumerate(sides):
        flat = flat * side + np.where(indices[..., axis] < 0, indices[..., axis] + side, indices[..., axis])
    taken = x.reshape(-1, *x.shape[depth:]).index_select(0, torch.tensor(flat.reshape(-1).tolist(), device=x.device))
    return taken.reshape(*flat.shape, *x.shape[depth:])


def _expand(node: Node, x: Tensor, shape: Value) -> Tensor:
    wanted = whole(shape)
    return x.expand(torch.broadcast_shapes(x.shape, wanted))


def _tile(node: Node, x: Tensor, repeats: Value) -> Tensor:
    return x.repeat(whole(repeats))


def _pad(node: Node, x: Tensor, pads: Value = None, value: Value = None, axes: Value = None) -> Tensor:
    given = node.get("pads", []) if pads is None else whole(pads)
    fill = node.get("value", 0.0) if value is None else number(value, x)
    count = len(given) // 2
    chosen = list(range(count)) if axes is None else [axis % x.dim() for axis in whole(axes)]
    begins: list[Any] = [0] * x.dim()
    ends: list[Any] = [0] * x.dim()
    for axis, begin, end in zip(chosen, given[:count], given[count:], strict=True):
        begins[axis], ends[axis] = begin, end
    mode = node.get("mode", "constant")
    if mode == "constant":
        return padded(x, begins, ends, float(fill))
    if any(begins[:2]) or any(ends[:2]):
        raise ValueError(f"pads the batch or the channels by '{mode}', which is not taken")
    pads = [each for pair in zip(reversed(begins[2:]), reversed(ends[2:]), strict=True) for each in pair]
    return F.pad(x, pads, mode={"reflect": "reflect", "edge": "replicate", "wrap": "circular"}[mode])


def _depth_to_space(node: Node, x: Tensor) -> Tensor:
    size = node.get("blocksize", 1)
    if node.get("mode", "DCR") == "CRD":
        return F.pixel_shuffle(x, size)
    batch, channels, height, width = x.shape
    x = x.reshape(batch, size, size, channels // size**2, height, width).permute(0, 3, 4, 1, 5, 2)
    return x.reshape(batch, channels // size**2, height * size, width * size)


def _space_to_depth(node: Node, x: Tensor) -> Tensor:
    size = node.get("blocksize", 1)
    batch, channels, height, width = x.shape
    x = x.reshape(batch, channels, height // size, size, width // size, size).permute(0, 3, 5, 1, 2, 4)
    return x.reshape(batch, channels * size**2, height // size, width // size)


def _dropout(node: Node, x: Tensor, *given: Value) -> Tensor:
    # What an exporter leaves of a dropout is what it does in evaluation.
    return x


OPERATORS: Mapping[str, Operator] = {
    "Concat": _concat,
    "DepthToSpace": _depth_to_space,
    "Dropout": _dropout,
    "Expand": _expand,
    "Flatten": _flatten,
    "Gather": _gather,
    "GatherND": _gather_nd,
    "Identity": lambda node, x: x,
    "Pad": _pad,
    "Reshape": _reshape,
    "Shape": _shape,
    "Size": lambda node, x: np.array(math.prod(x.shape)),
    "Slice": _slice,
    "SpaceToDepth": _space_to_depth,
    "Split": _split,
    "Squeeze": _squeeze,
    "Tile": _tile,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
}
