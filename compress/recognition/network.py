"""The network of a checkpoint: candidates by the names and shapes of its tensors, and the one that takes them all."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from compress.errors import MissingExtra, SegpressError, WeightsError
from compress.networks.foreign.asking import built_on
from compress.recognition.tensors.state import views
from compress.storage.checkpoint import read_state
from compress.storage.description import build_net, read_description, shape_of
from compress.storage.weights import load_weights, misfits

DOORS = ("smp", "torchvision", "monai", "own")
MOST = 200
"""Candidates that are built, without memory for their tensors."""
NAMED = (
    "name it with --network, such as --network 'smp: {arch: Unet, encoder: resnet34, classes: 1}', or your own class: "
    "--network 'python: {path: my_net.py, build: MyNet, classes: 1, in_channels: 3}'"
)


@dataclass(frozen=True, kw_only=True)
class Recognized:
    """The network of a checkpoint."""

    network: Mapping[str, Mapping[str, Any]]
    """One word and its options, as in a recipe."""
    net: nn.Module
    """With its weights, in evaluation mode."""
    how: str
    """How it is known, in words."""


def recognized(path: Path) -> Recognized:
    """The network whose tensors lie in a file, every one of them loaded.

    Raises:
        WeightsError: if the file cannot be read, or no network known here has such tensors.
    """
    described = read_description(path)
    if described is not None:
        return _loaded(described.network, path, f"{path.with_suffix('.json').name} beside the weights says so")
    if path.suffix.lower() == ".onnx":
        return _loaded({"onnx": {"path": str(path.absolute())}}, path, "an ONNX file is its own network")
    state = read_state(path, [])
    nearest: tuple[int, Any] | None = None
    missing: list[str] = []
    for number, network in enumerate(_candidates(state, missing)):
        wrong = _misfit(network, state)
        if wrong == 0:
            return _loaded(network, path, f"its {len(state)} tensors fit, by names and shapes")
        if wrong is not None and (nearest is None or wrong < nearest[0]):
            nearest = wrong, network
        if number >= MOST:
            break
    near = "" if nearest is None else f"; the nearest, {told(nearest[1])}, differs in {nearest[0]} tensors"
    lacking = "".join(f" ({each})" for each in dict.fromkeys(missing))
    raise WeightsError(
        f"{path}: no network known here has its {len(state)} tensors ({', '.join(list(state)[:2])}, ...){near}"
        f"{lacking}; {NAMED}"
    )


def given(network: Mapping[str, Mapping[str, Any]], path: Path) -> Recognized:
    """A network that a person named, with the weights in a file.

    Raises:
        SegpressError: if there is no such network, or the weights are another's.
    """
    return _loaded(network, path, "as named")


def told(network: Mapping[str, Mapping[str, Any]]) -> str:
    """A network in a few words: "smp Unet over mobilenet_v2"."""
    ((word, options),) = network.items()
    over = f" over {options['encoder']}" if options.get("encoder") else ""
    return f"{word} {options['arch']}{over}" if "arch" in options else word


def _loaded(network: Mapping[str, Mapping[str, Any]], path: Path, how: str) -> Recognized:
    net = build_net(network)
    load_weights(net, path)
    return Recognized(network=network, net=net.eval(), how=how)


def _candidates(state: Mapping[str, Tensor], missing: list[str]) -> Iterator[dict[str, Any]]:
    seen = set[str]()
    for door in DOORS:
        for view in views(state):
            try:
                for network in importlib.import_module(f"compress.recognition.doors.{door}").candidates(view):
                    if repr(network) not in seen:
                        seen.add(repr(network))
                        yield network
            except MissingExtra as error:
                missing.append(str(error))
            except (LookupError, TypeError, ValueError, AttributeError):
                # It looks for sizes where its own networks have them: these tensors are none of its.
                continue


def _misfit(network: Mapping[str, Mapping[str, Any]], state: Mapping[str, Tensor]) -> int | None:
    """How many tensors do not fit; None where there is no such network."""
    try:
        shape = shape_of(network)
        if hasattr(shape, "unwrapped"):
            net = built_on(shape, "meta")
        else:
            with torch.device("meta"):
                net = shape()
    except (SegpressError, RuntimeError, TypeError, ValueError, LookupError):
        # Of options that were read from shapes some belong to no network.
        return None
    return misfits(state, net.state_dict())
