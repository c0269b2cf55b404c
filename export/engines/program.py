"""trtexec, where TensorRT has it and no Python module: found, asked for its version, and run."""

from __future__ import annotations

import shutil
import signal
import subprocess
import tempfile
from functools import lru_cache
from pathlib import Path
from typing import Any, Sequence

from export.engines import dla, layers, trtexec
from export.engines.wanted import Built, Wanted, narrowed, precision_flags, target_flags
from export.errors import BackendError, NotHere

FOLDERS = ("/usr/src/tensorrt/bin", "/opt/tensorrt/bin", "/usr/local/tensorrt/bin")
"""Where JetPack and NVIDIA's containers have it, which is in nobody's PATH."""


def found() -> str | None:
    """Where it is."""
    return shutil.which("trtexec") or next(
        (each for folder in FOLDERS if (each := shutil.which("trtexec", path=folder))), None
    )


@lru_cache(maxsize=None)
def version(program: str) -> tuple[int, ...]:
    """That of its TensorRT, by the banner that it prints before anything else.

    Raises:
        BackendError: if it prints none.
    """
    done = subprocess.run([program, "--help"], check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    told = trtexec.version_in(done.stdout) or _version_of_library()
    if told is None:
        raise BackendError(f"{program} does not say of which TensorRT it is")
    return told


def built(program: str, onnx: Path, wanted: Wanted, timing_cache: Path | None) -> Built:
    """The engine of an ONNX file.

    Raises:
        BackendError: with the node that is refused and the reason, as trtexec's log has them.
        NotHere: if its TensorRT has no DLA, and one is wanted.
    """
    of = version(program)
    if wanted.dla is not None and (fault := dla.fault(of)):
        raise NotHere(fault)
    if fault := narrowed(of, wanted):
        raise BackendError(fault)
    with tempfile.TemporaryDirectory() as scratch:
        engine, told = Path(scratch) / "engine", Path(scratch) / "layers.json"
        command = trtexec.build_command(program, of, onnx, engine, wanted, timing_cache, told)
        code, log = ran(command)
        if code == -signal.SIGKILL:
            raise BackendError(f"trtexec was killed while it built {onnx.name}, most likely for want of memory")
        if code != 0 or not engine.is_file():
            raise BackendError(f"TensorRT {_text(of)} refuses {onnx.name}: {trtexec.refusal_in(log)}")
        made = {
            "tensorrt": _text(of),
            "flags": {**precision_flags(of, wanted), **target_flags(wanted)},
            "built_by": "trtexec",
            "command": [_plain(part, Path(scratch), onnx, timing_cache) for part in command],
            "executed": layers.executed(layers.layers_of(_read(told))),
            "trtexec": timed(program, engine, wanted),
        }
        fell_back = {} if wanted.dla is None else {"fallback": dla.fallback(log)}
        return Built(engine=engine.read_bytes(), log=log, made={**made, **fell_back})


def timed(program: str, engine: Path, wanted: Wanted) -> dict[str, Any]:
    """How long trtexec says that inferences take: medians in milliseconds, how many there were, and its warnings."""
    times, profile = engine.with_name("times.json"), engine.with_name("profile.json")
    code, log = ran(trtexec.time_command(program, version(program), engine, times, profile, wanted))
    if code != 0:
        return {"not_timed": trtexec.refusal_in(log)}
    try:
        told = trtexec.times_in(_read(times))
    except ValueError as error:
        return {"not_timed": f"--exportTimes: {error}"}
    slowest = sorted(trtexec.profile_in(_read(profile)), key=lambda each: -each[1])[:5]
    return {
        "latency_ms": _median(told.latency),
        "compute_ms": _median(told.compute),
        "n": len(told.latency),
        "warnings": trtexec.warnings_in(log),
        "slowest_layers": dict(slowest),
    }


def ran(command: Sequence[str]) -> tuple[int, list[str]]:
    """Its exit code and what it printed, a line each."""
    process = subprocess.Popen(
        list(command), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, universal_newlines=True, errors="replace"
    )
    out, _ = process.communicate()
    return process.returncode, out.splitlines()


def _version_of_library() -> tuple[int, ...] | None:
    """That of the library, by its file's name."""
    folders = ("/usr/lib/aarch64-linux-gnu", "/usr/lib/x86_64-linux-gnu", "/opt/tensorrt/lib")
    names = (str(path) for folder in folders for path in sorted(Path(folder).glob("libnvinfer.so.*.*.*")))
    return next((told for told in map(trtexec.version_in, names) if told), None)


def _plain(part: str, scratch: Path, onnx: Path, timing_cache: Path | None) -> str:
    """A part of the command without the folders of the machine that it ran on."""
    for path in (onnx, timing_cache):
        part = part if path is None else part.replace(str(path), path.name)
    return part.replace(str(scratch), ".")


def _text(version: Sequence[int]) -> str:
    return ".".join(map(str, version))


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""


def _median(values: Sequence[float]) -> float:
    return round(sorted(values)[len(values) // 2], 6)
