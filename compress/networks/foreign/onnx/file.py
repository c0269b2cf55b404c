"""ONNX files as they come: read, and checked for what cannot become a network of ours."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnx
import onnx.inliner
import onnx.numpy_helper
import onnx.reference
import onnx.shape_inference
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from compress.errors import RecipeError
from compress.networks.foreign.onnx.node import attributes_of, titled
from compress.networks.foreign.onnx.tidy import tidied
from export.errors import first_line
from export.to_onnx import LARGEST_BYTES

OPSETS = range(9, 27)
_FLOATS = {onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16}


@dataclasses.dataclass(frozen=True, kw_only=True)
class File:
    """One ONNX file."""

    path: Path
    sha256: str
    """Of the file and of those beside it that hold its tensors."""
    graph: Any
    """Its graph (onnx.GraphProto), tidied, with its weights."""
    opset: int
    notes: tuple[str, ...]


def read(path: Path, known: Sequence[str]) -> File:
    """Read a file of any producer.

    Args:
        known: the operators that can be translated; others are written out in simpler ones where ONNX defines how.

    Raises:
        RecipeError: with the reason, if it is no ONNX file or one that cannot become a network of ours.
    """
    model = _loaded(path)
    digest = _hash(path)
    if model.functions:
        model = onnx.inliner.inline_local_functions(model)
    opset = _opset(model, path)
    _refuse(model.graph, path)
    if any(node.op_type in ("If", "SequenceAt", "SplitToSequence", "SequenceConstruct") for node in model.graph.node):
        model = _optimized(model)
        _refuse_flow(model.graph, path)
    model = _simpler(model, known)
    _check_input(model.graph, path)
    graph, notes = tidied(model)
    return File(path=path, sha256=digest, graph=graph, opset=opset, notes=notes)


def _loaded(path: Path) -> Any:
    try:
        model = onnx.load(path)
    except FileNotFoundError as error:
        missing = "no such file" if not path.is_file() else f"the tensors beside it are missing ({first_line(error)})"
        raise _wrong(path, f"{missing}; path is looked for beside the recipe, then where we are") from None
    except (DecodeError, ValueError, OSError, onnx.checker.ValidationError) as error:
        if "should be stored in" in str(error):
            raise _wrong(
                path, "keeps its tensors in a file beside it, which is not there: give that file too"
            ) from None
        raise _wrong(path, f"cannot be read as ONNX ({first_line(error)}): export it again") from None
    if not model.graph.node or not model.opset_import:
        raise _wrong(path, "is no ONNX model: it has no graph")
    size = sum(tensor.ByteSize() for tensor in model.graph.initializer)
    if size > LARGEST_BYTES:
        raise _wrong(
            path,
            f"has {size / 1e9:.2f} GB of weights and one ONNX file holds {LARGEST_BYTES / 1e9:.2f} GB, so none could "
            "be written from it: give a smaller network",
        )
    return model


def _hash(path: Path) -> str:
    digest = hashlib.sha256(path.read_bytes())
    bare = onnx.load(path, load_external_data=False)
    external = {
        entry.value for tensor in bare.graph.initializer for entry in tensor.external_data if entry.key == "location"
    }
    for name in sorted(external):
        digest.update((path.parent / name).read_bytes())
    return digest.hexdigest()


def _opset(model: Any, path: Path) -> int:
    foreign = {node.domain for node in model.graph.node} - {"", "ai.onnx"}
    for node in model.graph.node:
        if node.domain not in ("", "ai.onnx"):
            remedy = (
                "it was optimized by ONNX Runtime: give the file as it was before"
                if any("microsoft" in domain for domain in foreign)
                else "export the network with ONNX's own operators"
            )
            raise _wrong(path, f"{titled(node)} is an operator of {node.domain}, which is no part of ONNX; {remedy}")
    found = [entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")]
    if not found or found[0] not in OPSETS:
        raise _wrong(
            path,
            f"is of opset {found[0] if found else 'none'}, and {OPSETS[0]} to {OPSETS[-1]} are read: convert it with "
            "onnx.version_converter.convert_version(model, 17)",
        )
    return int(found[0])


def _refuse(graph: Any, path: Path) -> None:
    for node in graph.node:
        kind = node.op_type
        given = attributes_of(node)
        if kind in ("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear") or kind.endswith("Integer"):
            raise _wrong(
                path, f"{titled(node)}: the network is in integers already: give the float file that it was made from"
            )
        if kind.startswith("QLinear"):
            raise _wrong(
                path, f"{titled(node)}: the network is in integers already: give the float file that it was made from"
            )
        outputs = [name for name in node.output if name]
        if kind == "BatchNormalization" and (given.get("training_mode", 0) or len(outputs) > 1):
            raise _wrong(
                path,
                f"{titled(node)} is a batch norm in training mode, whose answer depends on the other images of the "
                "batch: export again after net.eval()",
            )
        if kind in ("Loop", "Scan"):
            raise _wrong(
                path,
                f"{titled(node)} is a loop, which is not taken: export with loops of a fixed length, which are then "
                "written out",
            )


def _refuse_flow(graph: Any, path: Path) -> None:
    for node in graph.node:
        if node.op_type == "If":
            raise _wrong(
                path, f"{titled(node)} depends on the image or its size: export with a fixed size (no dynamic axes)"
            )
        if "Sequence" in node.op_type:
            raise _wrong(path, f"{titled(node)} makes or reads a sequence, which is not taken: export with dynamo=True")


def _optimized(model: Any) -> Any:
    """Without branches whose condition is known, and without sequences of a known length."""
    import onnxscript.optimizer

    return onnxscript.optimizer.optimize(model)


def _simpler(model: Any, known: Sequence[str]) -> Any:
    """With the operators that are not translated written out in those that ONNX defines them by."""
    for _ in range(4):
        unknown = {node.op_type for node in model.graph.node} - set(known)
        if not unknown:
            break
        before = len(model.graph.node)
        model = onnx.inliner.inline_selected_functions(
            model, [("", kind) for kind in sorted(unknown)], exclude=False, inline_schema_functions=True
        )
        if len(model.graph.node) == before:
            break
    return model


def _check_input(graph: Any, path: Path) -> None:
    constants = {tensor.name for tensor in graph.initializer}
    inputs = [each for each in graph.input if each.name not in constants]
    del graph.input[:]
    graph.input.extend(inputs)
    if len(inputs) != 1:
        names = ", ".join(each.name for each in inputs) or "none"
        raise _wrong(path, f"has {len(inputs)} inputs ({names}), and one image is given: export it with one input")
    kind = inputs[0].type.tensor_type
    if kind.elem_type not in _FLOATS:
        name = onnx.TensorProto.DataType.Name(kind.elem_type).lower()
        raise _wrong(path, f"its input is {name}: export it with a float32 input, normalized outside the network")
    if len(kind.shape.dim) not in (4, 5):
        raise _wrong(
            path, f"its input has {len(kind.shape.dim)} axes, and an image has 4, a volume 5: batch, channels and sides"
        )


def _wrong(path: Path, mistake: str) -> RecipeError:
    return RecipeError(str(path), [mistake])
