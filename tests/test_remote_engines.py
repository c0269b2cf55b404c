"""TensorRT's engines built on a device over SSH: by its Python module, or by trtexec; both are fakes (tests/fakes)."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ssh_server
from over_ssh import ends, is_running
from ssh_server import Server
from test_trtexec import FAKES, fake_trtexec

from compress.measure.row import Row
from compress.pipeline.executed import executed
from export.artifact import Artifact, Port
from export.clock import Turn
from export.device import Device
from export.errors import BackendError, NotHere, SegpressError, SurroundingsError
from export.reach import Reach
from export.remote.answers import BuiltThere
from export.remote.link import Link
from export.remote.target import RemoteTarget

pytestmark = pytest.mark.skipif(not ssh_server.IS_THERE, reason=ssh_server.MISSING)


@pytest.fixture
def onnx(tmp_path: Path) -> Artifact:
    import onnx as onnx_format
    from onnx import helper

    quantize = helper.make_node("QuantizeLinear", ["image", "scale"], ["logits"])
    onnx_format.save(helper.make_model(helper.make_graph([quantize], "net", [], [])), tmp_path / "net.onnx")
    port = Port(name="image", shape=(1, 3, 8, 8), dtype="float")
    return Artifact(path=tmp_path / "net.onnx", format="onnx", input=port, output=port).sealed()


def python_there(folder: Path, words: str) -> str:
    """This Python in another environment, without the other runtimes, which a runner would import to tell of them."""
    few = folder / "few"
    few.mkdir()
    for runtime in ("onnxruntime", "openvino"):
        (few / f"{runtime}.py").write_text(f"raise ModuleNotFoundError('No module named {runtime}')\n")
    path = folder / "python there"
    lines = ["#!/bin/sh", f"export {words}", f'export PYTHONPATH="{few}:$PYTHONPATH"']
    path.write_text("\n".join([*lines, f'exec {shlex.quote(sys.executable)} "$@"', ""]))
    path.chmod(0o755)
    return str(path)


def target(python: str, dla: int | None = None) -> RemoteTarget:
    board = Device(name="board", title="A board", kind="cuda", backends=("tensorrt", "onnxruntime"), dla_cores=2)
    return RemoteTarget(device=board.reached(Reach(at="tower", python=python, dla=dla)), given_threads=1)


def with_module(folder: Path, version: str = "10.3.0") -> str:
    return python_there(folder, f"PYTHONPATH={FAKES} FAKE_TENSORRT={version}")


def with_trtexec(folder: Path, version: str = "10.3.0") -> str:
    """Where every module of TensorRT is missing, and trtexec is in PATH."""
    hidden = folder / "hidden"
    hidden.mkdir()
    (hidden / "sitecustomize.py").write_text(
        "import importlib.util, sys\n"
        "find = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda name, *more: None if name.startswith('tensorrt') else find(name, *more)\n"
    )
    program = Path(fake_trtexec(folder, version))
    return python_there(folder, f'PATH="{program.parent}:$PATH" PYTHONPATH={hidden}')


def test_the_module_there_builds_and_what_it_built_comes_back_with_its_log(
    tower: Server, onnx: Artifact, tmp_path: Path
) -> None:
    remote = target(with_module(tmp_path))
    artifact = remote.build("tensorrt", onnx, tmp_path)
    assert artifact.path.name == "net.board@tower.engine" and artifact.format == "tensorrt"
    assert json.loads(artifact.path.read_text()) == {"fake": "10.3.0"}
    assert (tmp_path / artifact.made["log"]).is_file() and Artifact.read(artifact.path) == artifact
    assert artifact.made["flags"] == {"strongly_typed": True} and artifact.made["device"]["name"] == "board@tower"
    assert artifact.made["onnx_sha256"] == onnx.made["sha256"]
    # The engine is there already, by its content: opening it sends nothing.
    sent = remote.sent_bytes
    backend = remote.open("tensorrt")
    with pytest.raises(NotHere, match=r"tower: .*CUDA"), backend.open(artifact):
        pass
    assert remote.sent_bytes == sent
    assert executed(backend, artifact) is None


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler is installed")
def test_an_engine_runs_is_timed_and_tells_of_itself_there(tower: Server, onnx: Artifact, tmp_path: Path) -> None:
    """The CUDA runtime is a real library, if a fake: its functions are called through their C interface."""
    library = tmp_path / "libcudart.so"
    # A compiler does not run as on a lesser CPU (benchmarks/lesser_cpu.py).
    plain = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
    subprocess.run(["cc", "-shared", "-fPIC", "-o", str(library), str(FAKES / "cudart.c")], check=True, env=plain)
    there = python_there(tmp_path, f"LD_LIBRARY_PATH={tmp_path} PYTHONPATH={FAKES}")
    remote = target(there)
    artifact = remote.build("tensorrt", onnx, tmp_path)
    backend: Any = remote.open("tensorrt")
    image = np.arange(192, dtype=np.float32).reshape(1, 3, 8, 8)
    with backend.open(artifact) as infer:
        assert np.array_equal(infer(image), 2 * image)
        assert len(remote.time(infer, [image, image + 1], Turn(first=0, count=4, untimed=1))) == 4
    assert executed(backend, artifact) == {"INT8": 1, "FP16": 1}
    profile = backend.profile(artifact, image, runs=2)
    assert {(node.names[-1], node.precision) for node in profile.nodes} == {("relu", "INT8"), ("b", "FP16")}
    assert remote.peak_memory("tensorrt", artifact)() > 0


def test_trtexec_builds_where_there_is_no_module_and_its_times_are_told_with_what_is_not_measured(
    tower: Server, onnx: Artifact, tmp_path: Path
) -> None:
    remote = target(with_trtexec(tmp_path))
    artifact = remote.build("tensorrt", onnx, tmp_path)
    backend = remote.open("tensorrt")
    assert backend.flags()["version"] == "10.3.0 (trtexec)" and artifact.made["built_by"] == "trtexec"
    assert "--stronglyTyped" in artifact.made["command"]
    assert executed(backend, artifact) == {"INT8": 1, "FP16": 1}
    says = r"no Python module of TensorRT, so no answer can be scored; .*; trtexec timed 5 inferences: median 0\.720 ms"
    with pytest.raises(NotHere, match=says), backend.open(artifact):
        pass
    # What kernels took is kept there for the next build of this version on this GPU.
    assert {path.read_bytes() for path in (tower.home / "timing").glob("*trtexec*")} == {b"timed"}


def test_what_a_dla_core_leaves_to_the_gpu_comes_back(tower: Server, onnx: Artifact, tmp_path: Path) -> None:
    remote = target(with_module(tmp_path), dla=0)
    assert tuple(remote.backends) == ("tensorrt",)
    artifact = remote.build("tensorrt", onnx, tmp_path)
    assert artifact.path.name == "net.board@tower+dla0.engine"
    assert artifact.made["fallback"] == {"layers": 1, "names": ["up"], "on_dla": 1, "why": []}


def test_a_board_whose_tensorrt_has_no_dla_says_so(tower: Server, onnx: Artifact, tmp_path: Path) -> None:
    with pytest.raises(NotHere, match=r"tower: TensorRT 10.13.3 has no DLA"):
        target(with_module(tmp_path, "10.13.3"), dla=0).build("tensorrt", onnx, tmp_path)


def test_a_file_that_is_refused_there_names_the_node(tower: Server, onnx: Artifact, tmp_path: Path) -> None:
    remote = target(with_trtexec(tmp_path))
    from export.backends.tensorrt import TensorRt
    from export.remote.building import built_there

    class Backend:
        device = remote.device
        kept = TensorRt(device=remote.device).kept

        @staticmethod
        def wanted(artifact: Artifact) -> object:
            # The one that is refused is no file of ONNX's.
            return TensorRt(device=remote.device).wanted(onnx)

    refused = Artifact(path=tmp_path / "bad.onnx", format="onnx", input=onnx.input, output=onnx.output)
    refused.path.write_bytes(b"refused")
    with pytest.raises(BackendError, match=r"^tower: TensorRT 10.3.0 refuses bad.onnx: node head \(Einsum\): "):
        built_there(remote.remote, Backend(), "tensorrt", refused, tmp_path)
    assert not list(tmp_path.glob("*.engine"))


def test_a_build_ends_with_the_link(tower: Server, onnx: Artifact, tmp_path: Path) -> None:
    remote = target(with_trtexec(tmp_path))
    slow = replace(onnx, path=tmp_path / "slow.onnx")
    slow.path.write_bytes(b"slow")
    request = {"do": "build", **remote.remote.opening("tensorrt", slow), "wanted": {"input": "image"}}
    errors: list[BaseException] = []

    def ask() -> None:
        try:
            remote._conversation.ask(BuiltThere, request)
        except SegpressError as error:
            errors.append(error)

    asking = threading.Thread(target=ask)
    asking.start()
    process = told(tower.home / "timing" / "process")
    link = remote._conversation.begun
    assert isinstance(link, Link) and is_running(process)
    link._process.kill()
    asking.join(timeout=20)
    assert ends(process) and isinstance(errors[0], SurroundingsError)


def test_a_build_that_is_killed_is_told_and_the_runner_goes_on(tower: Server, onnx: Artifact, tmp_path: Path) -> None:
    remote = target(python_there(tmp_path, f"PYTHONPATH={FAKES} FAKE_TENSORRT_IS_KILLED=yes"))
    with pytest.raises(
        SurroundingsError, match=r"tower: the process that built the engine of net.onnx was killed, most"
    ):
        remote.build("tensorrt", onnx, tmp_path)
    assert remote.conditions()


def told(path: Path) -> int:
    """The process that wrote its number there, once it has."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and not (path.is_file() and path.read_text()):
        time.sleep(0.05)
    return int(path.read_text())


def test_a_gate_on_fallback_holds_only_where_it_is_known() -> None:
    from compress.gates.fallback import Fallback

    def row(fallback: dict[str, object] | None, device: str = "board@tower+dla0") -> Row:
        about = {"step": "01-int8", "backend": "tensorrt", "device": device, "params": 1, "macs": 1}
        return Row(**about, status="built", fallback=fallback)  # type: ignore[arg-type]

    known = {"layers": 1, "names": ["up"], "on_dla": 1, "why": []}
    cases = [
        (known, 0, "fails"),
        (known, 1, "holds"),
        ({**known, "layers": 0, "names": []}, 0, "holds"),
        (None, 9, "inconclusive"),
    ]
    for fallback, at_most, verdict in cases:
        (found,) = Fallback(at_most=at_most, device="board")([row(fallback)])
        assert found.verdict == verdict
    # Others have no core whose layers could fall back.
    (found,) = Fallback(at_most=1)([row(None, "cpu"), row(known), row(None, "board@tower")])
    assert (found.verdict, found.reason) == ("holds", "elsewhere: up")
    (found,) = Fallback(at_most=1)([row(None, "cpu")])
    assert found.verdict == "inconclusive" and "give device: NAME+dla0" in (found.reason or "")
