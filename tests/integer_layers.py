"""Single integer layers as ONNX files, with weights that 16 bits are too few for, and the host's own arithmetic."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from export.artifact import Artifact, Port
from export.backends.onnxruntime import OnnxRuntime

IN_SCALE = np.float32(0.02)


@dataclass(frozen=True, kw_only=True)
class Conv:
    """A convolution between two pairs."""

    inside: int
    outside: int
    kernel: int = 3
    groups: int = 1
    stride: int = 1
    padding: int = 1
    dilation: int = 1
    zero: int = 0
    """Of the input."""
    axes: int = 2
    size: int = 9

    @property
    def image(self) -> tuple[int, ...]:
        return (1, self.inside, *[self.size] * self.axes)

    @property
    def weight(self) -> np.ndarray:
        shape = (self.outside, self.inside // self.groups, *[self.kernel] * self.axes)
        return signed_alike(shape, seed=self.inside * self.outside)

    def node(self) -> onnx.NodeProto:
        return helper.make_node(
            "Conv",
            ["image_read", "weight_read", "bias"],
            ["sums"],
            group=self.groups,
            strides=[self.stride] * self.axes,
            pads=[self.padding] * 2 * self.axes,
            dilations=[self.dilation] * self.axes,
        )


@dataclass(frozen=True, kw_only=True)
class Product:
    """A linear layer between two pairs, as Gemm (its weight stored either way) or MatMul."""

    kind: str
    rows: int
    inside: int
    outside: int
    zero: int = 0

    @property
    def image(self) -> tuple[int, ...]:
        return (self.rows, self.inside)

    @property
    def weight(self) -> np.ndarray:
        stored = signed_alike((self.outside, self.inside), seed=self.inside)
        return stored if self.kind == "Gemm, transposed" else np.ascontiguousarray(stored.T)

    def node(self) -> onnx.NodeProto:
        if self.kind == "MatMul":
            return helper.make_node("MatMul", ["image_read", "weight_read"], ["sums"])
        across = int(self.kind == "Gemm, transposed")
        return helper.make_node("Gemm", ["image_read", "weight_read", "bias"], ["sums"], transB=across)


def signed_alike(shape: tuple[int, ...], seed: int) -> np.ndarray:
    """Weights of all sizes, three quarters of them positive, so that many pairs are large."""
    rng = np.random.default_rng(seed)
    weight = rng.integers(-127, 128, shape)
    return np.where(rng.random(shape) < 0.5, np.abs(weight), weight).astype(np.int8)


def write(layer: Conv | Product, path: Path) -> Artifact:
    """The layer as a file, quantized before and after."""
    weight = layer.weight
    along = int(isinstance(layer, Product) and layer.kind != "Gemm, transposed")
    outputs = weight.shape[along]
    rng = np.random.default_rng(outputs)
    stored = "layer.weight.int8"
    constants = {
        "image_scale": IN_SCALE,
        "image_zero": np.uint8(layer.zero),
        stored: weight,
        "weight_scale": (rng.random(outputs) * 0.01 + 0.001).astype(np.float32),
        "weight_zero": np.zeros(outputs, np.int8),
        "bias": rng.normal(size=outputs).astype(np.float32),
        "answer_scale": np.float32(4),
        "answer_zero": np.uint8(100),
    }
    nodes = [
        helper.make_node("QuantizeLinear", ["image", "image_scale", "image_zero"], ["codes"]),
        helper.make_node("DequantizeLinear", ["codes", "image_scale", "image_zero"], ["image_read"]),
        helper.make_node(
            "DequantizeLinear", ["layer.weight.int8", "weight_scale", "weight_zero"], ["weight_read"], axis=along
        ),
        layer.node(),
        helper.make_node("QuantizeLinear", ["sums", "answer_scale", "answer_zero"], ["rounded"]),
        helper.make_node("DequantizeLinear", ["rounded", "answer_scale", "answer_zero"], ["answer"]),
    ]
    graph = helper.make_graph(
        nodes,
        "layer",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, layer.image)],
        [helper.make_tensor_value_info("answer", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    path.write_bytes(model.SerializeToString())
    ports = {
        "input": Port(name="image", shape=layer.image, dtype="float"),
        "output": Port(name="answer", shape=(), dtype="float"),
    }
    return Artifact(path=path, format="onnx", **ports).sealed()


def bright(layer: Conv | Product) -> np.ndarray:
    """An image with many of the largest codes."""
    rng = np.random.default_rng(5)
    codes = np.where(rng.random(layer.image) < 0.7, 255, rng.integers(0, 256, layer.image))
    return ((codes - layer.zero) * IN_SCALE).astype(np.float32)


@cache
def cut_off_here() -> bool:
    """Whether ONNX Runtime on this host cuts off sums of pairs, found out by trying."""
    import tempfile

    layer = Conv(inside=16, outside=16)
    with tempfile.TemporaryDirectory() as scratch:
        artifact = write(layer, Path(scratch) / "probe.onnx")
        runtime = OnnxRuntime()
        with runtime.open(artifact) as here, runtime.open_as(artifact, pairs_in_16_bits=False) as exact:
            return not np.array_equal(here(bright(layer)), exact(bright(layer)))
