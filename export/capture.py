"""A network's Python, run once by torch.export: the one way out of torch, to a graph or to ONNX.

What is captured as a graph is what the ONNX exporter sees, so anything that can be exported can be
quantized, however its Python is written.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import inspect
import io
import logging
import re
import sys
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.export import Dim, ExportedProgram
from torch.fx import config as fx_config
from torch.fx.experimental import proxy_tensor
from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode

from export.errors import REFUSALS, ExportError, first_line
from export.graph import Dynamic, drop_empty, fold_batch_norm, fold_weights
from export.programs.compiled import compiled_once, compiled_when_run
from export.programs.functional import in_functions, named_as_traced
from export.programs.kept import kept_program

_tracing: Any = proxy_tensor


@compiled_once
def capture(net: nn.Module, example: Tensor, dynamic: Sequence[Dynamic] = ()) -> fx.GraphModule:
    """The network as a graph of functional ATen operations, in evaluation mode.

    Args:
        net: takes one float tensor BC.. and returns one; its weights are not changed.
        example: an input of the right shape (values do not matter).
        dynamic: which axes of the input may change afterwards.

    Raises:
        ExportError: with torch's reason, if the network's Python cannot be captured.
    """
    program = exported(net, example, dynamic)
    with quiet(), compiled_when_run():
        fast = in_functions(program)
        # Taken from what torch.export gave, whose numbering its names have.
        if not fast:
            with operators_looked_up_once():
                program = exported(net, example, dynamic).run_decompositions({})
        module: Any = program.module(check_guards=False)
    written = named_as_traced(module.graph) if fast else module.graph
    (output,) = (node for node in written.nodes if node.op == "output")
    output.args = (output.args[0][0],)
    # An ordinary module: one tensor in, one out, and eval() allowed.
    written.set_codegen(fx.graph.CodeGen())
    graph = fx.GraphModule(module, written)
    fold_weights(graph)
    drop_empty(graph)
    return graph


def exported(net: nn.Module, example: Tensor, dynamic: Sequence[Dynamic] = ()) -> ExportedProgram:
    """The network as torch.export gives it; see `capture`."""
    name = type(net).__name__
    try:
        inspect.signature(net.forward).bind(example)
    except TypeError as error:
        raise ExportError(f"{name}.forward(): {error}; a network for export takes one image") from None
    axes = _axes(example, dynamic)
    if 0 in axes and example.shape[0] == 1:
        # torch.export takes a length of 1 as fixed.
        example = example.expand(2, *example.shape[1:]).contiguous()
    net.eval()

    def export() -> ExportedProgram:
        with quiet(), compiled_when_run(), _keeping(net):
            return torch.export.export(net, (example,), dynamic_shapes=(axes,) if axes else None, strict=False)

    try:
        # The lengths of open axes are shared by all copies of a program, which may be taken apart in several ways.
        program = export() if axes else kept_program(net, example, export)
    except REFUSALS as error:
        raise ExportError(f"{name} cannot be captured by torch.export: {_reason(error)}") from error
    _check_output(program, name, example.dim())
    return program


@contextlib.contextmanager
def _keeping(net: nn.Module) -> Iterator[None]:
    """What modules keep in lists and dictionaries, put back where it was.

    torch.export leaves a copy in each module: those that share one, as MONAI's DynUNet its heads, no longer would.
    """
    own = vars(nn.Module()).keys()
    kept = [
        (module, name, value, copy.copy(value))
        for module in net.modules()
        for name, value in vars(module).items()
        if type(value) in (list, dict) and name not in own
    ]
    try:
        yield
    finally:
        for module, name, value, before in kept:
            value.clear()
            value.extend(before) if isinstance(value, list) else value.update(before)
            vars(module)[name] = value


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without what torch's exporters print, log, warn and note about their own internals."""
    before, traced = logging.root.manager.disable, fx_config.do_not_emit_stack_traces
    described = getattr(_tracing, "_extract_tensor_metadata", None)
    logging.disable(logging.CRITICAL)
    # Nobody reads from which line of torch an operation came, and finding it out is a tenth of the time.
    fx_config.do_not_emit_stack_traces = True
    # Nor what each of its tensors is like, beside the tensor itself: another tenth.
    _tracing._extract_tensor_metadata = lambda *_: None
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
        fx_config.do_not_emit_stack_traces = traced
        _tracing._extract_tensor_metadata = described


@contextlib.contextmanager
def operators_looked_up_once() -> Iterator[None]:
    """Where torch looks every operator up again for each of its namespaces, as it does to take a program apart, once.

    Looking them up is a quarter of an export's time. A version of torch that has the look-up elsewhere does as it does.
    """
    utils: Any = sys.modules.get("torch._export.utils")
    look_up = getattr(utils, "_materialize_cpp_cia_ops", None)
    if look_up is None:
        yield
        return
    # The first who asks has them looked up: a program that stays as it is asks for none.
    utils._materialize_cpp_cia_ops = functools.cache(look_up)
    try:
        yield
    finally:
        utils._materialize_cpp_cia_ops = look_up


def _axes(example: Tensor, dynamic: Sequence[Dynamic]) -> dict[int, Any]:
    axes: dict[int, Any] = {}
    if "batch" in dynamic:
        axes[0] = Dim.DYNAMIC
    if "size" in dynamic:
        axes |= dict.fromkeys(range(2, example.dim()), Dim.DYNAMIC)
    return axes


def _check_output(program: ExportedProgram, name: str, rank: int) -> None:
    wanted = "a network for export returns one tensor of logits: BK and the image's axes"
    spec = program.call_spec.out_spec
    assert spec is not None
    if not spec.is_leaf():
        raise ExportError(f"{name} returns a {spec.type.__name__} of {spec.num_leaves} tensors; {wanted}")
    (output,) = (node for node in program.graph.nodes if node.op == "output")
    logits = output.args[0][-1].meta["val"]
    if not logits.dtype.is_floating_point or logits.dim() != rank:
        raise ExportError(f"{name} returns {str(logits.dtype)[6:]} with {logits.dim()} axes; {wanted}")


def _reason(error: Exception) -> str:
    """The first line of torch's message; for data-dependent Python, the line that depends."""
    if isinstance(error, GuardOnDataDependentSymNode):
        places = re.findall(r'File "([^"]*)", line (\d+), in \w+\n\s*(.+)', str(error))
        where = f", at {Path(places[-1][0]).name}:{places[-1][1]}: {places[-1][2]}" if places else ""
        return f"what it does depends on the values of its input{where}; torch.where() can be exported, `if` cannot"
    if "specialized it to be a constant" in str(error):
        return "it takes only images of the example's size, so no axis can be left open (dynamic)"
    return first_line(error, 300)


@compiled_once
def folded_graph(net: nn.Module, example: Tensor, dynamic: Sequence[Any]) -> fx.GraphModule:
    """The captured network with its batch norms folded: what is calibrated, and saved."""
    graph = capture(net, example, dynamic)
    fold_batch_norm(graph)
    return graph
