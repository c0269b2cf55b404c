"""ONNX's Resize and Upsample, in torch."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from compress.networks.foreign.onnx.node import Node, Operator, Value, whole


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
        index
        for index, axis in enumerate(axes)
        if wanted[index] is not x.shape[axis] and wanted[index] != x.shape[axis]
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
    for index, axis in enumerate(axes):
        whole_size[axis] = wanted[index]
    if [axis for axis in (axes[index] for index in changed) if axis < 2]:
        return grid.along({axes[index]: (wanted[index], factors[index]) for index in changed}, x)
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
            position = np.clip(self._coordinates(old, size, scale), 0, old - 1)
            low = np.floor(position).astype(np.int64)
            share = torch.tensor((position - low).tolist(), dtype=x.dtype, device=x.device)
            share = share.reshape(-1, *([1] * (x.dim() - 1 - axis)))
            below = x.index_select(axis, torch.tensor(low.tolist(), device=x.device))
            above = x.index_select(axis, torch.tensor(np.minimum(low + 1, old - 1).tolist(), device=x.device))
            x = below + (above - below) * share
        return x

    def _coordinates(self, old: int, new: int, scale: float) -> np.ndarray:
        """Where each new pixel lies among the old ones."""
        position = np.arange(new, dtype=np.float64)
        match self.coordinates:
            case "asymmetric":
                return position / scale
            case "align_corners":
                return position * (old - 1) / max(new - 1, 1)
            case "tf_half_pixel_for_nn":
                return (position + 0.5) / scale
            case "half_pixel":
                return (position + 0.5) / scale - 0.5
            case "pytorch_half_pixel":
                return (position + 0.5) / scale - 0.5 if new > 1 else np.zeros(1)
            case "half_pixel_symmetric":
                adjustment = new / (scale * old)
                return old / 2 * (1 - adjustment) + (position + 0.5) / scale - 0.5
        raise ValueError(f"resizes with '{self.coordinates}', which is not taken")

    def _places(self, old: int, new: int, scale: float) -> np.ndarray:
        position = self._coordinates(old, new, scale)
        ways: dict[str, Callable[[np.ndarray], np.ndarray]] = {
            "floor": np.floor,
            "ceil": np.ceil,
            "round_prefer_floor": lambda each: np.ceil(each - 0.5),
            "round_prefer_ceil": lambda each: np.floor(each + 0.5),
        }
        return np.clip(ways[self.rounding](position), 0, old - 1).astype(np.int64)


def _fits(old: Any, new: Any, scale: Any) -> bool:
    if isinstance(old, torch.SymInt) or isinstance(new, torch.SymInt):
        return True
    return abs(new / old - scale) < 1e-6 * scale


OPERATORS: Mapping[str, Operator] = {
    "Resize": _resize,
    "Upsample": _upsample,
}
