"""ONNX's operators, in torch: what they compute, for any opset that is read.

A value is a tensor, or, where it is about shapes, a numpy array: those are computed in Python, so that what torch
exports has no trace of them. Sizes may be left open; an array then holds torch's symbols.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from compress.networks.foreign.onnx_file import computed

Value = Any
"""A Tensor, an array, or None for an input that is left out."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Node:
    """One operator of a graph."""

    name: str
    kind: str
    opset: int
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]
    proto: Any
    """The same, as ONNX writes it."""

    def get(self, name: str, default: Any) -> Any:
        return self.attributes.get(name, default)


Operator = Callable[..., Value]


def applied(node: Node, values: Sequence[Value]) -> tuple[Value, ...]:
    """A node's outputs."""
    if node.kind != "Shape" and all(value is None or isinstance(value, np.ndarray) for value in values):
        return _on_arrays(node, values)
    if node.kind not in OPERATORS:
        raise ValueError("is known of shapes alone, and here it depends on the values of the image")
    answer = OPERATORS[node.kind](node, *values)
    return answer if isinstance(answer, tuple) else (answer,)


def following(node: Node, values: list[Value], written: int, given: Any) -> list[Value]:
    """The same values where a target shape in the file begins with its one batch, and another batch is given.

    Whether that is what the file means is found by trying (compress/networks/onnx.py).
    """
    place = {"Reshape": 1, "Expand": 1, "Resize": 3}.get(node.kind)
    if place is None or len(values) <= place or not isinstance(values[0], Tensor) or values[0].shape[0] != given:
        return values
    shape = values[place]
    axes = node.get("axes", None)
    whole_shape = node.kind != "Resize" or axes is None or axes[0] == 0
    if not isinstance(shape, np.ndarray) or not shape.size or shape.flat[0] != written or not whole_shape:
        return values
    wanted = shape.astype(object)
    wanted[0] = given
    return [*values[:place], wanted, *values[place + 1 :]]


def tensor(value: Value, like: Tensor) -> Tensor:
    """An array as a tensor beside another."""
    if isinstance(value, Tensor):
        return value
    kind = torch.float32 if value.dtype.kind == "f" else torch.bool if value.dtype.kind == "b" else torch.int64
    if value.size and (value == value.flat[0]).all():
        return torch.full(value.shape, value.flat[0].item(), dtype=kind, device=like.device)
    return torch.tensor(value.tolist(), dtype=kind, device=like.device)


def whole(value: Value) -> list[Any]:
    """A list of whole numbers, or symbols."""
    if isinstance(value, Tensor):
        raise ValueError("a shape depends on the values of the image")
    return [each if isinstance(each, torch.SymInt) else int(each) for each in value.reshape(-1).tolist()]


def axis_pads(node: Node, sides: Sequence[Any], kernel: Sequence[int]) -> tuple[list[Any], list[Any]]:
    """What a window's node adds before and after each axis of the image."""
    count = len(kernel)
    strides, dilations = node.get("strides", [1] * count), node.get("dilations", [1] * count)
    auto = node.get("auto_pad", "NOTSET")
    if auto in ("NOTSET", "VALID"):
        pads = node.get("pads", [0] * 2 * count) if auto == "NOTSET" else [0] * 2 * count
        return list(pads[:count]), list(pads[count:])
    begins, ends = [], []
    for side, size, stride, dilation in zip(sides, kernel, strides, dilations, strict=True):
        reach = (size - 1) * dilation + 1
        total = max((-(-side // stride) - 1) * stride + reach - side, 0) if stride > 1 else reach - 1
        small = total // 2
        begins.append(small if auto == "SAME_UPPER" else total - small)
        ends.append(total - small if auto == "SAME_UPPER" else small)
    return begins, ends


def padded(x: Tensor, begins: Sequence[Any], ends: Sequence[Any], value: float = 0.0) -> Tensor:
    """An image with so much added to its last axes."""
    if not any(begins) and not any(ends):
        return x
    pads = [each for pair in zip(reversed(begins), reversed(ends), strict=True) for each in pair]
    return F.pad(x, pads, value=value)


# On arrays.


def _on_arrays(node: Node, values: Sequence[Value]) -> tuple[Value, ...]:
    open_ended = any(value is not None and value.dtype == object for value in values)
    if not open_ended:
        if node.kind in _ALIKE:
            return (np.asarray(_ON_SYMBOLS[node.kind](node, *values)),)
        return tuple(computed(node.proto, node.opset, values))
    if node.kind not in _ON_SYMBOLS:
        raise ValueError("this size cannot be left open (dynamic)")
    return (np.asarray(_ON_SYMBOLS[node.kind](node, *values), dtype=object),)


def _squeeze_array(node: Node, x: Value, axes: Value = None) -> Value:
    axes = node.get("axes", None) if axes is None else tuple(whole(axes))
    return np.squeeze(x, None if axes is None else tuple(axes))


def _unsqueeze_array(node: Node, x: Value, axes: Value = None) -> Value:
    return np.expand_dims(x, tuple(node.get("axes", None) if axes is None else whole(axes)))


def _slice_array(node: Node, x: Value, *given: Value) -> Value:
    starts, ends, axes, steps = _slices(node, x.ndim, given)
    index: list[slice] = [slice(None)] * x.ndim
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        index[axis] = slice(start, None if step < 0 and end < -(2**30) else end, step)
    return x[tuple(index)]


def _reshape_array(node: Node, x: Value, shape: Value) -> Value:
    wanted = whole(shape)
    return x.reshape([x.shape[axis] if side == 0 and x.size else side for axis, side in enumerate(wanted)])


def _divided(node: Node, a: Value, b: Value) -> Value:
    inexact = any(isinstance(each, float | torch.SymFloat) for each in (*a.flat, *b.flat))
    return a / b if inexact else a // b


def _floored(node: Node, x: Value) -> Value:
    return np.array([math.floor(each) for each in x.flat], dtype=object).reshape(x.shape)


_ON_SYMBOLS: dict[str, Operator] = {
    "Add": lambda node, a, b: a + b,
    "Sub": lambda node, a, b: a - b,
    "Mul": lambda node, a, b: a * b,
    "Div": _divided,
    "Floor": _floored,
    "Identity": lambda node, x: x,
    "Cast": lambda node, x: _floored(node, x) if node.get("to", 0) in (6, 7) else x,
    "Concat": lambda node, *xs: np.concatenate(xs, axis=node.get("axis", 0)),
    "Gather": lambda node, x, indices: np.take(x, indices, axis=node.get("axis", 0)),
    "Slice": _slice_array,
    "Squeeze": _squeeze_array,
    "Unsqueeze": _unsqueeze_array,
    "Reshape": _reshape_array,
}

# Of ordinary numbers too: quicker, and ONNX's reference has its own mind about some of them.
_ALIKE = ("Add", "Sub", "Mul", "Identity", "Concat", "Gather", "Slice", "Squeeze", "Unsqueeze", "Reshape")


# Elementwise.


def _beside(a: Value, b: Value) -> tuple[Value, Value]:
    """Both as tensors, or one of them as a number."""
    if isinstance(a, Tensor):
        return a, _number(b, a)
    return _number(a, b), b


def _number(value: Value, other: Tensor) -> Value:
    if isinstance(value, Tensor):
        return value
    if value.size == 1 and value.ndim <= other.dim():
        return value.reshape(-1).tolist()[0]
    return tensor(value, other)


def _of_two(compute: Callable[[Any, Any], Any]) -> Operator:
    return lambda node, a, b: compute(*_beside(a, b))


def _of_one(compute: Callable[[Tensor], Tensor]) -> Operator:
    return lambda node, x: compute(x)


def _of_many(compute: Callable[[Tensor, Tensor], Tensor]) -> Operator:
    def reduced(node: Node, *values: Value) -> Tensor:
        like = next(value for value in values if isinstance(value, Tensor))
        found = tensor(values[0], like)
        for value in values[1:]:
            found = compute(found, tensor(value, like))
        return found

    return reduced


def _mean(node: Node, *values: Value) -> Tensor:
    return _of_many(torch.add)(node, *values) / len(values)


def _divide(a: Any, b: Any) -> Any:
    if isinstance(a, Tensor) and not a.is_floating_point():
        return torch.div(a, b, rounding_mode="trunc")
    return a / b


def _mod(node: Node, a: Value, b: Value) -> Tensor:
    a, b = _beside(a, b)
    return torch.fmod(a, b) if node.get("fmod", 0) else torch.remainder(a, b)


def _where(node: Node, condition: Value, a: Value, b: Value) -> Tensor:
    like = next(value for value in (condition, a, b) if isinstance(value, Tensor))
    return torch.where(tensor(condition, like), tensor(a, like), tensor(b, like))


def _clip(node: Node, x: Tensor, low: Value = None, high: Value = None) -> Tensor:
    low = node.get("min", None) if low is None else _number(low, x)
    high = node.get("max", None) if high is None else _number(high, x)
    return x if low is None and high is None else torch.clamp(x, low, high)


def _prelu(node: Node, x: Tensor, slope: Value) -> Tensor:
    return torch.where(x < 0, x * _number(slope, x), x)


def _cast(node: Node, x: Tensor, *_: Value) -> Tensor:
    to = node.get("to", 1)
    kinds = {2: torch.uint8, 3: torch.int8, 5: torch.int16, 6: torch.int32, 7: torch.int64, 9: torch.bool}
    # 16-bit floats are computed in 32.
    return x.to(kinds.get(to, torch.float32))


def _flat_softmax(compute: Callable[..., Tensor]) -> Operator:
    def softmax(node: Node, x: Tensor) -> Tensor:
        if node.opset >= 13:
            return compute(x, dim=node.get("axis", -1))
        axis = node.get("axis", 1) % x.dim()
        if axis == x.dim() - 1:
            return compute(x, dim=axis)
        return compute(x.flatten(axis), dim=axis).reshape(x.shape)

    return softmax


# Shapes.


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


def _slices(node: Node, rank: int, given: Sequence[Value]) -> tuple[list[Any], list[Any], list[int], list[int]]:
    values: list[Any] = [*given, None, None, None, None]
    starts, ends, axes, steps = values[:4]
    starts = node.get("starts", []) if starts is None else whole(starts)
    ends = node.get("ends", []) if ends is None else whole(ends)
    axes = node.get("axes", list(range(len(starts)))) if axes is None else whole(axes)
    steps = [1] * len(starts) if steps is None else whole(steps)
    return starts, ends, [axis % rank for axis in axes], steps


def _slice(node: Node, x: Tensor, *given: Value) -> Tensor:
    for start, end, axis, step in zip(*_slices(node, x.dim(), given), strict=True):
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
    fill = node.get("value", 0.0) if value is None else _number(value, x)
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


# Resizing.


def _upsample(node: Node, x: Tensor, scales: Value = None) -> Tensor:
    """Opset 9 and older, in the way of Resize 10."""
    given = np.asarray(node.get("scales", [])) if scales is None else scales
    return _resized(node, x, None, given, None, "asymmetric", "floor")


def _resize(node: Node, x: Tensor, *given: Value) -> Tensor:
    if node.opset < 11:
        return _resized(node, x, None, given[0], None, "asymmetric", "floor")
    values: list[Any] = [*given, None, None, None]
    _, scales, sizes = values[:3]
    coordinates = node.get("coordinate_transformation_mode", "half_pixel")
    return _resized(
        node, x, node.get("axes", None), scales, sizes, coordinates, node.get("nearest_mode", "round_prefer_floor")
    )


def _resized(node: Node, x: Tensor, axes: Any, scales: Value, sizes: Value, coordinates: str, rounding: str) -> Tensor:
    axes = list(range(x.dim())) if axes is None else [axis % x.dim() for axis in axes]
    if sizes is not None and sizes.size:
        wanted = whole(sizes)
        factors = [side / x.shape[axis] for side, axis in zip(wanted, axes, strict=True)]
        policy = node.get("keep_aspect_ratio_policy", "stretch")
        if policy != "stretch":
            chosen = min(factors) if policy == "not_larger" else max(factors)
            factors = [chosen] * len(axes)
            wanted = [math.floor(x.shape[axis] * chosen + 0.5) for axis in axes]
    elif scales is not None and scales.size:
        factors = [each if isinstance(each, torch.SymFloat) else float(each) for each in scales.reshape(-1).tolist()]
        wanted = [_times(x.shape[axis], factor) for axis, factor in zip(axes, factors, strict=True)]
    else:
        raise ValueError("has neither scales nor sizes")
    changed = [
        place
        for place, axis in enumerate(axes)
        if wanted[place] is not x.shape[axis] and wanted[place] != x.shape[axis]
    ]
    if not changed:
        return x
    grid = _Grid(
        mode=node.get("mode", "nearest"),
        coordinates=coordinates,
        rounding=rounding,
        antialias=bool(node.get("antialias", 0)),
        cubic=node.get("cubic_coeff_a", -0.75),
        sharp=bool(node.get("exclude_outside", 0)),
    )
    whole_size = list(x.shape)
    for place, axis in enumerate(axes):
        whole_size[axis] = wanted[place]
    if [axis for axis in (axes[place] for place in changed) if axis < 2]:
        return grid.along({axes[place]: (wanted[place], factors[place]) for place in changed}, x)
    scale = [1.0] * x.dim()
    for axis, factor in zip(axes, factors, strict=True):
        scale[axis] = factor
    return grid.interpolated(x, whole_size[2:], scale[2:])


def _times(side: Any, factor: Any) -> Any:
    if isinstance(side, torch.SymInt) and float(factor).is_integer():
        return side * int(factor)
    return math.floor(side * factor)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Grid:
    """How new pixels are taken from old ones."""

    mode: str
    coordinates: str
    rounding: str
    antialias: bool
    cubic: float
    sharp: bool

    def interpolated(self, x: Tensor, size: Sequence[Any], scale: Sequence[Any]) -> Tensor:
        """Height and width changed, by torch's own function wherever it does the same."""
        corners = self.coordinates == "align_corners"
        modes = {"linear": {3: "linear", 4: "bilinear", 5: "trilinear"}, "cubic": {4: "bicubic"}}
        smooth = modes.get(self.mode, {}).get(x.dim())
        if smooth and (corners or self.coordinates in ("half_pixel", "pytorch_half_pixel")):
            # With a scale that is no ratio of the sizes, the two place their pixels differently.
            exact = all(_fits(old, new, each) for old, new, each in zip(x.shape[2:], size, scale, strict=True))
            told = self.cubic == -0.75 and not self.sharp
            if (exact or corners) and (told or self.mode != "cubic"):
                return F.interpolate(x, list(size), mode=smooth, align_corners=corners, antialias=self.antialias)
        if self.mode == "nearest" and self._as_torch(x.shape[2:], size, scale):
            return F.interpolate(x, list(size), mode="nearest")
        pairs = zip(x.shape[2:], size, scale, strict=True)
        axes = {axis: (new, each) for axis, (old, new, each) in enumerate(pairs, start=2) if old != new}
        return self.along(axes, x)

    def _as_torch(self, old: Sequence[Any], new: Sequence[Any], scale: Sequence[Any]) -> bool:
        if any(isinstance(side, torch.SymInt) for side in (*old, *new)):
            # At whole factors rounding half pixels takes the same ones.
            factors = all(not isinstance(each, torch.SymFloat) and float(each).is_integer() for each in scale)
            ways = (self.coordinates, self.rounding)
            return ways == ("asymmetric", "floor") or (factors and ways == ("half_pixel", "round_prefer_floor"))
        return all(
            (self._places(a, b, s) == np.floor(np.arange(b) * (a / b)).astype(np.int64)).all()
            for a, b, s in zip(old, new, scale, strict=True)
        )

    def along(self, axes: Mapping[int, tuple[Any, Any]], x: Tensor) -> Tensor:
        """One axis after the other, pixel by pixel."""
        if self.antialias or self.mode == "cubic":
            raise ValueError(f"resizes by '{self.mode}' with '{self.coordinates}', which is not taken")
        for axis, (size, scale) in axes.items():
            old = x.shape[axis]
            if isinstance(old, torch.SymInt) or isinstance(size, torch.SymInt):
                raise ValueError(f"resizes by '{self.mode}' with '{self.coordinates}', whose size cannot be left open")
            if self.mode == "nearest":
                x = x.index_select(axis, torch.tensor(self._places(old, size, scale).tolist(), device=x.device))
                continue
            place = np.clip(self._coordinates(old, size, scale), 0, old - 1)
            low = np.floor(place).astype(np.int64)
            share = torch.tensor((place - low).tolist(), dtype=x.dtype, device=x.device)
            share = share.reshape(-1, *([1] * (x.dim() - 1 - axis)))
            below = x.index_select(axis, torch.tensor(low.tolist(), device=x.device))
            above = x.index_select(axis, torch.tensor(np.minimum(low + 1, old - 1).tolist(), device=x.device))
            x = below + (above - below) * share
        return x

    def _coordinates(self, old: int, new: int, scale: float) -> np.ndarray:
        """Where each new pixel lies among the old ones."""
        place = np.arange(new, dtype=np.float64)
        match self.coordinates:
            case "asymmetric":
                return place / scale
            case "align_corners":
                return place * (old - 1) / max(new - 1, 1)
            case "tf_half_pixel_for_nn":
                return (place + 0.5) / scale
            case "half_pixel":
                return (place + 0.5) / scale - 0.5
            case "pytorch_half_pixel":
                return (place + 0.5) / scale - 0.5 if new > 1 else np.zeros(1)
            case "half_pixel_symmetric":
                adjustment = new / (scale * old)
                return old / 2 * (1 - adjustment) + (place + 0.5) / scale - 0.5
        raise ValueError(f"resizes with '{self.coordinates}', which is not taken")

    def _places(self, old: int, new: int, scale: float) -> np.ndarray:
        place = self._coordinates(old, new, scale)
        ways: dict[str, Callable[[np.ndarray], np.ndarray]] = {
            "floor": np.floor,
            "ceil": np.ceil,
            "round_prefer_floor": lambda each: np.ceil(each - 0.5),
            "round_prefer_ceil": lambda each: np.floor(each + 0.5),
        }
        return np.clip(ways[self.rounding](place), 0, old - 1).astype(np.int64)


def _fits(old: Any, new: Any, scale: Any) -> bool:
    if isinstance(old, torch.SymInt) or isinstance(new, torch.SymInt):
        return True
    return abs(new / old - scale) < 1e-6 * scale


# Windows and sums.


def _max_pool(node: Node, x: Tensor) -> Tensor:
    if len([name for name in node.outputs if name]) > 1:
        raise ValueError("answers with the places of its maxima, which is not taken")
    kernel = node.get("kernel_shape", [])
    count = len(kernel)
    pads, strides = axis_pads(node, x.shape[2:], kernel), node.get("strides", [1] * count)
    begins, ends = pads
    pool = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}[count]
    inside: Any = 0
    if begins == ends and all(2 * begin <= size for begin, size in zip(begins, kernel, strict=True)):
        inside = begins
    else:
        x = padded(x, begins, ends, -math.inf)
    return pool(
        x, kernel, strides, inside, node.get("dilations", [1] * count), ceil_mode=bool(node.get("ceil_mode", 0))
    )


def _average_pool(node: Node, x: Tensor) -> Tensor:
    kernel = node.get("kernel_shape", [])
    count = len(kernel)
    if any(each != 1 for each in node.get("dilations", [1] * count)):
        raise ValueError("averages with gaps (dilations), which is not taken")
    begins, ends = axis_pads(node, x.shape[2:], kernel)
    counted, strides = bool(node.get("count_include_pad", 0)), node.get("strides", [1] * count)
    pool = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}[count]
    ceil = bool(node.get("ceil_mode", 0))
    if begins == ends:
        return pool(x, kernel, strides, begins, ceil, counted)
    if counted:
        return pool(padded(x, begins, ends), kernel, strides, 0, ceil)
    share = pool(padded(torch.ones_like(x[:1, :1]), begins, ends), kernel, strides, 0, ceil)
    return pool(padded(x, begins, ends), kernel, strides, 0, ceil) / share


def _over_image(x: Tensor) -> list[int]:
    return list(range(2, x.dim()))


def _reduced(compute: Callable[[Tensor, list[int], bool], Tensor]) -> Operator:
    def reduced(node: Node, x: Tensor, axes: Value = None) -> Tensor:
        given = node.get("axes", None) if axes is None else whole(axes)
        if not given:
            if node.get("noop_with_empty_axes", 0):
                return x
            given = list(range(x.dim()))
        return compute(x, list(given), bool(node.get("keepdims", 1)))

    return reduced


def _product(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    for axis in sorted((axis % x.dim() for axis in axes), reverse=True):
        x = x.prod(axis, keepdim=keep)
    return x


def _arg(compute: Callable[..., Tensor]) -> Operator:
    def arg(node: Node, x: Tensor) -> Tensor:
        return compute(x, dim=node.get("axis", 0), keepdim=bool(node.get("keepdims", 1)))

    return arg


def _gemm(node: Node, a: Value, b: Value, c: Value = None) -> Tensor:
    like = next(value for value in (a, b) if isinstance(value, Tensor))
    a, b = tensor(a, like), tensor(b, like)
    found = (a.t() if node.get("transA", 0) else a) @ (b.t() if node.get("transB", 0) else b)
    found = found if node.get("alpha", 1.0) == 1 else found * node.get("alpha", 1.0)
    return found if c is None else found + _number(c, found) * node.get("beta", 1.0)


def _matmul(node: Node, a: Value, b: Value) -> Tensor:
    like = a if isinstance(a, Tensor) else b
    return torch.matmul(tensor(a, like), tensor(b, like))


def _einsum(node: Node, *values: Value) -> Tensor:
    like = next(value for value in values if isinstance(value, Tensor))
    return torch.einsum(node.get("equation", ""), [tensor(value, like) for value in values])


def _dropout(node: Node, x: Tensor, *given: Value) -> Tensor:
    # What an exporter leaves of a dropout is what it does in evaluation.
    return x


OPERATORS: Mapping[str, Operator] = {
    "Abs": _of_one(torch.abs),
    "Add": _of_two(lambda a, b: a + b),
    "And": _of_many(torch.logical_and),
    "ArgMax": _arg(torch.argmax),
    "ArgMin": _arg(torch.argmin),
    "AveragePool": _average_pool,
    "Cast": _cast,
    "Ceil": _of_one(torch.ceil),
    "Clip": _clip,
    "Concat": _concat,
    "Cos": _of_one(torch.cos),
    "DepthToSpace": _depth_to_space,
    "Div": _of_two(_divide),
    "Dropout": _dropout,
    "Einsum": _einsum,
    "Elu": lambda node, x: F.elu(x, node.get("alpha", 1.0)),
    "Equal": _of_two(lambda a, b: a == b),
    "Erf": _of_one(torch.erf),
    "Exp": _of_one(torch.exp),
    "Expand": _expand,
    "Flatten": _flatten,
    "Floor": _of_one(torch.floor),
    "Gather": _gather,
    "GatherND": _gather_nd,
    "Gelu": lambda node, x: F.gelu(x, approximate=node.get("approximate", "none")),
    "Gemm": _gemm,
    "GlobalAveragePool": lambda node, x: x.mean(_over_image(x), keepdim=True),
    "GlobalMaxPool": lambda node, x: x.amax(_over_image(x), keepdim=True),
    "Greater": _of_two(lambda a, b: a > b),
    "GreaterOrEqual": _of_two(lambda a, b: a >= b),
    "HardSigmoid": lambda node, x: torch.clamp(x * node.get("alpha", 0.2) + node.get("beta", 0.5), 0, 1),
    "HardSwish": _of_one(F.hardswish),
    "Identity": lambda node, x: x,
    "LeakyRelu": lambda node, x: F.leaky_relu(x, node.get("alpha", 0.01)),
    "Less": _of_two(lambda a, b: a < b),
    "LessOrEqual": _of_two(lambda a, b: a <= b),
    "Log": _of_one(torch.log),
    "LogSoftmax": _flat_softmax(torch.log_softmax),
    "MatMul": _matmul,
    "Max": _of_many(torch.maximum),
    "MaxPool": _max_pool,
    "Mean": _mean,
    "Min": _of_many(torch.minimum),
    "Mish": _of_one(F.mish),
    "Mod": _mod,
    "Mul": _of_two(lambda a, b: a * b),
    "Neg": _of_one(torch.neg),
    "Not": _of_one(torch.logical_not),
    "Or": _of_many(torch.logical_or),
    "PRelu": _prelu,
    "Pad": _pad,
    "Pow": _of_two(lambda a, b: a**b),
    "Reciprocal": _of_one(torch.reciprocal),
    "ReduceL1": _reduced(lambda x, axes, keep: x.abs().sum(axes, keepdim=keep)),
    "ReduceL2": _reduced(lambda x, axes, keep: x.square().sum(axes, keepdim=keep).sqrt()),
    "ReduceLogSumExp": _reduced(lambda x, axes, keep: torch.logsumexp(x, axes, keepdim=keep)),
    "ReduceMax": _reduced(lambda x, axes, keep: x.amax(axes, keepdim=keep)),
    "ReduceMean": _reduced(lambda x, axes, keep: x.mean(axes, keepdim=keep)),
    "ReduceMin": _reduced(lambda x, axes, keep: x.amin(axes, keepdim=keep)),
    "ReduceProd": _reduced(_product),
    "ReduceSum": _reduced(lambda x, axes, keep: x.sum(axes, keepdim=keep)),
    "ReduceSumSquare": _reduced(lambda x, axes, keep: x.square().sum(axes, keepdim=keep)),
    "Relu": _of_one(torch.relu),
    "Reshape": _reshape,
    "Resize": _resize,
    "Round": _of_one(torch.round),
    "Selu": _of_one(F.selu),
    "Shape": _shape,
    "Sigmoid": _of_one(torch.sigmoid),
    "Sign": _of_one(torch.sign),
    "Sin": _of_one(torch.sin),
    "Size": lambda node, x: np.array(math.prod(x.shape)),
    "Slice": _slice,
    "Softmax": _flat_softmax(torch.softmax),
    "Softplus": _of_one(F.softplus),
    "Softsign": _of_one(F.softsign),
    "SpaceToDepth": _space_to_depth,
    "Split": _split,
    "Sqrt": _of_one(torch.sqrt),
    "Squeeze": _squeeze,
    "Sub": _of_two(lambda a, b: a - b),
    "Sum": _of_many(torch.add),
    "Tanh": _of_one(torch.tanh),
    "Tile": _tile,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
    "Upsample": _upsample,
    "Where": _where,
}
