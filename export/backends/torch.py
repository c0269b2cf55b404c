"""The torch module itself: the network as it was trained, and what every other backend is compared with."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from export.artifact import Artifact, Infer
from export.device import Device, Kind
from export.devices.cpu import CPU
from export.quantization.rules import Rules


@dataclass(frozen=True, kw_only=True)
class Torch:
    """Runs a module in float32; its artifact is the saved weights, which `load` turns into the module.

    Eagerly on a CPU; on a GPU by a CUDA graph where the module can be captured in one.
    """

    load: Callable[[Path], nn.Module]
    device: Device = CPU
    threads: int = 1
    rules: ClassVar[Rules | None] = None
    """It would only simulate integers in float."""
    runs_on: ClassVar[frozenset[Kind]] = frozenset({"cpu", "cuda"})
    runs_modules: ClassVar[bool] = True
    builds_on_device: ClassVar[bool] = False
    libraries: ClassVar[tuple[str, ...]] = ("torch",)
    _last: list[OnGpu] = field(default_factory=list, init=False, repr=False, compare=False)
    """What was opened on a GPU last."""

    @staticmethod
    def check_installed() -> None:
        """Always: everything begins in torch."""

    def build(self, onnx: Artifact, folder: Path) -> Artifact:
        """The weights beside the ONNX file they were exported to: nothing is converted."""
        return onnx

    @contextmanager
    def open(self, artifact: Artifact) -> Iterator[Infer]:
        """The module in evaluation mode."""
        before = torch.get_num_threads()
        net = self.load(artifact.path)
        infer = infer_from_module(net) if self.device.kind == "cpu" else OnGpu(net)
        self._last[:] = [infer] if isinstance(infer, OnGpu) else []
        torch.set_num_threads(self.threads)
        try:
            yield infer
        finally:
            torch.set_num_threads(before)

    def flags(self) -> dict[str, object]:
        """What was set, for the report."""
        told: dict[str, object] = {
            "threads": self.threads,
            "mode": "eager float32",
            "openmp_wait_policy": os.environ.get("OMP_WAIT_POLICY", "default"),
        }
        return {**told, **(self._last[0].flags() if self._last else {})}


def infer_from_module(net: nn.Module, where: str = "cpu") -> Infer:
    """A module as an `Infer`, on the CPU or on "cuda"."""
    net = net.eval().to(where)

    def infer(image_BCHW: NDArray[np.float32]) -> NDArray[np.float32]:
        with torch.inference_mode():
            return net(torch.from_numpy(image_BCHW).to(where)).float().cpu().numpy()

    return infer


WARM = 3
"""Inferences before a capture, in which libraries choose kernels and take memory (PyTorch, "CUDA Graphs")."""
SHAPES = 4
"""Graphs that are kept, each with memory of its own; inputs of further shapes are computed eagerly."""
ALIKE = 1e-3
"""Relative error of the logits above which a graph does not compute the network: TF32 rounds to 10 bits."""


class OnGpu:
    """A module on a GPU: logits_BKHW = infer(image_BCHW), copies to it and back included.

    By one CUDA graph for each shape, where the module can be captured: launching kernel after kernel from Python takes
    longer than they do. It is checked on another input than it was captured with, and left for the module itself where
    it answers otherwise, as one does whose path depends on its values.
    """

    def __init__(self, net: nn.Module, where: str = "cuda") -> None:
        self._net, self._where = net.eval().to(where), where
        self._graphs: dict[tuple[int, ...], _Graph | None] = {}
        self._why: str | None = None

    def __call__(self, image_BCHW: NDArray[np.float32]) -> NDArray[np.float32]:
        if image_BCHW.shape not in self._graphs:
            self._graphs[image_BCHW.shape] = self._captured(image_BCHW) if len(self._graphs) < SHAPES else None
        graph = self._graphs[image_BCHW.shape]
        return self._eagerly(image_BCHW) if graph is None else graph(image_BCHW)

    def flags(self) -> dict[str, object]:
        """How it computed, and why not by a graph; and whether convolutions round to TF32, as torch does by itself."""
        captured = any(graph is not None for graph in self._graphs.values())
        told: dict[str, object] = {
            "mode": "CUDA graph, float32" if captured else "eager float32",
            "tf32_convolutions": torch.backends.cudnn.allow_tf32,
            "data_transfers": "included",
        }
        return {**told, **({"no_graph": self._why} if self._why else {})}

    def gpu_ms(self, image_BCHW: NDArray[np.float32], runs: int) -> list[float]:
        """The milliseconds of each inference on the GPU alone, by its own events: copies are left out."""
        self(image_BCHW)
        graph, given = self._graphs[image_BCHW.shape], torch.from_numpy(image_BCHW).to(self._where)
        found = []
        for _ in range(runs):
            begun, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            with torch.inference_mode():
                begun.record()
                self._net(given) if graph is None else graph.replay()
                ended.record()
            ended.synchronize()
            found.append(float(begun.elapsed_time(ended)))
        return found

    def _eagerly(self, image_BCHW: NDArray[np.float32]) -> NDArray[np.float32]:
        with torch.inference_mode():
            # The copy back waits for what was launched.
            return self._net(torch.from_numpy(image_BCHW).to(self._where)).float().cpu().numpy()

    def _captured(self, image_BCHW: NDArray[np.float32]) -> _Graph | None:
        """A graph for inputs of this shape; None where there is none, and then why is told."""
        other_BCHW = np.ascontiguousarray(image_BCHW[..., ::-1])
        try:
            graph = _Graph(self._net, torch.from_numpy(image_BCHW).to(self._where, copy=True))
            found, right = graph(other_BCHW), self._eagerly(other_BCHW)
        except RuntimeError as error:
            self._why = " ".join(str(error).split())[:200]
            return None
        if np.abs(found - right).max() > ALIKE * max(float(np.abs(right).max()), 1e-12):
            self._why = "a captured graph answers otherwise than the network: its path depends on its values"
            return None
        return graph


class _Graph:
    """What a module launches for one shape of input, captured once."""

    def __init__(self, net: nn.Module, given_BCHW: torch.Tensor) -> None:
        self._given, beside = given_BCHW, torch.cuda.Stream()
        beside.wait_stream(torch.cuda.current_stream())
        with torch.inference_mode():
            with torch.cuda.stream(beside):
                for _ in range(WARM):
                    net(given_BCHW)
            torch.cuda.current_stream().wait_stream(beside)
            self._graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self._graph):
                self._answer = net(given_BCHW).float()

    def __call__(self, image_BCHW: NDArray[np.float32]) -> NDArray[np.float32]:
        self._given.copy_(torch.from_numpy(image_BCHW))
        self.replay()
        # The copy back waits for the graph.
        return self._answer.to("cpu", copy=True).numpy()

    def replay(self) -> None:
        """Launch all of it once; returns before it is done."""
        self._graph.replay()
