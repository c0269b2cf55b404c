"""Encoders of timm: what they give, and what is said where they cannot."""

import sys

import pytest
import torch

from compress.errors import MissingExtra, SegpressError
from compress.networks.foreign.timm_encoder import timm_encoder
from compress.networks.foreign.torchvision_import import torchvision


@pytest.mark.parametrize("name", ["test_resnet", "test_mambaout"])
def test_its_features_are_told_rightly(name: str) -> None:
    encoder = timm_encoder(name, in_channels=1).eval()
    with torch.no_grad():
        features = encoder(torch.randn(1, 1, 64, 96))
    told = [
        (1, channels, 64 // stride, 96 // stride)
        for channels, stride in zip(encoder.channels, encoder.strides, strict=True)
    ]
    assert [tuple(feature.shape) for feature in features] == told


def test_what_only_other_features_need_is_not_built() -> None:
    whole, part = timm_encoder("test_resnet"), timm_encoder("test_resnet", strides=(4, 8))
    assert whole.strides == (2, 4, 8, 16, 32) and part.strides == (4, 8)
    assert part.channels == whole.channels[1:3]
    sizes = [sum(tensor.numel() for tensor in encoder.parameters()) for encoder in (part, whole)]
    assert sizes[0] < sizes[1] / 2


@pytest.mark.parametrize(
    ("name", "strides", "why"),
    [
        ("pvt_v2_b9", None, "no encoder 'pvt_v2_b9'; did you mean 'pvt_v2_b"),
        ("test_convnext", (2, 4), "has features at strides 4, 8, 16, 32, and 2, 4 are needed"),
        ("test_vit", (16,), "has features at strides 16, 16, 16"),
    ],
)
def test_an_encoder_that_does_not_fit_is_refused(name: str, strides: tuple[int, ...] | None, why: str) -> None:
    with pytest.raises(SegpressError, match=why):
        timm_encoder(name, strides=strides)


@pytest.mark.parametrize("package", ["timm", "torchvision"])
def test_a_missing_package_says_how_to_install_it(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    timm_encoder("test_resnet")
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtra, match=f"pip install 'segpress.{package}.'"):
        timm_encoder("test_resnet")


def test_torchvision_is_one_module_with_its_operators_declared() -> None:
    assert torchvision() is torchvision() is sys.modules["torchvision"]
    assert hasattr(torch.ops.torchvision, "nms")
