"""MACs x bits: multiply-accumulates, each counted with the bits of its weight."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from export.quantize import PAIR


def bit_operations(net: nn.Module, example: Tensor) -> int:
    """Each multiply-accumulate of one image times the bits its weight is stored in: 32, 16 in half, 8 in integers.

    A matrix product without weights (attention) counts its second operand. The measure is that of
    bit operations in the quantization literature (Uhlich et al. 2020, arXiv 1905.11452), with the weight's
    bits alone: activations are never stored.

    Args:
        net: as a runtime gets it; Quantize-Dequantize pairs on weights say which are integers.
    """
    with torch.no_grad(), _Counter() as counter:
        net(example)
    return counter.total


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
            self.integers |= dict.fromkeys(_pointers([out]), 8 * args[2].itemsize)
        return out

    def _bits(self, func: Any, args: Any) -> int:
        # addmm and baddbmm take the bias first.
        place = 2 if func._overloadpacket in (torch.ops.aten.addmm, torch.ops.aten.baddbmm) else 1
        weight: Tensor = args[place]
        return self.integers.get(weight.untyped_storage().data_ptr(), 8 * weight.itemsize)


def _pointers(values: Iterable[Any]) -> set[int]:
    return {leaf.untyped_storage().data_ptr() for leaf in tree_leaves(list(values)) if isinstance(leaf, Tensor)}
