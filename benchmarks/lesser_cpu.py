"""Runs a program as on an x86 CPU without the newer instruction sets: the real kernels of that CPU, at native speed.

    python -m benchmarks.lesser_cpu avx2 compress run recipes/unet_int8.yaml

Needs Linux, a C compiler, and a processor that lets CPUID fault (Intel since Ivy Bridge, AMD since Zen 4). It shows
what a runtime answers and how fast its kernels of that instruction set are *on this CPU*; others have another clock.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from export.errors import NotHere
from export.instruction_set import cpu_flags

SOURCE = Path(__file__).with_suffix(".c")
CPUS = ("avx2", "avx512", "avx2_vnni", "avx512_vnni")


def environment(cpu: str) -> Mapping[str, str]:
    """The environment in which a program runs as on this CPU.

    Raises:
        NotHere: if this host cannot pretend it, with the reason.
    """
    needed = {"avx512": "avx512bw", "avx2_vnni": "avx_vnni"}.get(cpu, cpu)
    if needed not in cpu_flags():
        raise NotHere(f"this host has no {needed} itself")
    env = {**os.environ, "LD_PRELOAD": str(_library()), "LESSER_CPU": cpu}
    if subprocess.run([sys.executable, "-c", ""], env=env, check=False).returncode != 0:
        raise NotHere("this processor or kernel does not let CPUID fault")
    return env


@cache
def _library() -> Path:
    compiler = next((found for name in ("cc", "gcc", "clang") if (found := shutil.which(name))), None)
    if compiler is None:
        raise NotHere("there is no C compiler: cc, gcc or clang")
    library = Path(tempfile.mkdtemp(prefix="lesser_cpu_")) / "lesser_cpu.so"
    done = subprocess.run(
        [compiler, "-O2", "-shared", "-fPIC", str(SOURCE), "-o", str(library), "-ldl"],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise NotHere(f"{SOURCE.name} does not compile: {done.stderr.strip()[:200]}")
    return library


if __name__ == "__main__":
    if len(sys.argv) < 3 or sys.argv[1] not in CPUS:
        sys.exit(f"say which CPU ({', '.join(CPUS)}) and what to run")
    os.execvpe(sys.argv[2], sys.argv[2:], dict(environment(sys.argv[1])))
