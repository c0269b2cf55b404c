"""Graphs whose Python is written and compiled when they are run, not at each step of an export or of a change."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, ParamSpec

from torch import fx

_Given = ParamSpec("_Given")
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


def compiled_once(make: Callable[_Given, fx.GraphModule]) -> Callable[_Given, fx.GraphModule]:
    """Of a function that makes a graph in steps, each of which would compile it: compiled is what it returns."""

    @functools.wraps(make)
    def made(*args: _Given.args, **given: _Given.kwargs) -> fx.GraphModule:
        with compiled_when_run():
            graph = make(*args, **given)
        graph.recompile()
        return graph

    return made


def _put_off(module: fx.GraphModule) -> None:
    structure = getattr(module.graph._codegen, "pytree_info", None)
    if structure is not None:
        module._in_spec, module._out_spec = structure.in_spec, structure.out_spec
    type(module).forward = _run_first


def _run_first(self: fx.GraphModule, *args: Any, **given: Any) -> Any:
    _compile(self)
    return self.forward(*args, **given)
