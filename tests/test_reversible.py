"""Reversible blocks: the gradients of plain autograd, without what plain autograd keeps."""

import copy
import itertools
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from compress.networks.blocks.reversible import Reversible, ReversibleSequence


def inner(channels: int, norm: bool = False) -> nn.Module:
    first = nn.BatchNorm3d(channels) if norm else nn.GroupNorm(2, channels)
    return nn.Sequential(first, nn.LeakyReLU(inplace=True), nn.Conv3d(channels, channels, 3, padding=1, bias=False))


def sequence(blocks: int, norm: bool = False) -> ReversibleSequence:
    torch.manual_seed(0)
    return ReversibleSequence(Reversible(inner(4, norm), inner(4, norm)) for _ in range(blocks))


def volume(dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(2, 8, 3, 4, 5, generator=torch.Generator().manual_seed(1)).to(dtype)


def gradients(net: nn.Module, image: Tensor, plain: bool) -> list[Tensor]:
    """Of the image and every parameter. In evaluation a group norm is the same, and autograd the plain one."""
    net.train(not plain)
    image = image.clone().requires_grad_(True)
    (net(image) * torch.linspace(-1, 1, image.numel()).view_as(image)).sum().backward()
    found = [image.grad, *(one.grad for one in net.parameters())]
    return [one for one in found if one is not None]


@pytest.mark.parametrize("blocks", [1, 3])
def test_gradients_are_those_of_plain_autograd(blocks: int) -> None:
    net = sequence(blocks).double()
    ours = gradients(copy.deepcopy(net), volume(torch.float64), plain=False)
    plain = gradients(copy.deepcopy(net), volume(torch.float64), plain=True)
    assert len(ours) == len(plain) == 1 + 6 * blocks
    for one, other in zip(ours, plain, strict=True):
        assert one.abs().max() > 0
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


def test_gradients_pass_a_numeric_check() -> None:
    net = sequence(2).double().train()
    assert torch.autograd.gradcheck(net, volume(torch.float64)[:1, :, :2, :2, :2].requires_grad_(True))


def test_a_parameter_that_two_blocks_share_gets_the_gradients_of_both() -> None:
    net = sequence(2).double()
    net.blocks[1].f[2].weight = net.blocks[0].g[2].weight  # type: ignore[index, union-attr]
    ours = gradients(copy.deepcopy(net), volume(torch.float64), plain=False)
    plain = gradients(copy.deepcopy(net), volume(torch.float64), plain=True)
    for one, other in itertools.zip_longest(ours, plain):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


def kept(net: nn.Module, image: Tensor) -> int:
    """The numbers that autograd keeps for the way back."""
    sizes: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        if not isinstance(tensor, nn.Parameter):
            sizes[tensor.data_ptr()] = tensor.numel()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        net(image.requires_grad_(True))
    return sum(sizes.values())


def test_what_is_kept_does_not_grow_with_the_blocks() -> None:
    assert kept(sequence(1).train(), volume()) == kept(sequence(6).train(), volume()) == volume().numel()
    assert kept(sequence(6).eval(), volume()) > 10 * volume().numel()


def test_under_autocast_what_was_read_is_computed_back() -> None:
    net = sequence(4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        ours = gradients(copy.deepcopy(net), volume(), plain=False)
        plain = gradients(copy.deepcopy(net), volume(), plain=True)
    for one, other in zip(ours, plain, strict=True):
        assert one.dtype == torch.float32
        assert (one - other).norm() <= 0.02 * other.norm()


def test_a_frozen_layer_gets_no_gradient_and_the_others_theirs() -> None:
    net = sequence(2).double().train()
    frozen: Any = net.blocks[0].f
    frozen.requires_grad_(False)
    gradients(net, volume(torch.float64), plain=False)
    assert all(one.grad is None for one in frozen.parameters())
    assert all(one.grad is not None for one in net.parameters() if one.requires_grad)


def test_a_batch_norm_counts_each_batch_once() -> None:
    net = sequence(1, norm=True)
    gradients(net, volume(), plain=False)
    norm: Any = net.blocks[0].f[0]  # type: ignore[index, union-attr]
    assert norm.num_batches_tracked == 1
    assert norm.track_running_stats
    _, second = volume().chunk(2, dim=1)
    torch.testing.assert_close(norm.running_mean, 0.1 * second.mean((0, 2, 3, 4)))


def test_training_and_evaluation_answer_the_same() -> None:
    net, image = sequence(2), volume()
    with torch.no_grad():
        before = net.eval()(image)
    torch.testing.assert_close(net.train()(image), before)


def test_a_loss_on_what_a_hook_sees_inside_reaches_the_layers_before() -> None:
    net, seen = sequence(2).train(), []
    inside: Any = net.blocks[1].f
    handle = inside.register_forward_hook(lambda module, given, answer: seen.append(answer))
    net(volume())
    (answer,) = seen
    answer.square().sum().backward()
    handle.remove()
    assert all(one.grad is not None for one in net.blocks[0].parameters())


def test_second_derivatives_are_refused_rather_than_wrong() -> None:
    image = volume().requires_grad_(True)
    (grad,) = torch.autograd.grad(sequence(1).train()(image).square().sum(), image, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        grad.sum().backward()
