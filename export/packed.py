"""Weights in few bits: several small integers in a byte, expanded again by standard operators.

A weight is packed where its values are small integers, or in each output channel such integers times that channel's own
size; then nothing is lost, which is seen from the values, whoever made them. In an ONNX file a byte is looked up in a
table of the integers that it stands for (Gather): every runtime has that operator, while shifts and bitwise operators
are missing in TensorRT, and OpenVINO repeats them in every inference. ONNX Runtime 1.32 and OpenVINO 2026.4 fold the
Gather when they open a file, and run the same kernels as ever: only the file is smaller.

ONNX's own 4-bit type needs opset 21, and read by a DequantizeLinear makes ONNX Runtime compute in float; its 2-bit type
(opset 25) opens in OpenVINO not at all.

Legend: O output channels, N bytes, V integers a byte.
"""

from __future__ import annotations

import functools
import re
from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor

LEAST_PER_CHANNEL = 8
"""Of fewer weights a channel, equal sizes can be chance, and bits save nothing."""


@dataclass(frozen=True, kw_only=True)
class Coding:
    """How integers share a byte: each is a digit of the number that it holds, the lowest first."""

    word: str
    integers: tuple[int, ...]
    """What the digits 0, 1, ... stand for, ascending."""
    per_byte: int
    bits: int
    """Of one integer, rounded up."""

    @property
    def table(self) -> NDArray[np.int8]:
        """The integers that each byte stands for: (largest byte + 1, V)."""
        return _table(self)

    def coded(self, integers: NDArray[np.int8]) -> NDArray[np.uint8]:
        """N bytes that hold these integers (any shape) in their own order, padded at the end with the digit 0."""
        digits = np.searchsorted(self.integers, integers.reshape(-1))
        rows = np.pad(digits, (0, -digits.size % self.per_byte)).reshape(-1, self.per_byte)
        return (rows * len(self.integers) ** np.arange(self.per_byte)).sum(1).astype(np.uint8)

    def decoded(self, codes: NDArray[np.uint8], shape: tuple[int, ...]) -> NDArray[np.int8]:
        """The integers that N bytes hold, in this shape."""
        return self.table[codes].reshape(-1)[: int(np.prod(shape))].reshape(shape)


@functools.cache
def _table(coding: Coding) -> NDArray[np.int8]:
    base = len(coding.integers)
    bytes_N1 = np.arange(base**coding.per_byte)[:, None]
    return np.array(coding.integers, np.int8)[bytes_N1 // base ** np.arange(coding.per_byte) % base]


SIGNS = Coding(word="signs", integers=(-1, 1), per_byte=8, bits=1)
SIGNS_AND_ZEROS = Coding(word="signs_and_zeros", integers=(-1, 0, 1), per_byte=5, bits=2)
INT4 = Coding(word="int4", integers=tuple(range(-8, 8)), per_byte=2, bits=4)
CODINGS = (SIGNS, SIGNS_AND_ZEROS, INT4)
"""From the fewest bits to the most."""


@dataclass(frozen=True, kw_only=True)
class Packed:
    """A weight in few bits: `size` of each output channel times an integer."""

    coding: Coding
    codes: NDArray[np.uint8]
    """N bytes, the integers in the weight's own order."""
    size: NDArray[np.float32]
    """One for each output channel; of an integer weight, whole numbers."""
    shape: tuple[int, ...]
    """Of the weight, output channels first; where they are not, every size is 1."""

    def integers(self) -> NDArray[np.int8]:
        """The integers, in the weight's shape."""
        return self.coding.decoded(self.codes, self.shape)

    def values(self) -> NDArray[np.float32]:
        """The weight itself."""
        return self.integers() * self.size.reshape(-1, *[1] * (len(self.shape) - 1))


def packed(weight: Tensor, *, sized: bool = True) -> Packed | None:
    """A weight in as few bits as hold it exactly; None if 4 do not.

    Args:
        weight: float32, or int8 codes with zero in the middle.
        sized: whether each output channel may have a size of its own: then its output channels come first.
    """
    fits = _fitting(weight, sized)
    if fits is None:
        return None
    coding, size_O = fits
    each = size_O.reshape(-1, *[1] * (weight.dim() - 1))
    # What is times the size 0 may be any of them.
    integers = torch.where(each > 0, weight / each, 0 if 0 in coding.integers else 1)
    codes = coding.coded(integers.detach().to(torch.int8).numpy())
    return Packed(coding=coding, codes=codes, size=size_O.float().numpy(), shape=tuple(weight.shape))


def bits_of(weight: Tensor, *, sized: bool = True) -> int | None:
    """The bits of one value of a weight where it is packed; None where it is not. Arguments as of `packed`."""
    fits = _fitting(weight, sized)
    return None if fits is None else fits[0].bits


def _fitting(weight: Tensor, sized: bool) -> tuple[Coding, Tensor] | None:
    """How a weight is packed, and the size of each output channel."""
    size_O = _sizes(weight) if sized else None
    if size_O is not None:
        # A channel of zeros alone has the size 0, and needs no zero among its integers. Of an integer weight the size
        # goes into the scale, and with the scale 0 ONNX Runtime 1.32 leaves out the channel's bias.
        size_O = size_O if weight.is_floating_point() else size_O.clamp_min(1)
        zeros = bool((weight.flatten(1) == 0)[size_O != 0].any())
        return SIGNS_AND_ZEROS if zeros else SIGNS, size_O
    if weight.dtype is not torch.int8 or weight.dim() < 2 or not weight.numel():
        return None
    # A coding has every integer between its ends but perhaps zero.
    ends = {int(end) for end in weight.aminmax()} | ({0} if bool((weight == 0).any()) else set())
    coding = next((each for each in CODINGS if ends <= set(each.integers)), None)
    return None if coding is None else (coding, torch.ones(len(weight)))


def _sizes(weight: Tensor) -> Tensor | None:
    """The one absolute value of each output channel beside zero; None if there are several, or few weights each."""
    if weight.dim() < 3 or weight[0].numel() < LEAST_PER_CHANNEL or weight.dtype not in (torch.float32, torch.int8):
        return None
    absolute = weight.detach().abs().flatten(1)
    size_O = absolute.amax(1)
    fits = (absolute == size_O[:, None]) | (absolute == 0)
    # abs(-128) is -128 in int8, and no grid of ours has it.
    return size_O if bool(fits.all() and torch.isfinite(size_O).all() and (size_O >= 0).all()) else None


# --- in an ONNX file ---

_SUFFIX = "_of_bytes"
_FLOAT = ".float"
"""Of a table whose integers are written as floats: TensorRT takes 8-bit integers for nothing but DequantizeLinear."""


def store_packed(model: onnx.ModelProto, *, integers: bool = True) -> list[str]:
    """Store every weight that few bits hold in as many, in place; returns the names of the weights.

    The size of a channel multiplies what is read; of an integer weight it goes into the scale of its DequantizeLinear,
    which multiplies by it anyway.

    Args:
        integers: whether integer weights are stored so, too; those in float are where convolutions read them.
    """
    graph = model.graph
    writing = _Writing(graph, {tensor.name: tensor for tensor in graph.initializer})
    readers = Counter(name for node in graph.node for name in node.input)
    read_instead: dict[str, str] = {}
    for node in graph.node:
        place = writing.weight_place(node) if integers or node.op_type == "Conv" else None
        name = "" if place is None else node.input[place]
        if name and name not in read_instead:
            found = writing.found(node, name, readers[name])
            if found is not None:
                read_instead[name] = writing.unpack(node, name, found)
        if name in read_instead:
            node.input[place or 0] = read_instead[name]
        writing.nodes.append(node)
    if read_instead:
        left = {name for node in writing.nodes for name in node.input}
        kept = [tensor for tensor in graph.initializer if tensor.name not in read_instead or tensor.name in left]
        del graph.initializer[:], graph.node[:]
        graph.initializer.extend(kept)
        graph.node.extend(writing.nodes)
    return list(read_instead)


def packed_in(graph: Any) -> dict[str, Packed]:
    """What `store_packed` wrote, by the tensor that its nodes expand; sizes are behind that, so that these are 1."""
    stored = {tensor.name: tensor for tensor in graph.initializer}
    makers = {name: node for node in graph.node for name in node.output}
    tables = {f"{coding.word}{_SUFFIX}{ending}": coding for coding in CODINGS for ending in ("", _FLOAT)}
    found = {}
    for last in (node for node in graph.node if node.op_type == "Reshape" and node.input[1] in stored):
        node = makers.get(last.input[0])
        shape = tuple(numpy_helper.to_array(stored[last.input[1]]).tolist())
        while node is not None and node.op_type in ("Reshape", "Slice"):
            node = makers.get(node.input[0])
        if node is not None and node.op_type == "Gather" and node.input[0] in tables and min(shape) > 0:
            codes = numpy_helper.to_array(stored[makers[node.input[1]].input[0]])
            coding, size_O = tables[node.input[0]], np.ones(shape[0], np.float32)
            found[last.output[0]] = Packed(coding=coding, codes=codes, size=size_O, shape=shape)
    return found


class _Writing:
    """The nodes of a graph as they will be, and what it stores."""

    def __init__(self, graph: Any, stored: dict[str, TensorProto]) -> None:
        self.graph, self.stored = graph, stored
        self.nodes: list[Any] = []

    def weight_place(self, node: Any) -> int | None:
        """Which input of a node is a stored weight; None if none is. Of integers a DequantizeLinear reads it."""
        place = {"Conv": 1, "DequantizeLinear": 0}.get(node.op_type)
        return place if place is not None and node.input[place] in self.stored else None

    def found(self, node: Any, name: str, readers: int) -> Packed | None:
        """The weight that a node reads, packed; None where it stays as it is."""
        tensor = self.stored[name]
        if tensor.data_type not in (TensorProto.FLOAT, TensorProto.INT8) or len(tensor.dims) < 2:
            return None
        by_channel = node.op_type == "Conv" or (_axis(node) == 0 and len(self.stored[node.input[1]].dims) == 1)
        weight = torch.from_numpy(numpy_helper.to_array(tensor).copy())
        # The size of an integer weight is in one reader's scale; in float, convolutions share what expands theirs.
        return packed(weight, sized=by_channel and (readers == 1 or node.op_type == "Conv"))

    def unpack(self, node: Any, weight: str, found: Packed) -> str:
        """Write the nodes that expand a weight, before `node`; returns what is read instead of it."""
        integers = node.op_type == "DequantizeLinear"
        # Layers that read one weight along different axes have it once for each, with underscores.
        name = f"{re.sub(r'[.]int8(?=_*$)', '', weight)}.int{found.coding.bits}"
        table = self._store(
            f"{found.coding.word}{_SUFFIX}{'' if integers else _FLOAT}",
            found.coding.table if integers else found.coding.table.astype(np.float32),
        )
        self._store(name, found.codes)
        index = self._add("Cast", [name], f"{name}_index", f"{name}_cast", to=TensorProto.INT32)
        last = self._add("Gather", [table, index], f"{name}_integers", f"{name}_gather")
        count = int(np.prod(found.shape))
        if found.codes.size * found.coding.per_byte != count:
            flat, start, end = (
                self._store(f"{name}_{part}", np.array(value, np.int64))
                for part, value in (("flat", [-1]), ("start", [0]), ("end", [count]))
            )
            row = self._add("Reshape", [last, flat], f"{name}_row", f"{name}_flatten")
            last = self._add("Slice", [row, start, end], f"{name}_cut", f"{name}_slice")
        shape = self._store(f"{name}_shape", np.array(found.shape, np.int64))
        last = self._add("Reshape", [last, shape], f"{name}_weight", f"{name}_reshape")
        if np.all(found.size == 1):
            return last
        if integers:
            scale_O = numpy_helper.to_array(self.stored[node.input[1]])
            node.input[1] = self._store(f"{name}_scale", (found.size * scale_O).astype(np.float32))
            return last
        size = self._store(f"{name}_size", found.size.reshape(-1, *[1] * (len(found.shape) - 1)))
        return self._add("Mul", [last, size], f"{name}_sized", f"{name}_mul")

    def _add(self, kind: str, inputs: list[str], output: str, name: str, **options: Any) -> str:
        self.nodes.append(helper.make_node(kind, inputs, [output], name, **options))
        return output

    def _store(self, name: str, value: NDArray[Any]) -> str:
        if name not in self.stored:
            self.stored[name] = numpy_helper.from_array(np.ascontiguousarray(value), name)
            self.graph.initializer.append(self.stored[name])
        return name


def _axis(node: Any) -> int:
    return next((given.i for given in node.attribute if given.name == "axis"), 1)
