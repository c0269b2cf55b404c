"""A graphics card by NVML, the driver's own library: its power, its energy so far, temperature, clocks, what slows it.

By its C interface, which stays compatible from driver to driver where what nvidia-smi prints does not (its manual). It
is read in microseconds (NVML API reference guide: device queries, clocks event reasons, violation status).
"""

from __future__ import annotations

import ctypes
from functools import lru_cache
from pathlib import Path
from typing import Any, Callable

from export.remote.runner.sysfs import ROOT

LIBRARIES = ("libnvidia-ml.so.1", "libcuda.so.1")
"""NVML, and the driver, which says which of several cards is the one that computes."""
SM, CORE = 1, 0
"""The clock of the streaming multiprocessors, and the sensor on the chip."""
REASONS = {
    0x04: "power cap",
    0x08: "hardware slowdown",
    0x20: "software thermal slowdown",
    0x40: "hardware thermal slowdown",
    0x80: "power brake",
}
"""Bits of the current clocks event (throttle) reasons that take speed away; idleness and set clocks do not."""
POLICIES = {0: "power cap", 1: "thermal limit", 3: "board limit", 5: "reliability voltage"}
"""For how long each held the clocks down so far; multi-card synchronization and low utilization are left out."""


class _Violation(ctypes.Structure):
    _fields_ = (("reference_time", ctypes.c_ulonglong), ("violation_time", ctypes.c_ulonglong))


class Card:
    """One card; what it does not tell is None, or left out."""

    def __init__(self, library: Any, handle: ctypes.c_void_p) -> None:
        self._library, self._handle = library, handle

    def watts(self) -> float | None:
        """Its power now; some cards tell the mean over a second."""
        read = self._read("nvmlDeviceGetPowerUsage", ctypes.c_uint())
        return None if read is None else read.value / 1000

    def joules(self) -> float | None:
        """Its energy since the driver was loaded; Volta and newer."""
        read = self._read("nvmlDeviceGetTotalEnergyConsumption", ctypes.c_ulonglong())
        return None if read is None else read.value / 1000

    def celsius(self) -> float | None:
        """The temperature of its chip."""
        read = self._read("nvmlDeviceGetTemperature", ctypes.c_uint(), CORE)
        return None if read is None else float(read.value)

    def megahertz(self) -> float | None:
        """The clock of its multiprocessors."""
        read = self._read("nvmlDeviceGetClockInfo", ctypes.c_uint(), SM)
        return None if read is None else float(read.value)

    def most_megahertz(self) -> float | None:
        """The highest that this clock may be."""
        read = self._read("nvmlDeviceGetMaxClockInfo", ctypes.c_uint(), SM)
        return None if read is None else float(read.value)

    def slowed(self) -> dict[str, int]:
        """What slows it now, each 0 or 1; empty where it does not say."""
        read = self._read("nvmlDeviceGetCurrentClocksThrottleReasons", ctypes.c_ulonglong())
        return {} if read is None else {f"card: {name}": int(bool(read.value & bit)) for bit, name in REASONS.items()}

    def slowed_so_far(self) -> dict[str, int]:
        """Nanoseconds for which its clocks were held down; empty where it does not count."""
        read = {
            f"card: {name}": self._read("nvmlDeviceGetViolationStatus", _Violation(), policy)
            for policy, name in POLICIES.items()
        }
        return {name: int(each.violation_time) for name, each in read.items() if each is not None}

    def _read(self, function: str, into: Any, *given: int) -> Any:
        """What a function gives; None where this card or this driver does not know it."""
        call: Callable[..., int] | None = getattr(self._library, function, None)
        if call is None or call(self._handle, *map(ctypes.c_int, given), ctypes.byref(into)) != 0:
            return None
        return into


def card(kind: str, root: Path = ROOT) -> Card | None:
    """The card that computes; None where a CPU does, where the root is another machine's, or without NVML."""
    return _found() if kind == "cuda" and root == ROOT else None


@lru_cache(maxsize=1)
def _found() -> Card | None:
    """The first device of CUDA, by its place on the bus: NVML counts in another order."""
    try:
        nvml, cuda = (ctypes.CDLL(name) for name in LIBRARIES)
    except OSError:
        return None
    place = ctypes.create_string_buffer(32)
    device, handle = ctypes.c_int(), ctypes.c_void_p()
    asked = (
        lambda: cuda.cuInit(0),
        lambda: cuda.cuDeviceGet(ctypes.byref(device), 0),
        lambda: cuda.cuDeviceGetPCIBusId(place, len(place), device),
        nvml.nvmlInit_v2,
        lambda: nvml.nvmlDeviceGetHandleByPciBusId_v2(place, ctypes.byref(handle)),
    )
    return Card(nvml, handle) if all(call() == 0 for call in asked) else None
