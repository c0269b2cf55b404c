"""Where choices of precision are built, timed and scored: one runtime of one device."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from compress.measure.latency import Timing, in_turns
from compress.storage.weights import load_net
from export.artifact import Artifact, Infer
from export.backend import Profiler
from export.layers import Layer, layers_of, with_times
from export.quantization.assignment import ByRuntime
from export.quantization.quantized import Quantized
from export.quantization.rules import Rules
from export.registry import find_device
from export.target import Target, target_of
from export.to_onnx import Style, to_onnx

if TYPE_CHECKING:
    from compress.task import Task

Names = frozenset[str]
"""The units that are in float; all others are in integers."""
TIMING = Timing(samples=60, seconds=2.0, warm_up=0.5)
"""Enough for medians that are told apart by a few percent."""


@dataclass(frozen=True, kw_only=True)
class Bench:
    """One runtime on one device, and what was built for it so far."""

    quantized: Quantized
    task: Task
    word: str
    """The runtime."""
    rules: Rules
    target: Target
    folder: Path
    built: dict[Names, Artifact] = field(default_factory=dict)

    def artifact(self, in_float: Names) -> Artifact:
        """The network with these units in float, as the runtime runs it."""
        if in_float not in self.built:
            folder = self.folder / f"{self.word}-{len(self.built)}"
            folder.mkdir(parents=True)
            net = with_units(self.quantized, self.rules, in_float).placed(self.rules)
            onnx = to_onnx(net, self.task.example, folder / "net.onnx", Style(dynamic=self.task.dynamic))
            self.built[in_float] = self.target.build(self.word, onnx, folder)
        return self.built[in_float]

    @contextmanager
    def opened(self, in_float: Names) -> Iterator[Infer]:
        """The artifact, loaded and ready."""
        with self.target.open(self.word).open(self.artifact(in_float)) as infer:
            yield infer

    def ms(self, choices: Sequence[Names]) -> list[float]:
        """The median time of each choice on real inputs, taken in turns (batch 1, warm)."""
        images = list(self.task.probes())
        with ExitStack() as stack:
            clocks: Mapping[str, Callable[..., list[float]]] = {
                str(place): partial(self.target.time, stack.enter_context(self.opened(choice)), images)
                for place, choice in enumerate(choices)
            }
            times = in_turns(clocks, TIMING, self.task.seed)
        return [float(times[str(place)].as_dict()["p50"]) for place in range(len(choices))]

    def layers(self, in_float: Names) -> tuple[list[Layer], float] | None:
        """The layers of a choice with their times, and the runtime's own work (µs); None if it tells none."""
        backend, artifact, image = self.target.open(self.word), self.artifact(in_float), self._image()
        if not isinstance(backend, Profiler):
            return None
        layers = layers_of(artifact.path.with_suffix(".onnx"), image.shape)
        timed, own = with_times(layers, backend.profile(artifact, image))
        return timed, sum(own.values())

    def _image(self) -> NDArray[np.float32]:
        return next(iter(self.task.probes(most=1)))


def with_units(quantized: Quantized, rules: Rules, in_float: Names) -> Quantized:
    """The same network with these units in float for one runtime."""
    return assigned(
        quantized, {**quantized.assignment.by_runtime, rules.runtime: dict.fromkeys(sorted(in_float), "float32")}
    )


def assigned(quantized: Quantized, chosen: ByRuntime) -> Quantized:
    """The same network with what was chosen for each runtime."""
    return quantized.changed(assignment=replace(quantized.assignment, by_runtime=chosen))


def target_on(device: str, threads: int | None) -> Target:
    """The device on which choices are timed."""
    return target_of(find_device(device), threads, load_net)
