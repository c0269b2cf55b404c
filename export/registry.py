"""The folder is the registry: a word names a file, and in it the class or constant of that name."""

from __future__ import annotations

import importlib
import pkgutil
from typing import Any, cast

import pydantic

from export.backend import Backend
from export.device import Device
from export.reach import DLA, HERE, PYTHON, Reach


def words(package: str) -> list[str]:
    """The words a folder offers: its files. What they have in common lies in folders inside it."""
    folder = importlib.import_module(package)
    return sorted(module.name for module in pkgutil.iter_modules(folder.__path__) if not module.ispkg)


def named(package: str, word: str) -> Any:
    """The class or constant that bears the name of its file: backends/onnxruntime.py has OnnxRuntime.

    Capitals and underscores do not count. The word must be one of `words(package)`.
    """
    module = importlib.import_module(f"{package}.{word}")
    plain = word.replace("_", "")
    (one,) = (
        value
        for name, value in vars(module).items()
        if name.replace("_", "").lower() == plain
        and ((isinstance(value, type) and value.__module__ == module.__name__) or isinstance(value, Device))
    )
    return one


def find_device(word: str, python: str = PYTHON) -> Device:
    """The constant in export/devices/`word`.py; with a host behind it, as in `cpu@tower-7`, the device at that host.

    `cpu@here` is this host's; with a DLA core behind it, as in `agx_orin@tower-7+dla0`, it is that core of it.

    Args:
        python: the Python at that host which has the runtimes.

    Raises:
        ValueError: if that is no host as `Reach.at` may name one, or the device has no such core.
    """
    place, dla, core = word.partition(DLA)
    plain, at, host = place.partition("@")
    device = named("export.devices", plain)
    assert isinstance(device, Device)
    elsewhere = bool(at) and host != HERE
    if not elsewhere and not dla:
        return device
    if dla and not core.isdecimal():
        raise ValueError(f"{word}: '{core}' is no number of a DLA core, such as {plain}{DLA}0")
    try:
        reach = Reach(at=host if elsewhere else None, python=python, dla=int(core) if dla else None)
    except pydantic.ValidationError as error:
        raise ValueError(f"{word}: {error.errors()[0]['msg'].removeprefix('Value error, ')}") from None
    if fault := device.fault_of(reach):
        raise ValueError(f"{word}: {fault}")
    return device.reached(reach)


def find_backend(word: str) -> type[Backend]:
    """The class in export/backends/`word`.py."""
    return cast(type[Backend], named("export.backends", word))


def backends_of(device: Device) -> list[str]:
    """The device's runtimes that compute on it, or those that a recipe names; a DLA core has fewer than its board."""
    return [word for word in device.reach.backends or device.backends if device.kind in find_backend(word).runs_on]


def fault_of_backends(device: Device) -> str | None:
    """Why the runtimes that a recipe names for a device are none of it; None where they are."""
    known = [word for word in words("export.backends") if device.kind in find_backend(word).runs_on]
    given = device.reach.backends or ()
    if device.reach.at is not None:
        # Nothing is installed there, and a module of torch is no file.
        known = [word for word in known if not find_backend(word).runs_modules]
    if wrong := [word for word in given if word not in known]:
        return f"backends: '{wrong[0]}' is no runtime that computes on {device.title}; there are {', '.join(known)}"
    twice = [word for word in given if given.count(word) > 1]
    return f"backends: '{twice[0]}' is given twice" if twice else None


def is_for_signs(word: str) -> bool:
    """Whether a runtime has something to do only where convolutions read signs, and is on this host alone."""
    return bool(getattr(find_backend(word), "for_signs", False))
