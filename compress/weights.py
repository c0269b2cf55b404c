"""Networks on disk: safetensors beside a JSON description. Nothing is ever unpickled.

`net.safetensors` holds the tensors, `net.json` what is needed to build the module that takes
them: the network's word and options, class names, normalization and where they came from.
"""

from __future__ import annotations

import importlib
import json
import pickle
import re
import struct
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from compress.data.cases import Normalization
from compress.errors import WeightsError
from compress.surgery import rebuilt
from export.device import named, words
from export.files import write_bytes, write_json

FORMAT = 1
_NESTED = ("state_dict", "model_state_dict", "model_state", "model", "network", "net", "weights", "params")
# What torch.load raises on bytes that are no checkpoint, or no longer one.
_DAMAGE = (
    RuntimeError,
    EOFError,
    LookupError,
    OSError,
    ValueError,
    AssertionError,
    AttributeError,
    TypeError,
    struct.error,
)
_AGAIN = "save it again with torch.save(net.state_dict(), ...) or as safetensors"
_PREFIXES = ("module.", "_orig_mod.", "model.", "net.", "network.")


@dataclass(frozen=True, kw_only=True)
class Description:
    """What a weights file's JSON says."""

    network: Mapping[str, Mapping[str, Any]]
    """One word and its options, as in a recipe."""
    classes: tuple[str, ...] | None = None
    normalization: Normalization | None = None
    size: tuple[int, int] | None = None
    made: Mapping[str, Any] = field(default_factory=dict)
    """How the weights came to be: training recipe, epochs, scores."""


def save_net(net: nn.Module, description: Description, path: Path, *, half: bool = False) -> None:
    """Write path (.safetensors) and its .json; `half` stores floats in 16 bits."""
    tensors = {name: _stored(tensor, half) for name, tensor in net.state_dict().items()}
    write_bytes(path, safetensors.torch.save(tensors))
    write_json(
        path.with_suffix(".json"),
        {
            "format": FORMAT,
            "network": description.network,
            "classes": description.classes,
            "normalization": None
            if description.normalization is None
            else {"mean": description.normalization.mean, "std": description.normalization.std},
            "size": description.size,
            "made": description.made,
        },
    )


def build_net(network: Mapping[str, Mapping[str, Any]]) -> nn.Module:
    """The module that a description's word and options speak of, freshly initialised.

    A word is a network (`unet`), a network whose layers passes have changed (`changed`), or a pass that
    leaves a network of its own kind (`int8`). The module carries its description as `net.description`.
    """
    ((word, options),) = network.items()
    if word == "changed":
        net = rebuilt(options, build_net)
    elif word in words("compress.networks"):
        net = shape_of(network)()
    elif word in words("compress.passes"):
        net = importlib.import_module(f"compress.passes.{word}").rebuild(options, build_net)
    else:
        raise WeightsError(f"'{word}' is no network known here; was it made by a newer segpress?")
    net.description = {word: dict(options)}  # type: ignore[assignment]
    return net


def shape_of(network: Mapping[str, Mapping[str, Any]]) -> Any:
    """The configured file of compress/networks/ that a word and its options name; called, it builds the module."""
    ((word, options),) = network.items()
    try:
        return named("compress.networks", word)(**options)
    except ValidationError as error:
        fault = error.errors()[0]
        where = ".".join(map(str, fault["loc"]))
        raise WeightsError(f"{word}: {where}: {fault['msg']}; was it made by a newer segpress?") from None


def load_net(path: Path) -> nn.Module:
    """A network saved by `save_net`: built from its description, its tensors loaded, in evaluation mode."""
    description = read_description(path)
    if description is None:
        raise WeightsError(f"{path}: has no {path.with_suffix('.json').name} beside it to say which network it is")
    net = build_net(description.network)
    load_weights(net, path)
    return net.eval()


def _stored(tensor: Tensor, half: bool) -> Tensor:
    tensor = tensor.detach().cpu().contiguous().clone()
    if not half or not tensor.is_floating_point():
        return tensor
    halved = tensor.half()
    # Over 65504 there is no 16-bit number: such a tensor (a variance, say) stays as it is.
    return halved if torch.isfinite(halved).all() else tensor


def read_description(path: Path) -> Description | None:
    """The JSON beside a weights file; None for a checkpoint from elsewhere, which has none."""
    beside = path.with_suffix(".json")
    if not beside.is_file():
        return None
    try:
        read = json.loads(beside.read_text())
        size = read.get("size")
        ((word, options),) = read["network"].items()
        if word in words("compress.networks"):
            shape_of({word: options})
        return Description(
            network={word: dict(options)},
            classes=tuple(read["classes"]) if read.get("classes") else None,
            normalization=Normalization(**read["normalization"]) if read.get("normalization") else None,
            size=(size[0], size[1]) if size else None,
            made=read.get("made", {}),
        )
    except (json.JSONDecodeError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise WeightsError(f"{beside}: not a description of a network ({error})") from None


def load_weights(net: nn.Module, path: Path) -> None:
    """Load a checkpoint, ours or anyone's, into a network of the same architecture.

    Safetensors, or a torch checkpoint of tensors alone (`weights_only=True`); the state dict may
    be nested under a usual key and its names prefixed (`module.`, `model.`).

    Raises:
        WeightsError: missing or damaged file; a pickle of more than tensors; tensors of another
            network, with what is missing, unexpected or of another shape.
    """
    state = _unprefixed(_read_state(path), set(net.state_dict()))
    ours = net.state_dict()
    # BatchNorm's step counter is not a weight; old checkpoints lack it.
    counters = {name for name in ours if name.endswith("num_batches_tracked")}
    missing = [name for name in ours if name not in state and name not in counters]
    unexpected = [name for name in state if name not in ours]
    wrong = [name for name in ours if name in state and ours[name].shape != state[name].shape]
    if missing or unexpected or wrong:
        raise WeightsError(f"{path}: {_mismatch(ours, state, missing, unexpected, wrong)}")
    net.load_state_dict({**ours, **{name: tensor.to(ours[name].dtype) for name, tensor in state.items()}})
    broken = [name for name, tensor in net.state_dict().items() if not torch.isfinite(tensor).all()]
    if broken:
        raise WeightsError(f"{path}: {broken[0]} holds values that are not finite (NaN or infinity)")


def _read_state(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise WeightsError(f"{path}: no such weights file")
    if path.suffix == ".safetensors":
        try:
            return safetensors.torch.load_file(path)
        except (safetensors.SafetensorError, OSError) as error:
            raise WeightsError(f"{path}: damaged or truncated safetensors file ({error})") from None
    try:
        with warnings.catch_warnings():
            # A plain pickle is refused below, in our own words.
            warnings.simplefilter("ignore", UserWarning)
            read = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        # torch's text goes on to advise loading it all the same: only the name is taken from it.
        found = re.search(r"GLOBAL ([\w.]+)", str(error))
        if found is None:
            raise WeightsError(f"{path}: damaged or not a torch checkpoint: {_AGAIN}") from None
        raise WeightsError(
            f"{path}: refused, because it is a pickle of more than tensors ({found[1]}) and loading one can run any "
            f"code: {_AGAIN}"
        ) from None
    except _DAMAGE as error:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)[:160]
        raise WeightsError(f"{path}: damaged or not a torch checkpoint ({reason}): {_AGAIN}") from None
    return _tensors(read, path)


def _tensors(read: Any, path: Path) -> dict[str, Tensor]:
    """The state dict in a checkpoint, which may lie under a usual key."""
    for _ in range(3):
        if isinstance(read, Mapping) and read and all(isinstance(value, Tensor) for value in read.values()):
            return dict(read)
        if not isinstance(read, Mapping):
            break
        key = next((key for key in _NESTED if isinstance(read.get(key), Mapping)), None)
        if key is None:
            break
        read = read[key]
    keys = ", ".join(map(str, list(read)[:6])) or "nothing" if isinstance(read, Mapping) else type(read).__name__
    raise WeightsError(f"{path}: no state dict of tensors in it (found {keys}); looked under {', '.join(_NESTED)}")


def _unprefixed(state: dict[str, Tensor], ours: set[str]) -> dict[str, Tensor]:
    """Names without the prefixes that wrappers add, taken off only while every name has one."""
    while not set(state) & ours:
        prefix = next((p for p in _PREFIXES if state and all(name.startswith(p) for name in state)), None)
        if prefix is None:
            return state
        state = {name.removeprefix(prefix): tensor for name, tensor in state.items()}
    return state


def _mismatch(
    ours: Mapping[str, Tensor], state: Mapping[str, Tensor], missing: list[str], unexpected: list[str], wrong: list[str]
) -> str:
    if wrong and not missing and not unexpected:
        name = wrong[0]
        return (
            f"weights of another width: {name} is {_shape(state[name])} in the file and {_shape(ours[name])} in the "
            f"recipe's network ({len(wrong)} tensors differ); correct the network's width, channels or classes"
        )
    parts = [
        f"{len(names)} {what} ({names[0]}{', ...' if len(names) > 1 else ''})"
        for names, what in ((missing, "missing"), (unexpected, "unexpected"), (wrong, "of another shape"))
        if names
    ]
    return f"weights of another network: {', '.join(parts)}; correct the recipe's network or its options"


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "a scalar"
