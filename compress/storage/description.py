"""What the JSON beside a weights file says, and the module that it speaks of."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from torch import nn

from compress.data.dataset.cases import Normalization
from compress.errors import PassError, WeightsError
from compress.networks.foreign.in_memory import InMemory
from compress.networks.python import check_described
from compress.storage import changed
from export.registry import named, words


@dataclass(frozen=True, kw_only=True)
class Description:
    """What a weights file's JSON says."""

    network: Mapping[str, Mapping[str, Any]]
    """One word and its options, as in a recipe."""
    classes: tuple[str, ...] | None = None
    normalization: Normalization | None = None
    size: tuple[int, ...] | None = None
    made: Mapping[str, Any] = field(default_factory=dict)
    """How the weights came to be: training recipe, epochs, scores."""


def build_net(network: Mapping[str, Mapping[str, Any]]) -> nn.Module:
    """The module that a description's word and options speak of, freshly initialised.

    A word is a network (`unet`), a network whose layers passes have changed (`changed`), one in
    integers (`int8`), or one in 16 bits (`half`). The module carries its description as `net.description`.
    """
    ((word, options),) = network.items()
    if word == "changed":
        net = changed.rebuilt(options, build_net)
    elif word in words("compress.networks"):
        shape = shape_of(network)
        net = shape()
        # Of a user's file its name and hash are kept, not where it lies.
        options = dataclasses.asdict(shape) if word in ("python", "onnx") else options
    elif word == "int8":
        # Only here: what captures networks takes time and memory to import, and networks in float have no use for it.
        from compress.storage import integers

        net = integers.rebuilt(options, build_net)
    elif word == "half":
        from compress.storage import halves

        net = halves.rebuilt(options, build_net)
    elif word == "wrapped":
        net = InMemory(**options)()
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


def described(net: nn.Module, build: changed.Build | None = None) -> nn.Module:
    """`net`, its description brought up to date with its layers.

    Args:
        build: builds a network from a description; `build_net`, unless a network is of a kind that it does not know.

    Raises:
        PassError: if a layer cannot be described, so that the network could be saved but not loaded.
    """
    build = build or build_net
    initial = _initial_description(net.description)  # type: ignore[arg-type]
    with torch.device("meta"):
        layers = changed.differences(net, build(initial))
        net.description = {"changed": {"net": initial, "layers": layers}} if layers else initial  # type: ignore[assignment]
        again = build(net.description)  # type: ignore[arg-type]
    ours = {name: tensor.shape for name, tensor in net.state_dict().items()}
    theirs = {name: tensor.shape for name, tensor in again.state_dict().items()}
    if ours != theirs:
        name = next(name for name in (*ours, *theirs) if ours.get(name) != theirs.get(name))
        raise PassError(f"the changed network cannot be described: {name} would not be built again as it is")
    return net


def _initial_description(description: Mapping[str, Any]) -> Mapping[str, Any]:
    return description["changed"]["net"] if "changed" in description else description


def read_description(path: Path) -> Description | None:
    """The JSON beside a weights file; None for a checkpoint from elsewhere, which has none."""
    sidecar = path.with_suffix(".json")
    if not sidecar.is_file() or path.suffix.lower() == ".onnx":
        return None
    try:
        read = json.loads(sidecar.read_text())
        check_described(read)
    except json.JSONDecodeError as error:
        raise WeightsError(f"{sidecar}: not a description of a network ({error})") from None
    except WeightsError as error:
        raise WeightsError(f"{sidecar}: {error}") from None
    try:
        size = read.get("size")
        ((word, options),) = read["network"].items()
        if word in words("compress.networks"):
            shape_of({word: options})
        return Description(
            network={word: dict(options)},
            classes=tuple(read["classes"]) if read.get("classes") else None,
            normalization=Normalization(**read["normalization"]) if read.get("normalization") else None,
            size=tuple(size) if size else None,
            made=read.get("made", {}),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise WeightsError(f"{sidecar}: not a description of a network ({error})") from None
