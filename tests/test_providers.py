"""ONNX Runtime's CUDA and TensorRT providers, against a stand-in for that runtime: no GPU is asked for anything.

The stand-in computes on the CPU with the real runtime. Its profile has the form of the real file, with other names of
providers in it; how the real TensorRT provider words its own kernels is not recorded anywhere here.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from judged import row
from onnx import TensorProto, helper, numpy_helper
from shared_fixtures import write_recipe
from zoo import written

from compress.errors import BackendError, NotHere, RecipeError
from compress.gates.fallback import Fallback
from compress.recipe import load
from export.artifact import Artifact, Port
from export.backend import Partitioner
from export.backends.onnxruntime import OnnxRuntime
from export.backends.onnxruntime_tensorrt import OnnxRuntimeTensorRt
from export.backends.tensorrt import RULES
from export.devices.cuda import CUDA
from export.registry import backends_of, find_device
from export.remote import answers
from export.remote.runner.serve import Runner
from export.remote.runner.wire import Message
from export.sessions import onnxruntime as plain
from export.sessions import onnxruntime_tensorrt as sessions

REAL = ort.InferenceSession
ALL = [sessions.PROVIDER, plain.CUDA, plain.CPU]
Given = list[list[Any]]


class StandIn:
    """A session that says it has the providers, and computes on the CPU."""

    given: Given
    taken = ("Conv",)
    """What kinds of node the first provider takes."""
    there = ALL

    def __init__(self, path: str, options: Any, providers: list[Any]) -> None:
        self.given.append(providers)
        self._names = [each if isinstance(each, str) else each[0] for each in providers]
        self._real = REAL(path, options, providers=[plain.CPU])

    def get_providers(self) -> list[str]:
        return [each for each in self._names if each in self.there]

    def end_profiling(self) -> str:
        path = str(self._real.end_profiling())
        events = json.loads(Path(path).read_text())
        first, *others = self._names
        for event in events:
            if event.get("cat") == "Node":
                event["args"]["provider"] = first if event["args"]["op_name"] in self.taken else others[0]
        Path(path).write_text(json.dumps(events))
        return path

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> Given:
    """The providers of each session that is opened."""
    every: Given = []
    monkeypatch.setattr(StandIn, "given", every, raising=False)
    monkeypatch.setattr(plain.ort, "get_available_providers", lambda: ALL)
    monkeypatch.setattr(plain.ort, "InferenceSession", StandIn)
    return every


def half(path: Path) -> Artifact:
    """A convolution in 16-bit floats, over open axes."""
    weight = numpy_helper.from_array(np.ones((2, 1, 3, 3), np.float16), "weight")
    nodes = [
        helper.make_node("Cast", ["image"], ["thin"], to=TensorProto.FLOAT16),
        helper.make_node("Conv", ["thin", "weight"], ["answer"], pads=[1, 1, 1, 1]),
        helper.make_node("Cast", ["answer"], ["logits"], to=TensorProto.FLOAT),
    ]
    ports = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", channels, "H", "W"])
        for name, channels in (("image", 1), ("logits", 2))
    ]
    graph = helper.make_graph(nodes, "half", ports[:1], ports[1:], [weight])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    shapes = [
        Port(name=each.name, shape=(-1, channels, -1, -1), dtype="float32")
        for each, channels in zip(ports, (1, 2), strict=True)
    ]
    return Artifact(path=path, format="onnx", input=shapes[0], output=shapes[1]).sealed()


FILES: dict[str, tuple[Callable[[Path], Artifact], dict[str, str]]] = {
    "float": (
        lambda path: written("unet of one class", path),
        {"trt_int8_enable": "False", "trt_fp16_enable": "False"},
    ),
    "Q/DQ": (
        lambda path: written("unet of one class", path, RULES),
        {"trt_int8_enable": "True", "trt_fp16_enable": "False"},
    ),
    "16 bits, open axes": (
        half,
        {
            "trt_int8_enable": "False",
            "trt_fp16_enable": "True",
            "trt_profile_min_shapes": "image:1x1x64x64",
            "trt_profile_opt_shapes": "image:1x1x256x256",
            "trt_profile_max_shapes": "image:8x1x1024x1024",
        },
    ),
}


@pytest.mark.parametrize("file", FILES)
def test_the_provider_is_allowed_what_the_file_has_and_nothing_else(given: Given, tmp_path: Path, file: str) -> None:
    make, told = FILES[file]
    backend = OnnxRuntimeTensorRt()
    artifact = backend.build(make(tmp_path / "net.onnx"), tmp_path)
    assert artifact.files[1].name == "net.provider.json" and json.loads(artifact.files[1].read_text()) == told
    assert artifact.made["provider_options"] == told and "pair_sums" not in artifact.made
    given.clear()
    side = 64 if -1 in artifact.input.shape else artifact.input.shape[2]
    image = np.ones((1, artifact.input.shape[1], side, side), np.float32)
    with backend.open(artifact) as infer:
        assert infer(image).shape[1] == artifact.output.shape[1]
    ((first, *others),) = given
    name, options = first
    kept = {option: value for option, value in options.items() if option not in told}
    assert name == "TensorrtExecutionProvider" and others == ["CUDAExecutionProvider", "CPUExecutionProvider"]
    assert {**options, **told} == options
    engines = str(tmp_path / "engines")
    assert kept == {
        "trt_engine_cache_enable": "True",
        "trt_engine_cache_path": engines,
        "trt_timing_cache_enable": "True",
        "trt_timing_cache_path": engines,
    }


def test_an_option_that_is_changed_beside_the_file_is_no_artifact(given: Given, tmp_path: Path) -> None:
    backend = OnnxRuntimeTensorRt()
    artifact = backend.build(written("unet of one class", tmp_path / "net.onnx"), tmp_path)
    artifact.files[1].write_text("{}")
    with pytest.raises(BackendError, match=r"provider\.json"), backend.open(artifact):
        pass


@pytest.mark.parametrize("backend", [OnnxRuntime(device=CUDA), OnnxRuntimeTensorRt()])
def test_an_installation_without_the_provider_or_its_libraries_is_not_measured(
    given: Given, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, backend: Any
) -> None:
    artifact = backend.build(written("unet of one class", tmp_path / "net.onnx"), tmp_path)
    monkeypatch.setattr(StandIn, "there", [plain.CPU])
    with pytest.raises(NotHere, match=r"a library that .* needs cannot be loaded"), backend.open(artifact):
        pass
    monkeypatch.setattr(plain.ort, "get_available_providers", lambda: [plain.CPU])
    with pytest.raises(NotHere, match=r"has no .*ExecutionProvider"), backend.open(artifact):
        pass
    with pytest.raises(ModuleNotFoundError):
        sessions.version()


@pytest.mark.parametrize(
    ("backend", "other"), [(OnnxRuntime(device=CUDA), plain.CPU), (OnnxRuntimeTensorRt(), plain.CUDA)]
)
def test_what_other_providers_have_is_listed(given: Given, tmp_path: Path, backend: Any, other: str) -> None:
    artifact = backend.build(written("unet of one class", tmp_path / "net.onnx"), tmp_path)
    assert isinstance(backend, Partitioner)
    found = backend.fallback(artifact)
    assert found["layers"] == len(found["names"]) > 0 and found["taken"] > 0
    assert all(name.endswith(f"({other})") for name in found["names"])
    assert answers.Fallback.model_validate(dict(found)).layers == found["layers"]


def test_a_cpu_leaves_nothing_to_others(tmp_path: Path) -> None:
    artifact = OnnxRuntime().build(written("unet of one class", tmp_path / "net.onnx"), tmp_path)
    with pytest.raises(NotHere, match="a CPU leaves no node"):
        OnnxRuntime().fallback(artifact)


def test_the_runner_there_tells_it_too(given: Given, tmp_path: Path) -> None:
    artifact = OnnxRuntimeTensorRt().build(written("unet of one class", tmp_path / "net.onnx"), tmp_path)
    runner = Runner(tmp_path / "cache", "program")
    files = {}
    for file in artifact.files:
        kept = runner._store.keep(file.read_bytes())
        files[file.name] = kept
    request = {
        "do": "fallback",
        "runtime": "onnxruntime_tensorrt",
        "files": files,
        "file": artifact.path.name,
        "threads": 1,
        "kind": "cuda",
        "shape": list(artifact.input.shape),
    }
    said, _ = runner.answer(Message(said=request))
    assert answers.FallbackThere.model_validate(said).fallback.layers > 0
    assert list((tmp_path / "cache").glob("artifacts/*/engines"))


@pytest.mark.parametrize(("at_most", "verdict"), [(0, "fails"), (2, "holds")])
def test_the_gate_judges_what_a_gpu_left(at_most: int, verdict: str) -> None:
    told = {"layers": 2, "names": ["up (CPUExecutionProvider)", "down (CPUExecutionProvider)"], "taken": 9, "why": []}
    rows = [
        replace(row("01-int8", "onnxruntime"), device="cuda", fallback=told),
        replace(row("01-int8", "torch"), device="cuda"),
        replace(row("01-int8", "onnxruntime"), device="cpu"),
    ]
    (found,) = Fallback(at_most=at_most)(rows)
    assert found.verdict == verdict and "up (CPUExecutionProvider)" in found.reason


def test_a_recipe_names_the_runtimes_of_a_device(recipe: dict[str, Any], tmp_path: Path) -> None:
    wanted = ["onnxruntime_tensorrt", "tensorrt"]
    loaded = load(write_recipe(tmp_path, {**recipe, "devices": [{"cuda": {"backends": wanted}}]}))
    assert backends_of(loaded.devices[0]) == wanted
    assert "onnxruntime_tensorrt" not in backends_of(find_device("cuda"))


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"cpu": {"backends": ["tensorrt"]}}, "'tensorrt' is no runtime that computes on this host's CPU"),
        ({"cuda": {"backends": ["openvino"]}}, "'openvino' is no runtime that computes on"),
        ({"cpu": {"backends": ["onnx"]}}, "there are onnxruntime, onnxruntime_bits, openvino"),
        ({"cpu": {"backends": []}}, "backends"),
        ({"cpu": {"backends": ["openvino", "openvino"]}}, "'openvino' is given twice"),
        ({"cpu": {"at": "tower", "backends": ["torch"]}}, "'torch' is no runtime that computes on"),
    ],
)
def test_a_runtime_that_is_none_of_the_device_is_a_mistake_of_the_recipe(
    recipe: dict[str, Any], tmp_path: Path, entry: dict[str, Any], said: str
) -> None:
    with pytest.raises(RecipeError, match=said):
        load(write_recipe(tmp_path, {**recipe, "devices": [entry]}))
