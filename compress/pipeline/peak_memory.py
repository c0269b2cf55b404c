"""Peak memory of an artifact: what a fresh process needs that does nothing but load and run it."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

import numpy as np

from compress.errors import SurroundingsError
from compress.storage.backends import backend_for
from export.artifact import Artifact, Port
from export.device import Device
from export.registry import find_device

Command = list[str]
"""A program and its arguments."""


def command(word: str, artifact: Artifact, device: Device, threads: int) -> Command:
    """The program that loads the artifact, infers three times and prints its peak resident memory in MB.

    The runtime's own libraries and Python count: the device holds them too.
    """
    record = {**asdict(artifact), "path": str(artifact.path)}
    return [sys.executable, "-m", "compress.pipeline.peak_memory", word, device.name, str(threads), json.dumps(record)]


@dataclass(frozen=True, kw_only=True)
class Ended:
    """A process that is over."""

    said: str
    complaint: str
    code: int


class PeakMemory:
    """Peak memory of artifacts by name, each found in a process of its own while this one does something else.

    What runs beside changes how long a process takes, not how much memory it needs. Each is started, not forked: a
    fork would count what its parent had loaded, and leave out what both share.
    """

    def __init__(self, at_once: int = 2) -> None:
        """Run no more than so many at once."""
        self._at_once = at_once
        self._waiting: dict[str, Command] = {}
        self._begun: dict[str, subprocess.Popen[str]] = {}
        self._ended: dict[str, Ended] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def ahead(self, name: str, given: Command) -> None:
        """Find this peak out as soon as there is room, unless it is known or asked for already."""
        if name not in {*self._begun, *self._ended}:
            self._waiting.setdefault(name, given)
        self._go_on()

    def settle(self) -> None:
        """Wait until all that were asked for ahead are known, before something begins that they would slow down."""
        for name in [*self._begun, *self._waiting]:
            self._end(name)

    def mb(self, name: str) -> float:
        """The peak in MB, rounded to 10, since it varies by a few from run to run; waits for it.

        Raises:
            SurroundingsError: if the process died, as one does that gets no more memory.
        """
        self._end(name)
        ended = self._ended.pop(name)
        if ended.code != 0:
            lines = ended.complaint.strip().splitlines() or [f"exit {ended.code}"]
            raise SurroundingsError(f"{name}: the process that measures its memory died ({lines[-1][:200]})")
        return float(ended.said)

    def close(self) -> None:
        """End what runs and forget what waits; what was not asked for until now is not needed."""
        self._waiting.clear()
        while self._begun:
            _, process = self._begun.popitem()
            process.kill()
            process.communicate()

    def _end(self, name: str) -> None:
        if name in self._waiting:
            self._begin(name)
        if name in self._begun:
            process = self._begun[name]
            said, complaint = process.communicate()
            del self._begun[name]
            self._ended[name] = Ended(said=said, complaint=complaint, code=process.returncode)
            self._go_on()

    def _go_on(self) -> None:
        running = sum(process.poll() is None for process in self._begun.values())
        for name in list(self._waiting)[: max(0, self._at_once - running)]:
            self._begin(name)

    def _begin(self, name: str) -> None:
        given = self._waiting.pop(name)
        self._begun[name] = subprocess.Popen(given, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


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
