"""Rules for operations that move channels and compute nothing: views, slices, concatenations, shuffles, padding."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, Final

import torch
from torch import Tensor, fx

from compress.editing.pruning.dependency.labels import nobody
from compress.editing.pruning.dependency.trace import Rule, Trace, shape_of


def move(trace: Trace, node: Any, name: str) -> Any:
    """What the operation does to values it does to labels."""

    def labelled(argument: Any) -> Any:
        return trace.full(argument)

    args = fx.node.map_arg(node.args, labelled)
    kwargs = fx.node.map_arg(dict(node.kwargs), labelled)
    if name == "cat":
        axis = args[1] if len(args) > 1 else 0
        moved: Any = _concatenated(trace, args[0], axis % max(one.dim() for one in args[0]))
    elif name in ("view", "_unsafe_view"):
        moved = args[0].reshape(shape_of(node))
    else:
        moved = node.target(*args, **kwargs)
    if name in ("expand", "expand_as", "repeat", "tile") and isinstance(node.args[0], fx.Node):
        return _spread(trace, node.args[0], moved)
    if trace.ties and name in _TIES:
        _TIES[name](trace, node, moved)
    if isinstance(moved, Tensor):
        return trace.compact(moved)
    return [trace.compact(one) for one in moved]


def _spread(trace: Trace, source: Any, moved: Tensor) -> Tensor:
    """One channel, written out for many, is none of them."""
    before = torch.Size((1,) * (moved.dim() - len(shape_of(source))) + tuple(shape_of(source)))
    if any(a == 1 < b for a, b in zip(before[1:], moved.shape[1:], strict=True)) and bool(
        (moved == moved.flatten()[0]).all()
    ):
        return nobody(moved.dim())
    return trace.compact(moved)


def _concatenated(trace: Trace, parts: Sequence[Tensor], axis: int) -> Tensor:
    # Only as long as they must be: labels of a whole volume are as large as the volume.
    parts = [part for part in parts if part.dim() > 1 or part.numel()]
    small = [trace.compact(part).expand([n if a == axis else -1 for a, n in enumerate(part.shape)]) for part in parts]
    widest = [max(lengths) for lengths in zip(*(one.shape for one in small), strict=True)]
    return torch.cat([one.expand([-1 if a == axis else n for a, n in enumerate(widest)]) for one in small], axis)


def _tie_pieces(trace: Trace, node: Any, moved: Sequence[Tensor]) -> None:
    """Pieces of one length lose the same positions each, so that `chunk(2)` means the same as before."""
    if len({part.shape for part in moved}) == 1:
        for part in moved[1:]:
            trace.labels.unite(part, moved[0])


def _tie_shuffled(trace: Trace, node: Any, moved: Tensor) -> None:
    parts = trace.channels(node.all_input_nodes[0]).view(int(node.args[1]), -1)
    trace.labels.unite(parts, parts[:1])


def _tie_selected(trace: Trace, node: Any, moved: Any) -> None:
    """Channels that are picked by their number all stay or all go."""
    before = trace.of(node.all_input_nodes[0])
    if (int(node.args[1]) if len(node.args) > 1 else 0) % max(1, before.dim()) in _axes(before):
        trace.labels.unite(before, before.flatten()[0])


def _tie_slice(trace: Trace, node: Any, moved: Tensor) -> None:
    """A slice of which the axis is so many loses the same positions as the others."""
    before = trace.of(node.all_input_nodes[0])
    if not (axes := _axes(before)):
        return
    axis = node.args[1] % before.dim() if len(node.args) > 1 else 0
    whole, part = before.shape[axis], moved.shape[axis]
    start = node.args[2] if len(node.args) > 2 and node.args[2] is not None else 0
    if axis in axes and 0 < part < whole and whole % part == 0 and start % part == 0:
        pieces = before.unflatten(axis, (whole // part, part)).movedim(axis, 0)
        trace.labels.unite(pieces, pieces[:1])


def _tie_view(trace: Trace, node: Any, moved: Tensor) -> None:
    """The outer parts of an axis that is taken apart lose the same positions: `view(b, groups, -1, ...)` stays true."""
    if len(_axes(trace.of(node.all_input_nodes[0]))) == 1:
        for axis in _axes(trace.compact(moved))[:-1]:
            trace.labels.unite(moved, moved.narrow(axis, 0, 1))


def _axes(labels: Tensor) -> list[int]:
    """The axes along which the labels are not all the same."""
    return [axis for axis, length in enumerate(labels.shape) if length > 1]


def pad(trace: Trace, node: Any, name: str) -> Tensor:
    """What is added around is nobody's."""
    pads: Any = node.args[1]
    labels = trace.of(node.args[0])
    padded = range(labels.dim() - len(pads) // 2, labels.dim())
    if any(labels.shape[axis] > 1 and any(pads[2 * (labels.dim() - 1 - axis) :][:2]) for axis in padded):
        trace.labels.keep(labels, "its channels are padded to a fixed number")
    if all(labels.shape[axis] == 1 for axis in padded):
        return labels
    return torch.nn.functional.pad(labels.expand(shape_of(node.args[0])), pads)


def glu(trace: Trace, node: Any, name: str) -> Tensor:
    """Each channel of the first half is multiplied with one of the second: both go together."""
    labels = trace.of(node.args[0])
    axis = (node.args[1] if len(node.args) > 1 else -1) % labels.dim()
    if labels.shape[axis] == 1:
        return labels
    values, gates = labels.chunk(2, axis)
    trace.labels.unite(values, gates)
    return trace.compact(values)


NAMES: Final[dict[str, Rule]] = {
    **dict.fromkeys(("view", "reshape", "_unsafe_view", "flatten", "unflatten", "squeeze", "unsqueeze"), move),
    **dict.fromkeys(("permute", "transpose", "t", "movedim", "swapaxes", "flip", "roll"), move),
    **dict.fromkeys(("expand", "expand_as", "repeat", "tile", "repeat_interleave", "unfold"), move),
    **dict.fromkeys(("slice", "select", "narrow", "slice_scatter", "select_scatter"), move),
    **dict.fromkeys(("split", "split_with_sizes", "chunk", "unbind", "stack", "cat"), move),
    **dict.fromkeys(("pixel_shuffle", "pixel_unshuffle", "channel_shuffle"), move),
    "glu": glu,
}
_TIES: Final[dict[str, Callable[[Trace, Any, Any], None]]] = {
    **dict.fromkeys(("split", "split_with_sizes", "chunk"), _tie_pieces),
    "channel_shuffle": _tie_shuffled,
    **dict.fromkeys(("select", "unbind"), _tie_selected),
    "slice": _tie_slice,
    **dict.fromkeys(("view", "reshape", "_unsafe_view", "unflatten"), _tie_view),
}
"""What must be made one so that an operation's own numbers (of pieces, of groups) still fit fewer channels."""
PATTERNS: Final[tuple[tuple[re.Pattern[str], Rule], ...]] = (
    (re.compile(r"(constant_)?pad(_nd)?|(reflection|replication|circular)_pad\dd"), pad),
)
