"""The network's operations as torch.export writes them down, those without a rule in simpler ones that have one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram, default_decompositions

from compress.editing.pruning.dependency.rules import rule_for
from compress.errors import ExportError
from export.capture import exported, operators_looked_up_once, quiet
from export.programs.functional import changes_in_place


def program_of(net: nn.Module, example: Tensor) -> ExportedProgram:
    """The operations of a network.

    Raises:
        ExportError: if torch.export cannot capture it, or the size of something depends on the input's values.
    """
    program = exported(net, example)
    _check_sizes(program)
    simpler = _decompositions(program)
    if simpler is None:
        return program
    with quiet():
        return program.run_decompositions(simpler)


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


def _decompositions(program: ExportedProgram) -> dict[Any, Callable[..., Any]] | None:
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
        elif rule_for(node) is None and node.target._can_decompose():
            unknown.add(node.target)
    if not unknown and not parts_change:
        return None
    # From torch's own table: an operation given as its own decomposition would be asked again and again.
    with operators_looked_up_once():
        simpler = default_decompositions()
        return {target: simpler[target] for target in unknown if target in simpler}
