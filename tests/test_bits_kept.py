"""Bits stay bits: in files that share a weight, behind other passes, and where activations must stay real."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from shared_fixtures import write_recipe
from test_binary import signs
from torch import Tensor, fx, nn

from compress.editing.binarization.places import Places, why_real
from compress.editing.calibration import calibrated
from compress.editing.integers.equalization import equalized
from compress.editing.layer_replacement import Site
from compress.errors import RecipeError
from compress.recipe import load
from compress.task import Task
from compress.train.learned_steps import LearnedSteps
from export.backends.onnxruntime import RULES, OnnxRuntime
from export.backends.openvino import OpenVino
from export.capture import folded_graph
from export.graph import convolutions, layer_name
from export.layers import layers_of
from export.quantization.learnt import weight_path
from export.quantization.weight_grids import in_bits, integer_layers, weight_grids
from export.to_onnx import to_onnx


@pytest.fixture
def task(recipe: dict[str, object], tmp_path: Path) -> Task:
    return load(write_recipe(tmp_path, {**recipe, "passes": ["binary"]})).task()


class Asking(nn.Module):
    """Where the answers of `asked` are largest goes back to where they were; what `free` answers is only pooled."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how
        self.first, self.asked, self.free, self.last = (
            nn.Conv2d(before, after, 3, padding=1) for before, after in ((1, 8), (8, 8), (8, 8), (8, 2))
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.asked(F.relu(self.first(x)))
        if self.how == "pooling":
            x = F.max_unpool2d(*F.max_pool2d(F.relu(x), 2, return_indices=True), 2)
        elif self.how == "comparison":
            x = torch.where(x[:, :, ::2] >= x[:, :, 1::2], x[:, :, ::2], 0.0).repeat_interleave(2, 2)
        else:
            x = x * x.argmax(1, keepdim=True)
        return self.last(F.interpolate(F.max_pool2d(self.free(x), 2), scale_factor=2))


@pytest.mark.parametrize("how", ["pooling", "comparison", "argmax"])
def test_what_is_asked_where_it_is_largest_keeps_real_activations(how: str, task: Task) -> None:
    torch.manual_seed(0)
    places = Places.of(Asking(how).eval(), task)
    assert places.compared == {"asked"}
    site = Site(names=("asked",), module=nn.Conv2d(8, 8, 3), inputs=(torch.Size((1, 8, 32, 32)),))
    assert "sums of signs are often equal" in (why_real(site, places, open_size=False) or "")
    assert why_real(replace(site, names=("free",)), places, open_size=False) is None


class Shared(nn.Module):
    """One convolution that is called twice, as what every frame or every branch shares."""

    def __init__(self, conv: type[nn.Conv2d | nn.Conv3d], zeros: bool) -> None:
        super().__init__()
        self.first, self.shared = conv(1, 8, 1), conv(8, 8, 3, padding=1)
        self.shared.weight = nn.Parameter(signs(*self.shared.weight.shape, zeros=zeros))

    def forward(self, x: Tensor) -> Tensor:
        return self.shared(F.relu(self.shared(F.relu(self.first(x)))))


@pytest.mark.parametrize(("conv", "zeros"), [(nn.Conv2d, False), (nn.Conv2d, True), (nn.Conv3d, False)])
def test_a_weight_that_several_convolutions_share_is_in_bits_once(
    conv: type[nn.Conv2d | nn.Conv3d], zeros: bool, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    net, shape = Shared(conv, zeros).eval(), (1, 1, *[8] * (conv(1, 1, 1).weight.dim() - 2))
    artifact = to_onnx(net, torch.zeros(shape), tmp_path / "net.onnx")
    assert artifact.made["weights_in_bits"] == 1
    assert [layer.bits for layer in layers_of(artifact.path, shape)] == [32, 1 + zeros, 1 + zeros]
    assert not any(
        tuple(each.dims) == tuple(net.shared.weight.shape) for each in onnx.load(artifact.path).graph.initializer
    )
    x = torch.randn(shape)
    for backend in (OnnxRuntime(), OpenVino()):
        with backend.open(backend.build(artifact, tmp_path)) as infer, torch.no_grad():
            np.testing.assert_allclose(infer(x.numpy()), net(x).numpy(), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("passes", "told"),
    [
        (["binary", "binary"], r"passes\[1\] \(binary\): behind binary layers have their bits already; give it once"),
        (
            ["binary", "distill", "depthwise"],
            r"passes\[2\] \(depthwise\): behind binary .* give depthwise before binary",
        ),
        (["binary", "lowrank"], r"passes\[1\] \(lowrank\): behind binary .* give lowrank before binary"),
        (["binary", "half"], r"passes\[1\] \(half\): behind binary half would store 16 bits .*; leave one of them out"),
    ],
)
def test_what_undoes_bits_or_does_nothing_behind_them_is_refused_beforehand(
    passes: list[str], told: str, recipe: dict[str, object], tmp_path: Path
) -> None:
    with pytest.raises(RecipeError, match=told):
        load(write_recipe(tmp_path, {**recipe, "passes": passes}))
    for right in (["depthwise", "binary"], ["binary", "int8"], ["binary", "low_bit"]):
        assert load(write_recipe(tmp_path, {**recipe, "passes": right})).passes


class Chain(nn.Module):
    """Four layers in a row, of which two have their weights in bits."""

    def __init__(self, conv: type[nn.Conv2d | nn.Conv3d]) -> None:
        super().__init__()
        self.a, self.b, self.c, self.d = conv(1, 8, 3), conv(8, 8, 3), conv(8, 8, 3), conv(8, 2, 1)
        for number, layer in enumerate((self.b, self.c)):
            layer.weight = nn.Parameter(signs(*layer.weight.shape, zeros=number == 1, seed=number))

    def forward(self, x: Tensor) -> Tensor:
        return self.d(F.relu(self.c(F.relu(self.b(F.relu(self.a(x)))))))


@pytest.fixture(params=[nn.Conv2d, nn.Conv3d], ids=["2-D", "3-D"])
def chain(request: pytest.FixtureRequest) -> tuple[fx.GraphModule, Tensor]:
    """Its graph, and an image."""
    torch.manual_seed(0)
    net = Chain(request.param).eval()
    image = torch.randn(1, 1, *[8] * (net.a.weight.dim() - 2))
    return folded_graph(net, image, ()), image


def test_channels_that_bits_read_are_not_brought_to_like_widths(chain: tuple[fx.GraphModule, Tensor]) -> None:
    graph, image = chain
    sizes = {node.name: torch.rand(8) + 0.1 for node in graph.graph.nodes if "relu" in node.name}
    after, count = equalized(graph, sizes)
    # Behind c alone: what b and c read stays as it is, while their own channels may have any size.
    assert count == 1
    assert [layer_name(node) for node in convolutions(after) if in_bits(after, node)] == ["b", "c"]
    with torch.no_grad():
        torch.testing.assert_close(after(image), graph(image), rtol=1e-4, atol=1e-4)


def test_bits_are_neither_rounded_nor_trained_anew(chain: tuple[fx.GraphModule, Tensor]) -> None:
    graph, image = chain
    ranges = calibrated(graph, [image], None, 1)
    grids = weight_grids(graph, integer_layers(graph, ()), ranges, lambda _: 4, RULES)
    assert [path.removesuffix(".weight") for path in grids] == ["a", "d"]
    steps = LearnedSteps(graph, grids, ranges, RULES)
    steps(image).square().sum().backward()
    moved = {name for name in "abcd" if steps.graph.get_parameter(f"{name}.weight").grad is not None}
    assert moved == {"a", "d"} == {weight_path(node)[0] for node in convolutions(graph) if not in_bits(graph, node)}
