"""Weights in few bits: what is packed comes back, whichever layer reads it, and every runtime computes the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from export.artifact import Artifact, Port
from export.backends.onnxruntime import OnnxRuntime
from export.backends.openvino import OpenVino
from export.layers import layers_of
from export.packed import CODINGS, INT4, SIGNS, SIGNS_AND_ZEROS, Coding, bits_of, packed, packed_in, store_packed

Array = NDArray[Any]


def drawn(coding: Coding, *shape: int) -> Array:
    """Codes of a weight that need this coding."""
    codes = np.random.default_rng(0).choice(coding.integers, shape).astype(np.int8)
    codes.reshape(-1)[[0, -1]] = coding.integers[0], coding.integers[-1]
    return codes


def quantized(codes: Array, kind: str = "Conv", **options: Any) -> onnx.ModelProto:
    """A layer in integers: image (1CHW) and weight, each through its pair, a bias, and a pair behind it."""
    axis = 0 if kind == "Conv" else 1
    outputs = codes.shape[axis]
    stored = {
        "step": np.float32(0.02),
        "middle": np.uint8(128),
        "layer.weight.int8": codes,
        "scale": np.linspace(0.01, 0.02, outputs, dtype=np.float32),
        "zero": np.zeros(outputs, np.int8),
        "layer.bias": np.linspace(-1, 1, outputs, dtype=np.float32),
    }
    nodes = [
        helper.make_node("QuantizeLinear", ["image", "step", "middle"], ["codes"]),
        helper.make_node("DequantizeLinear", ["codes", "step", "middle"], ["read"]),
        helper.make_node("DequantizeLinear", ["layer.weight.int8", "scale", "zero"], ["weight"], axis=axis),
        helper.make_node(kind, ["read", "weight", "layer.bias"], ["answer"], name="layer", **options),
        helper.make_node("QuantizeLinear", ["answer", "step", "middle"], ["rounded"]),
        helper.make_node("DequantizeLinear", ["rounded", "step", "middle"], ["logits"]),
    ]
    tensors = [numpy_helper.from_array(np.asarray(value), name) for name, value in stored.items()]
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 8, 6, 6])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, outputs, "H", "W"])
    graph = helper.make_graph(nodes, "layer", [image], [logits], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def answers(model: onnx.ModelProto, folder: Path) -> dict[str, Array]:
    """What each runtime makes of a file."""
    onnx.checker.check_model(model, full_check=True)
    path = folder / "layer.onnx"
    path.write_bytes(model.SerializeToString())
    ports = {name: Port(name=name, shape=(1, 8, 6, 6), dtype="float") for name in ("image", "logits")}
    artifact = Artifact(path=path, format="onnx", input=ports["image"], output=ports["logits"], made={}).sealed()
    image = np.random.default_rng(1).normal(size=(1, 8, 6, 6)).astype(np.float32)
    found = {}
    for backend in (OnnxRuntime(threads=1), OpenVino(threads=1)):
        with backend.open(backend.build(artifact, folder)) as infer:
            found[type(backend).__name__] = infer(image)
    return found


every = pytest.mark.parametrize("coding", CODINGS, ids=[coding.word for coding in CODINGS])


@every
@pytest.mark.parametrize("shape", [(4, 3, 3, 3), (2, 1, 1, 1), (5, 7), (3, 2, 3, 3, 3)])
def test_codes_come_back_from_as_few_bits_as_hold_them(coding: Coding, shape: tuple[int, ...]) -> None:
    codes = drawn(coding, *shape)
    found = packed(torch.from_numpy(codes), sized=False)
    assert found is not None and np.array_equal(found.values(), codes)
    assert found.coding.bits == bits_of(torch.from_numpy(codes), sized=False) <= coding.bits
    assert found.codes.nbytes == -(-codes.size // found.coding.per_byte)


def test_codes_of_8_bits_are_not_packed() -> None:
    assert packed(torch.tensor([[8, 0]], dtype=torch.int8)) is None
    assert bits_of(torch.tensor([[-8, 7]], dtype=torch.int8)) == 4


@every
@pytest.mark.parametrize("kind", ["Conv", "ConvTranspose"])
def test_every_runtime_computes_the_same_from_few_bits(coding: Coding, kind: str, tmp_path: Path) -> None:
    codes = drawn(coding, 8, 8, 3, 3)
    model = quantized(codes, kind)
    expected = answers(model, tmp_path)
    assert store_packed(model) == ["layer.weight.int8"]
    found = packed_in(model.graph)
    (reader,) = (node for node in model.graph.node if node.output[0] == "weight")
    assert np.array_equal(found[reader.input[0]].integers(), codes)
    for runtime, answer in answers(model, tmp_path).items():
        assert np.array_equal(answer, expected[runtime])
    *_, layer = layers_of(tmp_path / "layer.onnx", (1, 8, 6, 6))
    assert (layer.name, layer.params, layer.bits) == ("layer", codes.size + 8, coding.bits)


def test_a_channel_of_zeros_keeps_its_bias_in_integers(tmp_path: Path) -> None:
    # No sum of two products leaves 16 bits, on no CPU.
    codes = 60 * drawn(SIGNS, 8, 8, 3, 3)
    codes[2] = 0
    model = quantized(codes)
    expected = answers(model, tmp_path)
    store_packed(model)
    (found,) = packed_in(model.graph).values()
    assert found.coding is SIGNS_AND_ZEROS
    for runtime, answer in answers(model, tmp_path).items():
        # The size is in the scale now, and a sum between two steps may be rounded to the other.
        assert np.abs(answer - expected[runtime]).max() < 0.021
        assert np.ptp(answer[:, 2]) == 0 and answer[0, 2, 0, 0] == pytest.approx(-1 + 2 * 2 / 7, abs=0.011)


def test_a_weight_that_two_layers_read_is_expanded_once(tmp_path: Path) -> None:
    model = quantized(drawn(INT4, 8, 8, 3, 3))
    layer = model.graph.node[3]
    model.graph.node.insert(3, helper.make_node("Conv", ["read", "again", "layer.bias"], ["before"], pads=[1] * 4))
    again = ["layer.weight.int8", "scale", "zero"]
    model.graph.node.insert(3, helper.make_node("DequantizeLinear", again, ["again"], axis=0))
    layer = next(node for node in model.graph.node if node.name == "layer")
    layer.input[0] = "before"
    expected = answers(model, tmp_path)
    store_packed(model)
    assert len(packed_in(model.graph)) == 1
    for runtime, answer in answers(model, tmp_path).items():
        assert np.array_equal(answer, expected[runtime])


def in_4_bit_type(model: onnx.ModelProto, codes: Array) -> None:
    """The weight as it was written until there were tables: in ONNX's own type, with a Cast behind it."""
    halves = codes.reshape(-1).astype(np.uint8) & 15
    stored = TensorProto(name="layer.weight.int4", data_type=TensorProto.INT4, dims=codes.shape)
    stored.raw_data = (halves[0::2] | (halves[1::2] << 4)).tobytes()
    expand = helper.make_node("Cast", [stored.name], ["layer.weight.int8"], to=TensorProto.INT8)
    replaced(model, [stored], [expand])


def in_shifted_bytes(model: onnx.ModelProto, codes: Array) -> None:
    """As it was written for ONNX Runtime: bytes whose halves are each a stretch of the codes."""
    low, high = (codes.reshape(2, -1) + 8).astype(np.uint8)
    constants = {"layer.weight.int4": low | (high << np.uint8(4)), "mask": np.uint8(15), "shift": np.uint8(4)}
    constants |= {"half": np.int32(8), "shape": np.array(codes.shape)}
    nodes = [
        helper.make_node("BitShift", ["layer.weight.int4", "shift"], ["high"], direction="RIGHT"),
        helper.make_node("BitwiseAnd", ["layer.weight.int4", "mask"], ["low"]),
        helper.make_node("Concat", ["low", "high"], ["both"], axis=0),
        helper.make_node("Cast", ["both"], ["wide"], to=TensorProto.INT32),
        helper.make_node("Sub", ["wide", "half"], ["signed"]),
        helper.make_node("Cast", ["signed"], ["narrow"], to=TensorProto.INT8),
        helper.make_node("Reshape", ["narrow", "shape"], ["layer.weight.int8"]),
    ]
    replaced(model, [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()], nodes)


def replaced(model: onnx.ModelProto, stored: list[TensorProto], nodes: list[onnx.NodeProto]) -> None:
    """Expand the weight by these nodes from these tensors."""
    others = [tensor for tensor in model.graph.initializer if tensor.name != "layer.weight.int8"]
    later = list(model.graph.node)
    del model.graph.initializer[:], model.graph.node[:]
    model.graph.initializer.extend([*others, *stored])
    model.graph.node.extend([*nodes, *later])


@pytest.mark.parametrize("write", [in_4_bit_type, in_shifted_bytes])
def test_files_written_before_are_still_read(write: Any, tmp_path: Path) -> None:
    codes = drawn(INT4, 8, 8, 3, 3)
    model = quantized(codes)
    expected = answers(model, tmp_path)
    write(model, codes)
    for runtime, answer in answers(model, tmp_path).items():
        assert np.array_equal(answer, expected[runtime])
    *_, layer = layers_of(tmp_path / "layer.onnx", (1, 8, 6, 6))
    assert (layer.name, layer.params, layer.bits) == ("layer", codes.size + 8, 4)
