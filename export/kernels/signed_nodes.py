"""Convolutions of signs in an ONNX file, written as the one operator that our kernel computes.

What is found is what a `SignedConv` is exported as: Where(x >= threshold, 1, -1), a convolution with weights in bits, a
scale and a bias for each output channel. Anything else stays as it is.

Legend: O output channels, C input channels, T taps of the kernel, N words of 64 channels.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from export.layers import attribute
from export.packed import SIGNS, SIGNS_AND_ZEROS, packed_in

DOMAIN, OPERATOR = "segpress", "SignedConv"
_AXES = ("depth", "height", "width")


@dataclass(frozen=True, kw_only=True)
class _Found:
    """The nodes and tensors of one convolution of signs."""

    nodes: Sequence[Any]
    """From the comparison to the bias, whose output is the convolution's."""
    image: str
    threshold_C: NDArray[np.float32]
    signs: NDArray[np.int8]
    scale_O: NDArray[np.float32]
    bias_O: NDArray[np.float32]

    @property
    def conv(self) -> Any:
        return self.nodes[2]


def with_signed_convs(model: onnx.ModelProto, threads: int) -> int:
    """Put the operator where convolutions of signs are, in place; returns how many.

    Args:
        threads: that each of them uses.
    """
    reading = _Reading(model.graph)
    found = {id(each.nodes[-1]): each for node in model.graph.node for each in reading.found(node)}
    if not found:
        return 0
    nodes: list[Any] = []
    for node in model.graph.node:
        nodes.append(_operator(model.graph, found[id(node)], threads) if id(node) in found else node)
    kept = _needed(nodes, {output.name for output in model.graph.output})
    del model.graph.node[:]
    model.graph.node.extend(kept)
    read = {name for node in kept for name in node.input}
    stored = [tensor for tensor in model.graph.initializer if tensor.name in read]
    del model.graph.initializer[:]
    model.graph.initializer.extend(stored)
    model.opset_import.append(helper.make_opsetid(DOMAIN, 1))
    return len(found)


class _Reading:
    """A graph, by what makes and what reads each tensor."""

    def __init__(self, graph: Any) -> None:
        self.stored = {tensor.name: tensor for tensor in graph.initializer}
        self.packed = packed_in(graph)
        self.readers: dict[str, list[Any]] = {}
        for node in graph.node:
            for name in node.input:
                self.readers.setdefault(name, []).append(node)

    def found(self, compare: Any) -> Iterator[_Found]:
        """The convolutions of signs that begin with this comparison: several where they read the same signs."""
        threshold = self._constant(compare, 1) if compare.op_type == "GreaterOrEqual" else None
        if threshold is None:
            return
        paths: list[tuple[Any, ...]] = [(compare,)]
        for kind in ("Where", "Conv", "Mul", "Add"):
            paths = [(*path, reader) for path in paths for reader in self._readers(path[-1], kind)]
        for path in paths:
            yield from self._read(threshold, path)

    def _readers(self, node: Any, kind: str) -> list[Any]:
        return [reader for reader in self.readers.get(node.output[0], []) if reader.op_type == kind]

    def _read(self, threshold: NDArray[Any], nodes: Sequence[Any]) -> Iterator[_Found]:
        """The convolution that these nodes are, if the operator computes it."""
        compare, where, conv, scale, bias = nodes
        signs = self._signs(conv.input[1])
        if signs is None or not self._is_plain(where, conv, signs):
            return
        behind = [self._beside(node, before) for node, before in ((scale, conv), (bias, scale))]
        counts = (signs.shape[1], len(signs), len(signs))
        threshold_C, scale_O, bias_O = (
            None if value is None else _by_channel(value, count)
            for value, count in zip((threshold, *behind), counts, strict=True)
        )
        if threshold_C is not None and scale_O is not None and bias_O is not None:
            yield _Found(
                nodes=nodes,
                image=compare.input[0],
                threshold_C=threshold_C,
                signs=signs,
                scale_O=scale_O,
                bias_O=bias_O,
            )

    def _signs(self, weight: str) -> NDArray[np.int8] | None:
        """The signs of a weight that are times nothing; None if it has others, or other values."""
        found = self.packed.get(weight)
        return None if found is None or found.coding not in (SIGNS, SIGNS_AND_ZEROS) else found.integers()

    def _constant(self, node: Any, place: int) -> NDArray[Any] | None:
        tensor = self.stored.get(node.input[place])
        return None if tensor is None else numpy_helper.to_array(tensor)

    def _beside(self, node: Any, before: Any) -> NDArray[Any] | None:
        """The constant that a product or sum has beside what comes from the node before."""
        place = 1 if node.input[0] == before.output[0] else 0
        return self._constant(node, place)

    def _is_plain(self, where: Any, conv: Any, signs: NDArray[np.int8]) -> bool:
        ones = [self._constant(where, place) for place in (1, 2)]
        return (
            all(
                value is not None and value.size == 1 and value == sign
                for value, sign in zip(ones, (1, -1), strict=True)
            )
            and where.output[0] == conv.input[0]
            and len(conv.input) == 2
            and attribute(conv, "group", 1) == 1
            and attribute(conv, "auto_pad", b"NOTSET") == b"NOTSET"
            and signs.ndim in (3, 4, 5)
        )


def _by_channel(value: NDArray[Any], channels: int) -> NDArray[np.float32] | None:
    """One number for each channel, from a tensor that has no other axis; None if it has."""
    if value.dtype != np.float32 or value.size not in (1, channels):
        return None
    return np.broadcast_to(value.reshape(-1), (channels,)).copy()


def _operator(graph: Any, found: _Found, threads: int) -> Any:
    output = found.nodes[-1].output[0]
    bits, masks = words_of(found.signs)
    tensors = {
        "threshold": found.threshold_C,
        "bits": bits,
        "masks": masks,
        "scale": found.scale_O,
        "bias": found.bias_O,
    }
    names = {what: f"{output}_{what}" for what in tensors}
    graph.initializer.extend(numpy_helper.from_array(value, names[what]) for what, value in tensors.items())
    dims = found.signs.ndim - 2
    options = _per_axis(found.conv, found.signs.shape[2:])
    return helper.make_node(
        OPERATOR,
        [found.image, *names.values()],
        [output],
        # As its convolution is called, so that its time is that layer's.
        name=found.conv.name,
        domain=DOMAIN,
        dims=dims,
        threads=threads,
        **options,
    )


def _per_axis(conv: Any, kernel: Sequence[int]) -> Mapping[str, int]:
    dims = len(kernel)
    pads = attribute(conv, "pads", [0] * 2 * dims)
    given = {
        "kernel": (list(kernel), 1),
        "stride": (attribute(conv, "strides", [1] * dims), 1),
        "dilation": (attribute(conv, "dilations", [1] * dims), 1),
        "begin": (pads[:dims], 0),
        "end": (pads[dims:], 0),
    }
    return {
        f"{what}_{axis}": int(value)
        for what, (values, missing) in given.items()
        for axis, value in zip(_AXES, [missing] * (3 - dims) + list(values), strict=True)
    }


def words_of(signs: NDArray[np.int8]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Weights as the kernel reads them: (O, T, N) words of +1, and of what is not zero (empty if nothing is)."""
    outputs, inputs = signs.shape[:2]
    by_tap = signs.reshape(outputs, inputs, -1).transpose(0, 2, 1)
    padded = np.pad(by_tap, ((0, 0), (0, 0), (0, -inputs % 64)))
    masks = _words(padded != 0) if (by_tap == 0).any() else np.zeros(0, np.int64)
    return _words(padded > 0), masks


def _words(bits: NDArray[np.bool_]) -> NDArray[np.int64]:
    # Little-endian, so that channel c is bit c of its word.
    packed = np.packbits(bits, axis=-1, bitorder="little")
    return np.ascontiguousarray(packed).view("<i8").astype(np.int64)


def _needed(nodes: Sequence[Any], outputs: set[str]) -> list[Any]:
    """The nodes that the outputs depend on, in order."""
    wanted = set(outputs)
    kept = []
    for node in reversed(nodes):
        if wanted & set(node.output):
            wanted |= set(node.input)
            kept.append(node)
    return kept[::-1]
