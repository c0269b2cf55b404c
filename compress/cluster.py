"""Work that is done at once in several processes, by Ray: on this machine, or on a cluster by its address."""

from __future__ import annotations

import fcntl
import logging
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from compress.errors import MissingExtra, SurroundingsError
from export.errors import first_line
from export.files import make_folder
from export.host import usable_cpus

Given = TypeVar("Given")
Made = TypeVar("Made")
Each = Callable[[Callable[[Any], Any], Sequence[Any]], list[Any]]
"""Does the same work for each of several things at once; None for those whose process died."""


@dataclass(frozen=True, kw_only=True)
class Workers:
    """Processes that work at once."""

    count: int = 1
    address: str | None = None
    """Of a Ray cluster that is there; None: this machine."""

    @property
    def threads(self) -> int:
        """Of each: the CPUs of this machine, divided."""
        return max(1, usable_cpus() // self.count)

    @property
    def are_one(self) -> bool:
        """Whether this process does everything by itself."""
        return self.count == 1 and self.address is None


@contextmanager
def opened(workers: Workers, log: Callable[[str], None]) -> Iterator[Each]:
    """The processes, which are ended with it; where this one is all, what is to be done is done in it.

    Raises:
        MissingExtra: if Ray is needed and not installed.
        SurroundingsError: if the cluster is not reached.
    """
    if workers.are_one:
        yield lambda work, given: [work(each) for each in given]
        return
    ray = _begun(workers)

    def at_once(work: Callable[[Any], Any], given: Sequence[Any]) -> list[Any]:
        task = ray.remote(num_cpus=1, max_retries=0)(work)
        begun = [task.remote(each) for each in given]
        return [_taken(ray, each, log) for each in begun]

    try:
        yield at_once
    finally:
        ray.shutdown()


def _begun(workers: Workers) -> Any:
    # Ray tells its makers of its use otherwise.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError:
        raise MissingExtra("ray", "cluster") from None
    cpus = None if workers.address else workers.count
    stop = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(
            # A cluster that somebody has begun on this machine is theirs: without a word Ray would join it.
            address=workers.address or "local",
            num_cpus=cpus,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        where = f"--cluster {workers.address}" if workers.address else "--workers"
        raise SurroundingsError(f"{where}: Ray did not begin ({first_line(error, 160)})") from None
    # Ray would end the process where a command stops as it does by Ctrl-C.
    signal.signal(signal.SIGTERM, stop)
    return ray


def _taken(ray: Any, begun: Any, log: Callable[[str], None]) -> Any:
    """What came of it; None where its process died, as one does that gets no more memory."""
    try:
        return ray.get(begun)
    except ray.exceptions.RayTaskError as error:
        # Its own text has a trace in it.
        raise error.cause from None
    except (ray.exceptions.WorkerCrashedError, ray.exceptions.OutOfMemoryError) as error:
        log(f"a worker died ({first_line(error, 160)}): what it did is done here; fewer --workers need less memory")
        return None


@contextmanager
def alone(folder: Path, name: str) -> Iterator[None]:
    """While open, no other process has the same name of this folder open; one that wants it waits."""
    with (make_folder(folder) / f"{name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
