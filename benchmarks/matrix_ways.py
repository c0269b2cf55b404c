"""The ways of float and of plain 8-bit integers: export, passes that change layers, each runtime."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn

from benchmarks.matrix_rows import Network, built, image_of
from benchmarks.matrix_same import NEAR, NEAR_INT8, SHAKEN, SHAKEN_INT8, compared
from compress.errors import SegpressError
from compress.passes.depthwise import Depthwise
from compress.passes.int8 import Int8
from compress.passes.prune import Prune
from compress.pipeline.deployment import target_on
from compress.storage.description import Description
from compress.storage.weights import load_net, save_net
from export.artifact import Artifact
from export.backends import onnxruntime, openvino, tensorrt
from export.files import make_folder
from export.quantization.quantized import Quantized
from export.registry import find_device
from export.to_onnx import to_onnx

GPU = "rtx_40"
RULES = {"onnxruntime": onnxruntime.RULES, "openvino": openvino.RULES, "tensorrt": tensorrt.RULES}


class Ways:
    """The columns, each a way that one network is taken."""

    def __init__(self, network: Network, folder: Path) -> None:
        self.folder = folder
        self.net = built(network)
        self.images = [image_of(network.shape, seed) for seed in range(4)]
        self.task: Any = SimpleNamespace(
            net=self.net,
            example=torch.zeros(network.shape),
            seed=0,
            folder=None,
            dynamic=(),
            note=lambda _: None,
            data=SimpleNamespace(
                cases={"calibration": self.images}, images=lambda cases: (case.numpy() for case in cases)
            ),
        )
        self._int8: Quantized | SegpressError | None = None
        self._files: dict[str, Artifact] = {}

    def columns(self) -> dict[str, Callable[[], str]]:
        """By its word, each way: what it came to, or an error."""
        return {
            "fp32": lambda: self._same(self._whole(), "onnxruntime", self.net, NEAR),
            "int8": lambda: self._exported(onnxruntime.RULES).path.name,
            "prune": self._pruned,
            "depthwise": self._separable,
            "onnxruntime": lambda: self._runs("onnxruntime", onnxruntime.RULES),
            "openvino": lambda: self._runs("openvino", openvino.RULES),
            "tensorrt": self._engine,
        }

    @property
    def int8(self) -> Quantized:
        """The network in integers, made once; that it cannot be made is said as often as it is asked for."""
        if self._int8 is None:
            try:
                made = Int8()(self.net, self.task)
                assert isinstance(made, Quantized)
                self._int8 = made
            except SegpressError as error:
                self._int8 = error
        if isinstance(self._int8, SegpressError):
            raise self._int8
        return self._int8

    def _file(self, name: str, net: Callable[[], nn.Module]) -> Artifact:
        """An ONNX file, written once: several columns ask for the same."""
        if name not in self._files:
            self._files[name] = to_onnx(net(), self.task.example, self.folder / f"{name}.onnx")
        return self._files[name]

    def _whole(self) -> Artifact:
        return self._file("fp32", lambda: self.net)

    def _pruned(self) -> str:
        return self._changed(Prune(ratio=0.5, multiple=1)(self.net, self.task), "pruned")

    def _separable(self) -> str:
        return self._changed(Depthwise(at_least=1)(self.net, self.task), "depthwise")

    def _changed(self, net: nn.Module, name: str) -> str:
        """Saved, loaded and exported, it still answers as it did; and there is less of it."""
        before, after = (sum(tensor.numel() for tensor in each.parameters()) for each in (self.net, net))
        assert after < before, f"{before:,} -> {after:,} parameters"
        path = self.folder / f"{name}.safetensors"
        save_net(net, Description(network=net.description), path)  # type: ignore[arg-type]
        again = load_net(path)
        with torch.no_grad():
            assert torch.allclose(again(self.images[0]), net(self.images[0]), atol=1e-4, rtol=1e-4), (
                "loaded, it differs"
            )
        said = self._same(self._file(name, lambda: again), "onnxruntime", again, NEAR)
        return f"{before / after:.2f}x fewer parameters; {said}"

    def _exported(self, rules: Any) -> Artifact:
        name = next(word for word, one in RULES.items() if one is rules)
        return self._file(f"int8-{name}", lambda: self.int8.placed(rules))

    def _runs(self, word: str, rules: Any) -> str:
        """The float and the integer network, built for a runtime and run there."""
        self._same(self._whole(), word, self.net, NEAR)
        net = self.int8.placed(rules)
        return self._same(self._exported(rules), word, net, NEAR_INT8, SHAKEN_INT8)

    def _same(self, onnx: Artifact, word: str, net: nn.Module, near: float, shaken: float = SHAKEN) -> str:
        target = target_on(find_device("cpu"), 1)
        built = target.build(word, onnx, make_folder(self.folder / word))
        image = self.images[0]
        with target.open(word).open(built) as infer:
            return compared(infer(image.numpy()), net, image, near, shaken)

    def _engine(self) -> str:
        target = target_on(find_device(GPU), 1)
        sizes = [
            target.build("tensorrt", onnx, make_folder(self.folder / f"engine{number}")).path.stat().st_size / 1e6
            for number, onnx in enumerate((self._whole(), self._exported(tensorrt.RULES)))
        ]
        return f"{sizes[0]:.1f} MB, in integers {sizes[1]:.1f} MB"
