"""Weights in a safetensors file as bits: three small tensors in the place of one, and back to the last bit.

`x.weight` becomes `x.weight.bits` (or `.trits`, where there are zeros), `x.weight.size`, one for each output channel,
and `x.weight.shape` (export/packed.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor

from compress.errors import WeightsError
from export.packed import SIGNS, SIGNS_AND_ZEROS, Coding, Packed, packed

_CODES = {SIGNS: ".bits", SIGNS_AND_ZEROS: ".trits"}


def in_bits(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors, those of two or three values an output channel in bits."""
    stored: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        found = packed(tensor) if tensor.dtype is torch.float32 else None
        stored |= {name: tensor} if found is None else _parts(name, found)
    return stored


def _parts(name: str, found: Packed) -> dict[str, Tensor]:
    return {
        f"{name}{_CODES[found.coding]}": torch.from_numpy(found.codes),
        f"{name}.size": torch.from_numpy(found.size),
        f"{name}.shape": torch.tensor(found.shape, dtype=torch.int32),
    }


def out_of_bits(stored: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """The tensors of a file as they were before `in_bits`.

    Raises:
        WeightsError: if parts of a weight are missing, or do not belong together.
    """
    tensors = dict(stored)
    for name, coding in _names(stored):
        parts = [tensors.pop(f"{name}{part}", None) for part in (_CODES[coding], ".size", ".shape")]
        weight = _weight(parts, coding)
        if weight is None:
            raise WeightsError(f"{path}: what is stored of {name} in bits does not belong together; save it again")
        tensors[name] = weight
    return tensors


def _names(stored: Mapping[str, Tensor]) -> Iterator[tuple[str, Coding]]:
    for name, tensor in stored.items():
        for coding, ending in _CODES.items():
            if name.endswith(ending) and tensor.dtype is torch.uint8 and f"{name.removesuffix(ending)}.size" in stored:
                yield name.removesuffix(ending), coding


def _weight(parts: list[Tensor | None], coding: Coding) -> Tensor | None:
    codes, size, shape = parts
    if codes is None or size is None or shape is None:
        return None
    sides = tuple(shape.tolist())
    fits = min(sides, default=0) > 0 and len(codes) == -(-torch.Size(sides).numel() // coding.per_byte)
    if not fits or size.shape != sides[:1] or int(codes.max()) >= len(coding.table):
        return None
    return torch.from_numpy(Packed(coding=coding, codes=codes.numpy(), size=size.numpy(), shape=sides).values())
