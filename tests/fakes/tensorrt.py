"""A fake of NVIDIA's Python module `tensorrt`, for tests alone: it builds no engine and computes nothing but 2 x.

What it answers has the form that the real module's documentation gives; every call that matters is kept in `CALLS`.
The version that it plays is `__version__`; before 10 its networks are weakly typed, as are the real one's.
"""

from __future__ import annotations

import ctypes
import enum
import json
import os
import signal

__version__ = os.environ.get("FAKE_TENSORRT", "10.3.0")
CALLS: list[tuple] = []
GPU = {"dla_cores": 2, "says": ""}
LAYERS = {
    "Layers": [
        {"Name": "Reformatting CopyNode for Input Tensor 0 to a", "LayerType": "Reformat", "Inputs": [], "Outputs": []},
        {
            "Name": "a.weight + QuantizeLinear_8 + a + PWN(relu)",
            "LayerType": "CaskConvolution",
            "Inputs": [{"Name": "1", "Format/Datatype": "Thirty-two wide channel vectorized row major Int8 format"}],
            "Outputs": [],
            "ParameterType": "Convolution",
            "Weights": {"Type": "Int8", "Count": 864},
        },
        {
            "Name": "b",
            "LayerType": "CaskConvolution",
            "Inputs": [{"Name": "2", "Format/Datatype": "Half"}],
            "Outputs": [],
            "ParameterType": "Convolution",
            "Weights": {"Type": "Half", "Count": 32},
        },
    ],
    "Bindings": ["image", "logits"],
}


def _enum(name: str, *members: str) -> type[enum.IntEnum]:
    return enum.IntEnum(name, [(member, number) for number, member in enumerate(members)])


NetworkDefinitionCreationFlag = _enum("NetworkDefinitionCreationFlag", "EXPLICIT_BATCH", "STRONGLY_TYPED")
BuilderFlag = _enum("BuilderFlag", "FP16", "INT8", "GPU_FALLBACK", "SPARSE_WEIGHTS")
ProfilingVerbosity = _enum("ProfilingVerbosity", "LAYER_NAMES_ONLY", "DETAILED")
MemoryPoolType = _enum("MemoryPoolType", "WORKSPACE")
DeviceType = _enum("DeviceType", "GPU", "DLA")
DataType = _enum("DataType", "FLOAT", "HALF", "FP8")
TensorIOMode = _enum("TensorIOMode", "NONE", "INPUT", "OUTPUT")
LayerInformationFormat = _enum("LayerInformationFormat", "ONELINE", "JSON")


class ILogger:
    Severity = _enum("Severity", "INTERNAL_ERROR", "ERROR", "WARNING", "INFO", "VERBOSE")


def init_libnvinfer_plugins(log: object, namespace: str) -> bool:
    CALLS.append(("plugins", namespace))
    return True


class IProfiler:
    pass


class _Error:
    def node(self) -> int:
        return 3

    def node_name(self) -> str:
        return "enc1"

    def node_operator(self) -> str:
        return "Einsum"

    def desc(self) -> str:
        return "Assertion failed: Unsupported\n equation"


class OnnxParser:
    def __init__(self, network: object, log: object) -> None:
        self.num_errors = 0

    def parse(self, data: bytes) -> bool:
        self.num_errors = int(data == b"refused")
        return not self.num_errors

    def get_error(self, index: int) -> _Error:
        return _Error()


class Builder:
    def __init__(self, log: object) -> None:
        self.log = log
        self.num_DLA_cores = GPU["dla_cores"]

    def create_network(self, flags: int) -> object:
        CALLS.append(("network", flags))
        return type("Network", (), {"get_input": lambda self, index: type("Tensor", (), {"name": "image"})()})()

    def create_builder_config(self) -> Config:
        return Config()

    def create_optimization_profile(self) -> object:
        return type("Profile", (), {"set_shape": lambda self, name, *shapes: CALLS.append(("shape", name, *shapes))})()

    def build_serialized_network(self, network: object, config: Config) -> bytes | None:
        if "FAKE_TENSORRT_IS_KILLED" in os.environ:
            os.kill(os.getpid(), signal.SIGKILL)
        severity = ILogger.Severity
        if config.DLA_core is not None:
            for line in (
                "---------- Layers Running on DLA ----------",
                "[DlaLayer] {ForeignNode[a...relu]}",
                "---------- Layers Running on GPU ----------",
                "[GpuLayer] COPY: Reformatting CopyNode for Network Input image",
                "[GpuLayer] DECONVOLUTION: up",
            ):
                self.log.log(severity.INFO, line)
        if GPU["says"]:
            self.log.log(severity.ERROR, GPU["says"])
            return None
        return json.dumps({"fake": __version__}).encode()


class Config:
    def __init__(self) -> None:
        self.DLA_core = None
        self.default_device_type = None
        self.profiling_verbosity = None
        self.cache = b""

    def set_flag(self, flag: object) -> None:
        CALLS.append(("flag", flag.name))

    def add_optimization_profile(self, profile: object) -> None:
        pass

    def set_memory_pool_limit(self, pool: object, size: int) -> None:
        CALLS.append(("pool", size))

    def create_timing_cache(self, known: bytes) -> object:
        return _TimingCache(known)

    def set_timing_cache(self, cache: bytes, ignore_mismatch: bool) -> None:
        CALLS.append(("timing cache", cache.known))

    def get_timing_cache(self) -> object:
        return type("Cache", (), {"serialize": lambda self: b"timed"})()


class _TimingCache:
    def __init__(self, known: bytes) -> None:
        self.known = known


class Runtime:
    def __init__(self, log: object) -> None:
        self.log, self.DLA_core = log, None

    def deserialize_cuda_engine(self, data: bytes) -> Engine | None:
        CALLS.append(("deserialize", self.DLA_core))
        if json.loads(data)["fake"] != __version__:
            self.log.log(ILogger.Severity.ERROR, "Error Code 1: Serialization (incompatible version)")
            return None
        return Engine()


class Engine:
    """One input `image` and one output `logits`, twice the image; batches of 1 to 8."""

    num_io_tensors = 2

    def get_tensor_name(self, index: int) -> str:
        return ("image", "logits")[index]

    def get_tensor_mode(self, name: str) -> object:
        return TensorIOMode.INPUT if name == "image" else TensorIOMode.OUTPUT

    def get_tensor_dtype(self, name: str) -> object:
        return DataType.FLOAT

    def create_execution_context(self) -> Context:
        return Context()

    def create_engine_inspector(self) -> object:
        tell = {"execution_context": None, "get_engine_information": lambda self, form: json.dumps(LAYERS)}
        return type("Inspector", (), tell)()


class Context:
    profiler: object = None

    def __init__(self) -> None:
        self.shape: tuple = ()
        self.at: dict[str, int] = {}

    def set_input_shape(self, name: str, shape: tuple) -> bool:
        CALLS.append(("shape", name, shape))
        self.shape = shape
        return shape[0] <= 8

    def get_tensor_shape(self, name: str) -> tuple:
        return self.shape

    def set_tensor_address(self, name: str, address: int) -> None:
        self.at[name] = address

    def execute_async_v3(self, stream: int) -> bool:
        CALLS.append(("execute", stream))
        count = 1
        for side in self.shape:
            count *= side
        image, logits = ((ctypes.c_float * count).from_address(self.at[name]) for name in ("image", "logits"))
        logits[:] = [2 * value for value in image]
        for layer, milliseconds in (("a.weight + QuantizeLinear_8 + a + PWN(relu)", 0.25), ("b", 0.5)):
            if self.profiler is not None:
                self.profiler.report_layer_time(layer, milliseconds)
        return True
