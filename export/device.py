"""What an artifact runs on."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass, field, replace
from typing import Literal

from export.errors import NotHere
from export.floor import Peaks
from export.host import board
from export.instruction_set import instruction_set
from export.reach import DLA, Reach, word_of

Kind = Literal["cpu", "cuda", "dla"]


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
    model: str | None = None
    """How the board names itself in /proc/device-tree/model, or part of that; None: it is told by nothing."""
    dla_cores: int = 0
    """NVIDIA Deep Learning Accelerators beside its GPU."""
    memory_gb: float | None = None
    """What tells it from others of its model; None where they are alike, or not known."""
    peaks: Peaks | None = None
    """What its vendor publishes of its speed; None: nothing that holds for all that are called so."""
    reach: Reach = field(default_factory=Reach)
    """How it is reached; this host is, unless a recipe says otherwise."""
    exact_sums: bool = False
    """Whether it is known to add products in 32 bits (AVX-512 VNNI, AMX). Where it is not, weights are made so that
    16 bits suffice, since an artifact for a CPU may run on any."""

    @property
    def word(self) -> str:
        """The name of its file, without where it is and which part of it computes."""
        return word_of(self.name)

    def reached(self, reach: Reach) -> Device:
        """This device where a recipe says that it is."""
        name, title, kind = self.word, self.title, self.kind
        if reach.at is not None:
            name, title = f"{name}@{reach.at}", f"{title} at {reach.at}"
        if reach.dla is not None:
            name, title, kind = f"{name}{DLA}{reach.dla}", f"{title}, DLA core {reach.dla}", "dla"
        return replace(self, name=name, title=title, kind=kind, reach=reach)

    def fault_of(self, reach: Reach) -> str | None:
        """Why it cannot be reached and set so; None if it can."""
        if reach.dla is None or reach.dla < self.dla_cores:
            return None
        cores = ", ".join(map(str, range(self.dla_cores)))
        return f"dla: {self.title} has {f'the DLA cores {cores}' if cores else 'no DLA core; leave it out'}"

    @property
    def processor(self) -> str:
        """What a runtime is told to compute on: "cpu", "cuda", or a DLA core, as "dla0"."""
        return f"dla{self.reach.dla}" if self.kind == "dla" else self.kind

    def has_memory(self, memory_mb: int | None) -> bool:
        """Whether a board that has so much memory can be this one: a system takes a part of it for itself."""
        if self.memory_gb is None or memory_mb is None:
            return True
        return 0.6 * self.memory_gb < memory_mb / 1000 < 1.1 * self.memory_gb

    def check_here(self) -> None:
        """Whether this host is or has the device.

        Raises:
            NotHere: with the reason, as a report prints it.
        """
        if self.model is not None and self.model not in (board() or ""):
            raise NotHere(
                f"{self.title} is another machine; say how it is reached: {self.word}: {{at: HOST}} in a recipe, "
                f"--device {self.word}@HOST elsewhere"
            )
        if self.kind == "cpu" and self.exact_sums and not (known := instruction_set()).exact_sums:
            raise NotHere(f"this host's CPU has neither AVX-512 VNNI nor AMX: it is {known.title}")
        if self.kind != "cpu":
            capabilities = cuda_capabilities()
            if not capabilities:
                raise NotHere("no NVIDIA driver")
            if self.compute_capability is not None and self.compute_capability not in capabilities:
                raise NotHere(
                    f"this host's GPU has compute capability {capabilities[0]}, not {self.compute_capability}"
                )


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
