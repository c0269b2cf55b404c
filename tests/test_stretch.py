"""Inputs of concatenations that are much narrower than what they are joined with keep their levels."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from zoo import conv, image

from compress.editing.calibration import calibrated
from export.backends import onnxruntime, openvino, tensorrt
from export.backends.onnxruntime import OnnxRuntime
from export.backends.openvino import OpenVino
from export.capture import folded_graph
from export.graph import aten, constant
from export.quantization.placement import candidates
from export.quantization.qdq import PAIR, STRETCHED
from export.quantization.quantized import Quantized
from export.quantization.rules import Rules
from export.quantization.scales import LEVELS, levels
from export.quantization.stretch import stretch
from export.to_onnx import to_onnx

C = 16
RULES = {"onnxruntime": onnxruntime.RULES, "openvino": openvino.RULES, "tensorrt": tensorrt.RULES}


class Joined(nn.Module):
    """A narrow tensor beside a wide one, read by `reader`."""

    def __init__(self, reader: nn.Module, narrow: int = C) -> None:
        super().__init__()
        self.stem, self.wide, self.narrow = conv(3, C), conv(C, C), conv(C, narrow)
        self.reader, self.head = reader, nn.LazyConv2d(2, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        return self.head(F.relu(self.reader(torch.cat([0.5 * torch.sigmoid(self.narrow(x)), 40 * self.wide(x)], 1))))


class Dense(nn.Module):
    """Concatenations of concatenations, each read by a convolution and by the next."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([conv(C * i or 3, C) for i in range(4)])
        self.head = conv(4 * C, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        joined = F.relu(self.layers[0](x))
        for layer in self.layers[1:]:
            joined = torch.cat([joined, 30 * F.relu(layer(joined))], 1)  # type: ignore[operator]
        return self.head(joined)


class Both(nn.Module):
    """Convolution and something else read the same concatenation."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = conv(2 * C, C)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x) + torch.tanh(x)[:, :C]


class Twice(nn.Module):
    """Two convolutions read the same concatenation, one of them resized."""

    def __init__(self) -> None:
        super().__init__()
        self.near, self.far = conv(2 * C, C), conv(2 * C, C, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.near(x) + self.far(F.interpolate(F.relu(x), scale_factor=2, mode="bilinear"))


NETS = {
    "a convolution": lambda: Joined(conv(2 * C, C)),
    "groups": lambda: Joined(conv(2 * C, C, groups=2)),
    "groups across the seam": lambda: Joined(conv(C + 4, C + 4, groups=C + 4), narrow=4),
    "a transposed convolution": lambda: Joined(nn.ConvTranspose2d(2 * C, C, 2, 2)),
    "a transposed convolution in groups": lambda: Joined(nn.ConvTranspose2d(2 * C, C, 2, 2, groups=4)),
    "pooling": lambda: Joined(nn.Sequential(nn.MaxPool2d(2), conv(2 * C, C))),
    "a ReLU and a resize beside it": lambda: Joined(Twice()),
    "dense": Dense,
}
OTHERS = {
    "a shuffle of channels": lambda: Joined(nn.Sequential(nn.PixelShuffle(2), conv(C // 2, C))),
    "another function": lambda: Joined(Both()),
    "a norm": lambda: Joined(nn.Sequential(nn.InstanceNorm2d(2 * C), conv(2 * C, C))),
}


def of(net: nn.Module) -> tuple[Quantized, Tensor]:
    x = image(1, 1, 3, 8, 8)
    torch.manual_seed(0)
    net.eval()(x)
    graph = folded_graph(net, x, ())
    return Quantized(graph, calibrated(graph, [x], None, 1)), x


def relative(answer: Tensor | np.ndarray, wanted: Tensor) -> float:
    return float((torch.as_tensor(answer) - wanted).norm() / wanted.norm())


@pytest.mark.parametrize("name", NETS)
def test_a_stretched_network_answers_as_before_and_every_input_keeps_its_levels(name: str) -> None:
    net, x = of(NETS[name]())
    assert net.narrow() and all(each.stretched for each in net.narrow())
    graph = net.placed(openvino.RULES)
    with torch.no_grad():
        exact = net.graph(x)
        ranges = dict(zip(net.names, net.ranges.tolist(), strict=True))
        known = stretch(net.graph, candidates(net.graph), ranges, openvino.RULES)  # type: ignore[arg-type]
        assert relative(net.graph(x), exact) < 1e-5
    joins = [node for node in graph.graph.nodes if node.target is aten.cat.default]
    assert joins and any(source.target is STRETCHED for join in joins for source in join.args[0])
    for join in (node for node in net.graph.graph.nodes if node.target is aten.cat.default):
        spans = [known[source.name] for source in join.args[0]]
        assert all(levels(span, of=known[join.name]) >= LEVELS / 2 for span in spans)


@pytest.mark.parametrize("name", OTHERS)
def test_what_more_than_convolutions_read_is_left_as_it_is_and_has_a_scale_of_its_own(name: str) -> None:
    net, _ = of(OTHERS[name]())
    assert not any(each.stretched for each in net.narrow())
    graph = net.placed(openvino.RULES)
    assert not any(node.target is STRETCHED for node in graph.graph.nodes)
    for join in (node for node in graph.graph.nodes if node.target is aten.cat.default):
        scales = [scale(graph, source) for source in join.args[0] if source.target is PAIR]
        assert not scales or scales[0] < scales[1] / 20


def scale(graph: fx.GraphModule, pair: fx.Node) -> float:
    return float(constant(graph, pair.args[1]))  # type: ignore[arg-type]


@pytest.mark.parametrize("rules", RULES.values(), ids=RULES)
def test_inputs_of_like_ranges_share_as_ever(rules: Rules) -> None:
    net, _ = of(Joined(conv(2 * C, C)))
    with torch.no_grad():
        net.ranges[:] = torch.tensor([-1.0, 1.0])
    graph = net.placed(rules)
    (join,) = (node for node in graph.graph.nodes if node.target is aten.cat.default)
    assert all(source.target is PAIR for source in join.args[0])
    assert len({scale(graph, source) for source in join.args[0]}) == 1
    assert not net.narrow()


@pytest.mark.parametrize(
    ("rules", "backend"),
    [(onnxruntime.RULES, OnnxRuntime()), (openvino.RULES, OpenVino())],
    ids=["onnxruntime", "openvino"],
)
def test_a_runtime_computes_what_was_stretched(rules: Rules, backend: OnnxRuntime | OpenVino, tmp_path: Path) -> None:
    net, x = of(Dense())
    placed = net.placed(rules)
    artifact = backend.build(to_onnx(placed, x, tmp_path / "net.onnx"), tmp_path)
    assert artifact.made["pair_sums"]["unsafe"] == {}
    with backend.open(artifact) as infer, torch.no_grad():
        answer = infer(x.numpy())
        assert relative(answer, placed(x)) < 0.02
        assert relative(answer, net.graph(x)) < 0.06
