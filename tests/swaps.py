"""What tests of the passes that swap layers share: networks made describable, and a task as small as they need."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from structures import STRUCTURES
from torch import Tensor, nn

from compress.data.dataset.cases import Normalization
from compress.data.folder import Folder
from compress.storage.changed import rebuilt
from compress.storage.description import Description, build_net
from compress.storage.weights import load_net, save_net
from compress.task import Task
from export.backends.onnxruntime import OnnxRuntime
from export.to_onnx import parity, to_onnx

QUICK = {"attention_gate", "tied", "volume"}
ALL = [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in STRUCTURES]
Describe = Callable[[nn.Module], Any]
SMALL_SMP: Mapping[str, Mapping[str, Any]] = {
    "smp": {
        "arch": "Unet",
        "encoder": "resnet18",
        "classes": 2,
        "in_channels": 1,
        "options": {"encoder_depth": 3, "decoder_channels": [8, 8, 8]},
    }
}


def describes(monkeypatch: pytest.MonkeyPatch) -> Describe:
    """Makes any network one that can be described, and loaded again."""
    known: list[nn.Module] = []

    def build(network: Mapping[str, Mapping[str, Any]]) -> nn.Module:
        ((word, options),) = network.items()
        if word == "any":
            net = copy.deepcopy(known[options["place"]])
        elif word == "changed":
            net = rebuilt(options, build)
        else:
            return build_net(network)
        net.description = {word: dict(options)}  # type: ignore[assignment]
        return net

    def describe(net: nn.Module) -> nn.Module:
        net.description = {"any": {"place": len(known)}}  # type: ignore[assignment]
        known.append(copy.deepcopy(net))
        return net.eval()

    for module in ("description", "weights"):
        monkeypatch.setattr(f"compress.storage.{module}.build_net", build)
    return describe


def task_of(folder: Path, weights: Path) -> Task:
    """The tiny blobs and the tiny trained U-Net."""
    data = Folder(root=folder, size=(32, 32), normalization=Normalization(mean=(0.45,), std=(0.2,)))
    return Task(data=data(channels=1, classes=3), net=load_net(weights), seed=7)


def told(task: Task) -> tuple[Task, list[str]]:
    """The task, and what a pass says to it."""
    lines: list[str] = []
    return replace(task, note=lines.append), lines


def without_calibration(task: Task) -> Task:
    return replace(task, data=replace(task.data, cases={**task.data.cases, "calibration": []}))


def stand_in(image: Tensor, notes: list[str] | None = None, cases: int = 3) -> Any:
    """As much of a task as these passes need: random calibration cases of one shape."""

    def images(chosen: list[int]) -> Iterator[np.ndarray]:
        for seed in chosen:
            yield torch.randn(image.shape, generator=torch.Generator().manual_seed(seed)).numpy()

    data = SimpleNamespace(cases={"calibration": list(range(cases))}, images=images)
    return SimpleNamespace(example=image, seed=3, data=data, note=(notes if notes is not None else []).append)


def infer(net: nn.Module) -> Callable[[np.ndarray], np.ndarray]:
    def run(image: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return net(torch.from_numpy(image)).numpy()

    return run


def dice(task: Task, net: nn.Module) -> float:
    """Over the first of the test cases: what a network loses shows on a few."""
    return task.measure(infer(net), cases=task.data.cases["test"][:12]).mean("dice")


def check_it_travels(net: nn.Module, image: Tensor, folder: Path, tolerance: float = 1e-4) -> None:
    """Saved and loaded, and as an ONNX file, it answers as it does in torch."""
    save_net(net, Description(network=net.description), folder / "net.safetensors")  # type: ignore[arg-type]
    seen = torch.randn(image.shape, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        assert torch.allclose(load_net(folder / "net.safetensors")(seen), net(seen), atol=1e-5)
    artifact = to_onnx(net, image, folder / "net.onnx")
    with OnnxRuntime(threads=1).open(artifact) as session:
        assert parity(infer(net), session, [seen.numpy()]).relative_error < tolerance
