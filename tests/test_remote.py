"""A device over SSH, against a real OpenSSH server on the loopback: the same answers as here."""

from __future__ import annotations

import json
import shlex
import sys
import threading
from pathlib import Path
from typing import Any

import machines
import numpy as np
import pytest
import ssh_server
from over_ssh import ends, images, is_running, python_with, target
from shared_fixtures import write_recipe
from ssh_server import Server, served

from compress.commands.run import run
from compress.errors import SurroundingsError
from compress.recipe import load
from export.artifact import Artifact
from export.clock import Turn
from export.reach import Reach
from export.registry import find_backend, find_device
from export.remote import answers, link
from export.remote.conversation import Conversation, close_all
from export.remote.runner import heat, power
from export.remote.target import RemoteTarget

pytestmark = pytest.mark.skipif(not ssh_server.IS_THERE, reason=ssh_server.MISSING)


def test_a_run_answers_there_as_it_does_here_to_the_bit(tower: Server, recipe: dict[str, Any], tmp_path: Path) -> None:
    there = {"cpu": {"at": "tower", "python": python_with(tmp_path / "with OpenVINO", "unset PYTHONPATH")}}
    recipe = {**recipe, "devices": ["cpu", there]}
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


def test_logits_are_those_of_this_host_and_times_those_of_that(host: Server, artifact: Artifact) -> None:
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


def test_what_travels_travels_once(host: Server, artifact: Artifact) -> None:
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


def test_the_time_of_each_layer_is_told(host: Server, artifact: Artifact) -> None:
    remote = target()
    backend: Any = remote.open("onnxruntime")
    profile = backend.profile(artifact, images(artifact)[0], runs=3)
    assert profile.whole_us > 0 and any(node.kind == "Conv" for node in profile.nodes)


def board_at(tree: Path, folder: Path) -> str:
    """This Python on a machine whose kernel shows this tree, where inference is slow: it is watched for seconds."""
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(
        "import time\nfrom onnxruntime import InferenceSession\n_run = InferenceSession.run\n"
        "InferenceSession.run = lambda *given: time.sleep(0.02) or _run(*given)\n"
        "from pathlib import Path\n_glob = Path.glob\n"
        f"Path.glob = lambda self, *given, **more: _glob(Path({str(tree)!r}) if str(self) == '/' else self, *given, "
        "**more)\n"
    )
    return python_with(folder / "board", f"export PYTHONPATH={shlex.quote(str(folder))}:$PYTHONPATH")


def test_power_heat_and_throttling_of_a_board_are_in_the_report_and_judged(
    tower: Server, recipe: dict[str, Any], tmp_path: Path
) -> None:
    tree = machines.orin_nano(tmp_path / "tree")
    python = board_at(tree, tmp_path / "python")
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


def test_a_power_mode_of_a_device_that_has_none_is_told(host: Server) -> None:
    device = find_device("cpu").reached(Reach(at="tower", python=sys.executable, power_mode="MAXN"))
    remote = RemoteTarget(device=device, given_threads=1)
    with (
        pytest.raises(SurroundingsError, match="tower: power_mode: there is no nvpmodel on this machine"),
        remote.watcher.in_power_mode(),
    ):
        pass


def test_facts_are_those_of_the_machine(host: Server) -> None:
    facts = target(threads=3).facts()
    assert facts["at"] == "tower" and facts["threads"] == 3 and facts["cpus"] >= 1 and facts["machine"]


def test_nothing_is_left_running_there(host: Server) -> None:
    remote = target()
    process = remote._told.process
    assert is_running(process)
    remote.close()
    assert ends(process)


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


@pytest.mark.parametrize(
    "before",
    [
        "export LC_ALL=C LANG=C PYTHONIOENCODING=ascii PYTHONOPTIMIZE=2 PYTHONDONTWRITEBYTECODE=1",
        "export LC_ALL=de_DE.ISO-8859-1 PYTHONUTF8=0 PYTHONIOENCODING=latin-1; "
        "echo Welcome to the tower; echo '{\"hello\": 1}'; seq 100",
    ],
)
def test_other_locales_and_shells_that_print_change_nothing(
    tower: Server, artifact: Artifact, tmp_path: Path, before: str
) -> None:
    python = python_with(tmp_path / 'it\'s a "python" of ünïcode' / "py thon", before)
    with target(python).open("onnxruntime").open(artifact) as infer:
        assert infer(images(artifact)[0]).ndim == 4


def test_what_the_shell_there_prints_before_anything_is_no_answer(artifact: Artifact, tmp_path: Path) -> None:
    home = tmp_path / "home of theirs"
    home.mkdir()
    (home / ".bashrc").write_text(
        "echo 'Welcome to the tower'; echo '{\"hello\": 1}' >&2; echo read >> ~/rc; seq 100\n"
    )
    with served(tmp_path / "server", {"HOME": str(home)}) as server, pytest.MonkeyPatch.context() as patch:
        patch.setenv("SEGPRESS_SSH", server.ssh)
        try:
            with target().open("onnxruntime").open(artifact) as infer:
                assert infer(images(artifact)[0]).ndim == 4
        finally:
            close_all()
    if not (home / "rc").exists():
        pytest.skip("the login shell here reads no file before a command")


def test_two_pythons_of_one_host_measure_for_one_run_though_their_clocks_are_a_day_off(
    tower: Server, artifact: Artifact, tmp_path: Path
) -> None:
    def skewed(name: str, seconds: int) -> RemoteTarget:
        folder = tmp_path / name
        folder.mkdir()
        skew = f"import time\n_now = time.time\ntime.time = lambda: _now() + {seconds}\n"
        (folder / "sitecustomize.py").write_text(skew)
        return target(python_with(folder / "python", f"export PYTHONPATH={shlex.quote(str(folder))}:$PYTHONPATH"))

    first, second, given = skewed("ahead", 86400), skewed("behind", -86400), images(artifact)
    with first.open("onnxruntime").open(artifact) as one, second.open("onnxruntime").open(artifact) as other:
        assert np.array_equal(one(given[0]), other(given[0]))
        for remote, infer in ((first, one), (second, other)):
            assert 0 < sum(remote.time(infer, given, Turn(first=0, count=3))) < 60_000


def test_a_module_that_lies_in_the_users_folder_there_is_not_taken_for_pythons(
    tower: Server, artifact: Artifact, tmp_path: Path
) -> None:
    (tmp_path / "json.py").write_text("raise SystemExit('taken')\n")
    python = python_with(tmp_path / "python", f"cd {shlex.quote(str(tmp_path))}")
    assert target(python).facts()["cpus"] >= 1
