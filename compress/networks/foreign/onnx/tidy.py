"""A graph tidied: what depends on constants alone is computed, and an argmax at the end is left off.

No answer changes by it, since classes are decided by what comes after.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import onnx
import onnx.inliner
import onnx.numpy_helper
import onnx.reference
import onnx.shape_inference
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from compress.networks.foreign.onnx.node import titled
from compress.networks.foreign.onnx.reference import computed

_FOLDED_BYTES = 2**26
_RANKS = ("BatchNormalization", "InstanceNormalization")
_PASSED = ("Cast", "Identity", "Squeeze", "Unsqueeze", "Transpose")
_NEVER_FOLDED = ("RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Multinomial", "Bernoulli")


def tidied(model: Any) -> tuple[Any, tuple[str, ...]]:
    """A model's graph (onnx.GraphProto), tidied; and a note for each output that became another."""
    _folded(model)
    notes = _without_argmax(model.graph)
    model = ir.to_proto(RemoveUnusedNodesPass()(ir.from_proto(model)).model)
    _named(model.graph)
    ranks = _ranks(model)
    _clear(model.graph)
    model.graph.value_info.extend(ranks)
    return model.graph, notes


def _folded(model: Any) -> None:
    """Compute what depends on constants alone."""
    graph = model.graph
    opset = next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    constants = {tensor.name: tensor for tensor in graph.initializer}
    renamed: dict[str, str] = {}
    kept = []
    for node in graph.node:
        for index, name in enumerate(node.input):
            node.input[index] = renamed.get(name, name)
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
