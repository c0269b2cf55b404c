"""The instruction sets that decide how a CPU multiplies 8-bit integers, and which of them this host has."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Collection


@dataclass(frozen=True)
class InstructionSet:
    """What a CPU multiplies integers with."""

    name: str
    """As /proc/cpuinfo calls the flag that shows it."""
    title: str
    """As people call it."""
    exact_sums: bool
    """Whether every runtime adds products in 32 bits; else some add those of a pair in 16, and cut large sums off."""


X86 = (
    InstructionSet(name="amx_int8", title="AMX", exact_sums=True),
    InstructionSet(name="avx512_vnni", title="AVX-512 with VNNI", exact_sums=True),
    # ONNX Runtime's sums are exact on it; OpenVINO (2026.4) runs grouped convolutions as on AVX2.
    InstructionSet(name="avx_vnni", title="AVX2 with VNNI", exact_sums=False),
    InstructionSet(name="avx512bw", title="AVX-512 without VNNI", exact_sums=False),
    InstructionSet(name="avx2", title="AVX2 without VNNI", exact_sums=False),
)
"""The widest first, which is the one that runtimes take."""
ARM = (
    InstructionSet(name="i8mm", title="Arm with i8mm", exact_sums=False),
    InstructionSet(name="asimddp", title="Arm with dot product", exact_sums=False),
    InstructionSet(name="asimd", title="Arm without dot product", exact_sums=False),
)
"""ONNX Runtime's kernels are exact there for weights from -127 (read from its source, not run); OpenVINO's are not
known, so that only what is proven of the weights counts."""
UNKNOWN = InstructionSet(name="unknown", title="an unknown instruction set", exact_sums=False)


@lru_cache(maxsize=None)
def instruction_set() -> InstructionSet:
    """The one that this host's runtimes take for integers."""
    return widest(cpu_flags())


def cpu_flags() -> frozenset[str]:
    """What the first CPU can do, as the kernel tells it; empty where it does not."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    found = next((line for line in lines if line.lower().startswith(("flags", "features"))), "")
    return frozenset(found.partition(":")[2].split())


def widest(flags: Collection[str]) -> InstructionSet:
    """The one that runtimes take for integers on a CPU with these flags."""
    return next((known for known in (*X86, *ARM) if known.name in flags), UNKNOWN)


def family(machine: str | None = None) -> tuple[InstructionSet, ...]:
    """Every instruction set of the family of a machine such as "aarch64"; None is this host."""
    return ARM if (machine or platform.machine()) in ("aarch64", "arm64") else X86
