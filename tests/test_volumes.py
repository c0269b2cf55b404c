"""Networks of volumes go through the passes and out to the engines, as those of images do."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from swaps import check_it_travels, infer, stand_in
from torch import Tensor, nn

from compress.editing.pruning.dependency.graph import traced
from compress.editing.pruning.removal import Cut, without
from compress.measure.complexity import cost_of
from compress.passes.depthwise import Depthwise
from compress.passes.foldable_norm import FoldableNorm
from compress.passes.int8 import Int8
from compress.passes.lowrank import Lowrank
from compress.passes.prune import Prune
from compress.storage.description import Description, build_net, shape_of
from compress.storage.weights import load_net, save_net
from export.artifact import Artifact
from export.backends import onnxruntime, openvino, tensorrt
from export.backends.onnxruntime import OnnxRuntime
from export.backends.openvino import OpenVino
from export.backends.tensorrt import TensorRt
from export.quantization.quantized import Quantized
from export.registry import find_device
from export.to_onnx import parity, to_onnx

TENSORRT = any(importlib.util.find_spec(name) for name in ("tensorrt_rtx", "tensorrt_rtx_bindings"))
needs_tensorrt = pytest.mark.skipif(not TENSORRT, reason="TensorRT-RTX is not installed")


@dataclass(frozen=True, kw_only=True)
class Volume:
    """A small network of volumes, and what comes of it."""

    network: dict[str, dict[str, Any]]
    size: tuple[int, int, int] = (8, 16, 16)
    fewer: tuple[float, float] = (3.6, 3.6)
    """How many times fewer parameters and MACs are left, at least, when half of the channels go."""
    in_float: int = 1
    """Layers that ONNX Runtime's integers leave out: the one that makes the logits, and transposed convolutions."""
    noise: float = 0.2
    """How far integers may take its logits from the floats, relative to the largest."""
    norms: bool = False
    """Whether it has norms that measure each volume anew: over few voxels they multiply what engines round apart."""

    @property
    def tolerance(self) -> float:
        return 1e-3 if self.norms else 1e-4

    @property
    def example(self) -> Tensor:
        return torch.zeros(1, shape_of(self.network).in_channels, *self.size)

    def made(self) -> nn.Module:
        """The same each time, with batch norms that have seen data."""
        torch.manual_seed(0)
        net = build_net(self.network).eval()
        for module in net.modules():
            if isinstance(module, nn.BatchNorm3d):
                nn.init.normal_(module.running_mean, std=0.2)  # type: ignore[arg-type]
                nn.init.uniform_(module.running_var, 0.5, 2.0)  # type: ignore[arg-type]
        return net

    def task(self) -> Any:
        task = stand_in(self.example)
        task.dynamic = ()
        return task

    def seen(self) -> Tensor:
        return torch.randn(self.example.shape, generator=torch.Generator().manual_seed(1))


FLAT = {"early": False, "kernel": [3, 3, 1], "step": [2, 2, 1], "up": "trilinear", "norm": "instance"}
VOLUMES = {
    "vnet": Volume(network={"vnet": {"classes": 3, "width": 8, "down": [1, 1], "up": [1, 1]}}, in_float=3),
    "vnet of two channels": Volume(
        network={
            "vnet": {"classes": 3, "in_channels": 2, "width": 8, "down": [1, 1], "up": [1, 1], "activation": "relu"}
        },
        # The image, written out four times, is added: what it is added to stays.
        fewer=(3.2, 2.1),
        in_float=3,
    ),
    "unet3d": Volume(network={"unet3d": {"classes": 3, "width": 8, "depth": 2}}, in_float=3),
    "unet3d of far slices": Volume(
        network={"unet3d": {"classes": 3, "width": 8, "depth": 2, **FLAT}}, size=(16, 16, 6), norms=True
    ),
    "residual": Volume(
        network={"residual_unet3d": {"classes": 3, "width": 4}}, size=(32, 32, 32), in_float=0, noise=0.45, norms=True
    ),
    "residual, shared": Volume(
        network={"residual_unet3d": {"classes": 3, "width": 4, "shared": True}},
        size=(32, 32, 32),
        in_float=0,
        noise=0.45,
        norms=True,
    ),
    "attention": Volume(network={"attention_unet3d": {"classes": 3, "width": 8, "depth": 2, "gates": 2}}),
    "reversible": Volume(
        network={"reversible_unet3d": {"classes": 3, "widths": [16, 32], "groups": 4, "blocks": 1}}, norms=True
    ),
    "not reversible": Volume(
        network={"reversible_unet3d": {"classes": 3, "widths": [8, 16, 32], "groups": 8, "reversible": False}},
        norms=True,
    ),
    # Depthwise layers shrink with the channels, not with their square.
    "hybrid": Volume(network={"hybrid3d": {"classes": 3, "width": 8, "depth": 2}}, fewer=(2.8, 2.8)),
}


def volumes(*quick: str, **features: bool) -> pytest.MarkDecorator:
    """All of them, or those with these features; slow but for the quick ones."""
    found = [
        name for name, one in VOLUMES.items() if all(getattr(one, key) == value for key, value in features.items())
    ]
    marks = {name: () if name in quick else (pytest.mark.slow,) for name in found}
    return pytest.mark.parametrize("name", [pytest.param(name, marks=marks[name]) for name in found])


pytestmark = pytest.mark.usefixtures("one_thread")


def check_it_trains(net: nn.Module, image: Tensor) -> None:
    """A gradient reaches every parameter."""
    net.train()
    net(torch.cat([image, image + 0.1])).square().mean().backward()
    assert all(one.grad is not None and torch.isfinite(one.grad).all() for one in net.parameters())
    net.eval()


def opened(backend: Any, artifact: Artifact, net: nn.Module, image: Tensor, folder: Path) -> float:
    """How far what a runtime makes of a file is from torch, relative to the largest logit."""
    with backend.open(backend.build(artifact, folder)) as session:
        return parity(infer(net), session, [image.numpy()]).relative_error


@pytest.mark.slow
@volumes("reversible")
def test_without_half_of_its_channels_it_is_smaller_and_runs_everywhere(name: str, tmp_path: Path) -> None:
    volume = VOLUMES[name]
    net, image = volume.made(), volume.example
    smaller = Prune(ratio=0.5, multiple=2)(net, volume.task())
    before, after = cost_of(net, image), cost_of(smaller, image)
    assert before.params / after.params > volume.fewer[0] and before.macs / after.macs > volume.fewer[1]
    check_it_travels(smaller, image, tmp_path, volume.tolerance)
    assert opened(OpenVino(), Artifact.read(tmp_path / "net.onnx"), smaller, volume.seen(), tmp_path) < volume.tolerance
    check_it_trains(smaller, volume.seen())


@volumes("unet3d")
def test_with_separate_convolutions_it_costs_less_and_runs_everywhere(name: str, tmp_path: Path) -> None:
    volume = VOLUMES[name]
    net, image = volume.made(), volume.example
    smaller = Depthwise(at_least=4)(net, volume.task())
    assert cost_of(smaller, image).macs < (0.8 if name == "hybrid" else 0.25) * cost_of(net, image).macs
    check_it_travels(smaller, image, tmp_path, volume.tolerance)
    assert opened(OpenVino(), Artifact.read(tmp_path / "net.onnx"), smaller, volume.seen(), tmp_path) < volume.tolerance


@volumes()
def test_with_products_of_thin_layers_it_costs_less_and_runs_everywhere(name: str, tmp_path: Path) -> None:
    volume = VOLUMES[name]
    net, image = volume.made(), volume.example
    smaller = Lowrank(at_least=4, rank=0.5, most_error=1.0)(net, volume.task())
    assert cost_of(smaller, image).macs < (0.8 if name == "hybrid" else 0.45) * cost_of(net, image).macs
    check_it_travels(smaller, image, tmp_path, volume.tolerance)
    assert opened(OpenVino(), Artifact.read(tmp_path / "net.onnx"), smaller, volume.seen(), tmp_path) < volume.tolerance


@volumes(norms=True)
def test_its_norms_become_batch_norms_that_fold_away(name: str, tmp_path: Path) -> None:
    volume = VOLUMES[name]
    net = volume.made()
    folding = FoldableNorm()(net, volume.task())
    norms = [one for one in folding.modules() if isinstance(one, nn.modules.batchnorm._NormBase | nn.GroupNorm)]
    assert norms and all(type(one) is nn.BatchNorm3d for one in norms)
    check_it_travels(folding, volume.example, tmp_path)
    check_it_trains(folding, volume.seen())
    if name not in ("reversible", "residual", "residual, shared"):
        placed = Int8(method="min_max")(folding.eval(), volume.task()).placed(onnxruntime.RULES)
        file = onnx.load(to_onnx(placed, volume.example, tmp_path / "integer.onnx").path)
        kinds = {node.op_type for node in file.graph.node}
        # Pre-activation networks have nothing before their norms to fold them into.
        assert not kinds & {"InstanceNormalization", "BatchNormalization", "GroupNormalization"}


def static(volume: Volume) -> nn.Module:
    """The network, without norms that measure each volume anew."""
    net = volume.made()
    return FoldableNorm()(net, volume.task()) if volume.norms else net


def quantized(volume: Volume, net: nn.Module, folder: Path) -> Quantized:
    """In integers, saved and loaded."""
    integer = Int8(method="min_max")(net, volume.task())
    save_net(integer, Description(network=integer.description), folder / "integer.safetensors")
    loaded = load_net(folder / "integer.safetensors")
    assert isinstance(loaded, Quantized)
    return loaded


@volumes("unet3d")
def test_in_integers_it_answers_on_runtimes_as_it_does_in_torch(name: str, tmp_path: Path) -> None:
    volume = VOLUMES[name]
    net = static(volume)
    integer = quantized(volume, net, tmp_path)
    assert integer.layers(onnxruntime.RULES)["float"] == volume.in_float
    for backend, rules in ((OnnxRuntime(), onnxruntime.RULES), (OpenVino(), openvino.RULES)):
        placed = integer.placed(rules)
        artifact = to_onnx(placed, volume.example, tmp_path / "integer.onnx")
        # A step of rounding that falls otherwise grows on its way through an untrained network, as the steps
        # themselves do: what counts is that a runtime is as near to the floats as torch's own integers are.
        simulated = parity(infer(net), infer(placed), [volume.seen().numpy()]).relative_error
        assert simulated < volume.noise
        assert opened(backend, artifact, net, volume.seen(), tmp_path) < 1.3 * simulated + 0.03
    executed = OpenVino().executed(OpenVino().build(artifact, tmp_path))
    in_integers = sum(
        count for (kind, bits), count in executed.items() if kind == "Convolution" and bits in ("u8", "i8")
    )
    assert executed["Convolution", "f32"] == 0 and in_integers > 0


@needs_tensorrt
@pytest.mark.parametrize("bits", [32, 8])
@volumes()
def test_tensorrt_builds_an_engine_of_it(name: str, bits: int, tmp_path: Path) -> None:
    volume = VOLUMES[name]
    net = volume.made() if bits == 32 else static(volume)
    if bits == 8:
        integer = quantized(volume, net, tmp_path)
        assert integer.layers(tensorrt.RULES)["integer"] > 0
        net = integer.placed(tensorrt.RULES)
    artifact = to_onnx(net, volume.example, tmp_path / "net.onnx")
    engine = TensorRt(device=find_device("rtx_30")).build(artifact, tmp_path)
    assert engine.path.stat().st_size > 0
    assert (engine.input, engine.output) == (artifact.input, artifact.output)


class Sliced(nn.Module):
    """Norms without weights, called through a slice of a list and under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.stages = nn.ModuleList(self.stage(before, 8) for before in (1, 8, 8))
        self.again = self.stages[1]
        self.head = nn.Conv3d(8, 2, 1)

    @staticmethod
    def stage(before: int, after: int) -> nn.Sequential:
        return nn.Sequential(nn.Conv3d(before, after, 3, padding=1), nn.InstanceNorm3d(after), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        x = self.stages[0](x)
        for stage in self.stages[1:]:
            x = stage(x)
        return self.head(self.again(x))


def test_norms_without_weights_are_as_wide_as_what_they_see_however_they_are_called() -> None:
    torch.manual_seed(0)
    net, image = Sliced().eval(), torch.randn(1, 1, 4, 4, 4)
    bundles, _ = traced(net, image)
    cuts = [Cut(bundle=one, units=(0, 3)) for one in bundles if one.group.prunable]
    assert cuts
    smaller = without(net, cuts)
    smaller(image)
    convs = [one for one in smaller.modules() if isinstance(one, nn.Conv3d)][:-1]
    norms = [one for one in smaller.modules() if isinstance(one, nn.InstanceNorm3d)]
    assert [one.num_features for one in norms] == [one.out_channels for one in convs] == [6, 6, 6]
