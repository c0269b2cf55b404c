"""Whether a network answers the same each time it is asked, and to an image whatever else is in its batch.

Everything after it stands on that: artifacts are compared with it, drops are measured from it. What draws random
numbers after eval() is found by watching torch's operators, and told with the line that calls it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

_TORCH = Path(torch.__file__).parent
_FUNCTIONAL = _TORCH / "nn" / "functional.py"
_NUMBERS = (bool, int, float)


@torch.no_grad()
def why_otherwise(net: nn.Module, image: Tensor) -> str | None:
    """Why a network in evaluation mode answers otherwise each time; None if it answers the same twice."""
    before = _state(net.eval())
    with _Watching() as watching:
        first = _answers(net(image))
    # What is drawn may be the same twice by chance.
    times = 4 if watching.found else 1
    if all(_alike(first, _answers(net(image)), 1e-4) for _ in range(times)):
        return None
    says = "the network answers otherwise each time it is asked, also after eval()"
    if watching.found:
        return (
            f"{says}: it draws random numbers in {', '.join(watching.found[:3])}; let it do so in training only, "
            "such as F.dropout(x, p, training=self.training)"
        )
    changed = [name for name, value in _state(net).items() if not _same(value, before.get(name))]
    if changed:
        return f"{says}: it changes {', '.join(changed[:3])} whenever it is called; let it do so in training only"
    return f"{says}: by random numbers that are not torch's, or by something that it keeps from call to call"


@torch.no_grad()
def draws(net: nn.Module, image: Tensor) -> bool:
    """Whether a network draws random numbers in evaluation; values do not matter, and the meta device will do."""
    with _Watching() as watching:
        net.eval()(image)
    return bool(watching.found)


@torch.no_grad()
def of_the_batch(net: nn.Module, images: Sequence[Tensor]) -> str | None:
    """A note, if what the network answers to an image (1CHW) depends on the other images of its batch; else None."""
    if len(images) < 2 or images[0].shape != images[1].shape:
        return None
    alone = _answers(net.eval()(images[0]))
    try:
        together = _answers(net(torch.cat(list(images[:2]))))
    except (RuntimeError, ValueError, AssertionError, LookupError):
        return None
    if _alike(alone, [each[:1] for each in together], 1e-2):
        return None
    norms = [name for name, each in net.named_modules() if _is_bare(each)]
    why = f" ({', '.join(norms[:3])}: batch norms without running statistics)" if norms else ""
    return (
        f"what the network answers to an image depends on the others in its batch{why}: it is measured, and built, for "
        "one image at a time"
    )


def _is_bare(module: nn.Module) -> bool:
    return isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is None


def _answers(answer: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(answer) if isinstance(leaf, Tensor)]


def _alike(these: Sequence[Tensor], those: Sequence[Tensor], tolerance: float) -> bool:
    return len(these) == len(those) and all(
        a.shape == b.shape and torch.allclose(a.double(), b.double(), rtol=tolerance, atol=tolerance, equal_nan=True)
        for a, b in zip(these, those, strict=True)
    )


def _state(net: nn.Module) -> dict[str, Any]:
    """What a network may change when it is called: its tensors, and the numbers that its layers keep."""
    found: dict[str, Any] = {}
    for name, module in net.named_modules():
        inside = {**module._parameters, **module._buffers, **vars(module)}
        for key, value in inside.items():
            if isinstance(value, Tensor):
                found[f"{name}.{key}".strip(".")] = value.detach().clone()
            elif isinstance(value, _NUMBERS) and not key.startswith("_"):
                found[f"{name}.{key}".strip(".")] = value
    return found


def _same(value: Any, before: Any) -> bool:
    if isinstance(value, Tensor):
        return isinstance(before, Tensor) and torch.equal(value, before)
    return type(value) is type(before) and bool(value == before)


class _Watching(TorchDispatchMode):
    """While open, notes every operator that draws random numbers, by the function and the line that ask for it."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if torch.Tag.nondeterministic_seeded in func.tags:
            told = _told(func.overloadpacket.__name__)
            if told not in self.found:
                self.found.append(told)
        return func(*args, **(kwargs or {}))


def _told(operator: str) -> str:
    frames = list(_frames(sys._getframe(2)))
    functions = [frame.f_code.co_name for frame in frames if Path(frame.f_code.co_filename) == _FUNCTIONAL]
    outside = [frame for frame in frames if not Path(frame.f_code.co_filename).is_relative_to(_TORCH)]
    what = functions[-1] if functions else operator.rstrip("_")
    return f"{what} ({Path(outside[0].f_code.co_filename).name}, line {outside[0].f_lineno})" if outside else what


def _frames(frame: FrameType | None) -> Iterator[FrameType]:
    while frame is not None:
        yield frame
        frame = frame.f_back
