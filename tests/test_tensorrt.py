"""TensorRT through its Python module and the CUDA runtime, both played by fakes (tests/fakes): what is called, when."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from export.artifact import Artifact, Port
from export.backends.tensorrt import TensorRt
from export.device import Device
from export.engines import cuda, module
from export.engines.wanted import Wanted
from export.errors import BackendError, NotHere
from export.reach import Reach
from export.registry import find_device, words
from export.sessions import tensorrt as sessions

FAKES = Path(__file__).parent / "fakes"
IMAGE = np.arange(12, dtype=np.float32).reshape(1, 3, 2, 2)
RANGES = {"min": (1, 3, 64, 64), "opt": (1, 3, 256, 256), "max": (8, 3, 1024, 1024)}


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The fake module under the real one's name."""
    monkeypatch.syspath_prepend(str(FAKES))
    known = sys.modules.pop("tensorrt", None)
    yield importlib.import_module("tensorrt")
    sys.modules.pop("tensorrt", None)
    if known is not None:
        sys.modules["tensorrt"] = known


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch, fake: Any) -> Any:
    """The fake CUDA runtime."""
    from cudart import Cudart

    library = Cudart()
    monkeypatch.setattr(cuda, "library", lambda: library)
    return library


@pytest.fixture
def engine(fake: Any, tmp_path: Path) -> Path:
    path = tmp_path / "net.engine"
    path.write_bytes(b'{"fake": "%s"}' % fake.__version__.encode())
    return path


def test_an_inference_is_copied_run_copied_back_and_waited_for(gpu: Any, engine: Path) -> None:
    infer = sessions.opened(engine, 1, "cuda", (1, 3, 2, 2))
    assert np.array_equal(infer(IMAGE), 2 * IMAGE) and infer(IMAGE).dtype == np.float32
    assert gpu.calls == [
        "cudaStreamCreate",
        "cudaMalloc",
        "cudaMemcpyAsync",
        "cudaMalloc",
        "cudaMemcpyAsync",
        "cudaStreamSynchronize",
        # Buffers are kept from one inference to the next.
        *("cudaMemcpyAsync", "cudaMemcpyAsync", "cudaStreamSynchronize"),
    ]
    infer.close()
    infer.close()
    assert gpu.calls[-3:] == ["cudaFree", "cudaFree", "cudaStreamDestroy"] and not gpu.held


def test_a_larger_input_gets_larger_buffers_and_gives_the_smaller_back(gpu: Any, engine: Path) -> None:
    infer = sessions.opened(engine, 1, "cuda", (-1, 3, 2, 2))
    for batch in (1, 4, 2):
        images = np.repeat(IMAGE, batch, 0)
        assert np.array_equal(infer(images), 2 * images)
    assert gpu.calls.count("cudaMalloc") == 4 and gpu.calls.count("cudaFree") == 2
    assert infer._cuda.held_bytes == 2 * 4 * IMAGE.nbytes
    infer.close()


def test_what_is_not_closed_is_given_back_when_nobody_has_it(gpu: Any, engine: Path) -> None:
    sessions.opened(engine, 1, "cuda", IMAGE.shape)(IMAGE)
    assert not gpu.held and gpu.calls[-1] == "cudaStreamDestroy"


def test_each_layer_is_told_with_its_time_and_precision(gpu: Any, engine: Path) -> None:
    profile = sessions.profiled(engine, 1, "cuda", IMAGE, runs=3)
    told = {node.names: (node.kind, node.microseconds, node.precision) for node in profile.nodes}
    assert told == {
        ("a.weight", "QuantizeLinear_8", "a", "relu"): ("CaskConvolution", 250.0, "INT8"),
        ("b",): ("CaskConvolution", 500.0, "FP16"),
    }
    assert sessions.executed(engine, 1, "cuda", IMAGE.shape) == {"INT8": 1, "FP16": 1} and not gpu.held


@pytest.mark.parametrize(
    ("wrong", "kind", "says"),
    [
        ("memory", BackendError, r"the GPU has not enough memory \(cudaErrorMemoryAllocation\) where 48 bytes"),
        ("driver", NotHere, r"there is no GPU that CUDA can use \(cudaErrorInsufficientDriver"),
        ("version", BackendError, r"TensorRT 10.3.0 cannot load net.engine: Error Code 1: Serialization"),
        ("shape", BackendError, r"net.engine takes no input of shape \[9, 3, 2, 2\]"),
        ("type", BackendError, r"takes or gives FP8"),
        ("error", BackendError, r"CUDA fails where a stream is made \(cudaErrorUnknown"),
    ],
)
def test_what_goes_wrong_is_one_sentence_and_leaves_nothing_on_the_gpu(
    gpu: Any, fake: Any, engine: Path, monkeypatch: pytest.MonkeyPatch, wrong: str, kind: type[Exception], says: str
) -> None:
    gpu.memory = 10 if wrong == "memory" else gpu.memory
    gpu.code = {"driver": 35, "error": 700}.get(wrong, 0)
    if wrong == "version":
        engine.write_bytes(b'{"fake": "8.6.2"}')
    if wrong == "type":
        monkeypatch.setattr(fake.Engine, "get_tensor_dtype", lambda self, name: fake.DataType.FP8)
    image = np.repeat(IMAGE, 9, 0) if wrong == "shape" else IMAGE
    with pytest.raises(kind, match=says) as told:
        sessions.opened(engine, 1, "cuda", (-1, 3, 2, 2))(image)
    assert "\n" not in str(told.value)
    del told
    assert not gpu.held


def test_a_dla_core_is_told_before_the_engine_is_loaded(gpu: Any, fake: Any, engine: Path) -> None:
    fake.CALLS.clear()
    sessions.opened(engine, 1, "dla1", IMAGE.shape).close()
    assert fake.CALLS == [("plugins", ""), ("deserialize", 1)]


def test_an_older_api_without_names_is_called_by_bindings(gpu: Any, fake: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """TensorRT before 8.5, whose contexts have no execute_async_v3."""

    class Engine:
        num_bindings = 2

        def get_binding_name(self, index: int) -> str:
            return ("image", "logits")[index]

        def get_binding_index(self, name: str) -> int:
            return ("image", "logits").index(name)

        def binding_is_input(self, name: str) -> bool:
            return name == "image"

        def get_binding_dtype(self, index: int) -> Any:
            return fake.DataType.FLOAT

        def create_execution_context(self) -> Context:
            return Context()

    class Context:
        def set_binding_shape(self, index: int, shape: tuple[int, ...]) -> bool:
            self.shape = shape
            return True

        def get_binding_shape(self, index: int) -> tuple[int, ...]:
            return self.shape

        def execute_async_v2(self, bindings: list[int], stream: int) -> bool:
            newer = fake.Context()
            newer.shape, newer.at = self.shape, dict(zip(("image", "logits"), bindings, strict=True))
            return bool(newer.execute_async_v3(stream))

    monkeypatch.setattr(fake.Runtime, "deserialize_cuda_engine", lambda self, data: Engine())
    path = Path(__file__)
    infer = sessions.opened(path, 1, "cuda", IMAGE.shape)
    assert np.array_equal(infer(IMAGE), 2 * IMAGE)
    infer.close()
    assert not gpu.held


# Building with the module.


def built(fake: Any, tmp_path: Path, version: str, wanted: Wanted, content: bytes = b"onnx") -> Any:
    fake.__version__ = version
    fake.CALLS.clear()
    onnx = tmp_path / "net.onnx"
    onnx.write_bytes(content)
    return sessions.built(onnx, wanted, tmp_path / "timing")


@pytest.mark.parametrize(
    ("version", "dla", "network", "flags", "typed"),
    [
        ("8.5.2.2", None, 1, ["FP16", "INT8"], False),
        ("8.6.1", None, 1, ["FP16", "INT8"], False),
        ("10.3.0", None, 2, [], True),
        ("10.13.3", None, 2, [], True),
        ("11.4.1", None, 2, [], True),
        ("8.6.2", 0, 1, ["FP16", "INT8", "GPU_FALLBACK"], False),
        ("10.3.0", 1, 0, ["FP16", "INT8", "GPU_FALLBACK"], False),
        ("11.4.1", 0, 2, ["GPU_FALLBACK"], True),
    ],
)
def test_each_version_is_asked_for_integers_in_its_own_way(
    fake: Any, tmp_path: Path, version: str, dla: int | None, network: int, flags: list[str], typed: bool
) -> None:
    made = built(fake, tmp_path, version, Wanted(input="image", int8=True, dla=dla)).made
    assert ("network", network) in fake.CALLS
    assert [call[1] for call in fake.CALLS if call[0] == "flag"] == flags
    assert made["flags"]["strongly_typed"] is typed and made["tensorrt"] == version


@pytest.mark.parametrize(
    ("version", "dla", "refused"), [("8.6.2", None, True), ("10.3.0", 0, True), ("10.3.0", None, False)]
)
def test_what_16_bits_do_not_hold_is_not_left_to_a_builder_that_may_put_it_into_them(
    fake: Any, tmp_path: Path, version: str, dla: int | None, refused: bool
) -> None:
    wanted = Wanted(input="image", fp16=True, in_32_bits=2, dla=dla)
    if not refused:
        assert built(fake, tmp_path, version, wanted).made["flags"]["strongly_typed"]
        return
    with pytest.raises(BackendError, match=r"in 16 bits what the file keeps in 32 \(2 operations\)"):
        built(fake, tmp_path, version, wanted)


def test_what_dla_did_not_take_is_told_but_not_what_moves_data(fake: Any, tmp_path: Path) -> None:
    made = built(fake, tmp_path, "10.3.0", Wanted(input="image", fp16=True, dla=0)).made
    assert made["fallback"] == {"layers": 1, "names": ["up"], "on_dla": 1, "why": []}


@pytest.mark.parametrize("version", ["10.13.3", "10.16.2"])
def test_a_tensorrt_without_dla_is_refused_with_what_has_it(fake: Any, tmp_path: Path, version: str) -> None:
    with pytest.raises(NotHere, match=rf"TensorRT {version} has no DLA: 10.7 is the last .* 11.4 the next"):
        built(fake, tmp_path, version, Wanted(input="image", fp16=True, dla=0))


def test_a_dla_core_that_is_not_there_is_refused(fake: Any, tmp_path: Path) -> None:
    with pytest.raises(NotHere, match="there is no DLA core 2: TensorRT finds 2 of them"):
        built(fake, tmp_path, "10.3.0", Wanted(input="image", fp16=True, dla=2))


def test_a_refused_node_is_named_with_its_reason(fake: Any, tmp_path: Path) -> None:
    says = r"^TensorRT refuses net.onnx: node enc1 \(Einsum\): Assertion failed: Unsupported equation$"
    with pytest.raises(BackendError, match=says):
        built(fake, tmp_path, "10.3.0", Wanted(input="image"), b"refused")


def test_memory_that_does_not_suffice_for_building_is_told(
    fake: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(
        fake.GPU, "says", "[defaultAllocator.cpp::allocate::31] Error Code 1: Cuda Runtime (out of memory)"
    )
    with pytest.raises(BackendError, match=r"^TensorRT cannot build net.onnx: .*out of memory"):
        built(fake, tmp_path, "10.3.0", Wanted(input="image"))


def test_open_axes_and_a_board_s_memory_are_told_and_kernels_are_timed_once(fake: Any, tmp_path: Path) -> None:
    wanted = Wanted(input="image", ranges=RANGES, workspace_mb=2048)
    flags = built(fake, tmp_path, "10.3.0", wanted).made["flags"]
    assert ("shape", "image", *(list(shape) for shape in RANGES.values())) in fake.CALLS
    assert ("pool", 2048 << 20) in fake.CALLS and ("timing cache", b"") in fake.CALLS
    assert flags["profile"] == {which: list(shape) for which, shape in RANGES.items()} and flags["workspace_mb"] == 2048
    built(fake, tmp_path, "10.3.0", wanted)
    assert ("timing cache", b"timed") in fake.CALLS
    built(fake, tmp_path, "10.7.0", wanted)
    # What was timed holds for one version alone.
    assert ("timing cache", b"") in fake.CALLS


# Through the backend.


def test_an_engine_lies_beside_its_log_and_is_opened_without_torch(
    gpu: Any, fake: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import onnx
    from onnx import helper

    graph = helper.make_graph([], "nothing", [], [])
    onnx.save(helper.make_model(graph), tmp_path / "net.onnx")
    port = Port(name="image", shape=(1, 3, 2, 2), dtype="float")
    source = Artifact(path=tmp_path / "net.onnx", format="onnx", input=port, output=replace(port, name="logits"))
    monkeypatch.setattr(Device, "check_here", lambda self: None)
    device = Device(name="card", title="a card", kind="cuda", backends=("tensorrt",), compute_capability="8.7")
    backend = TensorRt(device=device)
    artifact = backend.build(source, tmp_path)
    assert artifact.path.name == "net.sm_87.engine" and artifact.made["log"] == "net.sm_87.engine.log"
    assert (tmp_path / artifact.made["log"]).is_file()
    with backend.open(artifact) as infer:
        assert np.array_equal(infer(IMAGE), 2 * IMAGE)
    assert not gpu.held and backend.executed_precisions(artifact) == {"INT8": 1, "FP16": 1}


def test_tensorrt_rtx_is_told_from_tensorrt_by_its_name() -> None:
    module_of = ModuleType("tensorrt_rtx_bindings")
    assert not module.is_rtx(ModuleType("tensorrt"))
    assert module.is_rtx(module_of) and module.name_of(module_of) == "tensorrt_rtx"


# Devices with DLA cores.


def test_a_dla_core_takes_no_open_axes(tmp_path: Path) -> None:
    port = Port(name="image", shape=(-1, 3, 8, 8), dtype="float")
    source = Artifact(path=tmp_path / "net.onnx", format="onnx", input=port, output=port)
    orin = Device(name="agx_orin", title="AGX Orin", kind="cuda", backends=("tensorrt",), dla_cores=2)
    with pytest.raises(BackendError, match=r"net\.onnx has open axes, and a DLA core takes none; leave `dynamic` out"):
        TensorRt(device=orin.reached(Reach(dla=0))).wanted(source)


def test_a_dla_core_is_a_device_of_its_own() -> None:
    orin = Device(name="agx_orin", title="AGX Orin", kind="cuda", backends=("tensorrt",), dla_cores=2)
    core = orin.reached(Reach(at="tower-7", dla=1))
    assert (core.name, core.word, core.kind, core.processor) == ("agx_orin@tower-7+dla1", "agx_orin", "dla", "dla1")
    assert core.title == "AGX Orin at tower-7, DLA core 1" and orin.fault_of(core.reach) is None
    assert orin.fault_of(Reach(dla=2)) == "dla: AGX Orin has the DLA cores 0, 1"
    assert orin.reached(Reach(dla=0)).name == "agx_orin+dla0"


def test_a_name_with_a_dla_core_is_found_where_the_device_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    import export.registry

    orin = Device(name="agx_orin", title="AGX Orin", kind="cuda", backends=("tensorrt",), dla_cores=2)
    monkeypatch.setattr(export.registry, "named", lambda package, word: orin)
    assert find_device("agx_orin@tower-7+dla1") == orin.reached(Reach(at="tower-7", dla=1))
    for wrong, says in (
        ("agx_orin+dla2", "has the DLA cores 0, 1"),
        ("agx_orin+dlax", "'x' is no number of a DLA core"),
    ):
        with pytest.raises(ValueError, match=says):
            find_device(wrong)


# NVIDIA, "Jetson modules": DL accelerators.
CORES = {
    "agx_orin": 2,
    "agx_xavier": 2,
    "igx_orin": 2,
    "orin_nano": 0,
    "orin_nano_4gb": 0,
    "orin_nx": 2,
    "orin_nx_8gb": 1,
    "thor": 0,
    "xavier_nx": 2,
}


@pytest.mark.parametrize("word", [word for word in words("export.devices") if word in CORES])
def test_a_board_s_profile_says_how_many_dla_cores_it_has(word: str) -> None:
    assert find_device(word).dla_cores == CORES[word]


@pytest.mark.parametrize(
    ("asked", "means"),
    [
        ("agx_orin", True),
        ("agx_orin+dla0", True),
        ("agx_orin@tower-7+dla0", True),
        ("agx_orin@tower-7", False),
        ("agx_orin+dla1", False),
        ("orin_nano", False),
    ],
)
def test_a_gate_means_a_dla_core_by_its_board_or_by_its_own_name(asked: str, means: bool) -> None:
    from compress.gates.judging.artifacts import is_device

    assert is_device(asked, "agx_orin@tower-7+dla0") is means
