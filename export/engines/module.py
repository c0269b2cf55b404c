"""An engine built by TensorRT's Python module, 8.5 to 11 and TensorRT-RTX: one API under several names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from export.engines import dla, trtexec
from export.engines.wanted import (
    Built,
    Wanted,
    is_strongly_typed,
    narrowed,
    precision_flags,
    target_flags,
    versioned,
    weak_precisions,
)
from export.errors import BackendError, NotHere

_MOST_LINES = 20_000


def built(trt: Any, onnx: Path, wanted: Wanted, timing_cache: Path | None = None) -> Built:
    """The engine of an ONNX file.

    Args:
        trt: the module.
        timing_cache: read where it is there, and written, for a TensorRT that has one.

    Raises:
        BackendError: with the node that the parser refuses and its reason, or why the builder could not.
        NotHere: if this builds only beside a GPU, and there is none.
    """
    version = versioned(trt.__version__)
    if not is_rtx(trt) and wanted.dla is not None and (fault := dla.fault(version)):
        raise NotHere(fault)
    if not is_rtx(trt) and (fault := narrowed(version, wanted)):
        raise BackendError(fault)
    said = log(trt)
    register_plugins(trt, said)
    builder = trt.Builder(said)
    if builder is None:
        raise NotHere("this TensorRT builds only beside a GPU, and there is no NVIDIA driver")
    network = builder.create_network(_network_flags(trt, wanted))
    parser = trt.OnnxParser(network, said)
    if not parser.parse(onnx.read_bytes()):
        raise BackendError(f"TensorRT refuses {onnx.name}: {_refusals(parser)}")
    config = builder.create_builder_config()
    flags = _configured(trt, builder, network, config, wanted)
    _with_timing_cache(config, timing_cache)
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        raise BackendError(f"TensorRT cannot build {onnx.name}: {trtexec.refusal_in(said.lines)}")
    _keep_timing_cache(config, timing_cache)
    made = {name_of(trt): trt.__version__, "flags": flags, "built_by": f"Python module {trt.__name__}"}
    fell_back = {} if wanted.dla is None else {"fallback": dla.fallback(said.lines)}
    return Built(engine=bytes(engine), log=said.lines, made={**made, **fell_back})


def is_rtx(trt: Any) -> bool:
    """Whether it is TensorRT-RTX, which builds for any GPU on any host and is versioned apart."""
    return "rtx" in trt.__name__


def register_plugins(trt: Any, said: Any) -> None:
    """Make TensorRT's own plugins known, which before 10 normalize instances, when built and when loaded."""
    if not is_rtx(trt) and hasattr(trt, "init_libnvinfer_plugins"):
        trt.init_libnvinfer_plugins(said, "")


def name_of(trt: Any) -> str:
    """What it is called in a sidecar."""
    return (
        str(trt.__name__.removesuffix("_bindings")) if hasattr(str, "removesuffix") else trt.__name__.split("_bind")[0]
    )


def log(trt: Any) -> Any:
    """A TensorRT logger that prints nothing and keeps what was said, in the form in which trtexec prints it."""
    severities = trt.ILogger.Severity
    letters = {severities.INTERNAL_ERROR: "F", severities.ERROR: "E", severities.WARNING: "W", severities.INFO: "I"}

    class Log(trt.ILogger):
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.lines: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if severity in letters and len(self.lines) < _MOST_LINES:
                self.lines += [f"[{letters[severity]}] [TRT] {line}" for line in message.splitlines() if line.strip()]

        @property
        def last(self) -> str:
            """The last error."""
            return next((line[10:310] for line in reversed(self.lines) if line[1] in "EF"), "no reason given")

    return Log()


def _network_flags(trt: Any, wanted: Wanted) -> int:
    """TensorRT 11 and TensorRT-RTX know only strongly typed networks and may lack the flag; before 10 batches are
    explicit only where that is asked for.
    """
    flags = trt.NetworkDefinitionCreationFlag
    version = versioned(trt.__version__)
    if not is_rtx(trt) and version[0] < 10:
        return 1 << int(flags.EXPLICIT_BATCH)
    typed = getattr(flags, "STRONGLY_TYPED", None)
    return 1 << int(typed) if typed is not None and (is_rtx(trt) or is_strongly_typed(version, wanted.dla)) else 0


def _configured(trt: Any, builder: Any, network: Any, config: Any, wanted: Wanted) -> dict[str, Any]:
    """Set what is wanted; returns what was set."""
    flags: dict[str, Any] = {"strongly_typed": True}
    version = versioned(trt.__version__)
    if not is_rtx(trt):
        flags = precision_flags(version, wanted)
        for word in [] if flags["strongly_typed"] else weak_precisions(wanted):
            config.set_flag(getattr(trt.BuilderFlag, word.upper()))
    if wanted.compute_capability is not None:
        flags["compute_capabilities"] = [wanted.compute_capability]
        if is_rtx(trt):
            _aim_at(trt, config, wanted.compute_capability)
    # Without it an engine does not tell in what its layers compute.
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    if wanted.sparse_layers:
        flags["sparse_weights"] = _with_sparse_weights(trt, config, wanted.sparse_layers)
    if wanted.ranges:
        profile = builder.create_optimization_profile()
        profile.set_shape(network.get_input(0).name, *(list(wanted.ranges[which]) for which in ("min", "opt", "max")))
        config.add_optimization_profile(profile)
    if wanted.workspace_mb is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, wanted.workspace_mb << 20)
    if wanted.dla is not None:
        _onto_dla(trt, builder, config, wanted.dla)
    return {**flags, **target_flags(wanted)}


def _onto_dla(trt: Any, builder: Any, config: Any, core: int) -> None:
    if builder.num_DLA_cores <= core:
        raise NotHere(f"there is no DLA core {core}: TensorRT finds {builder.num_DLA_cores} of them")
    config.default_device_type = trt.DeviceType.DLA
    config.DLA_core = core
    config.set_flag(trt.BuilderFlag.GPU_FALLBACK)


def _refusals(parser: Any) -> str:
    said = []
    for index in range(parser.num_errors):
        error = parser.get_error(index)
        node = error.node_name() if hasattr(error, "node_name") else ""
        kind = error.node_operator() if hasattr(error, "node_operator") else ""
        told = f" ({kind})" if kind else ""
        said.append(f"node {node or error.node()}{told}: {' '.join(error.desc().split())[:200]}")
    return "; ".join(said[:3]) or "no reason given"


def _aim_at(trt: Any, config: Any, capability: str) -> None:
    name = f"SM{capability.replace('.', '')}"
    target = getattr(trt.ComputeCapability, name, None)
    if target is None:
        known = ", ".join(sorted(entry for entry in dir(trt.ComputeCapability) if entry.startswith("SM")))
        raise BackendError(f"TensorRT-RTX {trt.__version__} builds no engines for {name}; it knows {known}")
    config.num_compute_capabilities = 1
    config.set_compute_capability(target, 0)


def _with_sparse_weights(trt: Any, config: Any, layers: int) -> str:
    """Let the builder try its kernels for 2:4 weights; where a dense one is faster, it stays."""
    flag = getattr(trt.BuilderFlag, "SPARSE_WEIGHTS", None)
    if flag is None:
        return f"not set for {layers} layers with 2:4 weights: {trt.__name__} {trt.__version__} has no such flag"
    config.set_flag(flag)
    return f"set for {layers} layers with 2:4 weights"


def _with_timing_cache(config: Any, path: Path | None) -> None:
    """What kernels took when an engine was built before, so that none is timed again and the choice is the same."""
    if path is not None and hasattr(config, "create_timing_cache"):
        known = path.read_bytes() if path.is_file() else b""
        # One that is damaged, or of another version, is begun anew.
        config.set_timing_cache(config.create_timing_cache(known) or config.create_timing_cache(b""), False)


def _keep_timing_cache(config: Any, path: Path | None) -> None:
    cache = config.get_timing_cache() if path is not None and hasattr(config, "get_timing_cache") else None
    if cache is not None and path is not None:
        beside = path.with_suffix(".partial")
        beside.write_bytes(bytes(cache.serialize()))
        beside.replace(path)
