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
from typing import Any

from torch import Tensor, fx, nn
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind

from compress.editing.named_layers import tensor_of
from compress.editing.pruning.dependency.groups import Bundle, Flow, bundles_of, flow_of
from compress.editing.pruning.dependency.program import program_of
from compress.editing.pruning.dependency.rules import operator_name, rule_for
from compress.editing.pruning.dependency.trace import Trace
from compress.editing.pruning.dependency.unknown import unknown
from export.programs.functional import changes_in_place


def traced(net: nn.Module, example: Tensor) -> tuple[list[Bundle], Flow]:
    """The groups of a network, and the flow of its channels.

    Args:
        example: an input of the right shape (values do not matter).

    Raises:
        ExportError: if torch.export cannot capture the network.
    """
    program = program_of(net, example)
    return bundles_of(_Walk(net, ties=True).through(program)), flow_of(_Walk(net, ties=False).through(program))


class _Walk:
    """From the network's inputs to its outputs, an operation at a time, each by its rule."""

    def __init__(self, net: nn.Module, *, ties: bool) -> None:
        self.net = net
        self.names = {module: name for name, module in net.named_modules()}
        self.trace = Trace(ties=ties)

    def through(self, program: ExportedProgram) -> Trace:
        """The labels of everything in the program."""
        self._read_inputs(program)
        for node in program.graph.nodes:
            if node.op == "call_function":
                self._call(node)
            elif node.op == "output":
                for logits in node.args[0]:
                    self.trace.labels.keep(self.trace.of(logits), "it makes the network's output")
        self._keep_what_is_read_in_two_ways()
        return self.trace

    def _read_inputs(self, program: ExportedProgram) -> None:
        by_identity: dict[int, str] = {}
        inputs = (node for node in program.graph.nodes if node.op == "placeholder")
        for node, spec in zip(inputs, program.graph_signature.input_specs, strict=True):
            if spec.kind is InputKind.USER_INPUT:
                reason = "it is joined with the network's input"
                self.trace.values[node] = self.trace.kept(node, reason, channels=1)
            elif spec.kind is InputKind.PARAMETER or (spec.kind is InputKind.BUFFER and spec.persistent):
                assert spec.target is not None
                tensor = tensor_of(self.net, spec.target)
                self.trace.tensors[node] = by_identity.setdefault(id(tensor), spec.target)
            else:
                unsaved = spec.kind is InputKind.BUFFER
                what = f"the buffer {spec.target}, which is not saved" if unsaved else "a constant of fixed width"
                self.trace.values[node] = self.trace.kept(node, f"it is joined with {what}")

    def _call(self, node: fx.Node) -> None:
        stack = node.meta.get("nn_module_stack")
        self.trace.module = self._name_of(list(stack.values())[-1][0]) if stack else ""
        self.trace.values[node] = self._result(node)
        if changes_in_place(node):
            self.trace.values[node.args[0]] = self.trace.values[node]  # type: ignore[index]

    def _result(self, node: Any) -> Any:
        if node.target.__name__ == "getitem":
            whole = self.trace.values[node.args[0]]
            return whole[node.args[1]] if isinstance(whole, list) else whole
        rule = rule_for(node) or unknown
        return rule(self.trace, node, operator_name(node))

    def _keep_what_is_read_in_two_ways(self) -> None:
        for name, axis in self.trace.axes:
            if name in self.trace.elements:
                reason = f"{name} is used in more ways than one"
                self.trace.labels.keep(self.trace.axes[name, axis], reason)
                self.trace.labels.keep(self.trace.elements[name], reason)

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
