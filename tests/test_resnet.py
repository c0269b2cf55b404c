"""The ResNet encoder has torchvision's names, and resolutions and dilations as asked."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from compress.networks.blocks.resnet import ResNet


def test_parameters_have_the_names_and_number_of_torchvisions() -> None:
    with torch.device("meta"):
        net = ResNet(3, (3, 4, 6, 3))
    state = net.state_dict()
    # torchvision's resnet50 has 25557032 parameters, of which 2049000 are its classifier's.
    assert sum(tensor.numel() for tensor in net.parameters()) == 25_557_032 - 2_049_000
    shapes = {
        "conv1.weight": (64, 3, 7, 7),
        "bn1.running_mean": (64,),
        "layer1.0.downsample.0.weight": (256, 64, 1, 1),
        "layer1.0.downsample.1.bias": (256,),
        "layer2.3.conv2.weight": (128, 128, 3, 3),
        "layer3.5.bn3.weight": (1024,),
        "layer4.2.conv3.weight": (2048, 512, 1, 1),
    }
    assert {name: tuple(state[name].shape) for name in shapes} == shapes
    assert "layer1.1.downsample.0.weight" not in state
    assert {name.split(".")[0] for name in state} == {"conv1", "bn1", "layer1", "layer2", "layer3", "layer4"}


def test_of_basic_blocks_only_those_that_change_the_resolution_have_a_convolution_beside_them() -> None:
    with torch.device("meta"):
        net = ResNet(3, (3, 4, 6, 3), block="basic")
    # torchvision's resnet34: 21797672, with a classifier of 513000.
    assert sum(tensor.numel() for tensor in net.parameters()) == 21_797_672 - 513_000
    assert "layer1.0.downsample.0.weight" not in net.state_dict()
    assert net.channels == (64, 128, 256, 512)


@pytest.mark.parametrize(("output_stride", "sides"), [(32, (16, 8, 4, 2)), (16, (16, 8, 4, 4)), (8, (16, 8, 8, 8))])
def test_a_stage_that_keeps_the_resolution_is_dilated(output_stride: int, sides: tuple[int, ...]) -> None:
    net = ResNet(1, (1, 1, 1, 2), width=2, output_stride=output_stride, deep_stem=True)  # type: ignore[arg-type]
    answers = net(torch.zeros(2, 1, 64, 64))
    assert tuple(answer.shape[-1] for answer in answers) == sides
    assert tuple(answer.shape[1] for answer in answers) == net.channels == (8, 16, 32, 64)
    for stage, full in (("layer3", 16), ("layer4", 32)):
        kernels = [m for m in getattr(net, stage).modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)]
        assert {conv.dilation for conv in kernels} == {(max(1, full // output_stride),) * 2}
