"""From torch to one ONNX file, and the proof that it computes the same.

Legend: B batch, C channels, K classes, H height, W width.
"""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnx_ir.passes.common as ir_passes
import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from export.artifact import Artifact, Infer
from export.capture import exported, operators_looked_up_once, quiet
from export.errors import ExportError, first_line
from export.files import write_bytes
from export.graph import Dynamic
from export.layers import port_of
from export.packed import store_packed
from export.programs.compiled import compiled_when_run
from export.programs.functional import as_translated, in_functions
from export.programs.translation import spare_what_is_done_again
from export.quantization.qdq import TRANSLATION, read_by_channel, store_integers
from export.quantization.saturation import pair_sums

INPUT, OUTPUT = "image", "logits"
OPSETS = range(18, 24)
"""Written by the exporter itself; older ones only through converters that lose operators."""
LARGEST_BYTES = 2**31 - 2**20
"""A protobuf message holds 2 GiB; the graph beside the weights needs a little of it."""


@dataclass(frozen=True, kw_only=True)
class Style:
    """How the file is written."""

    opset: int = 20
    dynamic: tuple[Dynamic, ...] = ()
    """Axes whose length the file leaves open; none makes the fastest engines."""


def to_onnx(
    net: nn.Module, example: Tensor, path: Path, style: Style = Style(), metadata: Mapping[str, str] | None = None
) -> Artifact:
    """Write a network as one checked ONNX file with input `image` (BCHW) and output `logits` (BKHW).

    Args:
        net: takes one float32 tensor and returns one.
        example: an input of the right shape (values do not matter).
        metadata: goes into the file's metadata_props: class names, normalization, provenance.

    Raises:
        ExportError: if torch cannot export the network, or the file would not be valid.
    """
    if style.opset not in OPSETS:
        raise ExportError(f"opset {style.opset} cannot be written; choose {OPSETS[0]} to {OPSETS[-1]}")
    model = _translated(net, example, style)
    store_integers(model)
    if getattr(net, "meta", {}).get("fills_in"):
        read_by_channel(model)
    _check_size(model, type(net).__name__)
    # Node metadata holds stack traces with this host's paths: not reproducible, and nobody's business.
    ir_passes.ClearMetadataAndDocStringPass()(model)
    model.metadata_props.update(metadata or {})
    model.producer_name, model.producer_version = "segpress", version("segpress")
    proto = ir.to_proto(model)
    # Before weights are bits: what is proven of the integers holds for their signs.
    sums = pair_sums(proto)
    in_bits = store_packed(proto, integers=getattr(net, "meta", {}).get("integers_in_bits", True))
    try:
        onnx.checker.check_model(proto, full_check=True)
        # Every runtime infers the shapes between layers again; in a small network they are a fifth of the file.
        del proto.graph.value_info[:]
        data = proto.SerializeToString(deterministic=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError, ValueError) as error:
        raise ExportError(f"{path.name}: the exported file is not valid ONNX: {error}") from None
    write_bytes(path, data)
    made = {"opset": style.opset, "dynamic": list(style.dynamic), "torch": torch.__version__, "onnx": onnx.__version__}
    if sums is not None:
        made["pair_sums"] = asdict(sums)
    if in_bits:
        made["weights_in_bits"] = len(in_bits)
    (image,), (logits,) = proto.graph.input, proto.graph.output
    return Artifact(path=path, format="onnx", input=port_of(image), output=port_of(logits), made=made).sealed()


def _translated(net: nn.Module, example: Tensor, style: Style) -> ir.Model:
    spare_what_is_done_again()
    program = exported(net, example, style.dynamic)
    if in_functions(program):
        # Taking it apart is more than half of the time, and changes nothing unless an operation has no translation.
        with contextlib.suppress(ExportError), _as_it_is(program):
            return _from_program(net, program, style)
    return _from_program(net, program, style)


@contextlib.contextmanager
def _as_it_is(program: ExportedProgram) -> Iterator[None]:
    """The program in the operations that ONNX's translations know, and not to be taken apart any more."""
    as_translated(program)
    program.run_decompositions = lambda *_: program
    try:
        yield
    finally:
        del program.run_decompositions


def _from_program(net: nn.Module, program: ExportedProgram, style: Style) -> ir.Model:
    try:
        with quiet(), compiled_when_run(), operators_looked_up_once():
            translated = torch.onnx.export(
                program,
                dynamo=True,
                opset_version=style.opset,
                input_names=[INPUT],
                output_names=[OUTPUT],
                custom_translation_table=TRANSLATION,
                external_data=False,
                verbose=False,
            )
    except torch.onnx.OnnxExporterError as error:
        raise ExportError(f"{type(net).__name__} cannot be exported to ONNX: {_reason(error)}") from error
    assert translated is not None
    return translated.model


def _reason(error: BaseException) -> str:
    """The first line of the innermost error: the exporter wraps it in advice for its own developers."""
    while error.__cause__ is not None:
        error = error.__cause__
    said = first_line(error, 300)
    untranslated = re.match(r"No ONNX function found for <OpOverload\(op='([\w.]+)', overload='(\w+)'\)>", said)
    if untranslated is None:
        return said
    return f"torch has no translation of {untranslated[1]} ({untranslated[2]}) to ONNX; write it in other operations"


def _check_size(model: ir.Model, name: str) -> None:
    tensors = (value.const_value for value in model.graph.initializers.values())
    size = sum(tensor.nbytes for tensor in tensors if tensor is not None)
    if size > LARGEST_BYTES:
        raise ExportError(
            f"{name} has {size / 1e9:.2f} GB of weights and one ONNX file holds {LARGEST_BYTES / 1e9:.2f} GB; "
            "prune it or store it in fewer bits first"
        )


@dataclass(frozen=True, kw_only=True)
class Parity:
    """How far an artifact's logits are from torch's on the same real cases."""

    relative_error: float
    """Largest absolute difference of a logit, over the largest absolute logit; infinite where shapes differ."""
    flipped: float
    """Share of pixels whose class changes."""
    cases: int
    mean_error: float = math.inf
    """Root of the mean squared difference, over that of the logits: a few places far apart hardly move it."""

    def __str__(self) -> str:
        if math.isinf(self.relative_error):
            return "have another shape than torch's"
        return (
            f"differ from torch's by {self.relative_error:.1%} on {self.cases} real cases "
            f"({self.flipped:.2%} of pixels change class)"
        )


def parity(torch_net: Infer, artifact: Infer, images: Iterable[np.ndarray]) -> Parity:
    """Compare two ways of computing the same network on real inputs (each 1CHW)."""
    worst = largest = apart = size = 0.0
    flipped = pixels = cases = 0
    for image in images:
        ours, theirs = torch_net(image), artifact(image)
        if ours.shape != theirs.shape:
            return Parity(relative_error=math.inf, flipped=1.0, cases=cases + 1)
        worst = max(worst, float(np.abs(ours - theirs).max()))
        largest = max(largest, float(np.abs(ours).max()))
        apart += float(np.square((ours - theirs).astype(np.float64)).sum())
        size += float(np.square(ours.astype(np.float64)).sum())
        changed = (ours > 0) != (theirs > 0) if ours.shape[1] == 1 else ours.argmax(1) != theirs.argmax(1)
        flipped, pixels, cases = flipped + int(changed.sum()), pixels + changed.size, cases + 1
    if not cases:
        raise ExportError("parity needs at least one case to compare on")
    mean_error = math.sqrt(apart / max(size, 1e-24))
    return Parity(
        relative_error=worst / max(largest, 1e-12), flipped=flipped / pixels, cases=cases, mean_error=mean_error
    )


def metadata_of(path: Path) -> dict[str, str]:
    """The metadata_props of an ONNX file."""
    model = onnx.load(path, load_external_data=False)
    return {entry.key: entry.value for entry in model.metadata_props}


def tell(path: Path, metadata: Mapping[str, str | None]) -> None:
    """Write these into an ONNX file's metadata_props, over what they said before; nothing else in it changes.

    Args:
        metadata: None takes what it is said of out of the file.
    """
    model = onnx.load(path, load_external_data=False)
    said = {entry.key: entry.value for entry in model.metadata_props} | dict(metadata)
    del model.metadata_props[:]
    for key, value in said.items():
        if value is not None:
            model.metadata_props.add(key=key, value=value)
    write_bytes(path, model.SerializeToString(deterministic=True))
