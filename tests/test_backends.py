"""One contract for every runtime that can run here, and what each makes of a quantized network."""

from __future__ import annotations

import importlib.util
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from zoo import ZOO, example, image, made, quantized, written

from compress.editing.calibration import calibrated
from export.artifact import Artifact
from export.backend import Backend
from export.backends import onnxruntime, openvino, reference, tensorrt
from export.backends.onnxruntime import OnnxRuntime
from export.backends.openvino import OpenVino
from export.backends.reference import Reference
from export.backends.tensorrt import TensorRt
from export.backends.torch import Torch, infer_from_module
from export.capture import folded_graph
from export.device import Device
from export.errors import BackendError, MissingExtra, NotHere
from export.graph import Dynamic
from export.quantization.quantized import Quantized
from export.quantization.rules import Rules
from export.registry import find_device
from export.to_onnx import Style, to_onnx

RTX_30 = find_device("rtx_30")
needs_tensorrt = pytest.mark.skipif(
    not any(importlib.util.find_spec(name) for name in ("tensorrt", "tensorrt_rtx", "tensorrt_rtx_bindings")),
    reason="neither TensorRT nor TensorRT-RTX is installed",
)
RUN_HERE: dict[str, Callable[[], Backend]] = {
    "onnxruntime": OnnxRuntime,
    "openvino": OpenVino,
    "reference": Reference,
    "torch": lambda: Torch(load=lambda path: made("unet of one class")),
}
every_backend = pytest.mark.parametrize("word", RUN_HERE)
RULES: dict[str, Rules] = {
    "onnxruntime": onnxruntime.RULES,
    "openvino": openvino.RULES,
    "tensorrt": tensorrt.RULES,
    "reference": reference.RULES,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("artifacts")


@pytest.fixture(scope="module")
def floating(folder: Path) -> Artifact:
    return written("unet of one class", folder / "float.onnx")


def integer(name: str, word: str, folder: Path, keep_float: tuple[str, ...] = ()) -> tuple[Artifact, Any]:
    """A quantized network as this runtime wants it: the file, and the module it was exported from."""
    placed = quantized(name, keep_float).placed(RULES[word])
    return written(name, folder / f"{word}.onnx", RULES[word], keep_float), placed


# --- the contract ---


@every_backend
def test_it_builds_opens_and_gives_torch_s_logits(word: str, floating: Artifact, tmp_path: Path) -> None:
    backend = RUN_HERE[word]()
    artifact = backend.build(floating, tmp_path)
    assert artifact.path.is_file() and artifact.size_mb > 0
    assert (artifact.input, artifact.output) == (floating.input, floating.output)
    ours = infer_from_module(made("unet of one class"))
    with backend.open(artifact) as infer:
        for seed in (1, 2):
            logits = infer(image(seed).numpy())
            assert logits.dtype == np.float32
            assert np.abs(logits - ours(image(seed).numpy())).max() < 1e-5


@every_backend
def test_an_answer_is_not_overwritten_by_the_next(word: str, floating: Artifact, tmp_path: Path) -> None:
    backend = RUN_HERE[word]()
    with backend.open(backend.build(floating, tmp_path)) as infer:
        first = infer(image(1).numpy())
        kept = first.copy()
        infer(image(2).numpy())
    assert np.array_equal(first, kept)


@every_backend
def test_it_says_what_was_set(word: str) -> None:
    backend = RUN_HERE[word]()
    assert all(isinstance(key, str) for key in backend.flags())
    assert backend.device.kind == "cpu"


@pytest.mark.parametrize("word", ["onnxruntime", "openvino", "reference"])
def test_it_opens_no_file_that_was_changed(word: str, floating: Artifact, tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    path.write_bytes(floating.path.read_bytes())
    backend = RUN_HERE[word]()
    artifact = backend.build(replace(floating, path=path).sealed(), tmp_path)
    for path in artifact.files:
        good = path.read_bytes()
        path.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
        with pytest.raises(BackendError, match="not the file that was built"), backend.open(artifact):
            pass
        path.write_bytes(good)
    artifact.path.unlink()
    with pytest.raises(BackendError, match="the file is gone"), backend.open(artifact):
        pass


def test_what_is_no_onnx_is_refused(floating: Artifact, tmp_path: Path) -> None:
    path = tmp_path / "broken.onnx"
    path.write_bytes(floating.path.read_bytes()[:2000])
    broken = Artifact(path=path, format="onnx", input=floating.input, output=floating.output)
    with pytest.raises(BackendError, match=r"ONNX Runtime .* refuses broken.onnx: "):
        OnnxRuntime().build(broken, tmp_path)
    with pytest.raises(BackendError, match=r"OpenVINO refuses broken.onnx: "):
        OpenVino().build(broken, tmp_path)


def test_openvino_that_is_not_installed_says_how_to_install_it(
    floating: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(MissingExtra, match=r"^openvino is not installed: pip install 'segpress\[openvino\]'$"):
        OpenVino().build(floating, tmp_path)


def test_tensorrt_that_is_not_installed_says_how_to_install_it(
    floating: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("tensorrt", "tensorrt_rtx", "tensorrt_rtx_bindings"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingExtra, match=r"^TensorRT is not installed: pip install 'segpress\[tensorrt-rtx\]'$"):
        TensorRt(device=RTX_30).build(floating, tmp_path)


# --- quantized networks ---

FAST = ("unet of one class", "transposed overlapping")


def agrees(ours: np.ndarray, theirs: np.ndarray, most: float) -> bool:
    """Whether integers rounded in another order stay within some steps of the logits."""
    return bool(np.abs(ours - theirs).max() <= most * np.abs(theirs).max())


def check_agreement(name: str, word: str, folder: Path, most: float) -> None:
    source, placed = integer(name, word, folder)
    backend = RUN_HERE[word]()
    x = example(name, 7)
    with backend.open(backend.build(source, folder)) as infer, torch.no_grad():
        assert agrees(infer(x.numpy()), placed(x).numpy(), most)


@pytest.mark.slow
@pytest.mark.parametrize("name", ZOO)
def test_every_network_leaves_torch_as_it_was(name: str, tmp_path: Path) -> None:
    source = to_onnx(made(name), example(name), tmp_path / "net.onnx")
    x = example(name, 1).numpy()
    logits = infer_from_module(made(name))(x)
    for backend in (OnnxRuntime(), OpenVino()):
        with backend.open(backend.build(source, tmp_path)) as infer:
            assert agrees(infer(x), logits, 1e-5)


NETWORKS = [pytest.param(name, marks=[] if name in FAST else pytest.mark.slow) for name in ZOO]


@pytest.mark.parametrize("name", NETWORKS)
def test_onnx_runtime_runs_every_integer_layer_in_integers(name: str, tmp_path: Path) -> None:
    check_agreement(name, "onnxruntime", tmp_path, most=0.06)
    kernels = optimized(tmp_path / "onnxruntime.onnx")
    layers = quantized(name).layers(onnxruntime.RULES)
    assert kernels["QLinearConv"] + kernels["QGemm"] + kernels["QLinearMatMul"] == layers["integer"]
    assert kernels["Conv"] + kernels["FusedConv"] + kernels["ConvTranspose"] + kernels["Gemm"] == layers["float"]


def optimized(path: Path) -> Counter[str]:
    """How many of each operator ONNX Runtime really runs."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.optimized_model_filepath = str(path.with_suffix(".optimized.onnx"))
    ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return Counter(node.op_type for node in onnx.load(path.with_suffix(".optimized.onnx")).graph.node)


# OpenVINO moves the stride of a 1x1 convolution to a pooling in front of it, and then no longer knows
# the convolution for an integer one; two linear layers in a row run inside one of its subgraphs.
NOT_SEEN_BY_OPENVINO = {"strided pointwise": 1, "squeeze and excite": 2}


@pytest.mark.parametrize("name", NETWORKS)
def test_openvino_runs_every_integer_layer_in_integers(name: str, tmp_path: Path) -> None:
    check_agreement(name, "openvino", tmp_path, most=0.06)
    xml = Artifact.read(tmp_path / "openvino.xml")
    layers = quantized(name).layers(openvino.RULES)
    ran: Counter[str] = Counter()
    for (kind, precision), number in OpenVino().executed(xml).items():
        if kind in ("Convolution", "Deconvolution", "FullyConnected"):
            ran["integer" if precision in ("u8", "i8") else "float"] += number
    assert ran["integer"] == layers["integer"] - NOT_SEEN_BY_OPENVINO.get(name, 0)


def test_openvino_takes_open_axes_as_exactly(tmp_path: Path) -> None:
    open_axes: tuple[Dynamic, ...] = ("batch", "size")
    graph = folded_graph(made("pyramid"), image(), open_axes)
    ranges = calibrated(graph, [image(1)], None, 1)
    placed = Quantized(graph, ranges).placed(openvino.RULES)
    source = to_onnx(placed, image(), tmp_path / "open.onnx", Style(dynamic=open_axes))
    artifact = OpenVino().build(source, tmp_path)
    with OpenVino().open(artifact) as infer, torch.no_grad():
        for shape in ((1, 3, 32, 32), (2, 3, 64, 48), (1, 3, 32, 32)):
            x = image(3, *shape)
            assert agrees(infer(x.numpy()), placed(x).numpy(), 0.02)
    assert OpenVino().executed(artifact)["Convolution", "u8"] == 7


@pytest.mark.parametrize("is_the_same", [True, False])
def test_what_is_open_is_not_compiled_again_to_tell_what_it_ran_in(
    is_the_same: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [OpenVino().build(written(name, tmp_path / f"{name}.onnx"), tmp_path) for name in ("residual", "unet")]
    alone = [OpenVino().executed_precisions(file) for file in files]
    with OpenVino().open(files[0]) as infer:
        assert callable(infer)
        monkeypatch.setattr("export.sessions.openvino.compiled", None)
        if is_the_same:
            assert OpenVino().executed_precisions(files[0]) == alone[0] != alone[1]
        else:
            with pytest.raises(TypeError):
                OpenVino().executed_precisions(files[1])
    # Nor is it kept for longer than what is open.
    del infer
    with pytest.raises(TypeError):
        OpenVino().executed_precisions(files[0])


@pytest.mark.parametrize("name", ["tied", "transposed in groups"])
def test_the_reference_evaluator_agrees_to_the_last_steps_of_float(name: str, tmp_path: Path) -> None:
    check_agreement(name, "reference", tmp_path, most=1e-4)


# TensorRT's MaxPool has no second output, so there is nothing to unpool by.
REFUSED_BY_TENSORRT = {"unpool": r"TensorRT refuses tensorrt.onnx: node \S+ \(MaxPool\): .*1 outputs for MaxPool"}


@needs_tensorrt
@pytest.mark.parametrize("name", NETWORKS)
def test_tensorrt_parses_and_builds_every_quantized_network(name: str, tmp_path: Path) -> None:
    source, _ = integer(name, "tensorrt", tmp_path)
    if name in REFUSED_BY_TENSORRT:
        with pytest.raises(BackendError, match=REFUSED_BY_TENSORRT[name]):
            TensorRt(device=RTX_30).build(source, tmp_path)
    else:
        assert TensorRt(device=RTX_30).build(source, tmp_path).size_mb > 0


def test_keep_float_keeps_these_layers_float_in_every_runtime(tmp_path: Path) -> None:
    keep = ("decoder.*.3", "head")
    kept = quantized("unet of one class", keep)
    for word in ("onnxruntime", "openvino", "tensorrt"):
        source, _ = integer("unet of one class", word, tmp_path, keep)
        stored = {tensor.name: tensor.data_type for tensor in onnx.load(source.path).graph.initializer}
        floats = {name for name, kind in stored.items() if name.endswith(".weight")}
        few = {"encoder.0.0.weight"} if word == "tensorrt" else set()
        assert floats == {"decoder.0.3.weight", "head.weight"} | few
        assert len(floats) == kept.layers(RULES[word])["float"]
    kernels = optimized(tmp_path / "onnxruntime.onnx")
    assert kernels["Conv"] + kernels["FusedConv"] == 2
    ran = OpenVino().executed(OpenVino().build(Artifact.read(tmp_path / "openvino.onnx"), tmp_path))
    assert ran["Convolution", "f32"] == 2


# --- TensorRT ---


@needs_tensorrt
def test_an_engine_says_how_it_was_made(floating: Artifact, tmp_path: Path) -> None:
    engine = TensorRt(device=RTX_30).build(floating, tmp_path)
    assert engine.path.name == "float.sm_86.engine"
    assert Artifact.read(engine.path) == engine
    assert engine.made["flags"] == {"strongly_typed": True, "compute_capabilities": ["8.6"]}
    assert engine.made["onnx_sha256"] == floating.made["sha256"]
    assert {"torch", "onnx", "opset"} <= set(engine.made)
    assert any(name.startswith("tensorrt") for name in engine.made)
    engine.verify()


@needs_tensorrt
def test_a_file_with_open_axes_is_built_for_a_range_of_them(tmp_path: Path) -> None:
    source = to_onnx(made("unet of one class"), image(), tmp_path / "open.onnx", Style(dynamic=("batch", "size")))
    profile = TensorRt(device=RTX_30).build(source, tmp_path).made["flags"]["profile"]
    assert profile == {"min": [1, 3, 64, 64], "opt": [1, 3, 256, 256], "max": [8, 3, 1024, 1024]}


@needs_tensorrt
def test_the_parser_s_refusal_names_the_node_and_the_reason(tmp_path: Path) -> None:
    source, _ = integer("unet of one class", "onnxruntime", tmp_path)
    refusal = r"^TensorRT refuses onnxruntime.onnx: node \S+ \(QuantizeLinear\): .*Non-zero zero point is not supported"
    with pytest.raises(BackendError, match=refusal):
        TensorRt(device=RTX_30).build(source, tmp_path)


@needs_tensorrt
def test_a_gpu_that_tensorrt_does_not_know_is_refused(floating: Artifact, tmp_path: Path) -> None:
    old = Device(name="old", title="an old card", kind="cuda", backends=("tensorrt",), compute_capability="3.5")
    with pytest.raises(BackendError, match=r"builds no engines for SM35; it knows .*SM86"):
        TensorRt(device=old).build(floating, tmp_path)
    assert not list(tmp_path.iterdir())


@needs_tensorrt
def test_an_engine_for_this_host_s_gpu_needs_one(floating: Artifact, tmp_path: Path) -> None:
    with pytest.raises(NotHere, match=r"^no NVIDIA driver$"):
        TensorRt().build(floating, tmp_path)
