"""What a network costs: the parameters that its answer depends on, its multiply-accumulates, and these times bits."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode, flop_registry

from compress.measure.macs import macs_of
from export.half.network import Half
from export.modules import copy_of
from export.packed import bits_of
from export.quantization.qdq import PAIR

_CONVOLUTIONS = (torch.ops.aten.convolution, torch.ops.aten._convolution)


@dataclass(frozen=True, kw_only=True)
class Cost:
    """The size and the work of one network."""

    params: int
    """Weights, biases and norm parameters that the answer depends on."""
    macs: int
    """Multiply-accumulates for the example, in evaluation; integers count like floats."""
    dead: Mapping[str, int]
    """Parameters that no gradient of the answer reaches, by module: layers that are built and never asked, heads
    that only training has."""


def cost_of(net: nn.Module, example: Tensor) -> Cost:
    """Count a network in evaluation mode; nothing of it is changed.

    Args:
        example: an input of it, BCHW or BCDHW; on the meta device, with a network there, nothing is computed.
    """
    dead = dead_parameters(net, example)
    total = sum(parameter.numel() for parameter in net.parameters())
    return Cost(params=total - sum(dead.values()), macs=macs_of(net, example), dead=dead)


def dead_parameters(net: nn.Module, example: Tensor) -> dict[str, int]:
    """The parameters that no gradient of the answer reaches, counted for each module that has any of its own."""
    copied = copy_of(net).eval().requires_grad_(True)
    named = dict(copied.named_parameters())
    with torch.enable_grad():
        answers = [leaf for leaf in tree_leaves(copied(example)) if isinstance(leaf, Tensor) and leaf.requires_grad]
        total = sum((answer.sum() for answer in answers), start=torch.zeros((), device=example.device))
        # A network whose answer has no gradient at all has nothing that could be told dead from alive.
        grads = torch.autograd.grad(total, list(named.values()), allow_unused=True) if answers else ()
    dead: dict[str, int] = {}
    for (name, parameter), grad in zip(named.items(), grads, strict=bool(answers)):
        if grad is None:
            module = name.rpartition(".")[0]
            dead[module] = dead.get(module, 0) + parameter.numel()
    return dead


def bit_operations(net: nn.Module, example: Tensor) -> int:
    """Each multiply-accumulate of one image times the bits its weight is stored in: 32, 16 in half, 8 to 2 in integers,
    1 or 2 where it is stored in bits (export/packed.py).

    A matrix product without weights (attention) counts its second operand. The measure is that of
    bit operations in the quantization literature (Uhlich et al. 2020, arXiv 1905.11452), with the weight's
    bits alone: activations are never stored.

    Args:
        net: as a runtime gets it; Quantize-Dequantize pairs on weights say which are integers. One in 16 bits is
            given itself: each of its operations counts with the bits that it computes in.
    """
    if isinstance(net, Half):
        counting = _ByOperation(net)
        with torch.inference_mode():
            counting.run(example)
        return counting.total
    with torch.no_grad(), _Counter() as counter:
        net(example)
    return counter.total


class _ByOperation(fx.Interpreter):
    """Counts each operation's multiply-accumulates times the bits that it computes in."""

    def __init__(self, net: Half) -> None:
        super().__init__(net.simulated())
        self.halves, self.total = net.halves, 0

    def run_node(self, n: fx.Node) -> Any:
        with FlopCounterMode(display=False) as counter:
            value = super().run_node(n)
        self.total += counter.get_total_flops() // 2 * (16 if n.name in self.halves else 32)
        return value


class _Counter(TorchDispatchMode):
    """Sees every operation below the modules, as torch's own FLOP counter does."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0
        self.integers: dict[int, int] = {}
        """Bits of what came out of a pair, by its storage: views of it have the same."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        counted = flop_registry.get(func._overloadpacket)
        if counted is None and func is not PAIR:
            with self:
                out = func.decompose(*args, **kwargs)
            if out is not NotImplemented:
                return out
        out = func(*args, **kwargs)
        if counted is not None:
            self.total += counted(*args, **kwargs, out_val=out) // 2 * self._bits(func, args)
        # Memory is given out again: what is new there is no longer what was marked.
        for pointer in _pointers([out]) - _pointers(args):
            self.integers.pop(pointer, None)
        if func is PAIR:
            self.integers |= dict.fromkeys(_pointers([out]), _stored_bits(*args))
        return out

    def _bits(self, func: Any, args: Any) -> int:
        # addmm and baddbmm take the bias first.
        place = 2 if func._overloadpacket in (torch.ops.aten.addmm, torch.ops.aten.baddbmm) else 1
        weight: Tensor = args[place]
        integer = self.integers.get(weight.untyped_storage().data_ptr())
        # A transposed one has its output channels second, and in float is never stored in few bits.
        few = integer is None and func._overloadpacket in _CONVOLUTIONS and not args[6] and bits_of(weight)
        return integer or few or 8 * weight.itemsize


def _stored_bits(x: Tensor, scale: Tensor, zero: Tensor, axis: int) -> int:
    """Of each integer of a pair's, as a file stores it (export/packed.py)."""
    if scale.dim() == 0:
        return 8 * zero.itemsize
    shape = [1] * x.dim()
    shape[axis] = -1
    limits = torch.iinfo(zero.dtype)
    codes = (x / scale.reshape(shape)).round().clamp(limits.min, limits.max).to(zero.dtype)
    return bits_of(codes, sized=axis == 0) or 8 * zero.itemsize


def _pointers(values: Iterable[Any]) -> set[int]:
    return {leaf.untyped_storage().data_ptr() for leaf in tree_leaves(list(values)) if isinstance(leaf, Tensor)}
