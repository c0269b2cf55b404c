"""Networks whose layers were changed or replaced: how they are described, and built again without the original.

A description says what differs from the network it began as: {"changed": {"net": {...}, "layers":
{name: {"set": ..., "shapes": ...} or {"new": ...}}}}. `set` are plain attributes of a layer that
is still of its own class (a pruned convolution's channels), `shapes` those of its tensors; `new`
is a layer that stands in another's place, written out in full.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from compress.errors import PassError, WeightsError
from compress.networks.blocks.branches import Branches
from compress.networks.blocks.gated import Gated
from compress.networks.blocks.signed_conv import SignedConv
from compress.networks.blocks.sum import Sum
from export.modules import put

_CONV: Final = ("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation", "groups", "padding_mode")
_NORM: Final = ("num_features", "eps", "momentum", "affine", "track_running_stats")
_WRITTEN: Final[Mapping[type[nn.Module], tuple[str, ...]]] = {
    **dict.fromkeys((nn.Conv1d, nn.Conv2d, nn.Conv3d), (*_CONV, "bias")),
    **dict.fromkeys((nn.ConvTranspose2d, nn.ConvTranspose3d), (*_CONV, "output_padding", "bias")),
    **dict.fromkeys((nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d), _NORM),
    **dict.fromkeys((nn.InstanceNorm2d, nn.InstanceNorm3d), _NORM),
    nn.GroupNorm: ("num_groups", "num_channels", "eps", "affine"),
    nn.Linear: ("in_features", "out_features", "bias"),
    **dict.fromkeys((nn.ReLU, nn.ReLU6, nn.SiLU, nn.Hardswish, nn.Mish), ("inplace",)),
    nn.LeakyReLU: ("negative_slope", "inplace"),
    nn.ELU: ("alpha", "inplace"),
    nn.GELU: ("approximate",),
    nn.PReLU: ("num_parameters",),
    nn.Sigmoid: (),
    nn.Identity: (),
    nn.ChannelShuffle: ("groups",),
    **dict.fromkeys((nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d), ("output_size",)),
    nn.Upsample: ("scale_factor", "mode"),
}
_GATHERED: Final = (nn.Sequential, Branches, Gated, SignedConv, Sum)
_KINDS: Final[Mapping[str, type[nn.Module]]] = {kind.__name__: kind for kind in (*_WRITTEN, *_GATHERED)}
_PLAIN = (bool, int, float, str, type(None))

Build = Callable[[Mapping[str, Any]], nn.Module]


def rebuilt(options: Mapping[str, Any], build: Build) -> nn.Module:
    """The network that a "changed" description speaks of, its tensors still to be loaded."""
    net = build(options["net"])
    # A module that is in two places has two names.
    modules = dict(net.named_modules(remove_duplicate=False))
    resized: dict[int, tuple[Tensor, Tensor]] = {}
    for name, layer in options["layers"].items():
        if "new" in layer:
            put(net, [name], written_out(layer["new"]))
        elif name not in modules:
            raise WeightsError(
                f"the description changes {name}, which the network does not have; was it made by another segpress?"
            )
        else:
            _set(modules[name], layer, resized)
    return net


def differences(net: nn.Module, initial: nn.Module) -> dict[str, Any]:
    """What a network's layers differ in from those of the one it began as: the `layers` of its description."""
    before = dict(initial.named_modules(remove_duplicate=False))
    found: dict[str, Any] = {}
    replaced: list[str] = []
    for name, module in net.named_modules(remove_duplicate=False):
        if any(name.startswith(f"{inside}.") for inside in replaced):
            continue
        old = before.get(name)
        if (
            old is None
            or _kind(old) is not _kind(module)
            or (type(module) is nn.Sequential and len(old) != len(module))
        ):
            found[name] = {"new": _written(name, module)}
            replaced.append(name)
        else:
            difference = _difference(module, old)
            if difference:
                found[name] = difference
    return found


def _kind(module: nn.Module) -> type:
    """The class of a layer; one whose weight is computed (weight norm) has a class of its own, made of it."""
    return type(module).__bases__[0] if is_parametrized(module) else type(module)


def _difference(module: nn.Module, old: nn.Module) -> dict[str, Any]:
    attributes = {
        name: value
        for name, value in _attributes(module).items()
        if name not in (was := _attributes(old)) or was[name] != value
    }
    shapes = {
        name: None if tensor is None else list(tensor.shape)
        for name, tensor in _tensors(module).items()
        if (old_tensor := _tensors(old).get(name)) is None or tensor is None or old_tensor.shape != tensor.shape
        if not (tensor is None and old_tensor is None)
    }
    return {key: value for key, value in (("set", attributes), ("shapes", shapes)) if value}


def _attributes(module: nn.Module) -> dict[str, Any]:
    """Plain values, by which a layer knows its own size; tuples as lists, as in JSON."""
    found: dict[str, Any] = {}
    for name, value in vars(module).items():
        if name.startswith("_") or name in ("training", "description"):
            continue
        if isinstance(value, _PLAIN):
            found[name] = value
        elif isinstance(value, list | tuple) and all(isinstance(one, _PLAIN) for one in value):
            found[name] = list(value)
    return found


def _tensors(module: nn.Module) -> dict[str, Tensor | None]:
    return {**module._parameters, **module._buffers}


def _written(name: str, module: nn.Module) -> dict[str, Any]:
    if type(module) in _GATHERED:
        parts = [_written(f"{name}.{child}", part) for child, part in module.named_children()]
        return {"kind": type(module).__name__, "of": parts}
    if type(module) not in _WRITTEN:
        raise PassError(f"the changed network cannot be described: {name} is now a {type(module).__name__}")
    options = {key: getattr(module, key) for key in _WRITTEN[type(module)]}
    if "bias" in options:
        options["bias"] = options["bias"] is not None
    written = {"kind": type(module).__name__, **{k: list(v) if isinstance(v, tuple) else v for k, v in options.items()}}
    # What a pass left on a layer besides: that its zeros stay, for one.
    built_with = _attributes(written_out(written))
    left = {key: value for key, value in _attributes(module).items() if key not in built_with}
    return {**written, "set": left} if left else written


def written_out(written: Mapping[str, Any]) -> nn.Module:
    """The layer that a `new` entry writes out."""
    options: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in written.items()}
    left = options.pop("set", {})
    kind = _KINDS.get(str(options.pop("kind")))
    if kind is None:
        raise WeightsError(f"no layer '{written['kind']}' is known here; was it made by a newer segpress?")
    if kind in _GATHERED:
        return kind(*(written_out(part) for part in options["of"]))
    layer = kind(**options)
    for name, value in left.items():
        setattr(layer, name, value)
    return layer


def can_be_written(module: nn.Module) -> bool:
    """Whether a layer that stands in another's place can be described, and built again."""
    if type(module) in _GATHERED:
        return all(can_be_written(part) for part in module.children())
    return type(module) in _WRITTEN


def _set(module: nn.Module, layer: Mapping[str, Any], resized: dict[int, tuple[Tensor, Tensor]]) -> None:
    """Set attributes and shapes; `resized` has each tensor that was given a new shape, and what stands for it."""
    for name, value in layer.get("set", {}).items():
        was = getattr(module, name, None)
        setattr(module, name, tuple(value) if isinstance(was, tuple) and isinstance(value, list) else value)
    for name, shape in layer.get("shapes", {}).items():
        old = _tensors(module).get(name)
        if shape is None:
            setattr(module, name, None)
            continue
        if old is not None and list(old.shape) == shape:
            continue
        new = torch.zeros(shape) if old is None else old.new_zeros(shape)
        if name in module._parameters:
            new = nn.Parameter(new)
        if old is not None:
            # What layers share they share afterwards.
            _, new = resized.setdefault(id(old), (old, new))
        if name in module._parameters:
            module._parameters[name] = new  # type: ignore[assignment]
        else:
            module._buffers[name] = new
