"""Which channels of a network belong together: what must be removed as one, and what cannot be removed.

Every output channel of every layer gets a label. The labels then go through the network's own operations
(those torch.export sees): a concatenation of channels is a concatenation of labels, a channel shuffle
shuffles them, an addition makes two labels one. So what depends on a channel is known exactly, through
concats, skips, splits, shuffles, gates and shared weights, whatever the Python looks like; where an
operation is not known, its channels are kept. The idea of groups of coupled channels: Fang et al. 2023,
DepGraph (arXiv 2301.12900), which derives them layer by layer from the autograd graph instead.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from types import MethodType
from typing import Any, Final

import torch
from torch import Tensor, fx, nn
from torch.export import ExportedProgram, default_decompositions
from torch.export.graph_signature import InputKind
from torch.utils._pytree import tree_leaves

from compress.errors import ExportError
from export.capture import exported, operators_looked_up_once, quiet
from export.functional import changes_in_place
from export.modules import copy_of

Place = tuple[str, int]
"""A tensor of the network, by its name, and one of its axes."""

_NOBODY: Final = 0
"""The label of what is no channel of any layer: it has the same value, or none, for every channel."""
_MOST_ELEMENTS: Final = 1_000_000

_MOVES: Final = frozenset(
    (
        *(
            "view",
            "reshape",
            "_unsafe_view",
            "permute",
            "transpose",
            "t",
            "unsqueeze",
            "squeeze",
            "expand",
            "expand_as",
        ),
        *("repeat", "slice", "select", "split", "split_with_sizes", "chunk", "unbind", "stack", "cat", "flip", "roll"),
        *("flatten", "unflatten", "movedim", "swapaxes", "pixel_shuffle", "pixel_unshuffle", "channel_shuffle", "tile"),
        *("narrow", "repeat_interleave", "unfold", "slice_scatter", "select_scatter"),
    )
)
_SAME: Final = frozenset(
    (
        *("softmax", "_softmax", "log_softmax", "_log_softmax", "dropout", "native_dropout", "feature_dropout"),
        *("alpha_dropout", "clone", "contiguous", "alias", "detach", "lift_fresh_copy", "to", "_to_copy", "type_as"),
        "cumsum",
    )
)
# Elementwise, whatever torch's tags say: those of several operations, or of one of their overloads, lack "pointwise".
_POINTWISE: Final = frozenset(
    (
        *(
            "hardswish",
            "log_sigmoid",
            "log_sigmoid_forward",
            "masked_fill",
            "rsub",
            "special_expit",
            "isclose",
            "rrelu",
        ),
        *("true_divide", "floor_divide", "ldexp", "rrelu_with_noise"),
    )
)
_REDUCTIONS: Final = frozenset(
    (
        *("sum", "mean", "amax", "amin", "max", "min", "var", "std", "var_mean", "prod", "logsumexp", "norm"),
        *("linalg_vector_norm", "argmax", "argmin", "any", "all"),
    )
)
_CONSTANT: Final = frozenset(
    (
        *("full", "full_like", "zeros", "zeros_like", "ones", "ones_like", "empty", "empty_like", "new_zeros"),
        *("new_ones", "new_full", "new_empty", "arange", "scalar_tensor", "linspace", "eye", "rand", "randn"),
        *("rand_like", "randn_like"),
    )
)
_BATCH_NORMS: Final = frozenset(
    ("batch_norm", "native_batch_norm", "_native_batch_norm_legit_no_training", "instance_norm")
)
_PADS: Final = re.compile(r"(constant_)?pad(_nd)?$|(reflection|replication|circular)_pad\dd$")
_SPATIAL: Final = re.compile(r"(pool|upsample|unpool|interpolate)")
_CONV: Final = re.compile(r"conv(_transpose)?\dd$|convolution$")


REFUSALS: Final = (RuntimeError, ValueError, TypeError, AttributeError, LookupError, AssertionError)
"""What a network's own Python raises where it does not take what it is given."""
_STILL: Final = (nn.modules.batchnorm._NormBase, nn.modules.dropout._DropoutNd)


@dataclass(frozen=True, kw_only=True)
class Group:
    """Layers whose output channels can only be removed together."""

    layers: tuple[str, ...]
    """The convolutions and linear layers that make these channels, in the order they run."""
    channels: int
    prunable: bool
    reason: str | None = None
    """Why not, where they are not."""


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """A group, and where its channels are: `units` are removed whole or stay."""

    group: Group
    units: tuple[Mapping[Place, tuple[int, ...]], ...]
    """For each unit, the positions it has along the axes of the network's tensors."""
    widths: tuple[Mapping[str, int], ...]
    """For each unit, its channels in norms that have no tensors to know their width by."""

    @property
    def key(self) -> frozenset[Place]:
        """Stays the same when channels are removed."""
        return frozenset(self.units[0])

    @property
    def made_in(self) -> Place:
        """The axis along which the first layer makes these channels."""
        return next(iter(self.units[0]))


@dataclass(frozen=True, kw_only=True)
class Flow:
    """Which positions of which tensors speak of one channel; the same, renumbered, after a right removal."""

    channels: frozenset[frozenset[tuple[str, int, int]]]


def traced(net: nn.Module, example: Tensor) -> tuple[list[Bundle], Flow]:
    """The groups of a network, and the flow of its channels.

    Args:
        example: an input of the right shape (values do not matter).

    Raises:
        ExportError: if torch.export cannot capture the network.
    """
    net = answering(net, example)
    program = exported(net, example)
    _check_sizes(program)
    composed = _composed(program)
    if composed is not None:
        with quiet():
            program = program.run_decompositions(composed)
    whole = _Trace(net, program, ties=True)
    return whole.bundles(), Flow(channels=_Trace(net, program, ties=False).places())


def _check_sizes(program: ExportedProgram) -> None:
    """Refuse a network within which something is as large as the values of its input make it."""
    for node in program.graph.nodes:
        value = node.meta.get("val")
        lengths = value.shape if isinstance(value, Tensor) else [value]
        if any(isinstance(length, torch.SymInt | torch.SymBool | torch.SymFloat) for length in lengths):
            what = getattr(node.target, "__name__", str(node.target))
            raise ExportError(
                f"the size of what {what} gives depends on the values of the input: no channel is followed"
            )


@torch.no_grad()
def answering(net: nn.Module, example: Tensor) -> nn.Module:
    """The network, or, if it has more answers in training than after it (deep supervision), a copy that gives all.

    What only training reads must still fit when channels are gone: the network is trained on afterwards.
    """
    both = copy_of(net).eval()
    both.forward = MethodType(_all_answers, both)
    try:
        answers = _in_training(both, example)
    except REFUSALS:
        return net
    return both if len(_tensors_in(answers)) > 1 else net


def _all_answers(net: nn.Module, image: Tensor) -> Tensor:
    answers = (type(net).forward(net, image), _in_training(net, image))
    whole = torch.cat([answer.flatten() for answer in _tensors_in(answers)])
    return whole.view(1, -1, *(1 for _ in image.shape[2:]))


def _in_training(net: nn.Module, image: Tensor) -> Any:
    before = [(module, module.training) for module in net.modules()]
    try:
        for module in net.modules():
            # Statistics of one image say nothing, and chance has no place here.
            module.training = not isinstance(module, _STILL)
        return type(net).forward(net, image)
    finally:
        for module, training in before:
            module.training = training


def _tensors_in(answers: Any) -> list[Tensor]:
    return [one for one in tree_leaves(answers) if isinstance(one, Tensor) and one.is_floating_point()]


def _composed(program: ExportedProgram) -> dict[Any, Callable[..., Any]] | None:
    """What is written in simpler operations (einsum, a part changed in place) before it can be followed.

    None if there is nothing: writing it anew takes longer than all the rest.
    """
    unknown = set()
    parts_change = False
    for node in program.graph.nodes:
        if node.op != "call_function" or node.target.__name__ == "getitem":
            continue
        if changes_in_place(node):
            changed = node.args[0]
            viewed = changed.op == "call_function" and getattr(changed.target, "is_view", False)
            parts_change |= viewed or torch.Tag.pointwise not in node.target.tags
        elif _rule(node) is None and node.target._can_decompose():
            unknown.add(node.target)
    if not unknown and not parts_change:
        return None
    # From torch's own table: an operation given as its own decomposition would be asked again and again.
    with operators_looked_up_once():
        simpler = default_decompositions()
        return {target: simpler[target] for target in unknown if target in simpler}


@dataclass
class _Labels:
    """Labels that turned out to be one, and those that must stay, with the reason."""

    above: list[int] = field(default_factory=lambda: [_NOBODY])
    stays: dict[int, str] = field(default_factory=dict)

    def fresh(self, *shape: int) -> Tensor:
        first, count = len(self.above), prod(shape)
        self.above.extend(range(first, first + count))
        return torch.arange(first, first + count).view(shape)

    def root(self, label: int) -> int:
        while self.above[label] != label:
            self.above[label] = self.above[self.above[label]]
            label = self.above[label]
        return label

    def roots(self, labels: Tensor) -> Tensor:
        values, places = labels.unique(return_inverse=True)
        return torch.tensor([self.root(value) for value in values.tolist()])[places]

    def unite(self, these: Tensor, those: Tensor) -> None:
        """Make one of each pair; where one side is nobody, the other stays what it is."""
        pairs = torch.stack(torch.broadcast_tensors(these, those)).flatten(1)
        for this, that in pairs[:, (pairs != _NOBODY).all(0)].unique(dim=1).T.tolist():
            a, b = sorted((self.root(this), self.root(that)))
            if a != b:
                self.above[b] = a
                if b in self.stays:
                    self.stays.setdefault(a, self.stays[b])

    def keep(self, labels: Tensor, reason: str) -> None:
        for label in labels.unique().tolist():
            if label != _NOBODY:
                self.stays.setdefault(self.root(label), reason)


class _Trace:
    """One walk over the network's operations.

    A value's labels are a tensor of its own rank, an axis of length 1 where all along it they are the same.
    What torch.fx says of an argument is that it may be anything, hence the `Any`.
    """

    def __init__(self, net: nn.Module, program: ExportedProgram, *, ties: bool) -> None:
        self.ties = ties
        """Whether channels are also made one that must be removed together only to keep a structure
        (the halves of a split, the groups of a convolution)."""
        self.labels = _Labels()
        self.of: dict[fx.Node, Any] = {}
        self.tensors: dict[fx.Node, str] = {}
        """The inputs of the graph that are parameters and buffers, by name; a shared one has one name."""
        self.axes: dict[Place, Tensor] = {}
        self.elements: dict[str, Tensor] = {}
        self.makers: dict[Place, str] = {}
        self.bare: dict[str, Tensor] = {}
        self.module = ""
        self.net = net
        self.names = {module: name for name, module in net.named_modules()}
        self._read_inputs(net, program)
        for node in program.graph.nodes:
            if node.op == "call_function":
                stack = node.meta.get("nn_module_stack")
                self.module = self._name_of(list(stack.values())[-1][0]) if stack else ""
                self.of[node] = self._call(node)
                if changes_in_place(node):
                    self.of[node.args[0]] = self.of[node]
            elif node.op == "output":
                for logits in node.args[0]:
                    self.labels.keep(self._of(logits), "it makes the network's output")
        for name, axis in self.axes:
            if name in self.elements:
                self.labels.keep(self.axes[name, axis], f"{name} is used in more ways than one")
                self.labels.keep(self.elements[name], f"{name} is used in more ways than one")

    def _name_of(self, path: str) -> str:
        """The one name of a module that was called under this path."""
        # A module that is called again is written with the number of the call, and one in a slice of a list with
        # the slice; one that has several names goes by the first.
        module: Any = self.net
        for part in filter(None, re.sub(r"@\d+", "", path).split(".")):
            cut = re.fullmatch(r"slice\((-?\d+|None), (-?\d+|None), (-?\d+|None)\)", part)
            bounds = [None if one == "None" else int(one) for one in cut.groups()] if cut else []
            module = module[slice(*bounds)] if cut else getattr(module, part, None)
        return self.names.get(module, path)

    def _read_inputs(self, net: nn.Module, program: ExportedProgram) -> None:
        by_identity: dict[int, str] = {}
        inputs = (node for node in program.graph.nodes if node.op == "placeholder")
        for node, spec in zip(inputs, program.graph_signature.input_specs, strict=True):
            if spec.kind is InputKind.USER_INPUT:
                self.of[node] = self._kept(node, "it is joined with the network's input", channels=1)
            elif spec.kind is InputKind.PARAMETER or (spec.kind is InputKind.BUFFER and spec.persistent):
                assert spec.target is not None
                self.tensors[node] = by_identity.setdefault(id(_tensor(net, spec.target)), spec.target)
            else:
                unsaved = spec.kind is InputKind.BUFFER
                what = f"the buffer {spec.target}, which is not saved" if unsaved else "a constant of fixed width"
                self.of[node] = self._kept(node, f"it is joined with {what}")

    def _kept(self, node: Any, reason: str, channels: int | None = None) -> Tensor:
        """Labels of a value whose axes (or one of them) must stay as long as they are."""
        shape = _shape(node)
        lengths = [n if channels in (None, axis) else 1 for axis, n in enumerate(shape)]
        found = self.labels.fresh(1).expand(lengths) if prod(lengths) > _MOST_ELEMENTS else self.labels.fresh(*lengths)
        self.labels.keep(found, reason)
        return found

    # What a value's labels are.

    def _of(self, node: Any) -> Tensor:
        """The labels of a value, made one where they are one; a tensor of the network gets one for each element."""
        if not isinstance(node, fx.Node):
            return torch.zeros((), dtype=torch.int64)
        if node in self.tensors:
            name = self.tensors[node]
            if len(_shape(node)) == 1:
                return self._compact(self._axis(node, 0))
            if name not in self.elements:
                self.elements[name] = self._elements(node, name)
            return self._compact(self.elements[name])
        found = self.of[node]
        if not isinstance(found, Tensor):
            return torch.zeros([1] * len(_shape(node)), dtype=torch.int64)
        return self._compact(found)

    def _elements(self, node: Any, name: str) -> Tensor:
        if prod(_shape(node)) > _MOST_ELEMENTS:
            return self._kept(node, f"{name} is computed with, and is too large to follow")
        return self.labels.fresh(*_shape(node))

    def _compact(self, labels: Tensor) -> Tensor:
        for axis, (length, stride) in enumerate(zip(labels.shape, labels.stride(), strict=True)):
            if length > 1 and stride == 0:
                labels = labels.narrow(axis, 0, 1)
        labels = self.labels.roots(labels) if labels.numel() else labels
        for axis, length in enumerate(labels.shape):
            if length > 1 and bool((labels == labels.narrow(axis, 0, 1)).all()):
                labels = labels.narrow(axis, 0, 1)
        return labels

    def _full(self, node: Any) -> Tensor:
        return self._of(node).expand(_shape(node))

    def _channels(self, node: Any, axis: int = 1) -> Tensor:
        """One label for each place along an axis; what differs along the others is made one."""
        labels = self._of(node).movedim(axis, 0).flatten(1)
        self.labels.unite(labels, labels[:, :1])
        labels = self.labels.roots(labels[:, 0])
        return labels.expand(_shape(node)[axis])

    def _axis(self, node: Any, axis: int) -> Tensor:
        """The labels along one axis of a parameter or buffer."""
        name = self.tensors[node]
        if (name, axis) not in self.axes:
            self.axes[name, axis] = self.labels.fresh(_shape(node)[axis])
        return self.axes[name, axis]

    def _joined(self, node: Any, axis: int, channels: Tensor) -> None:
        """A vector of the network that has one value for each of these channels: a bias, a norm's weight."""
        if not isinstance(node, fx.Node):
            return
        if node in self.tensors:
            along = self._axis(node, axis)
            self.labels.unite(along, channels)
            self.labels.keep(along[channels == _NOBODY], _NOT_CHANNELS)
        else:
            self.labels.unite(self._of(node), channels)
            self.labels.keep(channels, f"{self.module or 'a layer'} computes its weight from other tensors")

    # One operation.

    def _call(self, node: Any) -> Any:
        if node.target.__name__ == "getitem":
            whole = self.of[node.args[0]]
            return whole[node.args[1]] if isinstance(whole, list) else whole
        rule = _rule(node) or _Trace._unknown
        return rule(self, node, _name(node))

    def _unknown(self, node: Any, name: str) -> Any:
        if node.meta.get("val") is None:
            # A check, such as torch.export writes for `.to(dtype)`: it gives nothing, and changes nothing.
            return None
        for source in node.all_input_nodes:
            self.labels.keep(self._of(source), f"what {name} does to its channels is not known")
        # Its result may be as wide as they are: nothing that meets it can be removed.
        value = node.meta["val"]
        reason = f"it is joined with what {name} gives"
        if isinstance(value, Tensor):
            return self._kept(node, reason, channels=1)
        if not isinstance(value, list | tuple):
            return None
        kept = self.labels.fresh(1)
        self.labels.keep(kept, reason)
        return [kept.view([1] * one.dim()) if isinstance(one, Tensor) else None for one in value]

    def _move(self, node: Any, name: str) -> Any:
        def labelled(argument: Any) -> Any:
            return self._full(argument)

        args = fx.node.map_arg(node.args, labelled)
        kwargs = fx.node.map_arg(dict(node.kwargs), labelled)
        if name == "cat":
            axis = args[1] if len(args) > 1 else 0
            moved: Any = self._concatenated(args[0], axis % max(one.dim() for one in args[0]))
        elif name in ("view", "_unsafe_view"):
            moved = args[0].reshape(_shape(node))
        else:
            moved = node.target(*args, **kwargs)
        if name in ("expand", "expand_as", "repeat", "tile") and isinstance(node.args[0], fx.Node):
            return self._spread(node.args[0], moved)
        if self.ties:
            self._tie(node, name, moved)
        if isinstance(moved, Tensor):
            return self._compact(moved)
        return [self._compact(one) for one in moved]

    def _spread(self, source: Any, moved: Tensor) -> Tensor:
        """One channel, written out for many, is none of them."""
        before = torch.Size((1,) * (moved.dim() - len(_shape(source))) + tuple(_shape(source)))
        if any(a == 1 < b for a, b in zip(before[1:], moved.shape[1:], strict=True)) and bool(
            (moved == moved.flatten()[0]).all()
        ):
            return torch.zeros([1] * moved.dim(), dtype=torch.int64)
        return self._compact(moved)

    def _concatenated(self, parts: Sequence[Tensor], axis: int) -> Tensor:
        # Only as long as they must be: labels of a whole volume are as large as the volume.
        parts = [part for part in parts if part.dim() > 1 or part.numel()]
        small = [
            self._compact(part).expand([n if a == axis else -1 for a, n in enumerate(part.shape)]) for part in parts
        ]
        widest = [max(lengths) for lengths in zip(*(one.shape for one in small), strict=True)]
        return torch.cat([one.expand([-1 if a == axis else n for a, n in enumerate(widest)]) for one in small], axis)

    def _tie(self, node: Any, name: str, moved: Any) -> None:
        """Make one what a split, a slice or a view needs to stay of one length.

        Pieces of one length lose the same places each, as do the slices and the outer parts of an axis that a
        view takes apart: `chunk(2)` and `view(b, groups, -1, ...)` then mean the same as before.
        """
        source = node.all_input_nodes[0]
        before = self._of(source)
        axes = [axis for axis, length in enumerate(before.shape) if length > 1]
        if name in ("split", "split_with_sizes", "chunk"):
            if len({part.shape for part in moved}) == 1:
                for part in moved[1:]:
                    self.labels.unite(part, moved[0])
        elif name == "channel_shuffle":
            parts = self._channels(source).view(int(node.args[1]), -1)
            self.labels.unite(parts, parts[:1])
        elif name in ("select", "unbind") and axes:
            if (int(node.args[1]) if len(node.args) > 1 else 0) % before.dim() in axes:
                self.labels.unite(before, before.flatten()[0])
        elif name == "slice" and axes:
            axis = node.args[1] % before.dim() if len(node.args) > 1 else 0
            whole, part = before.shape[axis], moved.shape[axis]
            start = node.args[2] if len(node.args) > 2 and node.args[2] is not None else 0
            if axis in axes and 0 < part < whole and whole % part == 0 and start % part == 0:
                pieces = before.unflatten(axis, (whole // part, part)).movedim(axis, 0)
                self.labels.unite(pieces, pieces[:1])
        elif name in ("view", "reshape", "_unsafe_view", "unflatten") and len(axes) == 1:
            after = self._compact(moved)
            apart = [axis for axis, length in enumerate(after.shape) if length > 1]
            for axis in apart[:-1]:
                self.labels.unite(moved, moved.narrow(axis, 0, 1))

    def _pad(self, node: Any, name: str) -> Tensor:
        pads: Any = node.args[1]
        labels = self._of(node.args[0])
        padded = range(labels.dim() - len(pads) // 2, labels.dim())
        if any(labels.shape[axis] > 1 and any(pads[2 * (labels.dim() - 1 - axis) :][:2]) for axis in padded):
            self.labels.keep(labels, "its channels are padded to a fixed number")
        if all(labels.shape[axis] == 1 for axis in padded):
            return labels
        return torch.nn.functional.pad(labels.expand(_shape(node.args[0])), pads)

    def _same(self, node: Any, name: str) -> Any:
        labels = self._of(node.args[0])
        return labels if isinstance(node.meta["val"], Tensor) else [labels] * len(node.meta["val"])

    def _spatial(self, node: Any, name: str) -> Any:
        labels = self._of(node.args[0])
        for axis in range(2, labels.dim()):
            self.labels.unite(labels, labels.narrow(axis, 0, 1))
            labels = labels.narrow(axis, 0, 1)
        if name.startswith("max_unpool"):
            self.labels.unite(labels, self._of(node.args[1]))
        return labels if isinstance(node.meta["val"], Tensor) else [labels] * len(node.meta["val"])

    def _reduction(self, node: Any, name: str) -> Any:
        if len(node.args) > 1 and isinstance(node.args[1], fx.Node):
            return self._pointwise(node, name)
        labels = self._of(node.args[0])
        value = node.meta["val"]
        results = [value] if isinstance(value, Tensor) else list(value)
        axes = _reduced(node, name, labels.dim())
        varying = {axis for axis, length in enumerate(labels.shape) if length > 1}
        if varying & axes and varying - axes:
            # Branches that are stacked and added: those of one place go together.
            for axis in varying & axes:
                self.labels.unite(labels, labels.narrow(axis, 0, 1))
        mixed = torch.zeros_like(labels) if varying and varying <= axes else labels
        for axis in sorted(axes, reverse=True):
            mixed = mixed.narrow(axis, 0, 1)
            if results[0].dim() < labels.dim():
                mixed = mixed.squeeze(axis)
        return mixed if isinstance(value, Tensor) else [mixed] * len(results)

    def _constant(self, node: Any, name: str) -> Tensor:
        return torch.zeros([1] * len(_shape(node)), dtype=torch.int64)

    def _pointwise(self, node: Any, name: str) -> Any:
        value = node.meta["val"]
        shape = torch.Size(value.shape if isinstance(value, Tensor) else value[0].shape)
        parts = []
        for source in node.all_input_nodes:
            labels = self._of(source)
            lengths = (1,) * (len(shape) - labels.dim()) + tuple(_shape(source))
            labels = labels.view((1,) * (len(shape) - labels.dim()) + tuple(labels.shape))
            spread = {axis for axis, length in enumerate(lengths) if length == 1 < shape[axis]}
            varying = {axis for axis, length in enumerate(labels.shape) if length > 1}
            parts.append((labels, spread, varying))
        everywhere = {axis for _, _, varying in parts for axis in varying}
        result = torch.zeros([1] * len(shape), dtype=torch.int64)
        for labels, spread, varying in parts:
            if spread & everywhere:
                # One map for all channels (an attention gate): not of any one of them.
                if varying:
                    self.labels.keep(labels, f"{name} multiplies it out with other channels")
                continue
            self.labels.unite(labels, result)
            result = torch.where(result == _NOBODY, labels, result)
        return self._compact(result) if isinstance(value, Tensor) else [self._compact(result), None]

    def _where(self, node: Any, name: str) -> Any:
        return self._pointwise(node, name) if len(node.args) > 1 else self._unknown(node, name)

    def _glu(self, node: Any, name: str) -> Tensor:
        """Each channel of the first half is multiplied with one of the second: both go together."""
        labels = self._of(node.args[0])
        axis = (node.args[1] if len(node.args) > 1 else -1) % labels.dim()
        if labels.shape[axis] == 1:
            return labels
        values, gates = labels.chunk(2, axis)
        self.labels.unite(values, gates)
        return self._compact(values)

    def _prelu(self, node: Any, name: str) -> Tensor:
        source, weight = node.args
        if prod(_shape(weight)) > 1:
            self._joined(weight, 0, self._channels(source))
        return self._of(source)

    def _batch_norm(self, node: Any, name: str) -> Any:
        channels = self._channels(node.args[0])
        for vector in node.args[1:5]:
            self._joined(vector, 0, channels)
        self.bare[self.module] = channels
        labels = self._of(node.args[0])
        return labels if isinstance(node.meta["val"], Tensor) else [labels] + [None] * (len(node.meta["val"]) - 1)

    def _group_norm(self, node: Any, name: str) -> Tensor:
        source, groups, *vectors = node.args
        channels = self._channels(source)
        for vector in vectors[:2]:
            self._joined(vector, 0, channels)
        self.bare[self.module] = channels
        if self.ties:
            parts = channels.view(int(groups), -1)
            # Whole groups can go, or the same places of each: whichever leaves more widths to choose from.
            self.labels.unite(parts, parts[:1] if goes_across(*parts.shape) else parts[:, :1])
        return self._of(source)

    def _layer_norm(self, node: Any, name: str) -> Any:
        source, shape, *vectors = node.args
        labels = self._of(source)
        last = labels.view(labels.shape[-len(shape) :]) if prod(labels.shape[: -len(shape)]) == 1 else None
        for vector in vectors[:2]:
            if isinstance(vector, fx.Node) and last is not None:
                self.labels.unite(self._of(vector), last)
            elif isinstance(vector, fx.Node):
                self.labels.keep(labels, f"{name} is over other axes than that of its channels")
        if last is not None and len(shape) == 1 and last.numel() > 1:
            self.bare[self.module] = last
        return labels if isinstance(node.meta["val"], Tensor) else [labels] + [None] * (len(node.meta["val"]) - 1)

    def _convolution(self, node: Any, name: str) -> Tensor:
        source, weight, *rest = node.args
        bias = rest[0] if rest else node.kwargs.get("bias")
        transposed = "transpose" in name or (name == "convolution" and bool(node.args[6]))
        groups = _groups(node, name)
        channels = self._channels(source)
        if weight not in self.tensors:
            return self._computed(node, channels, bias)
        made = self._through(weight, channels, groups, transposed)
        self._joined(bias, 0, made)
        return made.view(1, -1, *(1 for _ in _shape(node)[2:]))

    def _through(self, weight: Any, channels: Tensor, groups: int, transposed: bool) -> Tensor:
        """Join what goes into a convolution with its weight; the labels of what comes out."""
        own = 1 if transposed else 0
        if groups == 1:
            self._joined(weight, 1 - own, channels)
            return self._made(weight, own)
        if groups == len(channels):
            return self._depthwise(weight, channels, groups, transposed)
        into = channels.view(groups, -1)
        if transposed:
            self._joined(weight, 0, channels)
            made = self._made(weight, 1).repeat(groups)
        else:
            self.labels.unite(into, into[:1])
            self._joined(weight, 1, into[0])
            made = self._made(weight, 0)
        if self.ties:
            self.labels.unite(into, into[:1])
            self.labels.unite(made.view(groups, -1), made.view(groups, -1)[:1])
        return made

    def _depthwise(self, weight: Any, channels: Tensor, groups: int, transposed: bool) -> Tensor:
        if transposed:
            self._joined(weight, 0, channels)
            self._made(weight, 0)
            return channels.repeat_interleave(_shape(weight)[1])
        made = self._made(weight, 0)
        each = made.view(groups, -1)
        if self.ties:
            self.labels.unite(each, channels[:, None])
        else:
            self.labels.unite(each[:, 0], channels)
        self.labels.keep(each[channels == _NOBODY], _NOT_CHANNELS)
        return made

    def _made(self, weight: Any, axis: int) -> Tensor:
        name = self.tensors[weight]
        self.makers.setdefault((name, axis), name.removesuffix(".weight"))
        return self._axis(weight, axis)

    def _computed(self, node: Any, channels: Tensor, bias: Any) -> Tensor:
        """A layer whose weight is no tensor of the network's own (weight norm): it stays as wide as it is."""
        reason = f"{self.module or 'a layer'} computes its weight from other tensors"
        self.labels.keep(channels, reason)
        self.labels.keep(self._of(node.args[1]), reason)
        if isinstance(bias, fx.Node):
            self.labels.keep(self._of(bias), reason)
        axis = -1 if "linear" in str(node.target) else 1
        return self._kept(node, reason, channels=axis % len(_shape(node)))

    def _linear(self, node: Any, name: str) -> Tensor:
        if name == "addmm":
            bias, source, weight, into = node.args[0], node.args[1], node.args[2], 0
        else:
            source, weight, into = node.args[0], node.args[1], int(name == "linear")
            bias = node.args[2] if len(node.args) > 2 else node.kwargs.get("bias")
        labels = self._of(source)
        if weight not in self.tensors:
            return self._computed(node, labels, bias)
        varying = [axis for axis, length in enumerate(labels.shape[:-1]) if length > 1]
        if varying and labels.shape[-1] == 1:
            # Over positions, not over channels: the channels pass through.
            return labels
        if varying:
            self.labels.keep(labels, f"{self.module or name} mixes its channels with positions")
        self._joined(weight, into, self._channels(source, -1))
        made = self._made(weight, 1 - into)
        self._joined(bias, 0, made)
        return made.view(*(1 for _ in labels.shape[:-1]), -1)

    def _product(self, node: Any, name: str) -> Tensor:
        left, right = node.args[-2:] if name == "baddbmm" else node.args[:2]
        if right in self.tensors and len(_shape(right)) == 2 and name != "bmm":
            return self._linear(node, name)
        a, b = self._of(left), self._of(right)
        if a.dim() < 2 or b.dim() < 2:
            return self._unknown(node, name)
        if a.shape[-2] > 1 and b.shape[-1] > 1:
            self.labels.keep(a, "channels are multiplied with channels as a matrix")
            self.labels.keep(b, "channels are multiplied with channels as a matrix")
            return torch.zeros([1] * len(_shape(node)), dtype=torch.int64)
        self.labels.unite(a[..., :1, :].transpose(-1, -2), b[..., :1])
        rows, columns = a[..., :1] if a.shape[-2] > 1 else None, b[..., :1, :] if b.shape[-1] > 1 else None
        out = rows if rows is not None else columns
        if out is not None:
            return out.view((1,) * (len(_shape(node)) - out.dim()) + tuple(out.shape))
        return torch.zeros([1] * len(_shape(node)), dtype=torch.int64)

    def _attention(self, node: Any, name: str) -> Any:
        query, key, value = (self._of(source) for source in node.args[:3])
        self.labels.unite(query[..., :1, :], key[..., :1, :])
        for one in (query, key, value):
            if one.shape[-2] > 1:
                self.labels.keep(one, "attention is over its channels")
        out = value[..., :1, :]
        return out if isinstance(node.meta["val"], Tensor) else [out] + [None] * (len(node.meta["val"]) - 1)

    def _embedding(self, node: Any, name: str) -> Tensor:
        weight = node.args[0]
        if weight not in self.tensors:
            return self._unknown(node, name)
        return self._axis(weight, 1).view(*(1 for _ in _shape(node)[:-1]), -1)

    # What was found.

    def places(self) -> frozenset[frozenset[tuple[str, int, int]]]:
        """Every channel, as the places it has in the network's tensors."""
        return frozenset(
            frozenset((name, axis, index) for (name, axis), indices in unit.items() for index in indices)
            for unit in self._units().values()
        )

    def bundles(self) -> list[Bundle]:
        """Units that are in the same places of the same layers, together."""
        found: dict[Any, list[int]] = {}
        units = self._units()
        for root, unit in units.items():
            makers = [place for place in unit if place in self.makers]
            if makers:
                found.setdefault((frozenset(unit), self.labels.stays.get(root)), []).append(root)
        order = {place: number for number, place in enumerate(self.makers)}
        bare = {name: self.labels.roots(labels).tolist() for name, labels in self.bare.items()}
        bundles = []
        for (places, stays), roots in found.items():
            made = sorted((place for place in places if place in self.makers), key=lambda place: order[place])
            first = [*made, *sorted(places - set(made))]
            ordered = [{place: units[root][place] for place in first} for root in roots]
            channels = sum(len(unit[made[0]]) for unit in ordered)
            alone = "it has one channel" if channels == 1 else f"its {channels} channels can only go together"
            reason = stays or (alone if len(roots) == 1 else None)
            group = Group(
                layers=tuple(dict.fromkeys(self.makers[place] for place in made)),
                channels=channels,
                prunable=reason is None,
                reason=reason,
            )
            widths = [{name: labels.count(root) for name, labels in bare.items() if root in labels} for root in roots]
            bundles.append(Bundle(group=group, units=tuple(ordered), widths=tuple(widths)))
        return sorted(bundles, key=lambda bundle: order[bundle.made_in])

    def _units(self) -> dict[int, dict[Place, tuple[int, ...]]]:
        places: dict[int, dict[Place, tuple[int, ...]]] = {}
        for (name, axis), along in [*self.axes.items(), *self._element_axes()]:
            for index, root in enumerate(self.labels.roots(along).tolist()):
                unit = places.setdefault(root, {})
                unit[name, axis] = (*unit.get((name, axis), ()), index)
        places.pop(_NOBODY, None)
        return places

    def _element_axes(self) -> list[tuple[Place, Tensor]]:
        """The axes along which a tensor's elements belong to one channel at each place."""
        found = []
        for name, labels in self.elements.items():
            roots = self._compact(labels)
            along = [axis for axis, length in enumerate(roots.shape) if length > 1]
            if len(along) == 1:
                found.append(((name, along[0]), roots.flatten()))
            elif along:
                self.labels.keep(roots, f"{name} belongs to several of its channels at once")
        return found


_NOT_CHANNELS: Final = "it reads what is no layer's output channels"
_Rule = Callable[[_Trace, Any, str], Any]
_RULES: Final[Sequence[tuple[Callable[[str], Any], _Rule]]] = (
    (_CONV.match, _Trace._convolution),
    (frozenset(("linear", "addmm")).__contains__, _Trace._linear),
    (frozenset(("mm", "bmm", "matmul", "baddbmm")).__contains__, _Trace._product),
    (lambda name: "scaled_dot_product" in name, _Trace._attention),
    (_BATCH_NORMS.__contains__, _Trace._batch_norm),
    ("group_norm".__eq__, _Trace._group_norm),
    (frozenset(("layer_norm", "native_layer_norm", "rms_norm")).__contains__, _Trace._layer_norm),
    (frozenset(("prelu", "_prelu_kernel")).__contains__, _Trace._prelu),
    (frozenset(("embedding",)).__contains__, _Trace._embedding),
    (_PADS.match, _Trace._pad),
    (_MOVES.__contains__, _Trace._move),
    (_SAME.__contains__, _Trace._same),
    (_REDUCTIONS.__contains__, _Trace._reduction),
    (_CONSTANT.__contains__, _Trace._constant),
    ("where".__eq__, _Trace._where),
    ("glu".__eq__, _Trace._glu),
    (_POINTWISE.__contains__, _Trace._pointwise),
    (_SPATIAL.search, _Trace._spatial),
)


def _rule(node: Any) -> _Rule | None:
    """What to do with an operation; None if it is not known."""
    name = _name(node)
    if name == "repeat_interleave" and isinstance(node.args[1], fx.Node):
        return None
    found = next((rule for known, rule in _RULES if known(name)), None)
    return found or (_Trace._pointwise if torch.Tag.pointwise in node.target.tags else None)


def _name(node: Any) -> str:
    return str(node.target.overloadpacket.__name__).removesuffix("_")


def _shape(node: Any) -> list[int]:
    return [int(length) for length in node.meta["val"].shape]


def _tensor(net: nn.Module, name: str) -> Tensor:
    owner, _, last = name.rpartition(".")
    found = getattr(net.get_submodule(owner), last)
    assert isinstance(found, Tensor)
    return found


def _groups(node: Any, name: str) -> int:
    place = 8 if name == "convolution" else 6
    if len(node.args) > place:
        return int(node.args[place])
    return int(node.kwargs.get("groups", 1))


def _reduced(node: Any, name: str, rank: int) -> set[int]:
    place = 2 if name in ("norm", "linalg_vector_norm") else 1
    axes: Any = node.args[place] if len(node.args) > place else node.kwargs.get("dim")
    if isinstance(axes, int):
        axes = [axes]
    return {axis % rank for axis in axes} if axes else set(range(rank))


def goes_across(groups: int, size: int) -> bool:
    """Whether a group norm loses the same places of each of its groups, and not whole groups."""
    return groups == 1 or size > groups


def removed_flow(flow: Flow, removed: Mapping[Place, Iterable[int]]) -> Flow:
    """The flow that a network must have from which these positions were removed."""
    gone = {place: sorted(indices) for place, indices in removed.items()}

    def new(name: str, axis: int, index: int) -> tuple[str, int, int] | None:
        lost = gone.get((name, axis), [])
        before = bisect_left(lost, index)
        return None if lost[before : before + 1] == [index] else (name, axis, index - before)

    channels = (frozenset(place for each in channel if (place := new(*each))) for channel in flow.channels)
    return Flow(channels=frozenset(channel for channel in channels if channel))
