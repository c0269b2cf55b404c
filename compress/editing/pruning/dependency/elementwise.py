"""Rules for operations under which a channel stays the channel it was: elementwise, reductions, pooling, constants."""

from __future__ import annotations

import re
from typing import Any, Final

import torch
from torch import Tensor, fx

from compress.editing.pruning.dependency.labels import NOBODY, nobody
from compress.editing.pruning.dependency.trace import Rule, Trace, for_each, shape_of
from compress.editing.pruning.dependency.unknown import unknown


def pointwise(trace: Trace, node: Any, name: str) -> Any:
    """What meets at one position goes together."""
    value = node.meta["val"]
    shape = torch.Size(value.shape if isinstance(value, Tensor) else value[0].shape)
    parts = []
    for source in node.all_input_nodes:
        labels = trace.of(source)
        lengths = (1,) * (len(shape) - labels.dim()) + tuple(shape_of(source))
        labels = labels.view((1,) * (len(shape) - labels.dim()) + tuple(labels.shape))
        spread = {axis for axis, length in enumerate(lengths) if length == 1 < shape[axis]}
        varying = {axis for axis, length in enumerate(labels.shape) if length > 1}
        parts.append((labels, spread, varying))
    everywhere = {axis for _, _, varying in parts for axis in varying}
    result = nobody(len(shape))
    for labels, spread, varying in parts:
        if spread & everywhere:
            # One map for all channels (an attention gate): not of any one of them.
            if varying:
                trace.labels.keep(labels, f"{name} multiplies it out with other channels")
            continue
        trace.labels.unite(labels, result)
        result = torch.where(result == NOBODY, labels, result)
    return trace.compact(result) if isinstance(value, Tensor) else [trace.compact(result), None]


def where(trace: Trace, node: Any, name: str) -> Any:
    """With one argument it gives positions, as many as there happen to be."""
    return pointwise(trace, node, name) if len(node.args) > 1 else unknown(trace, node, name)


def reduction(trace: Trace, node: Any, name: str) -> Any:
    """Over positions a channel stays itself; over channels nobody is left."""
    if len(node.args) > 1 and isinstance(node.args[1], fx.Node):
        return pointwise(trace, node, name)
    labels = trace.of(node.args[0])
    value = node.meta["val"]
    results = [value] if isinstance(value, Tensor) else list(value)
    axes = _reduced(node, name, labels.dim())
    varying = {axis for axis, length in enumerate(labels.shape) if length > 1}
    if varying & axes and varying - axes:
        # Branches that are stacked and added: those of one position go together.
        for axis in varying & axes:
            trace.labels.unite(labels, labels.narrow(axis, 0, 1))
    mixed = torch.zeros_like(labels) if varying and varying <= axes else labels
    for axis in sorted(axes, reverse=True):
        mixed = mixed.narrow(axis, 0, 1)
        if results[0].dim() < labels.dim():
            mixed = mixed.squeeze(axis)
    return mixed if isinstance(value, Tensor) else [mixed] * len(results)


def _reduced(node: Any, name: str, rank: int) -> set[int]:
    position = 2 if name in ("norm", "linalg_vector_norm") else 1
    axes: Any = node.args[position] if len(node.args) > position else node.kwargs.get("dim")
    if isinstance(axes, int):
        axes = [axes]
    return {axis % rank for axis in axes} if axes else set(range(rank))


def same(trace: Trace, node: Any, name: str) -> Any:
    """The labels of what goes in."""
    labels = trace.of(node.args[0])
    return for_each(node, labels)


def spatial(trace: Trace, node: Any, name: str) -> Any:
    """Pooling and resampling: positions change, channels do not."""
    labels = trace.of(node.args[0])
    for axis in range(2, labels.dim()):
        trace.labels.unite(labels, labels.narrow(axis, 0, 1))
        labels = labels.narrow(axis, 0, 1)
    if name.startswith("max_unpool"):
        trace.labels.unite(labels, trace.of(node.args[1]))
    return for_each(node, labels)


def constant(trace: Trace, node: Any, name: str) -> Tensor:
    """New values that no layer has made."""
    return nobody(len(shape_of(node)))


NAMES: Final[dict[str, Rule]] = {
    # Elementwise, whatever torch's tags say: those of several operations, or of one of their overloads, lack
    # "pointwise".
    **dict.fromkeys(("hardswish", "log_sigmoid", "log_sigmoid_forward", "masked_fill", "rsub"), pointwise),
    **dict.fromkeys(("special_expit", "isclose", "rrelu", "rrelu_with_noise"), pointwise),
    **dict.fromkeys(("true_divide", "floor_divide", "ldexp"), pointwise),
    "where": where,
    **dict.fromkeys(("sum", "mean", "amax", "amin", "max", "min", "var", "std", "var_mean", "prod"), reduction),
    **dict.fromkeys(("logsumexp", "norm", "linalg_vector_norm", "argmax", "argmin", "any", "all"), reduction),
    **dict.fromkeys(("softmax", "_softmax", "log_softmax", "_log_softmax", "cumsum"), same),
    **dict.fromkeys(("dropout", "native_dropout", "feature_dropout", "alpha_dropout"), same),
    **dict.fromkeys(("clone", "contiguous", "alias", "detach", "lift_fresh_copy"), same),
    **dict.fromkeys(("to", "_to_copy", "type_as"), same),
    **dict.fromkeys(("full", "full_like", "zeros", "zeros_like", "ones", "ones_like", "empty"), constant),
    **dict.fromkeys(("empty_like", "new_zeros", "new_ones", "new_full", "new_empty"), constant),
    **dict.fromkeys(("arange", "scalar_tensor", "linspace", "eye"), constant),
    **dict.fromkeys(("rand", "randn", "rand_like", "randn_like"), constant),
}
PATTERNS: Final[tuple[tuple[re.Pattern[str], Rule], ...]] = (
    (re.compile(r".*(pool|upsample|unpool|interpolate).*"), spatial),
)
