"""Steps that make a runtime no faster, or hardly, than the step before them, and the layers that cost it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np

from compress.cache import Cache, key_of, versions
from compress.measure.row import NOISE, Row
from compress.pipeline.build import Build
from compress.pipeline.stages import Stage
from compress.task import Task
from export.backend import Profiler
from export.layers import layers_of, with_times

HARDLY = 1.3
"""A step that takes work away and brings a speed-up below this says where the time stays."""
SHOWN = 4
_OWN = "the runtime's own work between layers"


def with_slow_layers(
    rows: Sequence[Row], builds: Sequence[Build], stages: Sequence[Stage], task: Task, cache: Cache
) -> list[Row]:
    """The rows; one that is hardly faster than the step before it on its runtime, or slower, says where the time goes.

    Args:
        stages: the baseline and the recipe's own steps; the end of a chain that is compared with follows the baseline.
    """
    built = {(each.stage.name, each.deployment.backend, each.deployment.device.name): each for each in builds}
    before = {after.name: before.name for before, after in pairwise(stages)}
    measured = {(row.step, row.backend, row.device): row for row in rows}
    told = []
    for row in rows:
        was = measured.get((before.get(row.step, "baseline"), row.backend, row.device))
        speed_up = None if was is None or row.step == "baseline" or _alike(was, row) else _speed_up(was, row)
        if was is None or speed_up is None or speed_up >= HARDLY:
            told.append(row)
            continue
        earlier, later = (built[each.step, each.backend, each.device] for each in (was, row))
        key = key_of(earlier.key, later.key, task.data.fingerprint(), versions())
        look = _slowest if speed_up < NOISE else _lasting
        layers = cache.value(f"slower-{later.name}", key_of(key, look.__name__), partial(look, earlier, later, task))
        told.append(replace(row, slower={"than": was.step, "speed_up": round(speed_up, 3), "layers": layers}))
    return told


def _alike(before: Row, after: Row) -> bool:
    """Whether they compute the same with other weights, as after a step that only trains: no slower but by chance."""
    return (before.params, before.macs, before.bit_operations) == (after.params, after.macs, after.bit_operations)


def _speed_up(before: Row, after: Row) -> float | None:
    times = [row.latency_ms["p50"] for row in (before, after) if row.latency_ms is not None]
    return times[0] / times[1] if len(times) == 2 else None


def _slowest(before: Build, after: Build, task: Task) -> list[list[Any]]:
    """The layers that take the most time more than they took before, as [name, ms before, ms after]."""
    image = next(task.data.images(task.data.cases["test"][:1]))
    was, now = (_times(build, image) for build in (before, after))
    if was is None or now is None:
        return []
    grown = sorted(now, key=lambda name: was.get(name, 0.0) - now[name])
    return [
        [name, round(was.get(name, 0.0), 3), round(now[name], 3)]
        for name in grown[:SHOWN]
        if now[name] - was.get(name, 0.0) > 0.01
    ]


def _lasting(before: Build, after: Build, task: Task) -> list[list[Any]]:
    """The layers that take the most time and were not made faster, as [name, ms before, ms after, what it is].

    A layer with another name than before (written another way) is one of its own.
    """
    image = next(task.data.images(task.data.cases["test"][:1]))
    was, now = (_times(build, image) for build in (before, after))
    if was is None or now is None:
        return []
    lasting = [name for name in now if was.get(name, 0.0) < HARDLY * now[name] and now[name] > 0.01]
    longest = sorted(lasting, key=lambda name: -now[name])[:SHOWN]
    kinds = _kinds(after, image.shape)
    return [[name, round(was.get(name, 0.0), 3), round(now[name], 3), kinds.get(name, "")] for name in longest]


def _kinds(build: Build, shape: tuple[int, ...]) -> Mapping[str, str]:
    """Why a layer of an artifact can take its time, in a word or two."""
    assert build.artifact is not None
    layers = layers_of(build.artifact.path.with_suffix(".onnx"), shape)
    words = {0: "no weights: bound by memory", 8: "in integers", 16: "in 16-bit float", 32: "in float"}
    return {_OWN: "conversions and reordering", **{layer.name: words.get(layer.bits, "") for layer in layers}}


def _times(build: Build, image_BCHW: np.ndarray) -> Mapping[str, float] | None:
    """Milliseconds of each layer; None if the runtime does not tell."""
    backend = build.deployment.open()
    if build.artifact is None or not isinstance(backend, Profiler):
        return None
    layers, own = with_times(
        layers_of(build.artifact.path.with_suffix(".onnx"), image_BCHW.shape),
        backend.profile(build.artifact, image_BCHW),
    )
    times = {layer.name: layer.microseconds / 1000 for layer in layers}
    return {**times, _OWN: sum(own.values()) / 1000}
