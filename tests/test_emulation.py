"""What another CPU answers: to the bit as ONNX Runtime does on this one, and as it did on one without VNNI."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from integer_layers import Conv, Product, bright, cut_off_here, write
from onnx import TensorProto, helper, numpy_helper
from zoo import example, written

from benchmarks.lesser_cpu import environment
from export.backends import onnxruntime
from export.backends.onnxruntime import OnnxRuntime
from export.errors import BackendError, NotHere
from export.quantization.emulation import emulation
from export.quantization.rules import Rules

LAYERS: dict[str, Conv | Product] = {
    "one channel": Conv(inside=1, outside=8, zero=77),
    "three channels, 7x7, strided": Conv(inside=3, outside=16, kernel=7, stride=2, padding=3, zero=128),
    "four channels": Conv(inside=4, outside=16, zero=9),
    "symmetric kernel": Conv(inside=16, outside=16, zero=33),
    "odd channels": Conv(inside=17, outside=32, padding=0),
    "pointwise": Conv(inside=32, outside=8, kernel=1, padding=0),
    "dilated": Conv(inside=64, outside=32, padding=2, dilation=2, zero=3),
    "groups": Conv(inside=16, outside=16, groups=4, zero=2),
    "groups of three": Conv(inside=12, outside=12, groups=4, zero=2),
    "one channel a group, two out": Conv(inside=10, outside=20, groups=10, zero=2),
    "depthwise": Conv(inside=16, outside=16, groups=16, zero=2),
    "one axis": Conv(inside=6, outside=16, axes=1, zero=9),
    "three axes": Conv(inside=6, outside=16, axes=3, size=6, zero=9),
    "linear": Product(kind="Gemm", rows=20, inside=33, outside=16, zero=9),
    "linear, one row": Product(kind="Gemm, transposed", rows=1, inside=64, outside=40, zero=3),
    "matrix": Product(kind="MatMul", rows=50, inside=128, outside=70, zero=128),
}
every_layer = pytest.mark.parametrize("name", LAYERS)
# What ONNX Runtime 1.32 answered on a CPU without VNNI (AVX2): codes of the first row of the first two output channels.
RECORDED = json.loads((Path(__file__).parent / "without_vnni.json").read_text())


def codes(answer: np.ndarray, layer: Conv | Product) -> list[int]:
    """Some of a layer's answer, as integers."""
    first = answer[0].reshape(-1) if isinstance(layer, Product) else answer[0, :2].reshape(2, -1)[:, :8].reshape(-1)
    return [round(float(value) / 4) for value in first[:16]]


@every_layer
def test_it_answers_as_onnx_runtime_does_on_this_host(name: str, tmp_path: Path) -> None:
    artifact, x = write(LAYERS[name], tmp_path / "layer.onnx"), bright(LAYERS[name])
    runtime = OnnxRuntime()
    with runtime.open(artifact) as here, runtime.open_as(artifact, pairs_in_16_bits=cut_off_here()) as emulated:
        assert np.array_equal(here(x), emulated(x))


@every_layer
def test_it_answers_as_onnx_runtime_did_without_vnni(name: str, tmp_path: Path) -> None:
    artifact, x = write(LAYERS[name], tmp_path / "layer.onnx"), bright(LAYERS[name])
    runtime = OnnxRuntime()
    with (
        runtime.open_as(artifact, pairs_in_16_bits=True) as without,
        runtime.open_as(artifact, pairs_in_16_bits=False) as with_vnni,
    ):
        assert codes(without(x), LAYERS[name]) == RECORDED[name]
        # A kernel that multiplies in 32 bits has nothing to cut off.
        assert np.array_equal(without(x), with_vnni(x)) is (name == "depthwise")


EIGHT_BITS = Rules(**{**vars(onnxruntime.RULES), "pairs_in_16_bits": False})


@pytest.mark.parametrize("name", ["unet of one class", "squeeze and excite"])
def test_a_whole_network_is_answered_as_on_this_host(name: str, tmp_path: Path) -> None:
    artifact = written(name, tmp_path / "net.onnx", EIGHT_BITS)
    assert artifact.made["pair_sums"]["unsafe"]
    x, runtime = example(name, 3).numpy(), OnnxRuntime()
    with runtime.open(artifact) as here, runtime.open_as(artifact, pairs_in_16_bits=cut_off_here()) as emulated:
        assert np.array_equal(here(x), emulated(x))


def test_on_a_cpu_without_vnni_the_runtime_answers_what_was_emulated(tmp_path: Path) -> None:
    try:
        env = environment("avx2")
    except NotHere as error:
        pytest.skip(str(error))
    for name, layer in LAYERS.items():
        write(layer, tmp_path / f"{name}.onnx")
        np.save(tmp_path / f"{name}.npy", bright(layer))
    # What opens a file imports no torch, which takes longer than all the layers.
    program = f"""
from pathlib import Path
import numpy as np
from export.artifact import Artifact
from export.backends.onnxruntime import OnnxRuntime
for path in Path({str(tmp_path)!r}).glob("*.onnx"):
    with OnnxRuntime().open(Artifact.read(path)) as infer:
        np.save(path.with_suffix(".answer.npy"), infer(np.load(path.with_suffix(".npy"))))
"""
    done = subprocess.run([sys.executable, "-c", program], env=dict(env), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    answers = {name: np.load(tmp_path / f"{name}.answer.npy") for name in LAYERS}
    assert {name: codes(answers[name], layer) for name, layer in LAYERS.items()} == {
        name: RECORDED[name] for name in LAYERS
    }


def test_an_integer_layer_of_another_kind_is_refused() -> None:
    weight = numpy_helper.from_array(np.full((4, 2), 127, np.int8), "weight")
    node = helper.make_node("MatMulInteger", ["image", "weight"], ["sums"], name="attention")
    graph = helper.make_graph(
        [node],
        "layer",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, [1, 4])],
        [helper.make_tensor_value_info("sums", TensorProto.INT32, [1, 2])],
        [weight],
    )
    model = helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)])
    with pytest.raises(BackendError, match=r"^attention: MatMulInteger with int8 weights is not emulated$"):
        emulation(model, lambda part: lambda images: {}, pairs_in_16_bits=True)
