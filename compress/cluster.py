"""Work that is done at once in several processes, by Ray: on this machine, or on a cluster by its address."""

from __future__ import annotations

import fcntl
import logging
import os
import platform
import resource
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from compress.cache import code_key
from compress.errors import MissingExtra, SurroundingsError
from export.errors import first_line
from export.files import make_folder
from export.host import usable_cpus

Each = Callable[[Callable[[Any], Any], Sequence[Any]], Iterable[Any]]
"""Does the same work for each of several things at once, and gives what came of them in their order; None for those
whose process died."""
PATIENCE_S = 20.0
"""With the head of a cluster that does not answer."""
Place = tuple[str, int]
"""A host and a port."""
SAME_VERSION = "has another version of segpress than this command, or none; install the same one on every machine"


@dataclass(frozen=True, kw_only=True)
class Workers:
    """Processes that work at once."""

    count: int = 1
    address: str | None = None
    """Of a Ray cluster that is there; None: this machine."""

    @property
    def are_one(self) -> bool:
        """Whether this process does everything by itself."""
        return self.count == 1 and self.address is None


ALONE = Workers()
"""This process does everything by itself."""


@dataclass(frozen=True, kw_only=True)
class Processes:
    """Processes that are there, and wait for work."""

    count: int = 1
    threads: int | None = None
    """Of each; None: this process is the only one, and has those that it has."""
    each: Each = field(default=lambda work, given: [work(one) for one in given])

    @property
    def are_one(self) -> bool:
        """Whether this process does everything by itself."""
        return self.threads is None


@contextmanager
def opened(workers: Workers, log: Callable[[str], None]) -> Iterator[Processes]:
    """The processes, which are ended with it; where this one is all, what is to be done is done in it.

    Raises:
        MissingExtra: if Ray is needed and not installed.
        SurroundingsError: if the cluster is not reached, has no CPU, or has another version of this program.
    """
    if workers.are_one:
        yield Processes()
        return
    ray = _begun(workers)
    try:
        yield _processes(ray, workers, log)
    finally:
        ray.shutdown()


def _processes(ray: Any, workers: Workers, log: Callable[[str], None]) -> Processes:
    threads, head = _threads(ray, workers), _place(ray.get_runtime_context().gcs_address)
    megabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
    where = f" on {workers.address}" if workers.address else ""
    log(
        f"{workers.count} workers{where} of {threads} threads each; each needs about {megabytes:,.0f} MB, as this "
        "process did so far"
    )

    def each(work: Callable[[Any], Any], given: Sequence[Any]) -> Iterator[Any]:
        task = ray.remote(num_cpus=threads, max_retries=0)(_worked)
        begun = [task.remote(Told(work=work, given=one, threads=threads, code=code_key())) for one in given]
        for one in begun:
            yield _taken(ray, one, head, log)

    return Processes(count=workers.count, threads=threads, each=each)


def _threads(ray: Any, workers: Workers) -> int:
    """Of each process: the CPUs divided among all, and no more than the largest machine has."""
    cpus = [int(node["Resources"].get("CPU", 0)) for node in ray.nodes() if node["Alive"]]
    if not any(cpus):
        raise SurroundingsError(f"--cluster {workers.address}: none of its {len(cpus)} machines has a CPU to give")
    shared = sum(cpus) if workers.address else usable_cpus()
    return min(max(cpus), max(1, shared // workers.count))


@dataclass(frozen=True, kw_only=True)
class Told:
    """What another process is told to do."""

    work: Callable[[Any], Any]
    given: Any
    threads: int
    code: str
    """The key of the program's files."""


def _worked(told: Told) -> Any:
    """In the other process.

    Raises:
        SurroundingsError: if it has another version of this program, which would do something else.
    """
    import torch

    if told.code != code_key():
        raise SurroundingsError(f"{platform.node()}: {SAME_VERSION}")
    torch.set_num_threads(told.threads)
    return told.work(told.given)


def _begun(workers: Workers) -> Any:
    # Ray tells its makers of its use otherwise, and ends this process where the cluster's head is lost for a minute.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_gcs_rpc_server_reconnect_timeout_s", "86400")
    if workers.address is not None:
        _answers(workers.address)
        if _has_token():
            # `ray start` asks for a token wherever there is one, and a program gives it only where it is told to.
            os.environ.setdefault("RAY_AUTH_MODE", "token")
    try:
        import ray
    except ImportError:
        raise MissingExtra("ray", "cluster") from None
    stop = signal.getsignal(signal.SIGTERM)
    try:
        with _said_aside():
            ray.init(
                # Unless it is told, Ray takes any cluster that this machine has, or had.
                address=workers.address or "local",
                num_cpus=None if workers.address else max(workers.count, usable_cpus()),
                include_dashboard=None if workers.address else False,
                log_to_driver=False,
                logging_level=logging.ERROR,
            )
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        where = f"--cluster {workers.address}" if workers.address else "--workers"
        raise SurroundingsError(f"{where}: Ray did not begin ({_reason(error)})") from None
    # Ray would end the process where a command stops as it does by Ctrl-C.
    signal.signal(signal.SIGTERM, stop)
    return ray


def _answers(address: str) -> None:
    """See that something answers at an address with a port: Ray would ask for more than a minute.

    Raises:
        SurroundingsError: if nothing does.
    """
    try:
        _call(_place(address))
    except (OSError, ValueError) as error:
        raise SurroundingsError(
            f"--cluster {address}: nothing answers there ({first_line(error, 160)}); give the host and port that "
            "`ray start --head` tells"
        ) from None


def _place(address: str) -> Place | None:
    """The host and the port of an address; None of one without a port, such as `auto`.

    Raises:
        ValueError: if the port is no number of one.
    """
    split = urlsplit(address if "://" in address else f"//{address}")
    return None if split.port is None or split.hostname is None else (split.hostname, split.port)


def _call(place: Place | None) -> None:
    """Nothing where something listens at this place.

    Raises:
        OSError: if nothing does.
    """
    if place is not None:
        socket.create_connection(place, timeout=10).close()


def _has_token() -> bool:
    """Whether this user has a token for Ray's clusters."""
    kept = Path("~/.ray/auth_token").expanduser()
    return "RAY_AUTH_TOKEN" in os.environ or "RAY_AUTH_TOKEN_PATH" in os.environ or kept.is_file()


@contextmanager
def _said_aside() -> Iterator[None]:
    """While open, what libraries write to the terminal past Python goes nowhere: a line a second of one failure."""
    with Path(os.devnull).open("wb") as nowhere:
        sys.stderr.flush()
        before = os.dup(2)
        os.dup2(nowhere.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(before, 2)
            os.close(before)


def _reason(error: BaseException) -> str:
    """Why Ray did not begin, in one line."""
    cause: BaseException | None = error
    while cause is not None:
        if "AuthenticationError" in f"{type(cause).__name__} {cause}":
            return "it asks for a token: set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH"
        cause = cause.__cause__
    return first_line(error, 160)


def _taken(ray: Any, begun: Any, head: Place | None, log: Callable[[str], None]) -> Any:
    """What came of it; None where its process or machine was lost, as one is that gets no more memory."""
    try:
        _wait(ray, begun, head)
        return ray.get(begun)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, ray.exceptions.RaySystemError):
            raise SurroundingsError(
                f"a worker cannot read what it is to do ({first_line(error.cause, 160)}): every machine needs the same "
                "version of segpress"
            ) from None
        # Its own text has a trace in it.
        raise error.cause from None
    except ray.exceptions.RayError as error:
        log(f"a worker died ({first_line(error, 160)}): what it did is done here; fewer --workers need less memory")
        return None


def _wait(ray: Any, begun: Any, head: Place | None) -> None:
    """Until it is done; Ray itself would wait for a head that is lost without end.

    Raises:
        SurroundingsError: if the cluster's head does not answer any more.
    """
    silent_since: float | None = None
    while not ray.wait([begun], timeout=5)[0]:
        try:
            _call(head)
            silent_since = None
        except OSError as error:
            now = time.monotonic()
            silent_since = silent_since or now
            if now - silent_since > PATIENCE_S:
                raise SurroundingsError(
                    f"the head of the Ray cluster does not answer any more ({first_line(error, 160)}); the same "
                    "command goes on with a cluster that does"
                ) from None


@contextmanager
def alone(folder: Path, name: str) -> Iterator[None]:
    """While open, no other process has the same name of this folder open; one that wants it waits."""
    with (make_folder(folder) / f"{name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
