"""Answers taken apart: dictionaries, tuples and objects as tensors by name, and the sizes of these."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor

from compress.networks.foreign.head import Layout


def tensors_in(answer: Any, key: str = "") -> dict[str, Tensor]:
    """Every tensor in an answer, by its key in it: "" for one tensor, "out", "1", "aux.0"."""
    if isinstance(answer, Tensor):
        return {key: answer}
    inside: Iterable[tuple[Any, Any]] = ()
    if isinstance(answer, Mapping):
        inside = answer.items()
    elif isinstance(answer, list | tuple):
        inside = zip(getattr(answer, "_fields", range(len(answer))), answer, strict=True)
    elif dataclasses.is_dataclass(answer):
        inside = ((field.name, getattr(answer, field.name)) for field in dataclasses.fields(answer))
    found: dict[str, Tensor] = {}
    for name, value in inside:
        found |= tensors_in(value, f"{key}.{name}" if key else str(name))
    return found


def unstacked(found: Mapping[str, Tensor], dims: int) -> Iterator[tuple[str, Tensor]]:
    """Tensors, those with one axis too many taken apart along the second, where deep supervision stacks its heads."""
    for key, tensor in found.items():
        if tensor.dim() == dims + 3:
            yield from ((f"{key}|{number}", each) for number, each in enumerate(tensor.unbind(1)))
        else:
            yield key, tensor


def of_keys(found: Mapping[str, Tensor], keys: Sequence[str]) -> Iterator[Tensor]:
    """The tensors of these keys, each as `unstacked` names it."""
    for key in keys:
        whole, stacked, number = key.partition("|")
        yield found[whole][:, int(number)] if stacked else found[whole]


def proportional(shape: tuple[int, ...], size: tuple[int, ...]) -> bool:
    """Whether a shape is a size, or a whole fraction of it."""
    if len(shape) != len(size) or not all(shape):
        return False
    shares = {whole / side for side, whole in zip(shape, size, strict=True)}
    return len(shares) == 1 and shares.pop().is_integer()


def without_channels(tensor: Tensor, layout: Layout) -> tuple[int, ...]:
    """The sides of a tensor that has a batch, classes and sides."""
    return tuple(tensor.shape[2:] if layout == "channels_first" else tensor.shape[1:-1])


def listing(found: Mapping[str, Tensor]) -> str:
    """Tensors by their keys and shapes, for a sentence."""
    return ", ".join(
        f"'{key}' ({times(tensor.shape)})" if key else times(tensor.shape) for key, tensor in found.items()
    )


def title(key: str) -> str:
    """A key of `unstacked`, for a sentence."""
    whole, stacked, number = key.partition("|")
    return f"number {number} of those stacked" if stacked else f"'{whole}'"


def times(shape: Sequence[int]) -> str:
    """A shape, for a sentence: 64x96."""
    return "x".join(map(str, shape)) or "a scalar"
