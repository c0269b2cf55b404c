"""What torch's ONNX exporter does over again for every network, done once, or not where it would change nothing.

No public call leaves it out. Where a version of torch or onnxscript has its parts elsewhere, it does as it does.
"""

from __future__ import annotations

import copy
import functools
import importlib
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch
from torch import fx
from torch.export import ExportedProgram


@functools.cache
def spare_what_is_done_again() -> None:
    """Have torch's exporter in this process leave out what is done again; once is enough."""
    _read_operators_once()
    _leave_whole_what_is_translated()
    _run_again_only_for_other_types()
    _try_rules_on_their_operators()


def _read_operators_once() -> None:
    """Keep the table of translations that torch reads at every export from the source of 500 operators."""
    registry: Any = getattr(_of_exporter("_registration"), "ONNXRegistry", None)
    read = getattr(registry, "from_torchlib", None)
    if read is None or not hasattr(registry(), "functions") or hasattr(read, "table"):
        return
    operators: Any = getattr(sys.modules[registry.__module__], "onnxscript_apis", None)
    if hasattr(operators, "get_torchlib_ops"):
        # Read for each opset that a table is made for, and the same for all.
        operators.get_torchlib_ops = functools.cache(operators.get_torchlib_ops)
    table = functools.cache(read)

    def from_torchlib(opset_version: int) -> Any:
        copied = copy.copy(table(opset_version))
        # Custom translations are added to each export's own.
        copied.functions = {target: list(known) for target, known in copied.functions.items()}
        return copied

    from_torchlib.table = table  # type: ignore[attr-defined]
    registry.from_torchlib = staticmethod(from_torchlib)


def _leave_whole_what_is_translated() -> None:
    """Keep torch from listing, at every export, how its operations are taken apart where a program stays as it is.

    The list is a seventh of an export's time.
    """

    def decompose_with_registry(decompose: Any, program: ExportedProgram, *registry: Any) -> ExportedProgram:
        return program if "run_decompositions" in vars(program) else decompose(program, *registry)

    _instead(_of_exporter("_fx_passes"), "decompose_with_registry", decompose_with_registry)


def _run_again_only_for_other_types() -> None:
    """Keep torch from running a network once more, to find numbers of unlike types, where all of them are of one.

    That is a seventh of an export's time.
    """
    promotion = _module("torch.onnx._internal.fx.passes.type_promotion")
    table, rule = (getattr(promotion, name, None) for name in ("TypePromotionTable", "get_type_promotion_rule"))
    if table is None or rule is None:
        return
    rule_of = functools.partial(rule, type_promotion_table=table())

    def insert_type_promotion_nodes(insert: Any, module: fx.GraphModule) -> None:
        if not all(_is_in_float32(part, rule_of) for part in module.modules()):
            insert(module)

    _instead(_of_exporter("_fx_passes"), "insert_type_promotion_nodes", insert_type_promotion_nodes)


def _is_in_float32(module: Any, rule_of: Callable[[fx.Node], Any]) -> bool:
    """Whether rules on types have surely nothing to do: all that they bring to one type is in float32."""
    if not isinstance(module, fx.GraphModule):
        return False
    ruled = ((node, rule_of(node)) for node in module.graph.nodes)
    return all(rule is None or _has_float32(node, rule) for node, rule in ruled)


def _has_float32(node: fx.Node, rule: Any) -> bool:
    # Of others, some bring numbers to another type than theirs.
    if type(rule).__name__ not in ("ElementwiseTypePromotionRule", "DivElementwiseTypePromotionRule"):
        return False
    given = [node.args[place] for place in rule.promote_args_positions if place < len(node.args)]
    given += [node.kwargs[name] for name in rule.promote_kwargs_names if name in node.kwargs]
    return all(map(_is_float32, given))


def _is_float32(given: Any) -> bool:
    if isinstance(given, list):
        return all(map(_is_float32, given))
    if not isinstance(given, fx.Node):
        return given is None or type(given) is float
    return getattr(given.meta.get("val"), "dtype", None) == torch.float32


def _try_rules_on_their_operators() -> None:
    """Have a rule by which a file is made simpler looked at only for the operators that it begins at.

    Each of some twenty is tried on each node, twice, which is a fifth of an export's time.
    """
    for rule in getattr(_module("onnxscript.rewriter"), "_DEFAULT_REWRITE_RULES", ()):
        matcher = getattr(rule, "_matcher", None)
        ends: Any = getattr(getattr(matcher, "pattern", None), "output_nodes", ())
        if type(matcher).__name__ == "SimplePatternMatcher" and len(ends) == 1 and "try_rewrite" not in vars(rule):
            rule.try_rewrite = _where(functools.cache(ends[0].op.matches), rule.try_rewrite)


def _where(fits: Callable[[str], bool], rewritten: Callable[..., Any]) -> Callable[..., Any]:
    def try_rewrite(model: Any, graph: Any, node: Any, **more: Any) -> Any:
        return rewritten(model, graph, node, **more) if fits(node.op_type) else None

    return try_rewrite


def _instead(module: ModuleType | None, name: str, other: Callable[..., Any]) -> None:
    """Put a function in the place of one, which it is given first; once."""
    before: Any = getattr(module, name, None)
    if before is None or hasattr(before, "of_torch"):
        return
    after: Any = functools.partial(other, before)
    after.of_torch = before
    setattr(module, name, after)


def _of_exporter(name: str) -> ModuleType | None:
    """A module of torch's exporter, which torch itself imports at the first export only; None where there is none."""
    return _module(f"torch.onnx._internal.exporter.{name}")


def _module(name: str) -> ModuleType | None:
    try:
        return importlib.import_module(name)
    except ImportError:
        return None
