"""What an artifact runs on."""

from __future__ import annotations

import ctypes
import os
from dataclasses import dataclass
from typing import Literal

from export.errors import NotHere
from export.instruction_set import instruction_set

Kind = Literal["cpu", "cuda", "remote"]


@dataclass(frozen=True, kw_only=True)
class Device:
    """Where a runtime runs, and what is known of it without measuring."""

    name: str
    title: str
    """How people call it."""
    kind: Kind
    backends: tuple[str, ...]
    """The runtimes worth building for it: files of export/backends/."""
    compute_capability: str | None = None
    """Of an NVIDIA GPU, such as "8.6"; None takes that of the GPU in this host."""
    exact_sums: bool = False
    """Whether it is known to add products in 32 bits (AVX-512 VNNI, AMX). Where it is not, weights are made so that
    16 bits suffice, since an artifact for a CPU may run on any."""

    def check_here(self) -> None:
        """Whether this host is or has the device.

        Raises:
            NotHere: with the reason, as a report prints it.
        """
        if self.kind == "remote":
            raise NotHere(f"{self.title} is another machine, and it was not reached from here")
        if self.kind == "cpu" and self.exact_sums and not (known := instruction_set()).exact_sums:
            raise NotHere(f"this host's CPU has neither AVX-512 VNNI nor AMX: it is {known.title}")
        if self.kind == "cuda":
            capabilities = cuda_capabilities()
            if not capabilities:
                raise NotHere("no NVIDIA driver")
            if self.compute_capability is not None and self.compute_capability not in capabilities:
                raise NotHere(
                    f"this host's GPU has compute capability {capabilities[0]}, not {self.compute_capability}"
                )


def usable_cpus() -> int:
    """The CPUs this process may run on, which can be fewer than the host has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cuda_capabilities() -> list[str]:
    """The compute capability of every NVIDIA GPU the driver offers; empty without a driver."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return []
    if driver.cuInit(0) != 0:
        return []
    count = ctypes.c_int()
    if driver.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return []
    found = []
    for index in range(count.value):
        parts = []
        for attribute in (75, 76):  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR
            value = ctypes.c_int()
            driver.cuDeviceGetAttribute(ctypes.byref(value), attribute, index)
            parts.append(str(value.value))
        found.append(".".join(parts))
    return found
