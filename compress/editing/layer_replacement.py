"""Layers of a trained network swapped for others, each only if the network still runs as before.

What the passes that replace layers share: finding layers and how they are called, asking why one
cannot be replaced, counting what it costs, and saying what was kept and why.
"""

from __future__ import annotations

import copy
import difflib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from compress.errors import PassError
from compress.measure.macs import macs_of
from export.errors import REFUSALS, first_line
from export.modules import IN_WORDS, copy_of, precision_of, put
from export.quantization.quantized import Quantized

Kinds = tuple[type[nn.Module], ...]
CONVS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
TRANSPOSED = (nn.ConvTranspose2d, nn.ConvTranspose3d)


@dataclass(frozen=True, kw_only=True)
class Site:
    """One layer of a network, by every name that it has there."""

    names: tuple[str, ...]
    module: nn.Module
    inputs: tuple[torch.Size, ...]
    """The shape of what it is called on, for each call in one run of the network; none if it is never called."""

    @property
    def name(self) -> str:
        return self.names[0]


@dataclass(frozen=True, kw_only=True)
class SkippedSites:
    """Layers that stay as they were, and why; told as one sentence for each reason."""

    word: str
    reasons: dict[str, list[str]] = field(default_factory=dict)

    def add(self, name: str, reason: str) -> None:
        self.reasons.setdefault(reason, []).append(name)

    def lines(self) -> list[str]:
        return [f"{self.word}: kept {', '.join(names)}: {reason}" for reason, names in self.reasons.items()]

    def nothing_done(self, what: str) -> PassError:
        """The error of a pass that found nothing to do."""
        reasons = [f"{_some(names)}: {reason}" for reason, names in self.reasons.items()]
        return PassError("; ".join([f"{self.word}: {what}", *reasons]))


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")


def sites(net: nn.Module, example: Tensor, kinds: Kinds) -> list[Site]:
    """Every layer of these kinds (subclasses too), each once, in the order of their first calls; never called, last."""
    names: dict[nn.Module, list[str]] = {}
    for name, module in net.named_modules(remove_duplicate=False):
        if isinstance(module, kinds) and name:
            names.setdefault(module, []).append(name)
    calls: dict[nn.Module, list[torch.Size]] = {}
    with watched(names, lambda module, seen, _: calls.setdefault(module, []).append(seen.shape)):
        answer(net, example)
    return [
        Site(names=tuple(names[module]), module=module, inputs=tuple(calls.get(module, ())))
        for module in (*calls, *(module for module in names if module not in calls))
    ]


def chosen(found: Sequence[Site], where: str | tuple[str, ...], word: str) -> list[Site]:
    """The layers that `where` names, in order.

    Raises:
        PassError: if a name or pattern fits no layer.
    """
    # Only here: importing it takes time and memory, and building a changed network again has no use for it.
    from export.quantization.placement import matches

    patterns = (where,) if isinstance(where, str) else where
    known = [name for site in found for name in site.names]
    if not known:
        raise PassError(f"{word}: the network has no layer of a kind that {word} replaces")
    for pattern in patterns:
        if not any(matches(name, pattern) for name in known):
            parts = sorted({part for name in known for part in (name, name.split(".")[0])})
            near = difflib.get_close_matches(pattern, parts, n=1, cutoff=0.5)
            there = f"there are {', '.join(known[:8])}{', ...' if len(known) > 8 else ''}"
            hint = f"did you mean '{near[0]}'?" if near else there
            raise PassError(f"{word}: where '{pattern}' names no layer of a kind that {word} replaces; {hint}")
    return [site for site in found if any(matches(name, pattern) for name in site.names for pattern in patterns)]


def not_plain(site: Site, net: nn.Module, kinds: Kinds) -> str | None:
    """Why a layer is more than its class says, so that no other can take its place; None if it is not.

    A weight may be computed by a subclass, a parametrization or a hook, shared with another layer,
    or read without the layer being called.
    """
    if type(site.module) not in kinds:
        return f"it is a {type(site.module).__name__}, which may compute more than a plain layer"
    if isinstance(vars(site.module).get("zeros"), str):
        return "an earlier pass made it sparse, and what would take its place is dense"
    if isinstance(vars(site.module).get("bits"), int):
        return "an earlier pass put its weights into bits, and what would take its place has real ones"
    return hooked_or_shared(site, net)


def hooked_or_shared(site: Site, net: nn.Module) -> str | None:
    """Why more than the layer's own call depends on its weight; None if nothing does."""
    module = site.module
    if set(module._parameters) - {"weight", "bias"} or module._forward_pre_hooks or module._forward_hooks:
        return "hooks or parameters of its own compute its weight or change its output"
    if not site.inputs:
        return "it is not called when the network runs: its weight is unused, or read from elsewhere"
    own = [parameter for parameter in module._parameters.values() if parameter is not None]
    readers = [other for other in net.modules() if any(_is_in(one, own) for one in other._parameters.values())]
    return "another layer shares its weight or bias" if len(readers) > 1 else None


def _is_in(tensor: Tensor | None, tensors: Sequence[Tensor]) -> bool:
    return any(tensor is one for one in tensors)


def swap(net: nn.Module, site: Site, new: nn.Module, example: Tensor) -> str | None:
    """Put `new` where the layer is, under all of its names; None, or why the network would not run with it.

    A network may read a layer's weight, ask for its class or call it with more than one argument;
    then the layer is put back.
    """
    before = answer(net, example)
    put(net, site.names, new)
    calls: list[torch.Size] = []
    try:
        with watched((new,), lambda _, seen, __: calls.append(seen.shape)):
            after = answer(net, example)
    except REFUSALS as error:
        put(net, site.names, site.module)
        return f"the network does not run with another layer in its place ({first_line(error)})"
    if tuple(calls) != site.inputs or _shapes(before) != _shapes(after):
        put(net, site.names, site.module)
        return "the network runs otherwise with another layer in its place"
    return None


@torch.inference_mode()
def answer(net: nn.Module, image: Tensor) -> Any:
    """What the network returns."""
    return net(image)


def _shapes(answer: Any) -> Any:
    if isinstance(answer, Tensor):
        return answer.shape
    if isinstance(answer, Mapping):
        return {name: _shapes(one) for name, one in answer.items()}
    return [_shapes(one) for one in answer] if isinstance(answer, list | tuple) else type(answer)


@contextmanager
def watched(modules: Iterable[nn.Module], see: Callable[[nn.Module, Tensor, Any], None]) -> Iterator[None]:
    """While open, each call of these modules is shown: see(module, input, output)."""
    waiting: dict[nn.Module, list[Tensor]] = {}

    def before(module: nn.Module, args: Any, kwargs: Mapping[str, Any]) -> None:
        waiting.setdefault(module, []).append(args[0] if args else next(iter(kwargs.values())))

    def after(module: nn.Module, args: Any, kwargs: Mapping[str, Any], out: Any) -> None:
        see(module, waiting[module].pop(), out)

    handles: list[Any] = []
    try:
        for module in modules:
            handles.append(module.register_forward_pre_hook(before, with_kwargs=True))
            handles.append(module.register_forward_hook(after, with_kwargs=True))
        yield
    finally:
        for handle in handles:
            handle.remove()


def macs(net: nn.Module, inputs: Iterable[torch.Size]) -> int:
    """Multiply-accumulates over inputs of these shapes; of a module on the meta device nothing is computed."""
    first = next(net.parameters())
    return macs_of(net, *(torch.zeros(shape, dtype=first.dtype, device=first.device) for shape in inputs))


def cost(layer: nn.Module, inputs: Iterable[torch.Size]) -> int:
    """Multiply-accumulates of one layer over all of its calls."""
    return macs(copy.deepcopy(layer).to("meta"), inputs)


def parameters(net: nn.Module) -> int:
    """The number of weights and biases."""
    return sum(parameter.numel() for parameter in net.parameters())


def finite(module: nn.Module) -> bool:
    """Whether every weight is a number."""
    return all(bool(torch.isfinite(tensor).all()) for tensor in module.state_dict().values())


def copied(net: nn.Module, word: str) -> nn.Module:
    """A copy that a pass may change, in evaluation mode.

    Raises:
        PassError: if the network is in integers already: its layers are no longer there to change.
    """
    if (precision := precision_of(net)) != "float":
        maker = net.assignment.word if isinstance(net, Quantized) else precision
        raise PassError(f"{word}: the network is in {IN_WORDS[precision]} already; give {word} before {maker}")
    return copy_of(net).eval()
