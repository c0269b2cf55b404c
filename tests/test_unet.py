"""The U-Net: its size and cost are those of the papers' own code, and it says which inputs fit."""

from __future__ import annotations

import itertools

import pytest
import torch
from pydantic import ValidationError
from torch.utils.flop_counter import FlopCounterMode

from compress.networks.unet import UNet

PAPER = {"norm": "none", "padded": False}
PADDED = {"norm": "none"}
UPSAMPLED = {"norm": "batch", "up": "nearest"}


pytestmark = pytest.mark.usefixtures("one_thread")


# Ronneberger et al. 2015; tianbaochou/NasUnet (UNET, twice); LeeJunHyun/Image_Segmentation (U_Net).
@pytest.mark.parametrize(
    ("options", "channels", "classes", "side", "out", "parameters", "gmacs"),
    [
        (PAPER, 1, 2, 572, 388, 31_030_658, 150.428),
        (PADDED, 1, 2, 256, 256, 31_030_658, 48.096),
        (PADDED, 3, 1, 256, 256, 31_031_745, 48.167),
        (UPSAMPLED, 3, 1, 256, 256, 34_527_041, 65.347),
    ],
)
def test_parameters_and_macs_are_those_of_the_reference(
    options: dict[str, object], channels: int, classes: int, side: int, out: int, parameters: int, gmacs: float
) -> None:
    shape = UNet(classes=classes, in_channels=channels, width=64, depth=4, **options)  # type: ignore[arg-type]
    assert shape.check_size((side, side)) is None
    with torch.device("meta"):
        net = shape().eval()
        assert sum(tensor.numel() for tensor in net.parameters()) == parameters
        with FlopCounterMode(display=False) as counted:
            logits_BCHW = net(torch.empty(1, channels, side, side))
    assert logits_BCHW.shape == (1, classes, out, out)
    assert counted.get_total_flops() / 2e9 == pytest.approx(gmacs, rel=0.01)


@pytest.mark.parametrize("norm", ["none", "batch", "instance", "group"])
@pytest.mark.parametrize("up", ["transposed", "nearest"])
@pytest.mark.parametrize("padded", [True, False])
def test_every_norm_and_way_up_learns(norm: str, up: str, padded: bool) -> None:
    torch.manual_seed(0)
    side = 32 if padded else 44
    net = UNet(classes=3, in_channels=2, width=6, depth=2, norm=norm, up=up, padded=padded)()  # type: ignore[arg-type]
    logits_BKHW = net(torch.randn(2, 2, side, side))
    assert logits_BKHW.shape == (2, 3, *((32, 32) if padded else (4, 4)))
    assert torch.isfinite(logits_BKHW).all()
    logits_BKHW.square().mean().backward()
    assert all(tensor.grad is not None and torch.isfinite(tensor.grad).all() for tensor in net.parameters())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_it_runs_in_any_floating_dtype(dtype: torch.dtype) -> None:
    net = UNet(classes=2, width=4, depth=2)().eval().to(dtype)
    assert net(torch.zeros(1, 1, 16, 16, dtype=dtype)).dtype == dtype


def test_the_same_seed_gives_the_same_network() -> None:
    nets = []
    for _ in range(2):
        torch.manual_seed(3)
        nets.append(UNet(classes=2, width=4, depth=2)())
    assert all(torch.equal(*pair) for pair in zip(*(net.parameters() for net in nets), strict=True))


def test_weights_start_as_he_et_al_say() -> None:
    torch.manual_seed(0)
    net = UNet(classes=2, width=32, depth=2)()
    weight = net.encoder[2][0].weight
    assert weight.std().item() == pytest.approx((2 / (64 * 9)) ** 0.5, rel=0.02)
    assert not net.encoder[2][0].bias.any()


def test_a_padded_network_says_which_multiple_it_needs() -> None:
    shape = UNet(classes=2)
    assert shape.check_size((512, 256)) is None
    assert shape.check_size((500, 512)) == ("this network needs multiples of 16: pad to 512x512 or set data size")
    assert UNet(classes=2, depth=5).check_size((33, 64)) == (
        "this network needs multiples of 32: pad to 64x64 or set data size"
    )


def test_an_unpadded_network_says_which_sizes_fit_instead() -> None:
    shape = UNet(classes=2, padded=False)
    assert shape.check_size((572, 572)) is None
    assert shape.check_size((512, 512)) == (
        "this unpadded network halves evenly only at certain sizes: 508 or 524 would fit instead of 512"
    )
    # Only the side that is wrong is spoken of.
    assert shape.check_size((572, 512)) == shape.check_size((512, 572)) == shape.check_size((512, 512))
    assert shape.check_size((16, 16)) == (
        "this unpadded network halves evenly only at certain sizes: 188 would fit instead of 16"
    )


def test_what_check_size_says_of_an_unpadded_network_is_true() -> None:
    shape = UNet(classes=1, width=1, depth=2, norm="none", padded=False)
    net = shape().eval()
    fits = [side for side in range(8, 90) if shape.check_size((side, side)) is None]
    assert fits == list(range(44, 90, 4))
    for height, width in itertools.product(fits[:3], fits[:3]):
        assert net(torch.zeros(1, 1, height, width)).shape == (1, 1, height - 40, width - 40)


def test_instance_norm_needs_more_than_one_pixel_at_the_bottom() -> None:
    shape = UNet(classes=2, width=2, depth=3, norm="instance")
    assert (
        shape.check_size((8, 8))
        == "instance norm needs more than one pixel at depth 3: set data size or a smaller depth"
    )
    assert shape.check_size((8, 16)) is None
    shape()(torch.zeros(1, 1, 8, 16))


@pytest.mark.parametrize(
    "option",
    [{"classes": 0}, {"classes": 256}, {"width": 0}, {"depth": 0}, {"depth": 9}, {"norm": "layer"}, {"widht": 8}],
)
def test_options_out_of_range_are_refused(option: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        UNet(**{"classes": 2, **option})  # type: ignore[arg-type]
