"""What torch.export reads of a network: all of it but the values of its weights.

Networks of one structure have one program. Whatever is not surely the same makes a network one of its own.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
from collections.abc import Hashable, Iterable, Iterator, Mapping
from pathlib import PurePath
from types import BuiltinFunctionType, FunctionType
from typing import Any

import torch
from torch import Tensor, nn

_VALUES = (
    *(bool, int, float, complex, str, bytes, type(None), type, PurePath, enum.Enum, BuiltinFunctionType),
    *(torch.dtype, torch.device, torch.memory_format, torch.layout),
)
_WEIGHTS = ("_parameters", "_buffers", "_modules")


class _NotPlain(Exception):
    """Something of which it is not known when it means the same."""


def structure_of(net: nn.Module, example: Tensor) -> Hashable | None:
    """Equal for networks of which torch.export makes the same program, all axes fixed.

    Args:
        net: as it is when it is exported.
        example: the input it is run on; its values do not count.

    Returns:
        None where that cannot be said: of a network with hooks, or with attributes that are neither plain values nor
        modules.
    """
    modules = {module: number for number, module in enumerate(net.modules())}
    tensors: dict[int, int] = {}
    around = torch.is_grad_enabled(), torch.get_default_dtype(), torch.is_autocast_enabled(example.device.type)
    try:
        found = tuple(_module(module, modules, tensors) for module in modules), _like(example, tensors), around
        hash(found)
    except (_NotPlain, AttributeError, TypeError, RuntimeError):
        # Of what has no strides, no hash, no end: none of it is known.
        return None
    return found


def _module(module: nn.Module, modules: Mapping[nn.Module, int], tensors: dict[int, int]) -> Hashable:
    if any(held for name, held in vars(module).items() if name.endswith("_hooks")):
        raise _NotPlain
    own = tuple((name, _plain(value, modules)) for name, value in vars(module).items() if name not in _WEIGHTS)
    weights = tuple(
        (name, None if tensor is None else _like(tensor, tensors))
        for held in (module._parameters, module._buffers)
        for name, tensor in held.items()
    )
    inside = tuple((name, None if each is None else modules[each]) for name, each in module._modules.items())
    return tuple(_class(type(module))), own, len(module._parameters), weights, inside


def _class(kind: type) -> Iterator[Hashable]:
    """A class with what it has at this moment: its functions may have been replaced since."""
    yield kind
    for each in kind.__mro__:
        if each.__module__.startswith("torch."):
            return
        for name, value in vars(each).items():
            if not name.startswith("__"):
                try:
                    yield name, _plain(value, {})
                except _NotPlain:
                    yield name, id(value)


def _like(tensor: Tensor, tensors: dict[int, int]) -> Hashable:
    """What a tensor is like, and which others are the same one or lie in the same memory."""
    memory = tensor.untyped_storage()._cdata if type(tensor) in (Tensor, nn.Parameter) else id(tensor)
    same = tensors.setdefault(id(tensor), len(tensors)), tensors.setdefault(memory, len(tensors))
    return type(tensor), tensor.shape, tensor.stride(), tensor.dtype, tensor.device, tensor.requires_grad, same


def _plain(value: Any, modules: Mapping[nn.Module, int]) -> Hashable:
    kind = type(value)
    if isinstance(value, _VALUES) or (isinstance(value, FunctionType) and not value.__closure__):
        # 1, 1.0 and True are equal, and so are 0.0 and -0.0, which are not the same in a graph.
        return kind, repr(value) if kind in (float, complex) else value
    if isinstance(value, nn.Module) and value in modules:
        return kind, modules[value]
    parts = (_plain(part, modules) for part in _parts(value))
    return kind, frozenset(parts) if isinstance(value, set | frozenset) else tuple(parts)


def _parts(value: Any) -> Iterable[Any]:
    """What a collection is made of."""
    if isinstance(value, tuple | list | set | frozenset):
        return value
    if isinstance(value, dict):
        return value.items()
    if isinstance(value, functools.partial):
        return value.func, value.args, value.keywords
    if dataclasses.is_dataclass(value) and not isinstance(value, nn.Module):
        return ((field.name, getattr(value, field.name)) for field in dataclasses.fields(value))
    raise _NotPlain
