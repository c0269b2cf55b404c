"""`compress doctor`: what this machine is, what each runtime can do on it, and how to install what is missing."""

from __future__ import annotations

import platform
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, metadata, requires, version
from pathlib import Path
from typing import Any

from export.backend import Backend, Profiler
from export.device import Device, cuda_capabilities
from export.devices.cpu import CPU
from export.devices.cuda import CUDA
from export.engines.cuda import gpu_name
from export.errors import MissingExtra, NotHere
from export.host import board, host_facts, usable_cpus
from export.instruction_set import InstructionSet, cpu_flags, instruction_set
from export.registry import find_backend, words

OURS = ("dev", "benchmarks")
"""Extras of those who work on segpress."""
NVIDIA = Path("/proc/driver/nvidia/version")


@dataclass(frozen=True, kw_only=True)
class Ability:
    """What one runtime can do on one processor of this machine."""

    backend: str
    device: str
    version: str | None
    builds: bool
    runs: bool
    times_layers: bool
    precisions: tuple[str, ...]
    """What it computes in here."""
    why: str | None = None
    """Why it does not run."""
    install: str | None = None


@dataclass(frozen=True, kw_only=True)
class Checkup:
    """What was found."""

    segpress: str
    python: str
    host: Mapping[str, Any]
    board: str | None
    integers: str
    """The instruction set that integers are multiplied with."""
    gpus: tuple[str, ...]
    driver: str | None
    abilities: tuple[Ability, ...]
    extras: Mapping[str, tuple[str, ...]]
    """The packages that each extra lacks."""

    def as_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return asdict(self)


def doctor() -> Checkup:
    """Look at this machine; nothing is measured, and no network is opened."""
    capabilities = cuda_capabilities()
    names = [gpu_name() or "NVIDIA GPU", *["NVIDIA GPU"] * (len(capabilities) - 1)]
    return Checkup(
        segpress=version("segpress"),
        python=platform.python_version(),
        host=host_facts(usable_cpus()),
        board=board(),
        integers=instruction_set().title,
        gpus=tuple(f"{name} ({capability})" for name, capability in zip(names, capabilities, strict=False)),
        driver=_driver(),
        abilities=tuple(_abilities(capabilities)),
        extras=_lacking(),
    )


def _abilities(capabilities: Sequence[str]) -> list[Ability]:
    found = []
    for word in words("export.backends"):
        backend = find_backend(word)
        for device in (CPU, CUDA):
            # What computes on GPUs alone is told of once, whether there is one or not.
            if device.kind in backend.runs_on and (device is CPU or capabilities or "cpu" not in backend.runs_on):
                found.append(_ability(word, backend, device, capabilities))
    return found


def _ability(word: str, backend: type[Backend], device: Device, capabilities: Sequence[str]) -> Ability:
    missing = _missing(backend)
    why = missing or _not_here(word, device)
    made = next((known for name in backend.libraries if (known := _version(name))), None)
    rtx = any("rtx" in name and _version(name) for name in backend.libraries)
    return Ability(
        backend=word,
        device=device.name,
        version=made,
        builds=missing is None and (not backend.builds_on_device or rtx or why is None),
        runs=why is None,
        times_layers=issubclass(backend, Profiler),
        precisions=() if why else precisions(word, device, cpu_flags(), capabilities, instruction_set()),
        why=None if why is None else why.partition(": pip")[0],
        install=None if missing is None or ": " not in missing else missing.partition(": ")[2],
    )


def _missing(backend: type[Backend]) -> str | None:
    try:
        backend.check_installed()
    except MissingExtra as error:
        return str(error)
    return None


def _not_here(word: str, device: Device) -> str | None:
    """Why a runtime that is installed does not compute on a device."""
    try:
        device.check_here()
    except NotHere as error:
        return str(error)
    if device.kind == "cpu":
        return None
    if word.startswith("onnxruntime"):
        from export.sessions import onnxruntime as sessions

        wanted = "CUDA" if word == "onnxruntime" else "TensorRT"
        if not any(provider.lower().startswith(wanted.lower()) for provider in sessions.providers()):
            return f"this ONNX Runtime has no {wanted} provider: pip install onnxruntime-gpu"
    if word == "torch" and "+cpu" in (_version("torch") or ""):
        return "this torch is built for CPUs alone: install another (pytorch.org/get-started)"
    return None


def precisions(
    word: str, device: Device, flags: frozenset[str], capabilities: Sequence[str], known: InstructionSet
) -> tuple[str, ...]:
    """What a runtime computes in on a processor; what is merely stored in fewer bits is left out (docs/half.md)."""
    if device.kind == "cuda":
        newest = max((tuple(map(int, each.split("."))) for each in capabilities), default=(0, 0))
        bfloat16 = ("bfloat16",) if newest >= (8, 0) else ()
        return ("float32",) if word == "torch" else ("float32", "float16", *bfloat16, "int8")
    integers = f"int8 ({known.title})"
    if word == "openvino":
        bfloat16 = ("bfloat16",) if flags & {"avx512_bf16", "amx_bf16"} else ()
        float16 = ("float16",) if flags & {"amx_fp16", "fphp"} else ()
        return ("float32", *float16, *bfloat16, integers)
    if word == "onnxruntime":
        return ("float32", integers)
    return {"onnxruntime_bits": ("1 bit", "float32"), "reference": ("whatever a file says, slowly",)}.get(
        word, ("float32",)
    )


def _driver() -> str | None:
    """The version of NVIDIA's kernel module; None where there is none."""
    try:
        text = NVIDIA.read_text(encoding="utf-8")
    except OSError:
        return None
    match = re.search(r"\b(\d{3,}\.\d+(?:\.\d+)?)\b", text)
    return match[1] if match else None


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _lacking() -> dict[str, tuple[str, ...]]:
    """The packages that are not installed, by the extra of ours that brings them."""
    found = {}
    for extra in metadata("segpress").get_all("Provides-Extra") or ():
        wanted = [line for line in requires("segpress") or () if re.search(rf"extra == ['\"]{extra}['\"]", line)]
        names = [re.split(r"[^\w.-]", line, maxsplit=1)[0] for line in wanted]
        lacking = tuple(name for name in names if name != "segpress" and _version(name) is None)
        if lacking and extra not in OURS:
            found[extra] = lacking
    return found
