"""ONNX files as they come: read, checked, tidied, and written down as a graph without its weights.

What is tidied away changes no answer: functions and constant branches are written out, what depends on constants
alone is computed, and an argmax at the end is left off, because classes are decided by what comes after.
"""

from __future__ import annotations

import base64
import binascii
import dataclasses
import hashlib
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.inliner
import onnx.numpy_helper
import onnx.reference
import onnx.shape_inference
import onnx.version_converter
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from compress.errors import RecipeError, WeightsError
from export.errors import first_line
from export.to_onnx import LARGEST_BYTES

OPSETS = range(9, 27)
SMALL = 16
"""Floats that are no layer's and so few stay in the graph: scales, exponents, limits."""
_LARGEST_TEXT = 2**28
_FOLDED_BYTES = 2**26
_FLOATS = {onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16}
_RANKS = ("BatchNormalization", "InstanceNormalization")
_PASSED = ("Cast", "Identity", "Squeeze", "Unsqueeze", "Transpose")
_NEVER_FOLDED = ("RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Multinomial", "Bernoulli")


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
    graph = model.graph
    _check_input(graph, path)
    _folded(model)
    notes = _without_argmax(graph)
    _prune(graph)
    _named(graph)
    ranks = _ranks(model)
    _clear(graph)
    graph.value_info.extend(ranks)
    return File(path=path, sha256=digest, graph=graph, opset=opset, notes=notes)


def image_of(graph: Any) -> tuple[str, tuple[int | None, ...]]:
    """The name and the shape of a tidied graph's input; None where an axis is left open."""
    (image,) = graph.input
    axes = image.type.tensor_type.shape.dim
    return image.name, tuple(axis.dim_value if axis.HasField("dim_value") else None for axis in axes)


def text_of(graph: Any, opset: int, weights: set[str]) -> str:
    """A tidied graph without its weights, as text for a description.

    Args:
        weights: the constants that layers and buffers hold; only their shapes are written.
    """
    bare = onnx.GraphProto()
    bare.CopyFrom(graph)
    del bare.initializer[:]
    for tensor in graph.initializer:
        kept = bare.initializer.add()
        if tensor.name in weights:
            kept.name, kept.data_type = tensor.name, tensor.data_type
            kept.dims.extend(tensor.dims)
        else:
            kept.CopyFrom(tensor)
    model = onnx.helper.make_model(bare, opset_imports=[onnx.helper.make_opsetid("", opset)])
    return base64.b64encode(zlib.compress(model.SerializeToString(deterministic=True), 9)).decode()


def graph_of(text: str) -> tuple[Any, int]:
    """A graph and its opset, from `text_of`'s text.

    Raises:
        WeightsError: if it is no such text.
    """
    model = onnx.ModelProto()
    try:
        data = zlib.decompressobj().decompress(base64.b64decode(text, validate=True), _LARGEST_TEXT)
        model.ParseFromString(data)
        (opset,) = (entry.version for entry in model.opset_import)
    except (binascii.Error, zlib.error, DecodeError, ValueError) as error:
        raise WeightsError(f"onnx: the described graph is damaged ({first_line(error)})") from None
    return model.graph, opset


def is_empty(tensor: Any) -> bool:
    """Whether only the shape of a constant is known."""
    return bool(np.prod(tensor.dims)) and not (
        tensor.raw_data or tensor.float_data or tensor.int32_data or tensor.int64_data or tensor.double_data
    )


def attributes_of(node: Any) -> dict[str, Any]:
    """A node's attributes as Python values."""
    found = {each.name: onnx.helper.get_attribute_value(each) for each in node.attribute}
    return {key: value.decode() if isinstance(value, bytes) else value for key, value in found.items()}


def computed(node: Any, opset: int, values: Sequence[Any]) -> list[Any]:
    """What ONNX's own reference answers for one node (numpy arrays in, numpy arrays out)."""
    given = {name: value for name, value in zip(node.input, values, strict=True) if name}
    outputs = [name for name in node.output if name]
    graph = onnx.helper.make_graph(
        [node],
        "graph",
        [onnx.ValueInfoProto(name=name) for name in given],
        [onnx.ValueInfoProto(name=name) for name in outputs],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)])
    return [np.asarray(value) for value in onnx.reference.ReferenceEvaluator(model).run(None, given)]


# Reading.


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
    beside = {
        entry.value for tensor in bare.graph.initializer for entry in tensor.external_data if entry.key == "location"
    }
    for name in sorted(beside):
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


# Tidying.


def _folded(model: Any) -> None:
    """Compute what depends on constants alone."""
    graph = model.graph
    opset = next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    constants = {tensor.name: tensor for tensor in graph.initializer}
    renamed: dict[str, str] = {}
    kept = []
    for node in graph.node:
        for place, name in enumerate(node.input):
            node.input[place] = renamed.get(name, name)
        if node.op_type == "Identity" and node.input[0] in constants and node.output[0] not in _outputs(graph):
            # A weight that several layers share stays one.
            renamed[node.output[0]] = node.input[0]
            continue
        values = [constants.get(name) for name in node.input]
        foldable = node.op_type not in _NEVER_FOLDED and not any(
            value is None and name for value, name in zip(values, node.input, strict=True)
        )
        if not foldable:
            kept.append(node)
            continue
        given = [None if value is None else onnx.numpy_helper.to_array(value) for value in values]
        answers = computed(node, opset, given)
        if sum(answer.nbytes for answer in answers) > _FOLDED_BYTES + sum(v.nbytes for v in given if v is not None):
            kept.append(node)
            continue
        for name, answer in zip(node.output, answers, strict=False):
            if name:
                constants[name] = onnx.numpy_helper.from_array(np.array(answer, order="C"), name)
    del graph.node[:]
    graph.node.extend(kept)
    del graph.initializer[:]
    graph.initializer.extend(constants.values())
    del graph.sparse_initializer[:]


def _outputs(graph: Any) -> set[str]:
    return {each.name for each in graph.output}


def _without_argmax(graph: Any) -> tuple[str, ...]:
    """Let outputs that are labels be the scores that they were chosen from."""
    made = {name: node for node in graph.node for name in node.output}
    notes = []
    for output in graph.output:
        node = made.get(output.name)
        while node is not None and node.op_type in _PASSED:
            node = made.get(node.input[0])
        if node is None or node.op_type != "ArgMax":
            continue
        notes.append(
            f"the file's '{output.name}' is an argmax ({titled(node)}): it is left off, and what it chose from is read"
        )
        source = node.input[0]
        taken = {each.name for each in graph.output}
        if source in taken:
            graph.output.remove(output)
        else:
            output.CopyFrom(onnx.helper.make_tensor_value_info(source, onnx.TensorProto.FLOAT, None))
    return tuple(notes)


def _prune(graph: Any) -> None:
    """Leave out what no output needs."""
    needed = _outputs(graph)
    kept = []
    for node in reversed(graph.node):
        if needed & set(node.output):
            kept.append(node)
            needed |= set(node.input) | set(_captured(node))
    kept.reverse()
    tensors = [tensor for tensor in graph.initializer if tensor.name in needed]
    del graph.node[:]
    graph.node.extend(kept)
    del graph.initializer[:]
    graph.initializer.extend(tensors)


def _captured(node: Any) -> Iterator[str]:
    for each in node.attribute:
        if each.type == onnx.AttributeProto.GRAPH:
            for inner in each.g.node:
                yield from inner.input
                yield from _captured(inner)


def _named(graph: Any) -> None:
    """A name for every node, none given twice."""
    seen: Counter[str] = Counter()
    for node in graph.node:
        name = node.name or f"{node.op_type}_{node.output[0]}"
        seen[name] += 1
        node.name = name if seen[name] == 1 else f"{name}_{seen[name]}"


def _ranks(model: Any) -> list[Any]:
    """The inputs of norms, whose layers differ by their number of axes."""
    asked = {node.input[0] for node in model.graph.node if node.op_type in _RANKS}
    try:
        inferred = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    except (onnx.shape_inference.InferenceError, ValueError):
        inferred = model.graph
    found = []
    for each in inferred.value_info:
        if each.name in asked and each.type.tensor_type.HasField("shape"):
            found.append(
                onnx.helper.make_tensor_value_info(each.name, 1, [None] * len(each.type.tensor_type.shape.dim))
            )
    return found


def _clear(graph: Any) -> None:
    """Without what says nothing of the answer, and may tell of somebody's machine."""
    graph.name, graph.doc_string = "graph", ""
    del graph.value_info[:]
    del graph.metadata_props[:]
    del graph.quantization_annotation[:]
    for part in (*graph.node, *graph.initializer, *graph.input, *graph.output):
        part.doc_string = ""
        del part.metadata_props[:]


def titled(node: Any) -> str:
    """A node by its name and its operator."""
    return f"'{node.name or node.output[0]}' ({node.op_type})"


def _wrong(path: Path, mistake: str) -> RecipeError:
    return RecipeError(str(path), [mistake])
