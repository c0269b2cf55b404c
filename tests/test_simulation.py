"""Integers in torch answer as those of the runtime do, code by code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from zoo import example, image, quantized, written

from compress.pipeline.faithful import SAME, fault_of_integers
from export.backends import onnxruntime, openvino
from export.backends.onnxruntime import OnnxRuntime
from export.backends.openvino import OpenVino
from export.quantization.quantized import Quantized
from export.to_onnx import Parity

RUNTIMES: dict[str, Any] = {
    "onnxruntime": (onnxruntime.RULES, OnnxRuntime),
    "openvino": (openvino.RULES, OpenVino),
}
SAME_CODES = (
    *(("onnxruntime", name) for name in ("unet", "depthwise", "grouped", "residual", "unpool", "pixel shuffle")),
    *(("onnxruntime", name) for name in ("transposed asymmetric", "leaky relu", "volume")),
    *(("openvino", name) for name in ("unet", "grouped", "leaky relu", "volume")),
)


@pytest.mark.parametrize(("word", "name"), SAME_CODES)
def test_the_simulation_has_the_codes_of_the_runtime(word: str, name: str, tmp_path: Path) -> None:
    rules, kind = RUNTIMES[word]
    net, backend, x = quantized(name), kind(threads=1), example(name, 7)
    artifact = backend.build(written(name, tmp_path / "net.onnx", rules), tmp_path)
    with backend.open(artifact) as infer, torch.inference_mode():
        found, simulated = torch.from_numpy(infer(x.numpy())), net.simulated(rules)(x)
    # A code that fell to the other side would change logits by a hundredth.
    assert (found - simulated).abs().max() <= 1e-5 * simulated.abs().max()


def test_a_network_is_simulated_with_more_layers_in_float_too() -> None:
    whole, kept = quantized("unet"), quantized("unet", ("encoder.*",))
    x = image(3)
    with torch.inference_mode():
        exact, some, all_ = whole.graph(x), kept.simulated(openvino.RULES)(x), whole.simulated(openvino.RULES)(x)
    assert 0 < float((some - exact).square().mean()) < float((all_ - exact).square().mean())


def test_what_is_written_into_a_file_is_not_the_simulation() -> None:
    net = quantized("unet")
    assert isinstance(net, Quantized)
    before = len(net.placed(onnxruntime.RULES).graph.nodes)
    net.simulated(onnxruntime.RULES)
    assert len(net.placed(onnxruntime.RULES).graph.nodes) == before


@pytest.mark.parametrize("flipped", [SAME / 2, 2 * SAME])
def test_an_artifact_that_leaves_its_simulation_is_told_of(flipped: float, tmp_path: Path) -> None:
    artifact = written("unet", tmp_path / "net.onnx", openvino.RULES)
    apart = Parity(relative_error=0.001, flipped=flipped, cases=1, mean_error=0.001)
    told: list[str] = []
    net: Any = quantized("unet").placed(openvino.RULES)
    assert (
        fault_of_integers("openvino", OpenVino(threads=1), artifact, net, image().numpy(), apart, told.append) is None
    )
    assert bool(told) == (flipped > SAME)
    assert all("pixels change class" in line and "max_drop" in line for line in told)
