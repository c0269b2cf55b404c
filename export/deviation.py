"""Where a runtime computes something else than its file says: layer by layer, on one real case.

Every integer layer is given what the runtime itself computed before it, so that what is found is that layer's own doing
and not what rounding has become behind it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor, fx

from export.errors import BackendError
from export.graph import LAYERS, constant
from export.layers import layer_of
from export.quantization.qdq import PAIR, STRETCHED

Array = NDArray[Any]
Values = Callable[[Collection[str]], Mapping[str, Array]]
"""What a runtime gives for these tensors of a file, on one case."""

STEPS = 3.0
"""Of a grid; rounding, of the bias too, explains one or two."""
SHARE = 0.02
"""Of a channel's values: a runtime that loses a channel, a border or a tap is off in more of them."""


def of_integers(placed: fx.GraphModule, model: onnx.ModelProto, image: Tensor, values: Values) -> str | None:
    """The first layer whose quantized output is further from torch's than rounding explains, in words; None if none is.

    Args:
        placed: the network that the model was exported from, with its pairs.
        image: BCHW.
        values: of the outputs of DequantizeLinear nodes.

    Raises:
        BackendError: if the file has other pairs than the network, so that they cannot be told apart.
    """
    makers = {name: node for node in model.graph.node for name in node.output}
    # What is in float may read the same integers through a node of its own.
    readers: dict[str, str] = {}
    for node in model.graph.node:
        # A weight in bits is made by a node too, which unpacks it.
        if node.op_type == "DequantizeLinear" and _op(makers.get(node.input[0])) == "QuantizeLinear":
            readers.setdefault(node.input[0], node.output[0])
    read = list(readers.values())
    pairs = [node for node in placed.graph.nodes if node.target in (PAIR, STRETCHED) and _moves(node)]
    if len(pairs) != len(read):
        raise BackendError(f"the file has {len(read)} quantized tensors, and the network {len(pairs)}")
    answers = values(read)
    walk = _Walk(placed, {pair: torch.from_numpy(answers[name]) for pair, name in zip(pairs, read, strict=True)})
    with torch.inference_mode():
        walk.run(image)
    return walk.found


def _op(node: onnx.NodeProto | None) -> str | None:
    return None if node is None else str(node.op_type)


def _moves(pair: fx.Node) -> bool:
    """Whether it stands on an activation and not on a weight."""
    source = pair.args[0]
    return isinstance(source, fx.Node) and source.op != "get_attr"


class _Walk(fx.Interpreter):
    """Runs a graph, each pair's output replaced by the runtime's, and keeps the first that deviates."""

    def __init__(self, graph: fx.GraphModule, theirs: Mapping[fx.Node, Tensor]) -> None:
        super().__init__(graph)
        self.graph_module, self.theirs = graph, theirs
        self.found: str | None = None

    def run_node(self, n: fx.Node) -> Any:
        ours = super().run_node(n)
        if n not in self.theirs:
            return ours
        theirs = self.theirs[n]
        if self.found is None:
            scale = constant(self.graph_module, n.args[1 if n.target is PAIR else 2])  # type: ignore[arg-type]
            self.found = _deviation(n, (ours - theirs).abs() / scale)
        return theirs


def _deviation(pair: fx.Node, steps: Tensor) -> str | None:
    by_channel = steps.transpose(0, 1).flatten(1) if steps.dim() > 1 else steps[None]
    shares = (by_channel > STEPS).float().mean(1)
    if float(shares.max()) < SHARE:
        return None
    worst = int(shares.argmax())
    return (
        f"{_named(pair)}, {shares[worst]:.0%} of output channel {worst} lies over {STEPS:.0f} of 255 steps from what "
        f"the file says (at most {float(by_channel[worst].max()):.0f})"
    )


def _named(pair: fx.Node) -> str:
    """The layer behind which a pair stands, or the operator."""
    node = before = pair.all_input_nodes[0]
    while node.target not in LAYERS:
        sources = [source for source in node.all_input_nodes if source.op == "call_function"]
        if not sources or sources[0].target in (PAIR, STRETCHED):
            return str(before.name)
        node = sources[0]
    weight = node.args[1]
    assert isinstance(weight, fx.Node)
    # An integer weight is read through its own pair.
    return layer_of(str((weight.args[0] if weight.target is PAIR else weight).target))  # type: ignore[union-attr]


def of_floats(model: onnx.ModelProto, ours: Values, theirs: Values, limit: float) -> str | None:
    """The first operator whose output differs between two runtimes though its inputs do not, in words.

    None if no tensor between operators differs: what is wrong when fused may be right alone.

    Args:
        limit: of the relative error.
    """
    names = [name for node in model.graph.node if node.op_type != "Constant" for name in node.output if name]
    expected, found = ours(names), theirs(names)
    wrong = {name for name in names if _differ(expected[name], found[name]) > limit}
    for node in model.graph.node:
        if wrong & set(node.output) and not wrong & set(node.input):
            return f"{node.op_type} ({layer_of(_weight(node)) or node.name.removeprefix('node_')})"
    return None


def _weight(node: onnx.NodeProto) -> str:
    return next((name for name in node.input if name.endswith(".weight")), "")


def _differ(ours: Array, theirs: Array) -> float:
    if ours.shape != theirs.shape:
        return np.inf
    size = float(np.abs(ours.astype(np.float64)).max(initial=0.0))
    return float(np.abs(ours.astype(np.float64) - theirs).max(initial=0.0)) / max(size, 1e-12)


def with_outputs(model: onnx.ModelProto, names: Iterable[str]) -> onnx.ModelProto:
    """A copy that gives these tensors as well; runtimes find out their types."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    known = {output.name for output in copy.graph.output}
    copy.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names if name not in known)
    return copy
