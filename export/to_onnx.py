"""From torch to one ONNX file, and the proof that it computes the same.

Legend: B batch, C channels, K classes, H height, W width.
"""

from __future__ import annotations

import contextlib
import copy
import io
import logging
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnx_ir.passes.common as ir_passes
import torch
from torch import Tensor, nn
from torch.export import Dim

from export.artifact import Artifact, Infer, Port
from export.errors import ExportError
from export.files import write_bytes
from export.graph import Dynamic
from export.quantize import TRANSLATION, store_integers

INPUT, OUTPUT = "image", "logits"


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
    model = _exported(net.eval(), example, style)
    store_integers(model)
    # Node metadata holds stack traces with this host's paths: not reproducible, and nobody's business.
    ir_passes.ClearMetadataAndDocStringPass()(model)
    model.metadata_props.update(metadata or {})
    model.producer_name, model.producer_version = "segpress", version("segpress")
    proto = ir.to_proto(model)
    try:
        onnx.checker.check_model(proto, full_check=True)
        data = proto.SerializeToString()
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError, ValueError) as error:
        raise ExportError(f"{path.name}: the exported file is not valid ONNX: {error}") from None
    write_bytes(path, data)
    made = {"opset": style.opset, "dynamic": list(style.dynamic), "torch": torch.__version__, "onnx": onnx.__version__}
    return Artifact(
        path=path, format="onnx", input=_port(proto.graph.input), output=_port(proto.graph.output), made=made
    )


def _exported(net: nn.Module, example: Tensor, style: Style) -> ir.Model:
    axes: dict[int, Any] = {}
    if "batch" in style.dynamic:
        axes[0] = Dim.DYNAMIC
    if "size" in style.dynamic:
        axes |= dict.fromkeys(range(2, example.dim()), Dim.DYNAMIC)
    if 0 in axes and example.shape[0] == 1:
        # torch.export takes a length of 1 as fixed.
        example = example.expand(2, *example.shape[1:]).contiguous()
    quiet = logging.getLogger("torch.onnx")
    level = quiet.level
    quiet.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            # The exporter warns of its own deprecated internals and prints its progress.
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                copy.deepcopy(net),
                (example,),
                dynamo=True,
                opset_version=style.opset,
                dynamic_shapes=(axes,) if axes else None,
                input_names=[INPUT],
                output_names=[OUTPUT],
                custom_translation_table=TRANSLATION,
                external_data=False,
                verbose=False,
            )
    except torch.onnx.OnnxExporterError as error:
        reason = next((line.strip() for line in reversed(str(error).splitlines()) if line.strip()), "no reason given")
        raise ExportError(f"{type(net).__name__} cannot be exported to ONNX: {reason[:300]}") from error
    finally:
        quiet.setLevel(level)
    assert program is not None
    model = program.model
    if len(model.graph.outputs) != 1 or len(model.graph.inputs) != 1:
        raise ExportError(
            f"{type(net).__name__} has {len(model.graph.inputs)} inputs and {len(model.graph.outputs)} outputs; "
            "a network for export takes one image and returns one tensor of logits"
        )
    return model


def _port(values: Sequence[onnx.ValueInfoProto]) -> Port:
    (value,) = values
    kind = value.type.tensor_type
    shape = tuple(axis.dim_value if axis.HasField("dim_value") else -1 for axis in kind.shape.dim)
    return Port(name=value.name, shape=shape, dtype=onnx.TensorProto.DataType.Name(kind.elem_type).lower())


@dataclass(frozen=True, kw_only=True)
class Parity:
    """How far an artifact's logits are from torch's on the same real cases."""

    relative_error: float
    """Largest absolute difference of a logit, over the largest absolute logit."""
    flipped: float
    """Share of pixels whose class changes."""
    cases: int


def parity(torch_net: Infer, artifact: Infer, images: Iterable[np.ndarray]) -> Parity:
    """Compare two ways of computing the same network on real inputs (each 1CHW)."""
    worst = largest = 0.0
    flipped = pixels = cases = 0
    for image in images:
        ours, theirs = torch_net(image), artifact(image)
        worst = max(worst, float(np.abs(ours - theirs).max()))
        largest = max(largest, float(np.abs(ours).max()))
        changed = (ours > 0) != (theirs > 0) if ours.shape[1] == 1 else ours.argmax(1) != theirs.argmax(1)
        flipped, pixels, cases = flipped + int(changed.sum()), pixels + changed.size, cases + 1
    if not cases:
        raise ExportError("parity needs at least one case to compare on")
    return Parity(relative_error=worst / max(largest, 1e-12), flipped=flipped / pixels, cases=cases)


def metadata_of(path: Path) -> dict[str, str]:
    """The metadata_props of an ONNX file."""
    model = onnx.load(path, load_external_data=False)
    return {entry.key: entry.value for entry in model.metadata_props}
