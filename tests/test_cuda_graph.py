"""A module on a GPU by a CUDA graph, against a stand-in for torch's graphs: here nothing is launched on a GPU.

The stand-in keeps what was captured as tensors of the CPU, and computes it again where a graph is replayed.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from export.artifact import Artifact
from export.backends import torch as backends
from export.backends.torch import SHAPES, OnGpu, Torch, infer_from_module
from export.devices.cuda import CUDA

RNG = np.random.default_rng(3)


class Net(nn.Module):
    """A convolution that says what went through it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 3, padding=1)
        self.last: tuple[torch.Tensor, torch.Tensor] | None = None
        self.runs = 0

    def forward(self, image_BCHW: torch.Tensor) -> torch.Tensor:
        self.runs += 1
        answer_BKHW: torch.Tensor = self.conv(image_BCHW)
        self.last = image_BCHW, answer_BKHW
        return answer_BKHW


class Graph:
    """A captured graph of the one network there is."""

    net: Net
    kind = "right"
    replayed = 0

    def replay(self) -> None:
        Graph.replayed += 1
        given, answer = self.captured  # type: ignore[attr-defined]
        if Graph.kind == "right":
            with torch.inference_mode():
                answer.copy_(self.net.conv(given))


@contextmanager
def capture(graph: Any) -> Iterator[None]:
    if Graph.kind == "refused":
        raise RuntimeError("CUDA error: operation not permitted\n when stream is capturing")
    yield
    graph.captured = graph.net.last


@pytest.fixture
def net(monkeypatch: pytest.MonkeyPatch) -> Iterator[Net]:
    stream = SimpleNamespace(wait_stream=lambda other: None)
    for name, value in {
        "Stream": lambda: stream,
        "current_stream": lambda: stream,
        "stream": lambda _: nullcontext(),
        "CUDAGraph": Graph,
        "graph": capture,
    }.items():
        monkeypatch.setattr(torch.cuda, name, value)
    torch.manual_seed(0)
    Graph.net, Graph.kind, Graph.replayed = Net(), "right", 0
    yield Graph.net


def image(side: int = 8) -> np.ndarray:
    return RNG.normal(size=(1, 1, side, side)).astype(np.float32)


def test_a_graph_is_captured_once_for_a_shape_and_answers_as_the_module_does(net: Net) -> None:
    infer, right = OnGpu(net, "cpu"), infer_from_module(net)
    for number in range(4):
        given = image()
        assert np.allclose(infer(given), right(given), atol=1e-6)
        # Each: one to check the graph, and one for every inference; the network itself runs for the capture alone.
        assert Graph.replayed == number + 2
    runs = net.runs
    infer(image())
    assert net.runs == runs and infer.flags()["mode"] == "CUDA graph, float32" and "no_graph" not in infer.flags()


@pytest.mark.parametrize(("kind", "why"), [("refused", "operation not permitted when"), ("stale", "answers otherwise")])
def test_what_cannot_be_captured_runs_eagerly_and_says_why(net: Net, kind: str, why: str) -> None:
    Graph.kind = kind
    infer, given = OnGpu(net, "cpu"), image()
    assert np.array_equal(infer(given), infer_from_module(net)(given))
    assert infer.flags()["mode"] == "eager float32" and why in str(infer.flags()["no_graph"])


def test_answers_are_no_buffer_that_the_next_one_overwrites(net: Net) -> None:
    infer, first = OnGpu(net, "cpu"), image()
    answer = infer(first)
    kept = answer.copy()
    infer(image())
    assert np.array_equal(answer, kept)


def test_few_shapes_have_graphs(net: Net) -> None:
    infer = OnGpu(net, "cpu")
    for side in range(8, 8 + SHAPES + 2):
        assert infer(image(side)).shape == (1, 2, side, side)
    assert sum(graph is not None for graph in infer._graphs.values()) == SHAPES


def test_the_backend_tells_how_a_gpu_computed(net: Net, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(backends, "OnGpu", lambda module: OnGpu(module, "cpu"))
    monkeypatch.setattr(backends, "isinstance", lambda one, _: hasattr(one, "flags"), raising=False)
    backend = Torch(load=lambda _: net, device=CUDA)
    artifact: Any = SimpleNamespace(path=tmp_path)
    assert isinstance(artifact, SimpleNamespace) and Artifact
    with backend.open(artifact) as infer:
        infer(image())
        assert backend.flags()["mode"] == "CUDA graph, float32" and "tf32_convolutions" in backend.flags()
    assert Torch(load=lambda _: net).flags()["mode"] == "eager float32"
