"""Peak memory: one process for each artifact, some of them ahead, none of them left behind."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from compress.errors import SurroundingsError
from compress.pipeline import peak_memory
from compress.pipeline.peak_memory import PeakMemory
from compress.storage.weights import load_net
from export.artifact import Artifact, Port
from export.registry import find_backend, find_device, is_for_signs, words
from export.target import Command, LocalTarget, _peak_memory
from export.to_onnx import to_onnx

CPU = find_device("cpu")


def says(text: str) -> Command:
    return [sys.executable, "-S", "-c", f"print({text!r})"]


def leaves(path: Path) -> Command:
    """Makes a file, and then takes its time."""
    return [sys.executable, "-S", "-c", f"import time; open({str(path)!r}, 'w').close(); time.sleep(60)"]


def test_peaks_are_told_in_whatever_order_they_are_asked_for() -> None:
    with PeakMemory() as peaks:
        for name in ("110", "120", "130", "140"):
            peaks.ahead(name, says(name))
        assert [peaks.mb(name) for name in ("140", "110", "120", "130")] == [140, 110, 120, 130]


def test_once_settled_nothing_runs_beside_and_all_is_known(tmp_path: Path) -> None:
    files = [tmp_path / name for name in "abc"]
    with PeakMemory(at_once=1) as peaks:
        for file in files:
            peaks.ahead(file.name, [sys.executable, "-S", "-c", f"open({str(file)!r}, 'w'); print(10)"])
        peaks.settle()
        assert all(file.exists() for file in files)
        for file in files:
            file.unlink()
        peaks.ahead("a", says("20"))
        assert [peaks.mb(file.name) for file in files] == [10, 10, 10] and not any(file.exists() for file in files)


def test_a_process_that_dies_is_named_with_its_last_words() -> None:
    with PeakMemory() as peaks, pytest.raises(SurroundingsError) as told:
        peaks.ahead("baseline-torch-cpu", [sys.executable, "-S", "-c", "raise MemoryError('no more')"])
        peaks.mb("baseline-torch-cpu")
    assert str(told.value) == "baseline-torch-cpu: the process that measures its memory died (MemoryError: no more)"


def test_so_many_run_ahead_and_none_is_left_behind(tmp_path: Path) -> None:
    files = [tmp_path / name for name in "abc"]
    begun = time.monotonic()
    with pytest.raises(KeyboardInterrupt), PeakMemory(at_once=2) as peaks:
        for file in files:
            peaks.ahead(file.name, leaves(file))
        while not (files[0].exists() and files[1].exists()):
            time.sleep(0.02)
        assert not files[2].exists()
        raise KeyboardInterrupt
    assert time.monotonic() - begun < 50


def can_give_way() -> bool:
    """Whether the system has such a line for the CPUs, and lets a process be put there."""
    if not hasattr(os, "SCHED_IDLE"):
        return False
    with subprocess.Popen([sys.executable, "-S", "-c", "input()"], stdin=subprocess.PIPE) as process:
        try:
            os.sched_setscheduler(process.pid, os.SCHED_IDLE, os.sched_param(0))
            return os.sched_getscheduler(process.pid) == os.SCHED_IDLE
        except OSError:
            return False
        finally:
            process.kill()


def test_what_runs_beside_gives_way_to_all_others() -> None:
    if not can_give_way():
        pytest.skip("this system has no processes that run only where no other would")
    waits = (
        "import os, time\nend = time.monotonic() + 30\n"
        "while os.sched_getscheduler(0) != os.SCHED_IDLE and time.monotonic() < end: time.sleep(0.01)\n"
        "print(os.sched_getscheduler(0))"
    )
    with PeakMemory() as peaks:
        peaks.ahead("a", [sys.executable, "-S", "-c", waits])
        assert peaks.mb("a") == os.SCHED_IDLE


def test_one_that_others_leave_no_cpu_is_begun_again_and_gives_way_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peak_memory, "PATIENCE_S", 0.2)
    first = tmp_path / "first"
    says = (
        f"import os, time\nif not os.path.exists({str(first)!r}): open({str(first)!r}, 'w').close(); time.sleep(60)\n"
        "print(os.sched_getscheduler(0) if hasattr(os, 'sched_getscheduler') else 0)"
    )
    with PeakMemory() as peaks:
        peaks.ahead("a", [sys.executable, "-S", "-c", says])
        while not first.exists():
            time.sleep(0.02)
        assert peaks.mb("a") == 0


def test_one_that_is_over_makes_room_though_nobody_asked(tmp_path: Path) -> None:
    with PeakMemory(at_once=1) as peaks:
        peaks.ahead("first", [sys.executable, "-S", "-c", f"open({str(tmp_path / 'first')!r}, 'w'); print(10)"])
        while not (tmp_path / "second").exists():
            peaks.ahead("second", leaves(tmp_path / "second"))
            time.sleep(0.02)
        assert (tmp_path / "first").exists() and peaks.mb("first") == 10


@pytest.fixture(scope="module")
def onnx(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return to_onnx(load_net(weights), torch.zeros(1, 1, 32, 32), tmp_path_factory.mktemp("peak") / "model.onnx")


# Every whole run asks for torch's, whose process takes a second to import it.
WORDS = [
    pytest.param(word, marks=pytest.mark.slow if word == "torch" else ())
    for word in CPU.backends
    if not is_for_signs(word)
]


@pytest.mark.parametrize("word", WORDS)
def test_a_process_that_runs_the_artifact_on_this_runtime_needs_some(
    word: str, onnx: Artifact, weights: Path, tmp_path: Path
) -> None:
    target = LocalTarget(device=CPU, threads=1, load=load_net)
    if find_backend(word).runs_modules:
        image, logits = (Port(name=name, shape=(1, 1, 32, 32), dtype="float") for name in ("image", "logits"))
        artifact = Artifact(path=weights, format="torch", input=image, output=logits)
    else:
        artifact = target.build(word, onnx, tmp_path)
    with PeakMemory() as peaks:
        peaks.ahead(word, _peak_memory(target, word, artifact))
        found = peaks.mb(word)
    assert 30 <= found < 2000
    assert found % 10 == 0, "rounded, since it varies by a few from run to run"


@pytest.mark.parametrize("word", ["onnxruntime", "openvino", "tensorrt"])
def test_what_opens_an_artifact_loads_no_other_runtime(word: str) -> None:
    opens = f"export.sessions.{word}" if word in words("export.sessions") else f"export.backends.{word}"
    code = (
        f"import sys, {opens}; "
        "print([name for name in ('torch', 'onnx', 'onnxscript', 'scipy', 'monai') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
