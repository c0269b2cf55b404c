"""The torch module itself: the network as it was trained, and what every other backend is compared with."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
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
    """Runs a module eagerly in float32; its artifact is the saved weights, which `load` turns into the module."""

    load: Callable[[Path], nn.Module]
    device: Device = CPU
    threads: int = 1
    rules: ClassVar[Rules | None] = None
    """It would only simulate integers in float."""
    runs_on: ClassVar[frozenset[Kind]] = frozenset({"cpu", "cuda"})
    runs_modules: ClassVar[bool] = True
    builds_on_device: ClassVar[bool] = False
    libraries: ClassVar[tuple[str, ...]] = ("torch",)

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
        infer = infer_from_module(self.load(artifact.path), "cuda" if self.device.kind == "cuda" else "cpu")
        torch.set_num_threads(self.threads)
        try:
            yield infer
        finally:
            torch.set_num_threads(before)

    def flags(self) -> dict[str, object]:
        """What was set, for the report."""
        return {
            "threads": self.threads,
            "mode": "eager float32",
            "openmp_wait_policy": os.environ.get("OMP_WAIT_POLICY", "default"),
        }


def infer_from_module(net: nn.Module, where: str = "cpu") -> Infer:
    """A module as an `Infer`, on the CPU or on "cuda"."""
    net = net.eval().to(where)

    def infer(image_BCHW: NDArray[np.float32]) -> NDArray[np.float32]:
        with torch.inference_mode():
            return net(torch.from_numpy(image_BCHW).to(where)).float().cpu().numpy()

    return infer
