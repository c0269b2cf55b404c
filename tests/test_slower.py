"""A step that is slower than the one before it on a runtime says so, and where the time goes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from shared_fixtures import write_recipe

from compress.cache import Cache
from compress.measure.row import Row
from compress.pipeline.build import Build
from compress.pipeline.deployment import Deployment, target_on
from compress.pipeline.slower import with_slow_layers
from compress.pipeline.stages import Stage
from compress.recipe import load
from export.backends.onnxruntime import OnnxRuntime
from export.devices.cpu import CPU
from export.to_onnx import to_onnx


def stage(name: str) -> Stage:
    return Stage(name=name, key=name, path=Path(), params=1, macs=1, seconds=0.0, notes=())


def row(step: str, p50: float | None, params: int | None = None) -> Row:
    times = None if p50 is None else {"p50": p50}
    size = sum(map(ord, step)) if params is None else params
    return Row(step=step, backend="onnxruntime", device="cpu", status="measured", params=size, macs=1, latency_ms=times)


def test_a_slower_step_names_the_layers_that_cost_it(tmp_path: Path, recipe: dict[str, Any]) -> None:
    task = load(write_recipe(tmp_path, recipe)).task()
    steps = [stage("baseline"), stage("01-thin"), stage("02-int8")]
    deployment = Deployment(backend="onnxruntime", target=target_on(CPU, 1))
    artifact = OnnxRuntime().build(to_onnx(task.net, task.example, tmp_path / "net.onnx"), tmp_path)
    builds = [Build(stage=each, deployment=deployment, key=each.name, artifact=artifact) for each in steps]
    times = {"baseline": 3.0, "01-thin": 1.0, "02-int8": 2.0}
    rows = [row(name, p50) for name, p50 in times.items()]
    told = with_slow_layers(rows, builds, steps, task, Cache(tmp_path))
    assert [each.slower is None for each in told] == [True, True, False]
    slower = told[-1].slower
    assert slower is not None and (slower["than"], slower["speed_up"]) == ("01-thin", 0.5)
    assert all(now > was for _, was, now in slower["layers"])
    # What was not timed is not slower.
    absent = [rows[0], rows[1], row("02-int8", None)]
    assert all(each.slower is None for each in with_slow_layers(absent, builds, steps, task, Cache(tmp_path)))
    # A step that only trains computes the same: what differs is chance.
    trained = [rows[0], rows[1], row("02-int8", 2.0, params=rows[1].params)]
    assert all(each.slower is None for each in with_slow_layers(trained, builds, steps, task, Cache(tmp_path)))


def test_a_step_that_is_hardly_faster_names_the_layers_that_take_the_time_and_what_they_are(
    tmp_path: Path, recipe: dict[str, Any]
) -> None:
    task = load(write_recipe(tmp_path, recipe)).task()
    steps = [stage("baseline"), stage("01-int8")]
    deployment = Deployment(backend="onnxruntime", target=target_on(CPU, 1))
    artifact = OnnxRuntime().build(to_onnx(task.net, task.example, tmp_path / "net.onnx"), tmp_path)
    builds = [Build(stage=each, deployment=deployment, key=each.name, artifact=artifact) for each in steps]
    rows = [row("baseline", 1.1), row("01-int8", 1.0)]
    (_, told) = with_slow_layers(rows, builds, steps, task, Cache(tmp_path))
    assert told.slower is not None and told.slower["speed_up"] == 1.1
    # The file is the same: no layer became faster.
    words = {"in float", "no weights: bound by memory", "conversions and reordering"}
    assert {what for *_, what in told.slower["layers"]} <= words
    assert told.slower["layers"]
