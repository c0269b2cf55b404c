"""Links, disks, processes and libraries at their worst: no wrong number, nothing left behind."""

from __future__ import annotations

import fcntl
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from over_ssh import LIAR, is_running, python_with, script, target
from ssh_server import Server

from compress.cache import Cache
from compress.errors import SurroundingsError
from compress.pipeline import measure
from export.errors import NotHere
from export.remote import hearing, link, ssh
from export.remote.answers import Closed, Conditions, Facts
from export.remote.conversation import close_all
from export.remote.runner import lock, store
from export.remote.runner.children import Children
from export.remote.runner.lock import Lock
from export.remote.runner.serve import Runner
from export.remote.runner.store import Store, clean
from export.remote.runner.wire import PIECE, Voice, messages


@pytest.fixture(autouse=True)
def nothing_stays_open() -> Iterator[None]:
    yield
    close_all()


def played(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lines: str, answer: str = "pass") -> Any:
    """A host whose runner is this program."""
    program = tmp_path / "played.py"
    program.write_text(
        LIAR.replace("LIE", answer.replace("\n", "\n        ")).replace("import json", f"{lines}\nimport json")
    )
    monkeypatch.setenv("SEGPRESS_SSH", script(tmp_path / "ssh", f"exec {sys.executable} -u {program}"))
    return target()


# The link.


def test_what_comes_slowly_is_a_sign_of_life() -> None:
    stream, heard = BytesIO(), []
    Voice(stream, "n").say({"a": 1}, bytes(3 * PIECE))
    stream.seek(0)
    (message,) = messages(stream, "n", heard=lambda: heard.append(stream.tell()))
    assert len(message.payload) == 3 * PIECE and len(heard) == 4


def test_a_request_that_takes_hours_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each sign of life was a call within the last one's: a soak of 80 minutes was more than Python allows."""
    answer = 'for _ in range(2000):\n    say({"alive": True})\nsay({"conditions": {}, **to})'
    remote = played(tmp_path, monkeypatch, "", answer)
    assert remote._conversation.ask(Conditions, {"do": "time"})[0].conditions == {}


def test_a_runner_that_waits_for_another_hears_its_host_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(link, "BEAT", 0.05)
    remote = played(tmp_path, monkeypatch, "")
    program = tmp_path / "played.py"
    waits = 'say({"wants": 0})\nassert json.loads(sys.stdin.buffer.readline())["do"] == "nothing"\n'
    program.write_text(program.read_text().replace('say({"wants": 0})\n', waits))
    assert remote._conversation.facts().cpu == "liar"


@pytest.mark.parametrize("size", [0, 1 << 23])
def test_a_runner_that_stops_is_left_also_in_the_middle_of_what_is_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    """An SSH server answers for it: nothing but the runner's own silence tells."""
    monkeypatch.setattr(hearing, "SILENCE", 0.5)
    remote = played(tmp_path, monkeypatch, "", "import os, signal\nos.kill(os.getpid(), signal.SIGSTOP)")
    conversation = remote._conversation
    assert conversation.facts().cpu == "liar"
    begun = conversation.begun
    if size:
        os.kill(begun._process.pid, signal.SIGSTOP)
    with pytest.raises(SurroundingsError, match="tower: says nothing for 0 s; the same command goes on"):
        conversation.ask(Conditions, {"do": "time"}, bytes(size))
    assert begun._process.poll() is not None


def test_a_conversation_that_is_stopped_is_not_begun_again_by_who_asks_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    remote = played(tmp_path, monkeypatch, "")
    assert remote.threads == 1 and remote._conversation.facts()
    remote.stop()
    with pytest.raises(SurroundingsError, match="tower: the conversation was ended"):
        remote.conditions()
    assert remote._conversation.begun is None


def test_another_machine_behind_the_same_name_is_not_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = "import os, pathlib\nturn = pathlib.Path(__file__).with_name('turn')\nother = turn.exists()\nturn.touch()"
    remote = played(tmp_path, monkeypatch, first)
    program = tmp_path / "played.py"
    text = program.read_text().replace('"machine": "liar"})', '"machine": "b" if other else "a"})')
    program.write_text(text.replace('"hostname": "liar"', '"hostname": "b" if other else "a"'))
    conversation = remote._conversation
    assert conversation.facts().hostname == "a"
    conversation.close()
    with pytest.raises(SurroundingsError, match=r"tower: is another machine than before.*hostname a, now b"):
        conversation.ask(Closed, {"do": "close"})


@pytest.mark.parametrize(
    ("code", "said", "told"),
    [
        (127, "cat: /root/x: Permission denied\nsh: python9: not found", "there is no python9"),
        (1, "WARNING: Your password has expired.\nPassword change required but no TTY available.", "has expired"),
        (0, "", "python9 ended there with code 0 before its first word (This account is for git)"),
        (1, "ModuleNotFoundError: No module named 'numpy'", "has no numpy"),
        (1, "Fatal Python error: x\nValueError: no encodings\n  <no Python frame>\n", "(ValueError: no encodings)"),
        (255, "root@tower: Permission denied (publickey).", "lets nobody in"),
        (255, "ssh: connect to host tower port 22: Connection timed out", "does not answer"),
    ],
)
def test_why_a_conversation_did_not_begin(code: int, said: str, told: str) -> None:
    assert told in str(ssh.refused("tower", "python9", code, said, "Welcome\nThis account is for git\n"))


@pytest.mark.parametrize("code", [255, -9, None, 1])
def test_a_link_that_was_there_is_never_said_to_let_nobody_in(code: int | None) -> None:
    told = str(ssh.lost("tower", code, "libx: /sys/kernel/debug: Permission denied"))
    assert "lets nobody in" not in told and "goes on from what is done" in told


def test_a_client_that_is_no_command_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEGPRESS_SSH", "ssh -F 'x")
    with pytest.raises(SurroundingsError, match="SEGPRESS_SSH=ssh -F 'x: is no command of a shell"):
        target().facts()


# What lies there.


def test_what_was_damaged_there_is_sent_again(tmp_path: Path) -> None:
    here = Store(tmp_path)
    one, two = here.keep(b"one."), here.keep(b"two.")
    (tmp_path / "contents" / one).write_bytes(b"onf.")
    assert Store(tmp_path).missing([one, two]) == [one]


@pytest.mark.parametrize("damage", ["removed", "changed", "cut short"])
def test_what_is_damaged_meanwhile_is_no_input_and_no_artifact(tmp_path: Path, damage: str) -> None:
    here = Store(tmp_path)
    sha256 = here.keep(bytes(16))
    path = tmp_path / "contents" / sha256
    path.unlink() if damage == "removed" else path.write_bytes(b"\1" * (16 if damage == "changed" else 8))
    for ask in (
        lambda: here.input(sha256, [1, 1, 2, 2]),
        lambda: here.hold([sha256]),
        lambda: here.artifact({"net.onnx": sha256}),
    ):
        with pytest.raises(SurroundingsError, match=r"not on the device as it was sent: .*; the same command sends it"):
            ask()


def test_one_content_is_an_input_of_every_shape(tmp_path: Path) -> None:
    here = Store(tmp_path)
    sha256 = here.keep(bytes(32))
    here.hold([sha256])
    assert here.input(sha256, [1, 1, 2, 4]).shape == (1, 1, 2, 4) and here.input(sha256, [1, 2, 2, 2]).shape[1] == 2


def test_inputs_of_several_shapes_are_timed_each_as_it_is(tmp_path: Path) -> None:
    runner, shapes = Runner(tmp_path, "program"), []
    runner._open[1] = lambda image: shapes.append(image.shape)
    names = [runner._store.keep(bytes([each]) * 32) for each in (1, 2)]
    infer = runner._run({"handle": 1, "inputs": names, "shapes": [[1, 1, 2, 4], [1, 1, 4, 2]]})
    infer(0), infer(1)
    assert shapes == [(1, 1, 2, 4), (1, 1, 4, 2)]


def test_only_what_is_timed_is_held_in_memory(tmp_path: Path) -> None:
    here = Store(tmp_path)
    every = [here.keep(bytes([each]) * 16) for each in range(4)]
    for each in every:
        here.input(each, [4])
    assert not here._held
    here.hold(every[:2])
    here.hold(every[1:3])
    assert list(here._held) == every[1:3]


def test_a_disk_without_links_and_a_device_with_an_address_for_a_name_take_artifacts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here, name = Store(tmp_path), "net.board@user@fe80::1%eth0.engine"
    files = {name: here.keep(b"engine")}
    assert (here.artifact(files) / name).read_bytes() == b"engine"
    monkeypatch.setattr(store.os, "link", lambda *_: (_ for _ in ()).throw(PermissionError(1, "no links")))
    files["net.onnx"] = here.keep(b"onnx")
    folder = here.artifact(files)
    assert sorted(each.name for each in folder.iterdir()) == sorted(files)


def test_cleaning_goes_through_a_link_and_counts_what_is_gone(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "segpress").symlink_to(tmp_path / "disk")
    here = Store(tmp_path / "segpress")
    here.artifact({"net.onnx": here.keep(bytes(1000))})
    assert clean(tmp_path / "segpress") == 1000 and not list((tmp_path / "disk").iterdir())


def test_what_was_left_half_done_is_removed(tmp_path: Path) -> None:
    here = Store(tmp_path)
    kept = here.keep(b"kept")
    path = tmp_path / "contents" / kept
    (tmp_path / "contents" / f"{kept}{store.PARTIAL.format(17)}").write_bytes(b"ke")
    (tmp_path / f"{store.SCRATCH}x").mkdir()
    # Of another machine that has the same home over the network, and is at work.
    others = {tmp_path / "contents" / f"{kept}.other.17.partial", tmp_path / "build-other-x"}
    for each in others:
        each.mkdir()
    here.tidy()
    assert here.missing([kept]) == [] and set(tmp_path.rglob("*")) == {*others, path, path.parent}


# Who measures there.


def held_by_another(folder: Path, run: str = "other") -> subprocess.Popen[str]:
    """A process that has the lock, and hears its host no more."""
    code = f"""
import sys, time
sys.path.insert(0, {str(Path(__file__).parents[1])!r})
from pathlib import Path
from export.remote.runner.lock import Lock
held = Lock(Path({str(folder)!r}), {run!r})
print(held.taken(), flush=True)
for line in sys.stdin:
    held.keep(is_heard=True)
"""
    other = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert other.stdout is not None and other.stdout.readline() == "None\n"
    return other


@pytest.fixture
def other(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    with held_by_another(tmp_path) as other:
        yield other
        other.kill()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seconds in (("PATIENCE", 0.3), ("QUIET", 0.2), ("LONGEST", 0.6)):
        monkeypatch.setattr(lock, name, seconds)


def test_a_run_waits_for_no_other_whose_host_is_heard(
    tmp_path: Path, impatient: None, other: subprocess.Popen[str]
) -> None:
    def touch() -> None:
        assert other.stdin is not None
        for _ in range(20):
            other.stdin.write("\n")
            other.stdin.flush()
            time.sleep(0.05)

    touching = threading.Thread(target=touch)
    touching.start()
    told = Lock(tmp_path, "mine").taken()
    touching.join()
    assert told is not None
    assert re.fullmatch(
        rf"another run measures there now \(process {other.pid}, since [-\d: ]+\); wait until it has ended", told
    )
    assert is_running(other.pid)


def test_one_that_was_stopped_and_hears_nobody_is_ended(
    tmp_path: Path, impatient: None, other: subprocess.Popen[str]
) -> None:
    other.send_signal(signal.SIGSTOP)
    mine = Lock(tmp_path, "mine")
    assert mine.taken() is None and other.wait(timeout=5) == -signal.SIGKILL


def test_a_run_waits_for_as_long_as_it_is_told_to_and_says_for_whom(
    tmp_path: Path, impatient: None, other: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "LONGEST", 60)
    ending = threading.Timer(1.5, other.kill)
    ending.start()
    heard: list[str] = []
    assert Lock(tmp_path, "mine").taken(30, heard.append) is None
    assert heard and f"(process {other.pid}, since " in heard[0] and "waiting for it to end" in heard[0]
    ending.join()


def shared_by_another(folder: Path) -> subprocess.Popen[str]:
    """A process that has the lock of all users, and touches it no more."""
    code = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parents[1])!r})
from export.remote.runner.lock import of_machine
held = of_machine("other")
print(held.taken(), flush=True)
sys.stdin.read()
"""
    environment = {**os.environ, "SEGPRESS_LOCKS": str(folder)}
    words = [sys.executable, "-c", code]
    other = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
    assert other.stdout is not None and other.stdout.readline() == "None\n"
    return other


def test_users_exclude_each_other_and_end_nobody_else_s_process(
    tmp_path: Path, impatient: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEGPRESS_LOCKS", str(tmp_path))
    with shared_by_another(tmp_path) as other:
        ending = threading.Timer(20, other.kill)
        ending.start()
        told = lock.of_machine("mine").taken()
        assert told is not None and f"process {other.pid}" in told and is_running(other.pid)
        (file,) = tmp_path.iterdir()
        assert file.stat().st_mode & 0o777 == 0o666
        other.kill()
        other.wait()
        ending.cancel()
    mine = lock.of_machine("mine")
    assert mine.taken() is None and json.loads(file.read_text())["process"] == os.getpid()


@pytest.mark.parametrize("kind", ["link", "folder", "gone"])
def test_a_lock_of_all_that_cannot_be_shared_excludes_nobody(
    tmp_path: Path, impatient: None, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    monkeypatch.setenv("SEGPRESS_LOCKS", str(tmp_path / "locks" if kind == "gone" else tmp_path))
    place, precious = lock.of_machine("mine")._path, tmp_path / "precious"
    precious.write_text("keep me")
    if kind == "link":
        place.symlink_to(precious)
    elif kind == "folder":
        place.mkdir()
    mine = lock.of_machine("mine")
    assert mine.taken() is None
    mine.keep(is_heard=True)
    assert precious.read_text() == "keep me"


def test_runners_of_one_run_share_the_lock_and_the_last_keeps_it(
    tmp_path: Path, impatient: None, other: subprocess.Popen[str]
) -> None:
    mine = Lock(tmp_path, "other")
    assert mine.taken() is None and not mine._holds
    other.kill()
    other.wait()
    mine.keep(is_heard=True)
    assert mine._holds and json.loads((tmp_path / store.LOCK).read_text())["process"] == os.getpid()


def test_a_process_that_a_library_forked_holds_no_lock(tmp_path: Path) -> None:
    mine = Lock(tmp_path, "mine")
    assert mine.taken() is None
    child = os.fork()
    if child == 0:
        time.sleep(20)
        os._exit(0)
    try:
        os.close(mine._file)
        with (tmp_path / store.LOCK).open("r+") as file:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_a_lock_that_was_removed_with_all_that_was_sent_locks_nothing(tmp_path: Path) -> None:
    mine = Lock(tmp_path / "there", "mine")
    assert mine.taken() is None
    clean(tmp_path / "there")
    with held_by_another(tmp_path / "there") as next_one:
        assert not mine._is_there()
        next_one.kill()


def test_a_folder_that_is_not_this_users_is_told(tmp_path: Path) -> None:
    (tmp_path / store.LOCK).mkdir()
    assert "cannot be written (Is a directory)" in str(Lock(tmp_path, "mine").taken())


def test_what_a_runner_starts_ends_with_it_however_that_ended(tmp_path: Path) -> None:
    """Killed without a word, as for want of memory, it can end nothing: its children notice."""
    child = f"""
import os, subprocess, sys, time
sys.path.insert(0, {str(Path(__file__).parents[1])!r})
from export.remote.runner.__main__ import _end_with_parent
_end_with_parent()
grandchild = subprocess.Popen(["sleep", "60"])
open(sys.argv[1], "w").write(f"{{os.getpid()}} {{grandchild.pid}}\\n")
time.sleep(60)
"""
    (tmp_path / "child.py").write_text(child)
    code = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parents[1])!r})
from export.remote.runner.children import Children
Children().ran([sys.executable, {str(tmp_path / "child.py")!r}, {str(tmp_path / "told")!r}])
"""
    with subprocess.Popen([sys.executable, "-c", code]) as parent:
        deadline = time.monotonic() + 20
        while not ((tmp_path / "told").exists() and (tmp_path / "told").read_text().endswith("\n")):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        started = [int(each) for each in (tmp_path / "told").read_text().split()]
        assert all(map(is_running, started))
        parent.kill()
    deadline = time.monotonic() + 10
    while any(map(is_running, started)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(is_running, started))


def test_nothing_is_started_once_the_end_has_begun() -> None:
    children, ended = Children(), threading.Event()
    children.end()
    thread = threading.Thread(target=lambda: (children.ran(["true"]), ended.set()), daemon=True)
    thread.start()
    assert not ended.wait(0.3)


# Several machines at once.


def at(name: str, stopped: threading.Event) -> list[Any]:
    """Builds of one machine, as far as they are looked at before they are measured."""
    deployment = SimpleNamespace(device=SimpleNamespace(name=name), target=SimpleNamespace(stop=stopped.set))
    return [SimpleNamespace(name=name, deployment=deployment)]


def measuring(work: dict[str, Callable[[], Any]], said: list[str]) -> Any:
    def rows(builds: list[Any], peaks: object, name: str) -> Any:
        return work[builds[0].name]()

    return SimpleNamespace(rows=rows, log=said.append)


def test_a_machine_that_is_lost_takes_nothing_from_what_another_measures() -> None:
    never, said, finished = threading.Event(), [], threading.Event()

    def lost() -> None:
        raise SurroundingsError("a: the connection ended")

    def slow() -> None:
        time.sleep(0.2)
        finished.set()

    for order in (["a", "b"], ["b", "a"]):
        finished.clear()
        with pytest.raises(SurroundingsError, match="a: the connection ended"):
            measure._at_once(measuring({"a": lost, "b": slow}, said), [at(each, never) for each in order])
        assert finished.is_set() and not never.is_set()
    assert said[0] == "a: the connection ended (what is measured elsewhere is finished first)"


def test_ctrl_c_ends_what_every_machine_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    stopped = [threading.Event(), threading.Event()]
    monkeypatch.setattr(measure, "wait", lambda _: (_ for _ in ()).throw(KeyboardInterrupt))
    work = {name: (lambda each=each: each.wait(10)) for name, each in zip("ab", stopped, strict=True)}
    with pytest.raises(KeyboardInterrupt):
        measure._at_once(measuring(work, []), [at(name, each) for name, each in zip("ab", stopped, strict=True)])
    assert all(each.is_set() for each in stopped)


def test_what_is_not_here_now_is_asked_again_when_the_run_is_gone_on_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def absent() -> None:
        asked.append("asked")
        raise NotHere("the GPU fell off the bus")

    monkeypatch.setattr(measure, "_scene", lambda _: ("data", "steps"))
    build: Any = SimpleNamespace(
        name="b", key="k", artifact=tmp_path, absent=None, deployment=SimpleNamespace(open=absent)
    )
    for _ in range(2):
        told = measure._score(build, SimpleNamespace(task=None), [], None, Cache(tmp_path), asked.append)  # type: ignore[arg-type]
        assert told["reason"] == "the GPU fell off the bus" and told["scores"] is None
    assert asked == ["asked", "asked"]


# The device's Python.


def facts(**other: Any) -> Facts:
    known = {
        **{"cpu": "a", "cpus": 4, "threads": 4, "os": "Linux", "machine": "aarch64", "isa": [], "board": "Orin"},
        **{"hostname": "tower", "boot_id": "1", "flags": ["asimd"], "memory_mb": 8000, "python": "3.10.0"},
        **{"executable": "p", "runtimes": {"tensorrt": "10.3"}, "l4t": "R36.3", "process": 1},
    }
    return Facts.model_validate({**known, **other})


@pytest.mark.parametrize(
    "other",
    [{"l4t": "R36.4"}, {"runtimes": {"tensorrt": "10.7"}}, {"flags": ["asimd", "i8mm"]}, {"hostname": "b"}],
)
def test_what_makes_kept_measurements_those_of_another_machine(other: dict[str, Any]) -> None:
    assert facts(**other).identity != facts().identity and len(facts().changed(facts(**other))) == 1


def test_a_restart_makes_no_other_machine() -> None:
    assert facts(boot_id="2", process=7).identity == facts().identity


@pytest.mark.parametrize("broken", ["RuntimeError('built for another numpy')", "SystemExit('no licence')"])
def test_a_runtime_that_is_broken_there_is_not_measured_and_the_others_are(
    server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, broken: str
) -> None:
    monkeypatch.setenv("SEGPRESS_SSH", server.ssh)
    (tmp_path / "openvino.py").write_text(f"raise {broken}\n")
    bare = python_with(tmp_path / "bare", f"export PYTHONPATH='{tmp_path}' PYTHONWARNINGS=error")
    remote = target(bare)
    with pytest.raises(NotHere, match=r"tower: openvino of .* cannot be used \((RuntimeError: built|SystemExit: no)"):
        remote.open("openvino")
    assert remote.open("onnxruntime")


def test_what_a_library_forked_is_not_left_there(
    server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SEGPRESS_SSH", server.ssh)
    (tmp_path / "openvino.py").write_text(
        "import os, time\nchild = os.fork()\nif child == 0:\n    time.sleep(60)\n    os._exit(0)\n"
        f"open({str(tmp_path / 'forked')!r}, 'w').write(str(child))\nraise ModuleNotFoundError('openvino')\n"
    )
    remote = target(python_with(tmp_path / "forks", f"export PYTHONPATH='{tmp_path}'"))
    assert remote.facts()
    forked = int((tmp_path / "forked").read_text())
    assert is_running(forked)
    begun = time.monotonic()
    remote.close()
    assert time.monotonic() - begun < 2.5 and not is_running(forked)
