"""Peak memory of an artifact: what a fresh process needs that does nothing but load and run it."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np

from export.artifact import Artifact, Backend
from export.device import Device, find_device, named


def backend_for(word: str, device: Device, threads: int) -> Backend:
    """The backend of this word on this device; torch's is told how we load a network."""
    kind = named("export.backends", word)
    if word == "torch":
        from compress.weights import load_net

        return kind(device=device, threads=threads, load=load_net)
    return kind(device=device, threads=threads)


def peak_memory_mb(word: str, artifact: Artifact, device: Device, threads: int) -> float | None:
    """Peak resident memory, in MB, of a process that loads the artifact and infers three times.

    The runtime's own libraries and Python count: the device holds them too. Rounded to 10 MB, since
    it varies by a few from run to run. None if the process died, which no row takes for a number.
    """
    command = [sys.executable, "-m", "compress.peak_memory", word, device.name, str(threads), str(artifact.path)]
    done = subprocess.run([*command, json.dumps(artifact.input.shape)], capture_output=True, text=True, check=False)
    return float(done.stdout) if done.returncode == 0 else None


def _main(word: str, device: str, threads: str, path: str, shape: str) -> None:
    place = Path(path)
    size = [1 if axis == -1 else axis for axis in json.loads(shape)]
    backend = backend_for(word, find_device(device), int(threads))
    with backend.open(Artifact.read(place)) as infer:
        for _ in range(3):
            infer(np.zeros(size, np.float32))
    kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(round(kilobytes * 1024 / 1e7) * 10)


if __name__ == "__main__":
    _main(*sys.argv[1:])
