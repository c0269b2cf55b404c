"""The sections of a recipe, each checked: what is right becomes a `Recipe`, what is wrong a sentence with its place."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from compress.measure.latency import Timing
from compress.measure.segmentation import Scoring
from compress.recipe.about import About
from compress.recipe.entries import Entries
from compress.recipe.network import read_data, read_network
from compress.recipe.options import nearest
from compress.recipe.recipe import OPSETS, SEED, Recipe, other_dims
from compress.recipe.steps import read_compare, read_gates, read_passes, read_postprocess
from compress.recipe.yaml_file import KEYS
from compress.storage.description import shape_of
from compress.train.training import Training
from export.device import Device
from export.reach import DLA, HERE, Reach, word_of
from export.registry import fault_of_backends, find_device, words


def read_sections(entries: Entries, text: dict[str, Any]) -> Recipe | None:
    """The recipe; None where its network or its data is wrong."""
    for key in text:
        if key not in KEYS:
            entries.mistakes.append(f"no key '{key}'{nearest(key, KEYS)}")
    for key in ("network", "data"):
        if key not in text:
            entries.mistakes.append(f"lacks the key '{key}'")
    given: dict[str, Any] = {
        "name": _name(entries, text),
        "seed": _seed(entries, text),
        "opset": _opset(entries, text),
        "dynamic": _dynamic(entries, text),
        "devices": _devices(entries, text),
        "about": entries.options(About, text.get("about", {}), "about") or About(),
        "scoring": entries.options(Scoring, text.get("scoring", {}), "scoring") or Scoring(),
        "latency": entries.options(Timing, text.get("latency", {}), "latency") or Timing(),
        "postprocess": read_postprocess(entries, text),
        "passes": read_passes(entries, entries.listed("passes", text), "passes"),
        "compare": read_compare(entries, text),
        "gates": read_gates(entries, text),
        "data": read_data(entries, text),
        "train": entries.options(Training, text["train"], "train") if "train" in text else None,
    }
    network = read_network(entries, text, given["data"])
    if network is None or given["data"] is None:
        return None
    dims = shape_of(network[0]).dims
    if dims != given["data"].dims:
        entries.mistakes.append(other_dims(network[0], dims))
        return None
    return Recipe(**given, network=network[0], weights=network[1], text=text, source=entries.path)


def _name(entries: Entries, text: dict[str, Any]) -> str:
    name = text.get("name", entries.path.stem)
    if not isinstance(name, str) or not re.fullmatch(r"[\w][\w.\- ]*", name):
        entries.mistakes.append(f"name: {name!r} cannot name a folder; use letters, digits, '-', '_' and '.'")
    return str(name)


def _seed(entries: Entries, text: dict[str, Any]) -> int:
    seed = text.get("seed", SEED)
    if not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed < 2**63:
        entries.mistakes.append(f"seed: {seed!r} is not a whole number from 0 to 2^63 - 1")
        return SEED
    return seed


def _opset(entries: Entries, text: dict[str, Any]) -> int:
    opset = text.get("opset", 20)
    if not isinstance(opset, int) or opset not in OPSETS:
        entries.mistakes.append(f"opset: {opset!r} is not one of {OPSETS[0]} to {OPSETS[-1]}")
        return 20
    return opset


def _dynamic(entries: Entries, text: dict[str, Any]) -> tuple[Any, ...]:
    axes = text.get("dynamic", [])
    if not isinstance(axes, list):
        entries.mistakes.append("dynamic: a list of the axes left open: [batch], [size] or [batch, size]")
        return ()
    for axis in axes:
        if axis not in ("batch", "size"):
            entries.mistakes.append(f"dynamic: no axis '{axis}'{nearest(str(axis), ('batch', 'size'))}")
    return tuple(axes)


def _devices(entries: Entries, text: dict[str, Any]) -> tuple[Device, ...]:
    given = text.get("devices", ["cpu"])
    if not isinstance(given, list) or not given:
        entries.mistakes.append("devices: a list of devices, such as [cpu] or [cpu, orin_nano: {at: HOST}]")
        return ()
    devices: list[Device] = []
    for index, entry in enumerate(given):
        if mended := _with_options(entry):
            entries.mistakes.append(f"devices[{index}] ({entry}): host and DLA core are options here: {mended}")
            continue
        chosen = entries.word(entry, words("export.devices"), f"devices[{index}]", "device")
        reach = chosen and entries.options(Reach, chosen[1], f"devices[{index}] ({chosen[0]})")
        if not chosen or not reach:
            continue
        if fault := find_device(chosen[0]).fault_of(reach):
            entries.mistakes.append(f"devices[{index}] ({chosen[0]}): {fault}")
        device = find_device(chosen[0]).reached(reach)
        if fault := fault_of_backends(device):
            entries.mistakes.append(f"devices[{index}] ({chosen[0]}): {fault}")
            continue
        if device.name in [each.name for each in devices]:
            entries.mistakes.append(f"devices[{index}]: '{device.name}' is given twice")
        devices.append(device)
    entries.mistakes += _power_modes(devices)
    return tuple(devices)


def _with_options(entry: Any) -> str | None:
    """How `devices` has what gates and reports call `cpu@tower-7`; None for what is no such name."""
    if not isinstance(entry, str) or entry == word_of(entry) or word_of(entry) not in words("export.devices"):
        return None
    place, dla, core = entry.partition(DLA)
    host = place.partition("@")[2]
    options = [*([f"at: {host}"] if host not in ("", HERE) else []), *([f"dla: {core}"] if dla else [])]
    return f"{word_of(entry)}: {{{', '.join(options)}}}" if options else word_of(entry)


def _power_modes(devices: Sequence[Device]) -> Iterator[str]:
    """A mistake where devices of one host, which are timed in turns, are to be in several modes of it."""
    for index, device in enumerate(devices):
        first = next(each for each in devices if each.reach.at == device.reach.at)
        if device.reach.power_mode != first.reach.power_mode:
            mode = first.reach.power_mode or device.reach.power_mode
            yield f"devices[{index}] ({device.name}): is of one host with {first.name}: give both power_mode: {mode}"
