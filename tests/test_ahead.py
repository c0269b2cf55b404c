"""Exports ahead: the same files as the run would write, from a process that may die at any time."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
from shared_fixtures import write_recipe

import compress.pipeline.ahead
import compress.pipeline.exporting
from compress.cache import Cache
from compress.cli import main
from compress.pipeline.ahead import ExportsAhead
from compress.pipeline.build import Builder
from compress.pipeline.deployment import deployments
from compress.pipeline.exporting import Order
from compress.pipeline.peak_memory import PeakMemory
from compress.pipeline.stages import baseline, chain
from compress.recipe import load
from export.devices.cpu import CPU
from export.registry import find_backend
from export.to_onnx import Style


def quiet(_: str) -> None:
    """A log nobody reads."""


def never(*_: Any) -> None:
    raise AssertionError("it was to be written ahead")


def test_what_is_written_ahead_is_what_the_run_would_write(
    tmp_path: Path, recipe: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compress.pipeline.ahead, "PATIENCE_S", 600)
    loaded = load(write_recipe(tmp_path, recipe | {"passes": ["int8"]}))
    task, cache = loaded.task(), Cache(tmp_path / "out")
    deployed = [each for each in deployments([CPU], threads=1) if each.backend == "openvino"]
    begun = baseline(task, "key", cache, quiet)
    stages = [begun, *chain(loaded.passes, begun, task, cache, quiet)]
    with PeakMemory() as peaks, ExportsAhead().begin().into(tmp_path / "ahead") as exports:
        builder = Builder(task, Style(), cache, quiet, peaks, exports)
        for stage in stages:
            builder.exports.order(stage, deployed)
        with monkeypatch.context() as patched:
            patched.setattr(compress.pipeline.exporting, "to_onnx", never)
            builds = [builder.build(stage, at) for stage in stages for at in deployed]
    assert [build.absent for build in builds if build is not None] == [None] * 2
    written = exported(cache)
    assert len(written) == 4 and not (tmp_path / "ahead").exists()
    for kept in ("artifacts", "kept"):
        shutil.rmtree(cache.folder / kept)
    with PeakMemory() as peaks:
        builder = Builder(task, Style(), cache, quiet, peaks)
        for stage in stages:
            builder.exports.order(stage, deployed)
            for at in deployed:
                builder.build(stage, at)
    assert exported(cache) == written


def exported(cache: Cache) -> dict[str, Any]:
    """The ONNX files of a run and what their sidecars say."""
    folder = cache.folder / "artifacts"
    files = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.onnx")}
    return files | {f"{name}.json": json.loads((folder / f"{name}.json").read_text()) for name in files}


@pytest.fixture
def order(tmp_path: Path) -> Order:
    (tmp_path / "net.safetensors").write_bytes(b"never read")
    return Order(
        net=tmp_path / "net.safetensors",
        to=tmp_path / "out" / "model.onnx",
        shape=(1, 1, 32, 32),
        rules=find_backend("openvino").rules,
        opset=20,
        dynamic=("batch",),
        metadata={"segpress.step": "baseline"},
    )


def test_an_order_reads_as_it_was_written(order: Order) -> None:
    assert Order.of(order.line()) == order and "\n" not in order.line()


def program(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """In the place of the one that exports."""
    begun = compress.pipeline.ahead.subprocess.Popen

    def popen(_: Any, **options: Any) -> Any:
        return begun([sys.executable, "-S", "-c", text], **options)

    monkeypatch.setattr(compress.pipeline.ahead.subprocess, "Popen", popen)


@pytest.mark.parametrize(
    "text",
    [
        "raise SystemExit(1)",  # dies before it reads
        "input(); raise MemoryError",  # dies over its order
        "input(); print('false', flush=True); input()",  # could not write it
        "input(); print('true', flush=True); input()",  # says it did, and there is nothing
        "input(); print('tru', end='', flush=True)",  # dies over its answer
        "import time; time.sleep(60)",  # gets no CPU
    ],
)
def test_what_was_not_written_is_not_taken(
    text: str, order: Order, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compress.pipeline.ahead, "PATIENCE_S", 0.5)
    program(monkeypatch, text)
    with ExportsAhead().begin().into(tmp_path / "ahead") as exports:
        exports.order(order)
        assert exports.take(order.to) is None and exports.take(tmp_path / "never_ordered.onnx") is None
        assert not order.to.exists()


def test_no_process_is_left_behind(order: Order, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(monkeypatch, "import time; time.sleep(60)")
    begun = ExportsAhead().begin()
    process = begun._process
    with pytest.raises(KeyboardInterrupt), begun.into(tmp_path / "ahead") as exports:
        exports.order(order)
        assert process is not None and process.poll() is None
        raise KeyboardInterrupt
    assert process is not None and process.poll() is not None and exports.take(order.to) is None


def test_where_none_is_begun_or_the_network_is_large_nothing_is_ordered(
    order: Order, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program(monkeypatch, "print('true', flush=True); input()")
    monkeypatch.setattr(compress.pipeline.ahead, "LARGEST_MB", 0)
    for ahead in (ExportsAhead(), ExportsAhead().begin()):
        with ahead.into(tmp_path / "ahead") as exports:
            exports.order(order)
            assert exports.take(order.to) is None


def test_the_command_line_ends_what_it_began_where_the_recipe_is_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program(monkeypatch, "import time; time.sleep(60)")
    monkeypatch.setattr("compress.cli._has_a_core_free", lambda: True)
    begun: list[Any] = []
    begin = ExportsAhead.begin

    def kept(ahead: ExportsAhead) -> ExportsAhead:
        begin(ahead)
        begun.append(ahead._process)
        return ahead

    monkeypatch.setattr(ExportsAhead, "begin", kept)
    monkeypatch.setattr(sys, "argv", ["compress", "run", str(tmp_path / "nowhere.yaml")])
    with pytest.raises(SystemExit, match="2"):
        main()
    assert [process.poll() is not None for process in begun] == [True]
