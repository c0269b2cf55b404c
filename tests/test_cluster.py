"""Work in other processes by Ray: addresses, versions, what is lost on the way; and a real cluster of two machines."""

from __future__ import annotations

import os
import pickle
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import compress.cluster
from compress.cluster import SAME_VERSION, Told, Workers, _reason, _taken, _worked, opened
from compress.errors import MissingExtra, RecipeError, SegpressError, SurroundingsError


def quiet(_: str) -> None:
    """A log nobody reads."""


def test_what_is_told_is_done_with_as_many_threads(one_thread: None) -> None:
    assert _worked(Told(work=abs, given=-3, threads=1, code=compress.cluster.code_key())) == 3


def test_another_version_is_told_and_does_nothing() -> None:
    with pytest.raises(SurroundingsError, match=SAME_VERSION):
        _worked(Told(work=pytest.fail, given="it was done", threads=1, code="of another version"))


@pytest.fixture
def port() -> Iterator[int]:
    """A port at which nothing listens."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]


@pytest.mark.parametrize("address", ["127.0.0.1:{port}", "ray://127.0.0.1:{port}", "127.0.0.1:port", "head:99999"])
def test_an_address_where_nothing_answers_is_told_at_once(address: str, port: int) -> None:
    address = address.format(port=port)
    with (
        pytest.raises(SurroundingsError, match=f"^--cluster {re.escape(address)}: nothing answers there"),
        opened(Workers(count=2, address=address), quiet),
    ):
        pass


@pytest.mark.parametrize("address", [None, "auto"])
def test_workers_of_this_machine_are_of_no_cluster_that_it_has(
    address: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: dict[str, Any] = {}

    def init(**given: Any) -> None:
        asked.update(given)
        raise ConnectionError("asked enough")

    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(init=init))
    monkeypatch.setattr(os, "environ", dict(os.environ))
    with pytest.raises(SurroundingsError, match="asked enough"), opened(Workers(count=2, address=address), quiet):
        pass
    assert asked["address"] == (address or "local") and (asked["num_cpus"] is None) == (address is not None)


def test_a_cluster_that_asks_for_a_token_is_told() -> None:
    try:
        try:
            raise RuntimeError("... ray.exceptions.AuthenticationError: RPC error")
        except RuntimeError as error:
            raise ConnectionError("Failed to connect to Ray cluster") from error
    except ConnectionError as error:
        assert _reason(error).startswith("it asks for a token: set RAY_AUTH_MODE=token")
    assert _reason(ConnectionError("Failed\nand more")) == "Failed"


class _RayError(Exception):
    """What Ray's own errors are."""


class _RaySystemError(_RayError):
    """As Ray raises it where a worker cannot read what it is told."""


class _RayTaskError(_RayError):
    """As Ray raises what was raised in a worker."""

    def __init__(self, cause: Exception) -> None:
        super().__init__("a trace of many lines")
        self.cause = cause


def ray_that(get: Callable[[Any], Any], ready: bool = True) -> Any:
    """A Ray whose tasks end, or not, in this."""
    known = SimpleNamespace(RayError=_RayError, RayTaskError=_RayTaskError, RaySystemError=_RaySystemError)
    return SimpleNamespace(get=get, wait=lambda begun, timeout: (begun, []) if ready else ([], begun), exceptions=known)


def raising(error: Exception) -> Callable[[Any], Any]:
    def get(_: Any) -> Any:
        raise error

    return get


def test_what_a_worker_raised_is_raised_here() -> None:
    with pytest.raises(RecipeError, match="name: no"):
        _taken(ray_that(raising(_RayTaskError(RecipeError("a.yaml", ["name: no"])))), "begun", None, quiet)


def test_a_worker_that_cannot_read_its_work_is_told() -> None:
    with pytest.raises(
        SurroundingsError, match=r"a worker cannot read what it is to do \(no attribute\): every machine"
    ):
        _taken(ray_that(raising(_RayTaskError(_RaySystemError("no attribute")))), "begun", None, quiet)


def test_what_a_lost_worker_did_is_none_and_told() -> None:
    heard: list[str] = []
    assert _taken(ray_that(raising(_RayError("the node died"))), "begun", None, heard.append) is None
    assert heard == ["a worker died (the node died): what it did is done here; fewer --workers need less memory"]


def test_a_head_that_answers_no_more_ends_the_waiting(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compress.cluster, "PATIENCE_S", 0.0)
    with pytest.raises(SurroundingsError, match="the head of the Ray cluster does not answer any more"):
        _taken(ray_that(abs, ready=False), "begun", ("127.0.0.1", port), quiet)


@pytest.mark.parametrize(
    "error", [MissingExtra("onnxscript", "export"), RecipeError("a.yaml", ["one", "two"]), SurroundingsError("full")]
)
def test_errors_travel_as_they_are(error: SegpressError) -> None:
    back = pickle.loads(pickle.dumps(error))
    assert type(back) is type(error) and str(back) == str(error)


def slow_work(seconds: float) -> int:
    """The process that did it."""
    time.sleep(seconds)
    return os.getpid()


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """Two of Ray's machines on the loopback, of one CPU each."""

    address: str
    machines: tuple[subprocess.Popen[bytes], ...]

    def kill(self, name: str) -> None:
        """Kill one process of the first machine that has one of this name."""
        for machine in self.machines:
            asked = ["pgrep", "-s", str(machine.pid), "-f", name]
            if found := subprocess.run(asked, capture_output=True, text=True, check=False).stdout.split():
                os.kill(int(found[0]), signal.SIGKILL)
                return
        raise AssertionError(f"no process {name}")


@pytest.fixture
def cluster(port: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    pytest.importorskip("ray", reason="the extra `cluster` has Ray")
    root = Path(__file__).parent.parent
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(root), str(root / "tests")]))
    ray, address = str(Path(sys.executable).with_name("ray")), f"127.0.0.1:{port + 1}"
    begin = [ray, "start", "--block", "--num-cpus=1", "--disable-usage-stats"]
    head = subprocess.Popen(
        [*begin, "--head", f"--port={port + 1}", "--include-dashboard=false"],
        start_new_session=True,
        stdout=subprocess.DEVNULL,
    )
    _until(lambda: socket.create_connection(("127.0.0.1", port + 1)).close() is None)
    other = subprocess.Popen([*begin, f"--address={address}"], start_new_session=True, stdout=subprocess.DEVNULL)
    asked = [ray, "status", f"--address={address}"]
    _until(lambda: subprocess.run(asked, capture_output=True, check=True).stdout.count(b" 1 node_") == 2)
    yield Cluster(address=address, machines=(head, other))
    for machine in (head, other):
        subprocess.run(["pkill", "-9", "-s", str(machine.pid)], check=True)
        machine.wait()


def _until(done: Callable[[], bool]) -> None:
    """Wait for it, a minute at most."""
    for _ in range(120):
        with suppress(OSError, subprocess.CalledProcessError):
            if done():
                return
        time.sleep(0.5)
    raise AssertionError("it did not come in a minute")


@pytest.mark.slow
def test_two_machines_do_the_work_and_what_dies_there_is_none(cluster: Cluster) -> None:
    heard: list[str] = []
    with opened(Workers(count=2, address=cluster.address), heard.append) as processes:
        assert processes.threads == 1 and len(set(processes.each(slow_work, [2.0, 2.0]))) == 2
        for _ in range(10):
            killing = threading.Timer(1.5, cluster.kill, ["ray::_worked"])
            killing.start()
            answers = list(processes.each(slow_work, [4.0, 4.0]))
            killing.join()
            assert answers.count(None) == 1
    assert heard[0].startswith(f"2 workers on {cluster.address} of 1 threads each")
    assert sum(line.startswith("a worker died") for line in heard) == 10


@pytest.mark.slow
def test_a_head_that_is_killed_is_told(cluster: Cluster) -> None:
    with (
        pytest.raises(SurroundingsError, match="the head of the Ray cluster does not answer any more"),
        opened(Workers(count=2, address=cluster.address), quiet) as processes,
    ):
        threading.Timer(2.0, cluster.kill, ["gcs_server"]).start()
        list(processes.each(slow_work, [120.0, 120.0]))
