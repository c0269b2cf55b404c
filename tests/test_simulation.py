"""Integers in torch answer as those of the runtime do, code by code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from zoo import C, conv, example, image, quantized, written

from compress.editing.calibration import calibrated
from compress.networks.blocks.unpooling import pooled, unpooled
from compress.pipeline.faithful import SAME, fault_of_integers
from export.backends import onnxruntime, openvino
from export.backends.onnxruntime import OnnxRuntime
from export.backends.openvino import OpenVino
from export.capture import folded_graph
from export.graph import aten
from export.quantization.assignment import Assignment
from export.quantization.qdq import PAIR
from export.quantization.quantized import Quantized
from export.to_onnx import Parity, to_onnx

RUNTIMES: dict[str, Any] = {
    "onnxruntime": (onnxruntime.RULES, OnnxRuntime),
    "openvino": (openvino.RULES, OpenVino),
}
FAR = Parity(relative_error=0.5, flipped=0.0, cases=1)
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


class Kept(nn.Module):
    """Layers of every kind that ONNX Runtime puts into integers by itself, between others."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.before, self.behind, self.head = conv(3, C), conv(C, C), conv(C, 2, 1)
        kinds: dict[str, nn.Module] = {
            "conv": conv(C, C),
            "grouped": conv(C, C, groups=4),
            "transposed": nn.ConvTranspose2d(C, C, 2, 2),
        }
        self.kept = kinds[kind]

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.before(x))
        return self.head(F.relu(self.behind(F.relu(self.kept(x)))))


@pytest.mark.parametrize("kind", ["conv", "grouped", "transposed"])
def test_a_layer_kept_in_float_between_integers_is_in_float(kind: str, tmp_path: Path) -> None:
    torch.manual_seed(1)
    graph = folded_graph(Kept(kind).eval(), image(), ())
    net = Quantized(graph, calibrated(graph, [image(1)], None, 1), Assignment(keep_float=("kept",)))
    artifact = to_onnx(net.placed(onnxruntime.RULES), image(), tmp_path / "net.onnx")
    ran = OnnxRuntime(threads=1).executed_precisions(artifact)
    assert ran == {"INT8": 2, "FP32": 2}
    assert (
        fault_of_integers(
            "onnxruntime", OnnxRuntime(threads=1), artifact, net.placed(onnxruntime.RULES), image(2).numpy(), FAR, print
        )
        is None
    )


@pytest.mark.parametrize("word", RUNTIMES)
@pytest.mark.parametrize("name", ["unpool", "unpool by comparisons"])
def test_places_are_looked_for_among_values_that_nothing_rounded(name: str, word: str) -> None:
    rules, _ = RUNTIMES[word]
    placed = by_comparisons().placed(rules) if "comparisons" in name else quantized(name).placed(rules)
    looked_at = (aten.max_pool2d_with_indices.default, aten.ge.Tensor, aten.maximum.default)
    found = [node for node in placed.graph.nodes if node.target in looked_at]
    assert found
    for node in found:
        sources = list(node.all_input_nodes)
        while sources and sources[0].target is aten.slice.Tensor:
            sources = list(sources[0].all_input_nodes)
        assert all(source.target is not PAIR for source in sources)


def by_comparisons() -> Quantized:
    """SegNet's pooling and unpooling, written without indices."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.inside, self.head = conv(3, C), conv(C, C), conv(C, 2)

        def forward(self, x: Tensor) -> Tensor:
            x, places = pooled(F.relu(self.stem(x)))
            return self.head(unpooled(F.relu(self.inside(x)), places))

    torch.manual_seed(0)
    graph = folded_graph(Net().eval(), image(), ())
    return Quantized(graph, calibrated(graph, [image(1)], None, 1))


def test_of_what_is_looked_up_onnxruntime_says_why_it_is_in_float() -> None:
    net = by_comparisons()
    reasons = dict(net.in_float(onnxruntime.RULES))
    assert set(reasons) == {"stem", "head"} and "unpooling" in reasons["stem"]
    assert net.in_float(openvino.RULES) == []
