"""Asking a network for shapes alone, on the meta device, where nothing is computed.

There torch takes many operations apart in Python before it knows that they leave a tensor's shape as it is: a batch
norm costs many times what a convolution does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch._prims_common import suggest_memory_format
from torch.utils._python_dispatch import TorchDispatchMode

aten = torch.ops.aten
NORMS = (aten.native_batch_norm.default, aten._native_batch_norm_legit_no_training.default)
"""Their answer is of the shape of what they read; what they say beside it, nobody reads where nothing is computed."""
ALIKE = (
    *(aten.relu.default, aten.hardswish.default, aten.hardsigmoid.default, aten.hardtanh.default),
    *(aten.silu.default, aten.gelu.default),
)
"""One tensor in, one of the same shape and type out."""
IN_PLACE = (
    *(aten.relu_.default, aten.hardswish_.default, aten.hardsigmoid_.default, aten.hardtanh_.default),
    aten.silu_.default,
)
RESIZED = (aten.upsample_bilinear2d.default, aten.upsample_trilinear3d.default)
"""The size of the answer is what they are given."""


class ShapesAlone(TorchDispatchMode):
    """While it is entered, tensors on the meta device go through these operations as their shapes; others as ever."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        given = args[0] if args else None
        if isinstance(given, Tensor) and given.is_meta and given.is_floating_point():
            if func in NORMS:
                return torch.empty_like(given), given.new_empty(0), given.new_empty(0)
            if func in ALIKE:
                return torch.empty_like(given)
            if func in IN_PLACE:
                return given
            if func in RESIZED:
                kind = suggest_memory_format(given)
                return torch.empty_like(given.new_empty((*given.shape[:2], *args[1])), memory_format=kind)
        return func(*args, **(kwargs or {}))
