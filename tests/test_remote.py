"""A device over SSH, against a real OpenSSH server on the loopback: the same answers as here, or one sentence."""

from __future__ import annotations

import json
import os
import shlex
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import machines
import numpy as np
import pytest
import ssh_server
from conftest import write_recipe
from ssh_server import Server
from zoo import written

from compress.commands.run import run
from compress.errors import NotHere, RecipeError, SegpressError, SurroundingsError
from compress.recipe import load
from export.artifact import Artifact
from export.clock import Turn
from export.errors import BackendError
from export.reach import Reach
from export.registry import find_backend, find_device
from export.remote import answers, link
from export.remote.conversation import Conversation, close_all
from export.remote.package import ROOT, runner, shipped
from export.remote.runner import heat, power
from export.remote.target import RemoteTarget

pytestmark = pytest.mark.skipif(not ssh_server.IS_THERE, reason=ssh_server.MISSING)


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return written("unet of one class", tmp_path_factory.mktemp("onnx") / "net.onnx").sealed()


def target(python: str = sys.executable, at: str = "tower", threads: int = 1) -> RemoteTarget:
    device = find_device("cpu").reached(Reach(at=at, python=python))
    return RemoteTarget(device=device, given_threads=threads)


def images(artifact: Artifact, count: int = 3) -> list[np.ndarray]:
    rng = np.random.default_rng(7)
    return [rng.normal(size=artifact.input.shape).astype(np.float32) for _ in range(count)]


def is_running(process: int) -> bool:
    """Whether it does something still; one that has ended and is not collected does not."""
    try:
        return "Z" not in Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False


def ends(process: int, seconds: float = 10) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and is_running(process):
        time.sleep(0.05)
    return not is_running(process)


# The same answers, and what they cost.


def test_a_run_answers_there_as_it_does_here_to_the_bit(tower: Server, recipe: dict[str, Any], tmp_path: Path) -> None:
    there = {"cpu": {"at": "tower", "python": sys.executable}}
    recipe = {**recipe, "passes": [{"int8": {"calibrate": 4}}], "devices": ["cpu", there]}
    said: list[str] = []
    run(load(write_recipe(tmp_path, recipe)), tmp_path / "out", say=said.append)
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    rows = {(row["step"], row["backend"], row["device"]): row for row in report["rows"]}
    for step in ("baseline", "01-int8"):
        for backend in ("onnxruntime", "openvino"):
            here, remote = rows[step, backend, "cpu"], rows[step, backend, "cpu@tower"]
            assert remote["status"] == "measured" and remote["scores"] == here["scores"]
            assert remote["executed"] == here["executed"] and ("INT8" in here["executed"]) == (step != "baseline")
            assert remote["parity"] == here["parity"] and remote["sha256"] == here["sha256"]
            assert remote["peak_memory_mb"] > 0 and remote["flags"]["version"]
            assert (
                remote["latency_ms"]["n"] == here["latency_ms"]["n"] and remote["latency_ms"]["host"]["at"] == "tower"
            )
            assert remote["processors"] == here["processors"]
    assert ("baseline", "torch", "cpu@tower") not in rows
    assert any(line.startswith("cpu@tower: ") for line in said)


def test_logits_are_those_of_this_host_and_times_those_of_that(tower: Server, artifact: Artifact) -> None:
    remote, given = target(), images(artifact)
    with (
        remote.open("onnxruntime").open(artifact) as there,
        find_backend("onnxruntime")(device=find_device("cpu"), threads=1).open(artifact) as here,
    ):
        for each in given:
            assert np.array_equal(there(each), here(each)) and there(each).dtype == np.float32
        times = remote.time(there, given, Turn(first=0, count=5, untimed=1))
        assert len(times) == 5 and min(times) > 0
        assert remote.time(there, given, Turn(first=0, count=5, seconds=0)) == []
    assert remote.peak_memory("onnxruntime", artifact)() > 0


def test_what_travels_travels_once(tower: Server, artifact: Artifact) -> None:
    remote, given = target(), images(artifact)
    with remote.open("onnxruntime").open(artifact) as infer:
        for each in given:
            infer(each)
    sent = remote.sent_bytes
    remote.close()
    again = target()
    with again.open("onnxruntime").open(artifact) as infer:
        for each in given:
            infer(each)
    # What begins the runner is some kilobytes each time; the artifact may have been sent by another test.
    assert again.sent_bytes - sent < 20_000


def test_the_time_of_each_layer_is_told(tower: Server, artifact: Artifact) -> None:
    remote = target()
    backend: Any = remote.open("onnxruntime")
    profile = backend.profile(artifact, images(artifact)[0], runs=3)
    assert profile.whole_us > 0 and any(node.kind == "Conv" for node in profile.nodes)


def board_at(tree: Path, folder: Path) -> str:
    """This Python on a machine whose kernel shows this tree."""
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(
        "from pathlib import Path\n_glob = Path.glob\n"
        f"Path.glob = lambda self, *given, **more: _glob(Path({str(tree)!r}) if str(self) == '/' else self, *given, "
        "**more)\n"
    )
    return python_with(folder / "board", f"export PYTHONPATH={shlex.quote(str(folder))}")


def test_power_heat_and_throttling_of_a_board_are_in_the_report_and_judged(
    tower: Server, recipe: dict[str, Any], tmp_path: Path
) -> None:
    tree = machines.orin_nano(tmp_path / "tree")
    python = board_at(tree, tmp_path / "python")
    (tmp_path / "python" / "openvino.py").write_text("raise ModuleNotFoundError(\"No module named 'openvino'\")\n")
    gates = [
        {"energy_mj": {"at_most": 1e6, "device": "cpu@tower"}},
        {"energy_mj": {"at_most": 1, "device": "cpu@here"}},
    ]
    there = {"cpu": {"at": "tower", "python": python, "soak": 0.01}}
    recipe = {**recipe, "passes": [], "devices": ["cpu", there], "gates": gates}
    said: list[str] = []
    run(load(write_recipe(tmp_path, recipe)), tmp_path / "out", say=said.append)
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    rows = {(row["backend"], row["device"]): row for row in report["rows"]}
    watch = rows["onnxruntime", "cpu@tower"]["watch"]
    assert watch["total"]["of"] == ["VDD_IN"] and watch["total"]["mean_w"] == pytest.approx(5)
    assert watch["energy_mj"] == pytest.approx(5000 * watch["seconds"] / watch["inferences"], rel=0.01)
    assert watch["soak"]["minutes"] == pytest.approx(0.01, abs=0.01) and watch["soak"]["warm_p50_ms"] > 0
    assert watch["temperatures_c"]["tj-thermal"]["max"] == 45.9
    assert "watched power and heat of 1 artifact" in said
    verdicts = {gate["device"]: gate["verdict"] for gate in report["gates"] if gate["backend"] == "onnxruntime"}
    assert verdicts["cpu@tower"] == "holds"
    for name in ("report.md", "report.html"):
        page = (tmp_path / "out" / name).read_text()
        assert "Power and heat" in page and "the whole module (VDD" in page.replace("\\", "")


def test_a_device_that_tells_nothing_is_not_watched_and_says_why(
    tower: Server, artifact: Artifact, tmp_path: Path
) -> None:
    remote, given = target(board_at(tmp_path / "nothing", tmp_path / "python")), images(artifact)
    with remote.open("onnxruntime").open(artifact) as infer:
        told = remote.watcher.watch(infer, given, soak=True)
    assert set(told) == {"why"} and told["why"] == f"{power.NOTHING}; {heat.NOTHING}"
    assert remote.watcher.throttling() == {"counters": {}, "flags": {}}


def test_a_power_mode_of_a_device_that_has_none_is_told(tower: Server) -> None:
    device = find_device("cpu").reached(Reach(at="tower", python=sys.executable, power_mode="MAXN"))
    remote = RemoteTarget(device=device, given_threads=1)
    with (
        pytest.raises(SurroundingsError, match="tower: power_mode: there is no nvpmodel on this machine"),
        remote.watcher.in_power_mode(),
    ):
        pass


def test_facts_are_those_of_the_machine(tower: Server) -> None:
    facts = target(threads=3).facts()
    assert facts["at"] == "tower" and facts["threads"] == 3 and facts["cpus"] >= 1 and facts["machine"]


def test_nothing_is_left_running_there(tower: Server) -> None:
    remote = target()
    process = remote._told.process
    assert is_running(process)
    remote.close()
    assert ends(process)


# What goes wrong, in one sentence.


def refusal(remote: RemoteTarget, kind: type[SegpressError] = SurroundingsError, code: int = 4) -> str:
    with pytest.raises(kind) as told:
        remote.open("onnxruntime")
    assert told.value.exit_code == code and "\n" not in str(told.value)
    return str(told.value)


def test_an_unknown_host_key_is_told_with_what_to_run(tower: Server) -> None:
    tower.known_hosts.write_text("")
    try:
        assert "its host key is not known here; run `ssh tower` once" in refusal(target())
    finally:
        tower.trusted(tower.host_key())


def test_a_changed_host_key_is_told_with_what_to_run(tower: Server) -> None:
    tower.trusted(tower.host_key("other_key"))
    try:
        assert "run `ssh-keygen -R tower`" in refusal(target())
    finally:
        tower.trusted(tower.host_key())


@pytest.mark.parametrize("wrong", ["key", "user"])
def test_a_user_or_a_key_that_is_not_let_in_is_told(tower: Server, wrong: str) -> None:
    other = tower.host_key("stranger")
    tower.write_client(**({"key": other} if wrong == "key" else {"user": "nobody-of-this-name"}))
    try:
        assert "lets nobody in with these keys and this user" in refusal(target())
    finally:
        tower.write_client()


@pytest.mark.parametrize("host", ["-oProxyCommand=touch x", "-v", "", "a b", "a;b", "$(x)", "here", "ssh://a"])
def test_a_host_that_ssh_would_take_for_an_option_is_a_mistake_of_the_recipe(
    recipe: dict[str, Any], tmp_path: Path, host: str
) -> None:
    wrong = {**recipe, "devices": [{"cpu": {"at": host}}]}
    with pytest.raises(RecipeError, match=r"devices\[0\] \(cpu\): at: "):
        load(write_recipe(tmp_path, wrong))


def test_a_host_that_is_not_there_is_told(tower: Server) -> None:
    assert "no such host" in refusal(target(at="nowhere.invalid"))


def test_a_server_that_is_off_is_told(tower: Server) -> None:
    tower.stop()
    try:
        assert "refuses the connection" in refusal(target())
    finally:
        tower.start()


def test_no_python_there_is_told(tower: Server) -> None:
    assert "there is no /opt/no/python3" in refusal(target("/opt/no/python3"))


def old_python() -> str | None:
    """A Python that is too old, where there is one."""
    found = sorted(Path.home().glob(".pyenv/versions/3.[67].*/bin/python"))
    return str(found[0]) if found else None


def test_a_python_that_says_it_is_too_old_is_told(tower: Server, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.version_info = (3, 7, 17, 'final', 0)\n")
    older = python_with(tmp_path / "older", f"export PYTHONPATH={shlex.quote(str(tmp_path))}")
    assert "is Python 3.7; 3.8 or newer is needed" in refusal(target(older))


@pytest.mark.skipif(old_python() is None, reason="no Python older than 3.8 is installed")
def test_a_python_that_is_too_old_is_told(tower: Server) -> None:
    """What begins there is understood by such a Python itself."""
    assert "3.8 or newer is needed" in refusal(target(str(old_python())))


def script(path: Path, text: str) -> str:
    """A program of this text."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


def python_with(path: Path, before: str) -> str:
    """This Python, after some words to the shell."""
    return script(path, f'{before}\nexec {shlex.quote(sys.executable)} "$@"')


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What makes this Python one without OpenVINO, which each runner would import to tell of it."""
    folder = tmp_path_factory.mktemp("few")
    (folder / "openvino.py").write_text("raise ModuleNotFoundError(\"No module named 'openvino'\")\n")
    return f"export PYTHONPATH={shlex.quote(str(folder))}"


def test_a_python_without_numpy_is_told(tower: Server, tmp_path: Path) -> None:
    bare = python_with(tmp_path / "bare", f"export PYTHONPATH={shlex.quote(str(tmp_path))}")
    (tmp_path / "numpy.py").write_text("raise ModuleNotFoundError(\"No module named 'numpy'\")\n")
    assert "there has no numpy; install it" in refusal(target(bare))


def test_a_runtime_that_is_not_installed_is_not_measured(tower: Server, tmp_path: Path) -> None:
    bare = python_with(tmp_path / "bare", f"export PYTHONPATH={shlex.quote(str(tmp_path))}")
    (tmp_path / "onnxruntime.py").write_text("raise ModuleNotFoundError(\"No module named 'onnxruntime'\")\n")
    told = refusal(target(bare), NotHere, 3)
    assert "has no onnxruntime; it has openvino" in told


def test_a_disk_that_is_full_there_is_told_and_leaves_no_half_file(
    tower: Server, artifact: Artifact, tmp_path: Path
) -> None:
    # As a full disk does, a limit on files ends a write in its middle.
    small = python_with(tmp_path / "small", f"export XDG_CACHE_HOME={shlex.quote(str(tmp_path))}; ulimit -f 100")
    with (
        pytest.raises(SurroundingsError, match="cannot be written"),
        target(small).open("onnxruntime").open(artifact),
    ):
        pass
    assert not list(tmp_path.rglob("*.partial"))


def test_a_home_that_cannot_be_written_is_told(tower: Server, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    locked = python_with(tmp_path / "locked", f"export XDG_CACHE_HOME={shlex.quote(str(tmp_path / 'file'))}")
    assert "cannot be written" in refusal(target(locked))


def test_two_runs_at_once_do_not_disturb_each_other(tower: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    first, again = target(), target()
    first.check_here()
    assert again._conversation is first._conversation
    other = Conversation("tower", sys.executable)
    with monkeypatch.context() as patch:
        patch.setattr(link, "RUN", "another")
        patch.setattr(link, "WAIT", 0)
        with pytest.raises(SurroundingsError, match=r"tower: another run measures there now \(process \d+, from 127"):
            other.ask(answers.ToldFacts, {"do": "facts"})
    assert first.conditions()


def test_the_second_of_two_runs_waits_says_for_whom_and_goes_on(
    tower: Server, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    first, other = target(), Conversation("tower", sys.executable)
    first.check_here()
    ending = threading.Timer(5, first.close)
    ending.start()
    with monkeypatch.context() as patch:
        patch.setattr(link, "RUN", "another")
        other.ask(answers.ToldFacts, {"do": "facts"})
    ending.join()
    other.close()
    told = [
        line for line in capfd.readouterr().err.splitlines() if line.startswith("tower: another run measures there")
    ]
    assert len(told) == 1 and "waiting for it to end, 10 minutes at most" in told[0]


def test_two_pythons_of_one_host_measure_for_one_run(
    tower: Server, artifact: Artifact, tmp_path: Path, few: str
) -> None:
    first, second = (target(python_with(tmp_path / name, few)) for name in ("first", "second"))
    with first.open("onnxruntime").open(artifact) as one, second.open("onnxruntime").open(artifact) as other:
        assert np.array_equal(one(images(artifact)[0]), other(images(artifact)[0]))


def test_a_runner_that_is_killed_is_told_and_the_next_question_begins_another(
    tower: Server, artifact: Artifact
) -> None:
    remote = target()
    with remote.open("onnxruntime").open(artifact) as infer:
        os.kill(remote._told.process, 9)
        with pytest.raises(SurroundingsError, match="tower: "):
            infer(images(artifact)[0])
        assert infer(images(artifact)[0]).ndim == 4


@pytest.mark.parametrize(
    "before",
    [
        "export LC_ALL=C LANG=C PYTHONIOENCODING=ascii",
        "export LC_ALL=de_DE.ISO-8859-1 PYTHONUTF8=0 PYTHONIOENCODING=latin-1",
        "echo Welcome to the tower; echo '{\"hello\": 1}'; seq 100",
        "cd /; export PYTHONOPTIMIZE=2 PYTHONDONTWRITEBYTECODE=1",
    ],
)
def test_other_locales_and_shells_that_print_change_nothing(
    tower: Server, artifact: Artifact, tmp_path: Path, before: str, few: str
) -> None:
    python = python_with(tmp_path / 'it\'s a "python" of ünïcode' / "py thon", f"{few}\n{before}")
    with target(python).open("onnxruntime").open(artifact) as infer:
        assert infer(images(artifact)[0]).ndim == 4


def test_a_clock_that_is_a_day_off_changes_nothing(tower: Server, artifact: Artifact, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("import time\n_now = time.time\ntime.time = lambda: _now() + 86400\n")
    skewed = python_with(tmp_path / "skewed", f"export PYTHONPATH={shlex.quote(str(tmp_path))}")
    remote, given = target(skewed), images(artifact)
    with remote.open("onnxruntime").open(artifact) as infer:
        assert 0 < sum(remote.time(infer, given, Turn(first=0, count=3))) < 60_000


def test_a_module_that_lies_in_the_users_folder_there_is_not_taken_for_pythons(
    tower: Server, artifact: Artifact, tmp_path: Path
) -> None:
    (tmp_path / "json.py").write_text("raise SystemExit('taken')\n")
    python = python_with(tmp_path / "python", f"cd {shlex.quote(str(tmp_path))}")
    assert target(python).facts()["cpus"] >= 1


@contextmanager
def cut_after(server: Server, most: int) -> Iterator[Callable[[], int]]:
    """`tower` by way of a proxy that is gone after so many bytes of both directions; tells how many passed."""
    passed, ends_at = [0], threading.Event()
    sockets: list[socket.socket] = []
    listening = socket.create_server(("127.0.0.1", 0))

    def forward(source: socket.socket, to: socket.socket) -> None:
        try:
            while not ends_at.is_set() and (data := source.recv(4096)):
                passed[0] += len(data)
                if passed[0] > most:
                    break
                to.sendall(data)
        except OSError:
            pass
        for each in (source, to):
            # Closing alone would wait for the other thread, which waits for words.
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def accept() -> None:
        while True:
            try:
                client, _ = listening.accept()
            except OSError:
                return
            behind = socket.create_connection(("127.0.0.1", server.port))
            sockets.extend((client, behind))
            for pair in ((client, behind), (behind, client)):
                threading.Thread(target=forward, args=pair, daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    config = server.folder / "config"
    was = config.read_text()
    config.write_text(
        was.replace(
            f"Port {server.port}", f"Port {listening.getsockname()[1]}\n  HostKeyAlias [127.0.0.1]:{server.port}"
        )
    )
    try:
        yield lambda: passed[0]
    finally:
        ends_at.set()
        config.write_text(was)
        listening.close()
        for each in sockets:
            each.close()


def asked(remote: RemoteTarget, artifact: Artifact) -> list[np.ndarray]:
    """What a measurement is made of, from its first word to its last."""
    with remote.open("onnxruntime").open(artifact) as infer:
        logits = [infer(each) for each in images(artifact)]
        remote.time(infer, images(artifact), Turn(first=0, count=3))
        remote.conditions()
    return logits


def test_a_link_that_is_cut_anywhere_is_told_and_the_same_goes_on_from_there(
    tower: Server, artifact: Artifact, tmp_path: Path, few: str
) -> None:
    def fresh(name: str) -> str:
        cache = shlex.quote(str(tmp_path / f"cache {name}"))
        return python_with(tmp_path / name, f"{few}\nexport XDG_CACHE_HOME={cache}")

    with cut_after(tower, 1 << 40) as passed:
        right = asked(target(fresh("whole")), artifact)
        close_all()
        whole = passed()
    for tenth in range(10):
        python = fresh(f"cut{tenth}")
        with cut_after(tower, whole * (2 * tenth + 1) // 20):
            with pytest.raises(SurroundingsError, match="tower: ") as told:
                asked(target(python), artifact)
            assert "\n" not in str(told.value)
        close_all()
        assert not list((tmp_path / f"cache cut{tenth}").rglob("*.partial"))
    again = asked(target(python), artifact)
    assert all(np.array_equal(one, other) for one, other in zip(right, again, strict=True))


# Answers that are none.

LIAR = """
import json, struct, sys
source = eval(sys.stdin.buffer.readline())
given = eval(source.rpartition("begin(")[2].rstrip()[:-1])
nonce = given["nonce"]
def say(said, payload=b"", nonce=nonce):
    if payload:
        said = {**said, "bytes": len(payload)}
    sys.stdout.buffer.write(json.dumps({**said, "nonce": nonce}).encode() + b"\\n" + payload)
    sys.stdout.buffer.flush()
FACTS = {"cpu": "liar", "cpus": 1, "threads": 1, "os": "Linux", "machine": "x86_64", "isa": [], "board": None,
         "hostname": "liar", "boot_id": None, "flags": [], "memory_mb": 1, "python": "3.8.0", "executable": "python3",
         "runtimes": {"onnxruntime": "1"}, "l4t": None, "process": 1}
say({"wants": 0})
say({"hello": 1, "python": "3.8.0", "machine": "liar"})
for line in sys.stdin.buffer:
    asked = json.loads(line)
    sys.stdin.buffer.read(asked.get("bytes", 0))
    to = {"to": asked.get("number")}
    do = asked["do"]
    if do == "facts":
        say({"facts": FACTS, **to})
    elif do == "missing":
        say({"missing": [], **to})
    elif do == "open":
        say({"handle": 1, "sha256": asked["files"][asked["file"]], "version": "1", **to})
    elif do == "close":
        say({"closed": 1, **to})
    elif do in ("infer", "choose", "time"):
        right = {"handle": 1, "input": asked.get("input"), "shape": [1, 1, 2, 2], "packed": False, **to}
        floats = struct.pack("<4f", 1, 2, 3, 4)
        LIE
"""


def lied_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lie: str) -> RemoteTarget:
    """A host whose runner tells this lie."""
    program = tmp_path / "liar.py"
    program.write_text(LIAR.replace("LIE", lie.replace("\n", "\n        ")))
    monkeypatch.setenv("SEGPRESS_SSH", script(tmp_path / "ssh", f"exec {sys.executable} -u {program}"))
    return target()


LIES = {
    "forged": 'say(right, floats, nonce="0" * 32)',
    "stale": 'say({**right, "to": asked["number"] - 1}, floats)',
    "unasked": 'say({key: value for key, value in right.items() if key != "to"}, floats)',
    "huge": 'sys.stdout.buffer.write(json.dumps({**right, "bytes": 1 << 40, "nonce": nonce}).encode() + b"\\n"); '
    "sys.stdout.buffer.flush()",
    "long": 'sys.stdout.buffer.write(b"x" * (1 << 21)); sys.stdout.buffer.flush()',
    "of another input": 'say({**right, "input": "0" * 64}, floats)',
    "of another artifact": 'say({**right, "handle": 2}, floats)',
    "too short": "say(right, floats[:8])",
    "of another shape": 'say({**right, "shape": [1, 1, 2, 3]}, floats)',
    "of no shape": 'say({**right, "shape": []}, floats)',
    "of a shape below zero": 'say({**right, "shape": [1, 1, -2, -2]}, floats)',
    "no object": 'sys.stdout.buffer.write(b"[1, 2]\\n"); sys.stdout.buffer.flush()',
    "more than asked": 'say({**right, "note": "believe me"}, floats)',
    "packed and is not": 'say({**right, "packed": True}, floats)',
    "packed and is more": 'import zlib; say({**right, "packed": True}, zlib.compress(bytes(1 << 24)))',
    "packed and is less": 'import zlib; say({**right, "packed": True}, zlib.compress(bytes(8)))',
    "of a shape beyond all": 'say({**right, "packed": True, "shape": [1 << 20] * 3}, floats)',
}


@pytest.mark.parametrize("lie", LIES)
def test_no_answer_that_cannot_be_is_taken_for_logits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, artifact: Artifact, lie: str
) -> None:
    remote = lied_to(tmp_path, monkeypatch, LIES[lie])
    with (
        pytest.raises(SurroundingsError, match="tower: ") as told,
        remote.open("onnxruntime").open(artifact) as infer,
    ):
        infer(images(artifact)[0])
    assert told.value.exit_code == 4 and "\n" not in str(told.value)
    close_all()


LABELS = {
    "of a third class": 'say({**right, "shape": [1, 2, 2]}, bytes([0, 1, 2, 0]))',
    "of two images": 'say({**right, "shape": [2, 1, 2]}, bytes(4))',
    "too short": 'say({**right, "shape": [1, 2, 2]}, bytes(3))',
    "floats": 'say({**right, "shape": [1, 2, 2]}, floats)',
}


@pytest.mark.parametrize("lie", LABELS)
def test_no_answer_that_cannot_be_is_taken_for_labels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, artifact: Artifact, lie: str
) -> None:
    remote = lied_to(tmp_path, monkeypatch, LABELS[lie])
    with (
        pytest.raises(SurroundingsError, match="tower: "),
        remote.open("onnxruntime").open(artifact) as infer,
    ):
        infer.labels(images(artifact)[0])  # type: ignore[attr-defined]
    close_all()


TIMES = [
    "[NaN]",
    "[Infinity]",
    "[-1.0]",
    "[0.0]",
    "[1e300]",
    '["1"]',
    "[1.0] * 9",
    "[60000.0]",
    "None",
    "1.0",
    "[True]",
]


@pytest.mark.parametrize("times", TIMES)
def test_no_answer_that_cannot_be_is_taken_for_times(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, artifact: Artifact, times: str
) -> None:
    lie = f'NaN, Infinity = float("nan"), float("inf")\nsay({{"handle": 1, "ms": {times}, **to}})'
    remote = lied_to(tmp_path, monkeypatch, lie)
    with pytest.raises(SurroundingsError, match="tower: "), remote.open("onnxruntime").open(artifact) as infer:
        remote.time(infer, images(artifact), Turn(first=0, count=3))
    close_all()


def test_logits_that_are_not_finite_are_no_score(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, artifact: Artifact
) -> None:
    from export.choice import finite

    remote = lied_to(tmp_path, monkeypatch, 'say(right, struct.pack("<4f", 1, float("nan"), 3, 4))')
    with remote.open("onnxruntime").open(artifact) as infer, pytest.raises(NotHere, match="not finite"):
        finite(infer(images(artifact)[0]))
    close_all()


def test_what_the_runtime_refuses_there_is_told_with_its_reason(tower: Server, tmp_path: Path) -> None:
    broken = written("unet of one class", tmp_path / "net.onnx")
    broken.path.write_bytes(b"no onnx")
    with (
        pytest.raises(BackendError, match=r"ONNX Runtime .* refuses net\.onnx"),
        target().open("onnxruntime").open(broken.sealed()),
    ):
        pass


# The program that is sent.


def test_the_runner_is_the_same_bytes_from_the_same_source_and_small() -> None:
    runner.cache_clear()
    first = runner()
    runner.cache_clear()
    assert runner() == first and len(first) < 100_000


def test_what_is_sent_takes_python_3_8() -> None:
    import ast

    for path in shipped():
        ast.parse(path.read_text(), filename=str(path), feature_version=(3, 8))


def pythons() -> list[str]:
    """Other Pythons of this host that the runner must take."""
    versions = [sorted(Path.home().glob(f".pyenv/versions/3.{minor}.*/bin/python")) for minor in (8, 9, 10, 12, 13)]
    return [str(found[0]) for found in versions if found]


@pytest.mark.parametrize("python", pythons() or ["none"])
def test_other_pythons_import_all_that_is_sent_but_for_the_runtimes(tmp_path: Path, python: str) -> None:
    if python == "none":
        pytest.skip("no other Python is installed")
    program = tmp_path / "runner.pyz"
    program.write_bytes(runner())
    (tmp_path / "numpy.py").write_text("ndarray = float32 = None\n")
    names = [str(path.relative_to(ROOT.parent).with_suffix("")).replace("/", ".") for path in shipped()]
    names = [name for name in names if not name.startswith("export.sessions.")]
    code = "\n".join(
        [
            f"import sys; sys.path[:0] = [{str(program)!r}, {str(tmp_path)!r}]",
            *(f"import {name}" for name in names),
            "from export.remote.runner.facts import facts",
            # A machine may have trtexec, which needs no Python.
            "assert set(facts()['runtimes']) <= {'tensorrt'}",
        ]
    )
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    subprocess.run([python, "-W", "error", "-c", code], check=True, env=environment)


def test_what_is_interrupted_leaves_no_answer_to_be_taken_for_another(
    tower: Server, artifact: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    remote, given = target(), images(artifact)
    with remote.open("onnxruntime").open(artifact) as infer:
        right = infer(given[0])
        monkeypatch.setattr(
            type(remote._conversation.begun), "_next", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt)
        )
        with pytest.raises(KeyboardInterrupt):
            infer(given[1])
        monkeypatch.undo()
        monkeypatch.setenv("SEGPRESS_SSH", tower.ssh)
        assert remote._conversation.begun is None
        assert np.array_equal(infer(given[0]), right)
