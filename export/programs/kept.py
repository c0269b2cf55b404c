"""Programs that torch.export gave, for the next network of the same structure.

A network that is pruned, quantized and written is exported by each of the three, and one that was trained on has other
weights in the same program. Copying a program takes a tenth of the time of making one.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from typing import Any

from torch import Tensor, fx, nn
from torch.export import ExportedProgram

from export.programs.compiled import compiled_when_run
from export.programs.structure import structure_of

KEPT = 16
"""Programs that are kept at most: graphs without their weights."""
_OF_ONE_NETWORK = ("_graph_module", "_graph_signature", "_state_dict", "_constants", "_example_inputs")
"""What a version of torch may hold otherwise: then no program is kept."""
_kept: OrderedDict[Hashable, ExportedProgram] = OrderedDict()


def kept_program(net: nn.Module, example: Tensor, export: Callable[[], ExportedProgram]) -> ExportedProgram:
    """The network's program, with its own weights; it belongs to the caller.

    Args:
        net: in evaluation mode.
        example: the input that it is exported with, all of whose axes are fixed.
        export: makes the program, where none of this structure is kept.
    """
    structure = structure_of(net, example)
    if structure is None:
        return export()
    weights = dict(net.named_parameters(remove_duplicate=False)) | dict(net.named_buffers(remove_duplicate=False))
    if structure in _kept:
        _kept.move_to_end(structure)
        return _with_weights(_kept[structure], weights, example)
    program = export()
    if _can_be_kept(program, weights):
        _kept[structure] = _with_weights(program, dict.fromkeys(weights), None)
        if len(_kept) > KEPT:
            _kept.popitem(last=False)
    return program


def _can_be_kept(program: ExportedProgram, weights: Mapping[str, Tensor]) -> bool:
    """Whether all that it holds are the network's weights, and nothing in it is open."""
    if not vars(program).keys() >= set(_OF_ONE_NETWORK):
        return False
    held = program.state_dict.keys() | program.constants.keys()
    # Graphs within the graph would be shared by the copies.
    has_others = any(node.op == "get_attr" for node in program.graph.nodes)
    return held <= weights.keys() and not has_others and not program.range_constraints


def _with_weights(
    program: ExportedProgram, weights: Mapping[str, Tensor | None], example: Tensor | None
) -> ExportedProgram:
    """A copy of a program that holds these weights in place of its own."""
    copied: Any = copy.copy(program)
    module, graph = program.graph_module, copy.deepcopy(program.graph)
    for before, node in zip(program.graph.nodes, graph.nodes, strict=True):
        # A copy avoids names of Python's own, as `input` is, which the program is known by.
        node.name = before.name
    with compiled_when_run():
        copied._graph_module = fx.GraphModule(module, graph, type(module).__name__)
    copied._graph_module.meta.update(module.meta)
    copied._graph_signature = copy.deepcopy(program.graph_signature)
    copied._state_dict = {name: weights[name] for name in program.state_dict}
    copied._constants = {name: weights[name] for name in program.constants}
    copied._example_inputs = ((example,), {})
    return copied
