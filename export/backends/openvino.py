"""OpenVINO on the CPU."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from numpy.typing import NDArray

from export.artifact import Artifact, Infer
from export.device import Device, Kind
from export.devices.cpu import CPU
from export.errors import BackendError, MissingExtra, SurroundingsError
from export.files import write_bytes
from export.profile import Profile
from export.quantization.rules import Rules
from export.rewrites import rewritten

if TYPE_CHECKING:
    import openvino

# One scale for a concatenation and no second pair behind an operator that only moves values: each such pair
# becomes a requantization of its own in the compiled graph. Signed activations are converted to unsigned
# ones on CPUs without AMX and cost accuracy there, so they are uint8 with a zero point. Transposed convolutions
# run in integers as they are where their input has no zero point and channels in fours: with others AMX leaves out the
# zero point of what they put out (2026.4). A convolution of one input channel a group with a zero point reads memory
# that nothing wrote where its padding is as wide as its kernel (2026.4): FCN pads by 100. A grouped 3-D convolution
# pads with code 0 instead of the zero point where there is no AVX-512 VNNI (2026.4): all wrong. With AMX a convolution
# whose kernel has an even side of 4 or more computes another one at some strides, where it reads fewer than 64 channels
# (2026.4; the spatial reductions of PVT and SegFormer, kernel and stride 8 over 32 channels).
# What is rounded behind a largest or smallest value over axes is wrong on every CPU (export/quantization/extremes.py).
# Where one scale would leave an input of a concatenation too few levels (LEVELS in quantization/scales.py) it is
# stretched, or has a scale of its own: a cascade that reads its image beside logits (256x256, one thread, medians in
# turns) took 6.3 ms with one scale (relative error of the logits 0.085), 7.9 ms stretched (0.027), 8.1 ms with a scale
# of its own (0.026), and 9.3 ms with the layer that reads the concatenation in float (0.020).
RULES = Rules(
    runtime="openvino",
    activations="uint8",
    carriers=frozenset({"max_pool", "concat", "shuffle", "nearest"}),
    behind_carriers=False,
    outputs=False,
    adds="both",
    one_scale_concat=True,
    transposed_as_convolution=False,
    pairs_in_16_bits=True,
    transposed_multiple=4,
    padding_beyond_kernel=False,
    padded_groups_of_volumes=False,
    channels_under_even_kernels=64,
    extremes=False,
)


@dataclass(frozen=True, kw_only=True)
class OpenVino:
    """Converts to OpenVINO's IR (.xml and .bin) and runs it in the precision the file states."""

    device: Device = CPU
    threads: int = 1
    rules: ClassVar[Rules | None] = RULES
    runs_on: ClassVar[frozenset[Kind]] = frozenset({"cpu"})
    runs_modules: ClassVar[bool] = False
    builds_on_device: ClassVar[bool] = False
    libraries: ClassVar[tuple[str, ...]] = ("openvino",)
    quick_to_tap: ClassVar[bool] = False

    @staticmethod
    def check_installed() -> None:
        """Whether OpenVINO is there to build with.

        Raises:
            MissingExtra: if not, with how to install it.
        """
        _openvino()

    def build(self, onnx: Artifact, folder: Path) -> Artifact:
        """The IR of an ONNX file; float weights stay in 32 bits unless the file has them in 16."""
        ov, sessions = _openvino(), _sessions()
        xml = folder / f"{onnx.path.stem}.xml"
        try:
            model = ov.Core().read_model(_as_it_computes(onnx.path))
        except RuntimeError as error:
            raise BackendError(f"OpenVINO refuses {onnx.path.name}: {sessions.reason(error)}") from None
        _name_by_position(model)
        # OpenVINO writes in place; written elsewhere and moved, a full disk leaves no half artifact.
        with tempfile.TemporaryDirectory() as scratch:
            written = Path(scratch) / xml.name
            try:
                ov.save_model(model, written, compress_to_fp16=False)
            except RuntimeError as error:
                raise SurroundingsError(
                    f"{written}: OpenVINO could not write it ({sessions.reason(error)}); make room"
                ) from None
            for suffix in (".bin", ".xml"):
                write_bytes(xml.with_suffix(suffix), written.with_suffix(suffix).read_bytes())
        made = {**onnx.made, "openvino": ov.__version__, "onnx_sha256": onnx.made.get("sha256")}
        return replace(onnx, path=xml, format="openvino", beside=(xml.with_suffix(".bin").name,), made=made).sealed()

    @contextmanager
    def open(self, artifact: Artifact) -> Iterator[Infer]:
        """A compiled model with one stream; where axes are open, one for each of the last few shapes."""
        artifact.verify()
        yield _sessions().opened(artifact.path, self.threads, "cpu", artifact.input.shape)

    def values(
        self, artifact: Artifact, image_BCHW: NDArray[np.float32], names: Collection[str]
    ) -> dict[str, NDArray[Any]]:
        """What it computes for tensors inside the ONNX file that lies beside the artifact.

        Args:
            names: outputs of nodes.

        Raises:
            BackendError: if it does not take the file with all of them.
        """
        from export.deviation import with_outputs

        ov, sessions = _openvino(), _sessions()
        model = with_outputs(_as_it_means(onnx.load(artifact.path.with_suffix(".onnx"))), names)
        outputs = [output.name for output in model.graph.output]
        core = ov.Core()
        try:
            read = core.read_model(model.SerializeToString())
            read.reshape(image_BCHW.shape)
            settings = {**sessions.settings(self.threads), **sessions.in_16_bits(read)}
            compiled = core.compile_model(read, "CPU", settings)
            answers = compiled.create_infer_request().infer({0: image_BCHW})
        except RuntimeError as error:
            raise BackendError(
                f"OpenVINO cannot tell what lies inside {artifact.path.name}: {sessions.reason(error)}"
            ) from None
        # In the file's order; one tensor under two names is one output.
        found = dict(zip(outputs, (np.array(answers[place]) for place in range(len(outputs))), strict=True))
        return {name: found[name] for name in names}

    def flags(self) -> dict[str, object]:
        """What was set, for the report."""
        return {"threads": self.threads, "inference_precision": "as the file has it", "streams": 1}

    def executed(self, artifact: Artifact) -> Counter[tuple[str, str]]:
        """How many layers of each (type, precision) the compiled graph really has.

        The proof that convolutions run in integers: ("Convolution", "u8") or "i8", against "f32".
        """
        found: Counter[tuple[str, str]] = _sessions().layers(artifact.path, self.threads, artifact.input.shape)
        return found

    def executed_precisions(self, artifact: Artifact) -> Mapping[str, int]:
        """How many convolutions run in each precision, by the compiled graph."""
        artifact.verify()
        found: dict[str, int] = _sessions().executed(artifact.path, self.threads, "cpu", artifact.input.shape)
        return found

    def profile(self, artifact: Artifact, image_BCHW: NDArray[np.float32], runs: int = 20) -> Profile:
        """How long each node takes, by this runtime's own counters: medians over warm runs."""
        artifact.verify()
        return _sessions().profiled(artifact.path, self.threads, "cpu", image_BCHW, runs)


def _as_it_computes(path: Path) -> Path | bytes:
    """The file, or its content where operators that OpenVINO computes otherwise are written another way."""
    try:
        model = onnx.load(path)
    except DecodeError:
        # OpenVINO says what is wrong with it.
        return path
    means = _as_it_means(model)
    return path if means is model else means.SerializeToString()


def _as_it_means(model: onnx.ModelProto) -> onnx.ModelProto:
    from export.backends.onnxruntime import answers

    return rewritten(model, answers)


def _name_by_position(model: openvino.Model) -> None:
    """Number the names that OpenVINO makes up: it counts on through the process, so no two files would be equal."""
    for index, operation in enumerate(model.get_ordered_ops()):
        kind, _, number = operation.get_friendly_name().rpartition("_")
        if kind == operation.get_type_name() and number.isdigit():
            operation.set_friendly_name(f"{kind}_{index}")


def _openvino() -> Any:
    try:
        import openvino as ov
    except ModuleNotFoundError:
        raise MissingExtra("openvino", "openvino") from None
    return ov


def _sessions() -> Any:
    """How its files are opened."""
    _openvino()
    from export.sessions import openvino

    return openvino
