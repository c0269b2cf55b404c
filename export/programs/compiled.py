"""Graphs whose Python is written and compiled when they are run, not at each step of an export."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import fx

_compile: Any = fx.GraphModule.recompile


@contextmanager
def compiled_when_run() -> Iterator[None]:
    """Within it, a graph module is compiled when it is first called.

    torch.export and the ONNX exporter have the graph of each of their steps compiled, seven or more for a network, and
    run none of them.
    """
    before: Any = fx.GraphModule.recompile
    fx.GraphModule.recompile = _put_off  # type: ignore[assignment,method-assign]
    try:
        yield
    finally:
        fx.GraphModule.recompile = before  # type: ignore[method-assign]


def _put_off(module: fx.GraphModule) -> None:
    structure = getattr(module.graph._codegen, "pytree_info", None)
    if structure is not None:
        module._in_spec, module._out_spec = structure.in_spec, structure.out_spec
    type(module).forward = _run_first


def _run_first(self: fx.GraphModule, *args: Any, **given: Any) -> Any:
    _compile(self)
    return self.forward(*args, **given)
