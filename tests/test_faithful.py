"""An artifact that computes another network than torch is refused, by the layer or operator that is at fault."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from onnx import numpy_helper
from torch import Tensor, nn
from zoo import conv, image, quantized, written

from compress.pipeline.faithful import FAITHFUL, fault_of_float, fault_of_integers
from export.artifact import Artifact
from export.backends import onnxruntime, openvino
from export.backends.onnxruntime import OnnxRuntime
from export.backends.openvino import OpenVino
from export.backends.torch import infer_from_module
from export.errors import BackendError
from export.to_onnx import Parity, parity, to_onnx

RUNTIMES = {"onnxruntime": (OnnxRuntime(), onnxruntime.RULES), "openvino": (OpenVino(), openvino.RULES)}
every_runtime = pytest.mark.parametrize("word", RUNTIMES)
FAR = Parity(relative_error=0.5, flipped=0.1, cases=1)
SIZE = (1, 3, 13, 17)
"""Odd, so that halves and thirds do not come out even."""


class Operators(nn.Module):
    """Operators that exporters and runtimes have each got wrong before, side by side."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv(3, 8)
        self.layers = nn.ModuleList(
            [
                nn.ConvTranspose2d(8, 8, 3, 2, 1, 1),
                nn.ConvTranspose2d(8, 8, (3, 2), (2, 3), (1, 0), (1, 2)),
                nn.ConvTranspose2d(8, 8, 3, 2, 2, 1, dilation=2),
                nn.Conv2d(8, 8, 4, padding="same"),
                nn.Conv2d(8, 8, 3, padding=2, padding_mode="reflect"),
                nn.Conv2d(8, 8, 3, padding=5, groups=8),
                nn.InstanceNorm2d(8, affine=True),
                nn.GroupNorm(2, 8),
                nn.GELU("tanh"),
                nn.Hardsigmoid(),
                nn.Mish(),
                nn.Softplus(2, 5),
                nn.MaxPool2d(3, 2, 1, 2, ceil_mode=True),
                nn.AvgPool2d(3, 2, 1, count_include_pad=False),
            ]
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        found = [layer(x) for layer in self.layers]
        found += [
            F.interpolate(x, size=(7, 11), mode=mode) for mode in ("nearest", "nearest-exact", "bilinear", "bicubic")
        ]
        found += [F.interpolate(x, (21, 30), mode=mode, align_corners=True) for mode in ("bilinear", "bicubic")]
        found += [F.adaptive_avg_pool2d(x, (5, 3)), x.cumsum(2), F.layer_norm(x, x.shape[1:])]
        return torch.cat([F.pad(each, (0, 40 - each.shape[3], 0, 60 - each.shape[2])) for each in found], 1)


class Antialiased(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = conv(3, 8), conv(8, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.interpolate(self.stem(x), size=(7, 5), mode="bicubic", antialias=True))


class Pooled(nn.Module):
    """Averages whose last windows hang over the edge, with and without the padding counted."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = conv(3, 8), conv(16, 2, 1)
        self.pools = nn.ModuleList([nn.AvgPool2d(4, 4, 1, True, count) for count in (True, False)])

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.head(torch.cat([pool(x) for pool in self.pools], 1))


class Strided(nn.Module):
    """A padded 1x1 convolution with a stride: OpenVINO 2026.4 makes its output smaller."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 2, 1, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


def built(net: nn.Module, word: str, folder: Path) -> tuple[Artifact, Parity]:
    backend, _ = RUNTIMES[word]
    source = folder / "model.onnx"
    onnx_file = Artifact.read(source) if source.is_file() else to_onnx(net, image(0, *SIZE), source)
    artifact = backend.build(onnx_file, folder)
    with backend.open(artifact) as infer:
        return artifact, parity(infer_from_module(net), infer, [image(1, *SIZE).numpy()])


def test_operators_with_many_meanings_mean_the_same_everywhere(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = Operators().eval()
    for word, (backend, _) in RUNTIMES.items():
        artifact, found = built(net, word, tmp_path)
        assert fault_of_float(word, backend, artifact, net, image(1, *SIZE).numpy(), found) is None


@pytest.mark.parametrize(("net", "operator"), [(Antialiased, "Resize"), (Strided, "Conv")])
def test_an_operator_that_a_runtime_has_otherwise_is_named(
    net: type[nn.Module], operator: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    monkeypatch.setattr(openvino, "rewritten", lambda model, _: model)
    artifact, found = built(net().eval(), "openvino", tmp_path)
    fault = fault_of_float("openvino", OpenVino(), artifact, net(), image(1, *SIZE).numpy(), found)
    # A later OpenVINO may compute it.
    assert (fault is None) == (found.relative_error <= FAITHFUL)
    assert fault is None or f"first behind {operator}" in fault or "another shape" in fault


@pytest.mark.parametrize("net", [Antialiased, Pooled])
def test_openvino_gets_operators_that_it_has_otherwise_written_another_way(
    net: type[nn.Module], tmp_path: Path
) -> None:
    torch.manual_seed(0)
    _, found = built(net().eval(), "openvino", tmp_path)
    assert found.relative_error < 1e-4


def test_logits_of_another_shape_are_no_logits_of_this_network() -> None:
    found = parity(lambda x: x, lambda x: x[..., 1:], [np.zeros((1, 2, 4, 4), np.float32)])
    assert found.relative_error > FAITHFUL and str(found) == "have another shape than torch's"


@every_runtime
def test_the_layer_that_a_runtime_computes_otherwise_is_named(word: str, tmp_path: Path) -> None:
    backend, rules = RUNTIMES[word]
    placed = quantized("residual").placed(rules)
    artifact = backend.build(written("residual", tmp_path / f"{word}.onnx", rules), tmp_path)
    x = image(1).numpy()
    lines: list[str] = []
    assert fault_of_integers(word, backend, artifact, placed, x, replace(FAR, flipped=0.0), lines.append) is None
    assert not lines
    # As a runtime would that loses a channel's bias.
    changed = lost_bias(artifact.path.with_suffix(".onnx"))
    artifact = backend.build(
        Artifact(
            path=artifact.path.with_suffix(".onnx"), format="onnx", input=artifact.input, output=artifact.output
        ).sealed(),
        tmp_path,
    )
    fault = fault_of_integers(word, backend, artifact, placed, x, FAR, print)
    assert fault is not None and f"of {changed}, " in fault and "output channel 2" in fault and "int8: keep" in fault


def lost_bias(path: Path) -> str:
    model = onnx.load(path)
    biases = [tensor for tensor in model.graph.initializer if tensor.name.endswith(".bias")]
    value = numpy_helper.to_array(biases[1]).copy()
    value[2] += 5
    biases[1].CopyFrom(numpy_helper.from_array(value, biases[1].name))
    onnx.save(model, path)
    return biases[1].name.removesuffix(".bias")


def test_a_file_that_openvino_does_not_take_is_told_by_its_operator_and_cause(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1, padding_mode="circular"), nn.Conv2d(4, 2, 1))
    file = to_onnx(net, torch.zeros(1, 3, 16, 16), tmp_path / "net.onnx")
    with pytest.raises(BackendError, match=r"OpenVINO refuses net.onnx: Pad \(.*\): Unsupported padding mode"):
        OpenVino().build(file, tmp_path)


def test_what_cannot_be_compared_layer_by_layer_is_told(tmp_path: Path) -> None:
    lines: list[str] = []
    artifact = OnnxRuntime().build(written("unet of one class", tmp_path / "net.onnx", onnxruntime.RULES), tmp_path)
    other = quantized("depthwise").placed(onnxruntime.RULES)
    assert fault_of_integers("onnxruntime", OnnxRuntime(), artifact, other, image().numpy(), FAR, lines.append) is None
    assert "not compared with torch's one by one: the file has" in lines[0]
