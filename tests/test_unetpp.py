"""UNet++: its size and cost are the authors', it answers as deep supervision wants, and cutting keeps its weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from torch.utils.flop_counter import FlopCounterMode

from compress.networks.unetpp import UNetPP
from compress.storage.description import Description, build_net
from compress.storage.weights import load_net, save_net
from export.capture import capture

pytestmark = pytest.mark.usefixtures("one_thread")


# MrGiovanni/UNetPlusPlus, its L1 to L4, one input channel and one class at 256x256.
@pytest.mark.parametrize(
    ("level", "parameters", "gmacs"),
    [(1, 100_961, 3.477), (2, 511_105, 8.879), (3, 2_204_961, 17.436), (4, 9_041_601, 29.750)],
)
def test_parameters_and_macs_are_those_of_the_reference(level: int, parameters: int, gmacs: float) -> None:
    shape = UNetPP(classes=1, level=level, norm="none", deep_supervision=False)
    assert shape.check_size((256, 256)) is None
    with torch.device("meta"):
        net = shape().eval()
        assert sum(tensor.numel() for tensor in net.parameters()) == parameters
        with FlopCounterMode(display=False) as counted:
            logits_BCHW = net(torch.empty(1, 1, 256, 256))
    assert logits_BCHW.shape == (1, 1, 256, 256)
    assert counted.get_total_flops() / 2e9 == pytest.approx(gmacs, rel=0.01)


def test_with_four_heads_it_has_the_reference_s_parameters() -> None:
    with torch.device("meta"):
        net = UNetPP(classes=1, norm="none")()
    assert sum(tensor.numel() for tensor in net.parameters()) == 9_041_700


@pytest.mark.parametrize("norm", ["none", "batch", "instance", "group"])
@pytest.mark.parametrize("up", ["transposed", "nearest"])
def test_every_norm_and_way_up_learns(norm: str, up: str) -> None:
    torch.manual_seed(0)
    net = UNetPP(classes=3, in_channels=2, width=6, level=2, norm=norm, up=up)()  # type: ignore[arg-type]
    answers = net(torch.randn(2, 2, 32, 32))
    assert [answer.shape for answer in answers] == [(2, 3, 32, 32)] * 2
    sum(answer.square().mean() for answer in answers).backward()
    assert all(tensor.grad is not None and torch.isfinite(tensor.grad).all() for tensor in net.parameters())


def test_in_training_the_logits_of_the_deepest_node_come_first() -> None:
    torch.manual_seed(0)
    net = UNetPP(classes=2, width=4, level=3, norm="none")()
    x = torch.randn(1, 1, 16, 16)
    deep = net(x)
    assert len(deep) == 3
    assert torch.equal(net.eval()(x), deep[0])
    for level, answer in zip((3, 2, 1), deep, strict=True):
        net.cut(level)
        assert torch.equal(net(x), answer)


def test_without_deep_supervision_there_is_one_head_and_one_answer() -> None:
    net = UNetPP(classes=2, width=4, level=2, deep_supervision=False)()
    assert list(net.heads) == ["2"]
    assert net(torch.zeros(2, 1, 8, 8)).shape == (2, 2, 8, 8)


def test_a_lower_level_is_a_part_of_the_whole() -> None:
    torch.manual_seed(0)
    whole = UNetPP(classes=2, width=4, level=3)().eval()
    part = UNetPP(classes=2, width=4, level=2)().eval()
    state = whole.state_dict()
    part.load_state_dict({name: state[name] for name in part.state_dict()})
    x = torch.randn(1, 1, 16, 16)
    with torch.no_grad():
        expected = part(x)
        whole.cut(2)
        assert torch.equal(whole(x), expected)
    assert whole.state_dict().keys() == part.state_dict().keys()


def test_a_level_without_a_head_is_no_place_to_cut() -> None:
    with pytest.raises(AssertionError, match="no head at level 1"):
        UNetPP(classes=2, width=2, level=2, deep_supervision=False)().cut(1)


def test_it_is_captured_without_the_heads_that_evaluation_does_not_use() -> None:
    torch.manual_seed(0)
    net = UNetPP(classes=2, width=4, level=2)().eval()
    x = torch.randn(1, 1, 8, 8)
    graph = capture(net, x)
    assert torch.allclose(graph(x), net(x), atol=1e-6)
    assert not [name for name in graph.state_dict() if name.startswith("heads.1")]


def test_it_is_saved_and_loaded(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = build_net({"unetpp": {"classes": 2, "width": 4, "level": 2}}).eval()
    save_net(net, Description(network=net.description), tmp_path / "net.safetensors")  # type: ignore[arg-type]
    again = load_net(tmp_path / "net.safetensors").eval()
    x = torch.randn(1, 1, 8, 8)
    assert torch.equal(again(x), net(x))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_it_runs_in_any_floating_dtype(dtype: torch.dtype) -> None:
    net = UNetPP(classes=2, width=4, level=2)().eval().to(dtype)
    assert net(torch.zeros(1, 1, 16, 16, dtype=dtype)).dtype == dtype


def test_it_says_which_sizes_fit() -> None:
    assert UNetPP(classes=2).check_size((256, 512)) is None
    assert UNetPP(classes=2).check_size((250, 512)) == (
        "this network needs multiples of 16: pad to 256x512 or set data size"
    )
    assert UNetPP(classes=2, level=2).check_size((36, 36)) is None
    shape = UNetPP(classes=2, width=2, level=2, norm="instance")
    assert shape.check_size((4, 4)) == (
        "instance norm needs more than one pixel at level 2: set data size or a smaller level"
    )
    assert shape.check_size((4, 8)) is None
    shape()(torch.zeros(1, 1, 4, 8))


@pytest.mark.parametrize(
    "option", [{"classes": 0}, {"width": 0}, {"level": 0}, {"level": 9}, {"norm": "layer"}, {"up": "cubic"}, {"l": 1}]
)
def test_options_out_of_range_are_refused(option: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        UNetPP(**{"classes": 2, **option})  # type: ignore[arg-type]
