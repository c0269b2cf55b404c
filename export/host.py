"""This machine: what it is, how busy, and what this process took of it (Python 3.8: devices are asked it too)."""

from __future__ import annotations

import os
import platform
import resource
import statistics
import time
from pathlib import Path
from typing import Any

from export.instruction_set import cpu_flags


def usable_cpus() -> int:
    """The CPUs this process may run on, which can be fewer than the host has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def host_facts(threads: int) -> dict[str, Any]:
    """What a reader must know of it to compare times; `threads` are those that every runtime was given."""
    return {
        "cpu": _cpu_name(),
        "cpus": usable_cpus(),
        "threads": threads,
        "os": f"{platform.system()} {platform.release()}",
        "machine": platform.machine(),
        "isa": _instruction_sets(),
    }


def conditions() -> dict[str, Any]:
    """What the host is like now: the first CPU's clock and governor, temperature, load; null where it does not say."""
    cpu = Path("/sys/devices/system/cpu/cpu0/cpufreq")
    return {
        "clock_mhz": _thousandths(cpu / "scaling_cur_freq"),
        "governor": _read(cpu / "scaling_governor"),
        "temperature_c": _thousandths(Path("/sys/class/thermal/thermal_zone0/temp")),
        "load": round(os.getloadavg()[0], 2),
    }


def is_shared(cpus: int) -> bool:
    """Whether others want these CPUs just now; True where the host does not say (/proc/loadavg, proc(5))."""
    counts = []
    for _ in range(5):
        # "0.20 0.18 0.12 1/80 11206": of 80 threads one can run, which is this one.
        words = (_read(Path("/proc/loadavg")) or "").split()
        if len(words) < 4:
            return True
        counts.append(int(words[3].partition("/")[0]) - 1)
        time.sleep(0.004)
    return statistics.median(counts) > cpus // 8


def boot_id() -> str | None:
    """What tells one running machine from every other, whatever they are called; None where the kernel says none."""
    return _read(Path("/proc/sys/kernel/random/boot_id"))


def board() -> str | None:
    """What a board such as a Jetson or a Raspberry Pi calls itself; None where there is no device tree."""
    told = _read(Path("/proc/device-tree/model"))
    return told.strip("\0") if told else None


def peak_mb() -> int:
    """The most memory that this process held, in MB, rounded to 10, since a peak varies by a few from run to run."""
    status = Path("/proc/self/status")
    if status.exists():
        # getrusage would count what its parent held when it started it.
        (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        kb = int(line.split()[1])
    else:
        kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(kb * 1024 / 1e7) * 10


def _cpu_name() -> str:
    return next((line.split(":", 1)[1].strip() for line in _cpuinfo() if line.startswith("model name")), "unknown")


def _instruction_sets() -> list[str]:
    """Those that decide how fast integers are."""
    flags = cpu_flags()
    known = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_bf16", "amx_int8", "asimddp", "i8mm")
    return [name for name in known if name in flags]


def _cpuinfo() -> list[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.exists() else []


def _thousandths(path: Path) -> float | None:
    text = _read(path)
    # Some kernels say "<unknown>" where others give a number.
    return int(text) / 1000 if text and text.lstrip("-").isdigit() else None


def _read(path: Path) -> str | None:
    try:
        return path.read_text().strip() or None
    except OSError:
        return None
