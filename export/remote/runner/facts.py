"""What a device says of itself."""

from __future__ import annotations

import importlib
import importlib.util
import os
import pkgutil
import platform
import sys
from pathlib import Path
from typing import Any

import export.sessions
from export.host import board, boot_id, host_facts, usable_cpus
from export.instruction_set import cpu_flags


def facts() -> dict[str, Any]:
    """Board, system, processor, memory, Python, and the runtimes that it has; null where it does not say."""
    found, broken = runtimes()
    return {
        **host_facts(usable_cpus()),
        "board": board(),
        "hostname": platform.node(),
        "boot_id": boot_id(),
        "flags": sorted(cpu_flags()),
        "memory_mb": _memory_mb(),
        "python": platform.python_version(),
        "executable": sys.executable,
        "runtimes": found,
        "broken": broken,
        "l4t": read(Path("/etc/nv_tegra_release")),
        "process": os.getpid(),
    }


def machine() -> str:
    """What is another text on another machine, and after a restart."""
    return f"{platform.node()} {boot_id() or 'unknown'}"[:500]


def runtimes() -> tuple[dict[str, str], dict[str, str]]:
    """By the word of its backend, the version of each runtime that this Python has, and why one cannot be used."""
    found, broken = {}, {}
    for each in pkgutil.iter_modules(export.sessions.__path__):
        try:
            found[each.name] = str(importlib.import_module("export.sessions." + each.name).version())
        except ModuleNotFoundError:
            # Not installed: what asks for it is told.
            continue
        except (Exception, SystemExit) as error:  # noqa: BLE001  # Another numpy, too little memory, a missing library, ...
            broken[each.name] = " ".join(f"{type(error).__name__}: {error}".split())[:300]
    return found, broken


def read(path: Path) -> str | None:
    """A file of the kernel's, without the zero byte that it may end with; None where it says nothing."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip("\0\n ") or None
    except OSError:
        return None


def _memory_mb() -> int | None:
    lines = (read(Path("/proc/meminfo")) or "").splitlines()
    found = next((line.split() for line in lines if line.startswith("MemTotal:")), None)
    return round(int(found[1]) * 1024 / 1e6) if found else None
