"""What ONNX's own reference implementation answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import onnx.inliner
import onnx.numpy_helper
import onnx.reference
import onnx.shape_inference


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
