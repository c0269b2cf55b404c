"""Any module and arrays from Python: passes, files, measurements, and what does not fit."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
import torch
from torch import nn

import compress
from compress.errors import DataError, PassError, WeightsError
from compress.storage.weights import load_net
from compress.wrapping import Wrapped, wrap

IMAGES = np.random.default_rng(0).random((8, 1, 16, 16), np.float32)
MASKS = (IMAGES[:, 0] > 0.5).astype(np.uint8)
PAIR = (IMAGES, MASKS)
TWO = ("background", "bright")


class Mine(nn.Module):
    """Somebody's: it answers with a mapping, and one logit or several."""

    def __init__(self, channels: int = 2) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU())
        self.body = nn.Sequential(nn.Conv2d(16, 16, 3, padding=1), nn.ReLU())
        self.last = nn.Conv2d(16, channels, 1)

    def forward(self, image: torch.Tensor) -> dict[str, torch.Tensor]:
        stem = self.stem(image)
        return {"out": self.last(stem + self.body(stem))}


def mine(channels: int = 2, **given: Any) -> Wrapped:
    torch.manual_seed(0)
    return wrap(Mine(channels), IMAGES, **{"classes": TWO, "test": PAIR, "mean": 0.5, "std": [0.25], **given})


@pytest.mark.parametrize("channels", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_module_is_pruned_trained_quantized_built_and_measured(channels: int, tmp_path: Path) -> None:
    began = mine(channels, train=PAIR, val=PAIR)
    before = copy.deepcopy(began.held.state_dict())
    small = began.apply(compress.Prune(ratio=0.5), compress.Distill(steps=2, rate=1e-3))
    integers = small.apply(compress.Int8(calibrate=4, effort="fast"))
    assert small.net.net.stem[0].out_channels == 8 and began.net.net.stem[0].out_channels == 16  # type: ignore[union-attr, index]
    assert any("parameters" in note for note in integers.notes) and began.notes == ()
    artifact = integers.export(tmp_path / "mine.onnx")
    session = ort.InferenceSession(artifact.path)
    assert session.get_outputs()[0].shape == [1, channels, 16, 16]
    assert artifact.made["pair_sums"]["layers"] == 2, "the head is left in float"
    for wrapped in (began, integers):
        measured = wrapped.measure(seconds=0.1, threads=1)
        said = wrapped.predict(IMAGES)
        in_torch = 2 * (said & MASKS).sum((1, 2)) / (said.sum((1, 2)) + MASKS.sum((1, 2)))
        # Where integers round, the runtime's Dice is its own.
        assert measured.dice == pytest.approx(in_torch.mean(), abs=1e-6 if wrapped is began else 0.02)
        assert measured.latency_ms["p50"] > 0 and measured.size_mb > 0
    assert all(torch.equal(tensor, before[name]) for name, tensor in began.held.state_dict().items())


def test_torch_and_openvino_measure_it_as_well() -> None:
    began = mine()
    dice = [began.measure(backend, seconds=0.1, threads=1).dice for backend in ("torch", "openvino")]
    assert dice[0] == pytest.approx(dice[1], abs=1e-6)
    assert mine(test=None).measure("torch", seconds=0.1).dice is None


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"classes": ["bright"]}, "give at least two names"),
        ({"test": (IMAGES, MASKS[:3])}, "a mask for each"),
        ({"test": (IMAGES, MASKS[:, :8])}, r"masks are \(8, 16\), their images \(16, 16\)"),
        ({"test": (IMAGES, MASKS * 255)}, "masks hold 0 to 255, and there are 2 classes from 0"),
        ({"train": (IMAGES[:, :, :8], MASKS[:, :8])}, "images are of 2 shapes"),
        ({"test": (IMAGES * np.nan, MASKS)}, "hold what is no number"),
        ({"mean": [0.5, 0.5]}, "the network takes 1 channels"),
        ({"mean": "imagenet"}, "mean 'imagenet' and std .* are no normalization"),
        ({"std": 0}, "std 0 are no normalization: .* std above 0"),
        ({"classes": "ab"}, "give at least two names, background first, as a list"),
        ({"classes": ["a", "a"]}, "classes: 'a' cannot name class 1"),
        ({"test": (IMAGES, MASKS * 0.5)}, "test: masks hold numbers between classes"),
        ({"test": (IMAGES[:0], MASKS[:0])}, "test: there is no image"),
    ],
)
def test_arrays_that_do_not_fit_are_told(given: dict[str, Any], said: str) -> None:
    with pytest.raises(DataError, match=said):
        mine(**given)


def test_what_is_no_network_or_no_image_of_it_is_told() -> None:
    with pytest.raises(DataError, match=r"wrap takes a network .*, not a OrderedDict"):
        wrap(Mine().state_dict(), IMAGES, classes=TWO)  # type: ignore[arg-type]
    with pytest.raises(DataError, match=r"does not take images of 16x16x1 .*; give images as NCHW"):
        wrap(Mine(), IMAGES.transpose(0, 2, 3, 1), classes=TWO)
    began = mine()
    with pytest.raises(DataError, match=r"Nx1x16x16, not \(1, 16, 16\)"):
        began.predict(IMAGES[0])
    with pytest.raises(DataError, match="there is no backend 'trt'; there are onnxruntime"):
        began.measure("trt")


def test_what_is_wrapped_stays_in_its_mode() -> None:
    net = Mine()
    mean = net.stem[1].running_mean.clone()  # type: ignore[union-attr, operator]
    wrap(net, IMAGES, classes=TWO)
    assert net.training and torch.equal(net.stem[1].running_mean, mean)  # type: ignore[arg-type]


def test_a_pass_that_cannot_be_is_told() -> None:
    with pytest.raises(PassError, match=r"apply takes passes, such as compress.Int8\(calibrate=32\), not <class"):
        mine().apply(compress.Int8)  # type: ignore[arg-type]
    with pytest.raises(PassError, match=r"Distill looks at train cases: give them to wrap\(train=\(images, masks\)\)"):
        mine().apply(compress.Distill(steps=1))
    with pytest.raises(PassError, match="Prune takes a network in float, and this one is in integers"):
        mine().apply(compress.Int8(calibrate=4, effort="fast"), compress.Prune(ratio=0.5))


def test_weights_of_a_module_that_has_gone_are_refused_with_the_way_out(tmp_path: Path) -> None:
    began = mine()
    path = began.export(tmp_path / "mine.onnx", "torch").path
    assert torch.equal(load_net(path).state_dict()["net.last.bias"], began.held.last.bias)  # type: ignore[union-attr]
    del began
    with pytest.raises(WeightsError, match="a Python process that has ended; wrap it again, or name its class"):
        load_net(path)


def test_names_come_when_they_are_asked_for() -> None:
    assert compress.Lowrank.__module__ == "compress.passes.lowrank" and compress.wrap is wrap
    assert "wrap" in dir(compress)
    for name in ("Nothing", "int8"):
        with pytest.raises(AttributeError, match=f"module 'compress' has no attribute '{name}'"):
            getattr(compress, name)
