"""Peak memory of an artifact: what a fresh process needs that does nothing but load and run it."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import numpy as np

from compress.errors import SurroundingsError
from export.artifact import Artifact, Backend, Port
from export.device import Device, find_device, named


def backend_for(word: str, device: Device, threads: int) -> Backend:
    """The backend of this word on this device; torch's is told how we load a network."""
    kind = named("export.backends", word)
    if word == "torch":
        from compress.weights import load_net

        return kind(device=device, threads=threads, load=load_net)
    return kind(device=device, threads=threads)


@contextmanager
def peak_memory(word: str, artifact: Artifact, device: Device, threads: int) -> Iterator[Callable[[], float]]:
    """Peak resident memory, in MB, of a process that loads the artifact and infers three times.

    It runs while this one does something else; what is given waits for it and tells. Memory does not depend on
    what runs beside, as time does. Started, not forked: a fork would count what its parent had loaded, and
    leave out what it shares. The runtime's own libraries and Python count: the device holds them too. Rounded to
    10 MB, since it varies by a few from run to run.

    Raises:
        SurroundingsError: when asked, if that process died, as one does that gets no more memory.
    """
    record = {**asdict(artifact), "path": str(artifact.path)}
    command = [sys.executable, "-m", "compress.peak_memory", word, device.name, str(threads), json.dumps(record)]

    def told() -> float:
        said, complaint = process.communicate()
        if process.returncode != 0:
            lines = complaint.strip().splitlines() or [f"exit {process.returncode}"]
            raise SurroundingsError(f"{artifact.path}: the process that measures its memory died ({lines[-1][:200]})")
        return float(said)

    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield told
        finally:
            process.kill()


def _main(word: str, device: str, threads: str, record: str) -> None:
    given = json.loads(record)
    shape = tuple(1 if axis == -1 else axis for axis in given["input"]["shape"])
    artifact = Artifact(
        path=Path(given["path"]),
        format=given["format"],
        input=Port(name=given["input"]["name"], shape=shape, dtype=given["input"]["dtype"]),
        output=Port(**given["output"]),
        made=given["made"],
    )
    with backend_for(word, find_device(device), int(threads)).open(artifact) as infer:
        for _ in range(3):
            infer(np.zeros(shape, np.float32))
    print(round(_peak_kb() * 1024 / 1e7) * 10)


def _peak_kb() -> int:
    """This program's own peak: getrusage would count what its parent held when it started it."""
    status = Path("/proc/self/status")
    if not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1])


if __name__ == "__main__":
    _main(*sys.argv[1:])
