"""Networks written as ONNX files ahead of when they are asked for, in a process beside the one that runs passes.

An export is Python in one thread, and half of the first one is reading torch's exporter: where a core is free, both
cost a run no time. Whatever the process does not do, is done when the file is asked for.
"""

from __future__ import annotations

import select
import shutil
import subprocess
import sys
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Self

from compress.pipeline.beside import give_way
from export.artifact import Artifact
from export.errors import BackendError
from export.files import write_bytes

if TYPE_CHECKING:
    from compress.pipeline.exporting import Order

LARGEST_MB = 256
"""Of a network's file: beyond it a second process that holds the network too may be one too many."""

PATIENCE_S = 60.0
"""For the process's next answer: it has the last place in the line for the CPUs, and others may have come."""


class ExportsAhead:
    """What is ordered is written in a process of its own, in turn, and taken where it is wanted.

    Begun early, the process has read torch's exporter by the time of the first order.
    """

    def __init__(self) -> None:
        self._folder: Path | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._ordered: deque[Path] = deque()
        self._written: set[Path] = set()

    def begin(self) -> Self:
        """Start the process; without one, nothing is written ahead."""
        # In a group of its own: what Ctrl-C stops is the run, which then ends this one.
        self._process = subprocess.Popen(
            [sys.executable, "-m", "compress.pipeline.exporting"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            process_group=0,
            # Nothing of its answers is read ahead, so that it can be told whether there is one.
            bufsize=0,
        )
        give_way(self._process)
        return self

    @contextmanager
    def into(self, folder: Path) -> Iterator[Self]:
        """While open, orders are written into this folder, which is removed at the beginning and at the end."""
        shutil.rmtree(folder, ignore_errors=True)
        self._folder = folder
        try:
            yield self
        finally:
            self.end()
            shutil.rmtree(folder, ignore_errors=True)
            self._folder = None

    def takes(self, net: Path) -> bool:
        """Whether there is a process beside, and a saved network is none of those that it would be one too many for."""
        return self._process is not None and net.stat().st_size <= LARGEST_MB * 1e6

    def order(self, order: Order) -> None:
        """Have a file written; it is ordered by the path where it will be wanted."""
        if order.to in self._ordered or not self.takes(order.net):
            return
        self._ordered.append(order.to)
        self._send(replace(order, to=self._beside(order.to)).line())

    def take(self, path: Path) -> Artifact | None:
        """The file that was ordered, moved to where it is wanted; None if it was not, or was not written."""
        while path in self._ordered:
            written = self._ordered.popleft()
            if self._answer() == b"true\n":
                self._written.add(written)
        if path not in self._written:
            return None
        self._written.remove(path)
        beside = self._beside(path)
        try:
            artifact = Artifact.read(beside)
            artifact.verify()
        except BackendError:
            return None
        write_bytes(path, beside.read_bytes())
        return replace(artifact, path=path).sealed()

    def end(self) -> None:
        """End the process and forget what was ordered; nothing is written ahead any more."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None
        self._ordered.clear()
        self._written.clear()

    def _beside(self, path: Path) -> Path:
        assert self._folder is not None
        return self._folder / path.parent.name / path.name

    def _send(self, line: str) -> None:
        assert self._process is not None and self._process.stdin is not None
        # Where it is gone, it says so when it is asked for the file.
        with suppress(BrokenPipeError):
            self._process.stdin.write(f"{line}\n".encode())

    def _answer(self) -> bytes:
        """What it says of the next file; nothing where it is gone, or is ended because others take all CPUs."""
        if self._process is None or self._process.stdout is None:
            return b""
        told, _, _ = select.select([self._process.stdout], [], [], PATIENCE_S)
        if not told:
            self.end()
        return self._process.stdout.readline() if told and self._process is not None else b""
