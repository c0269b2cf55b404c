"""Batch norms that train faster: against torch's own, in values, slopes and statistics."""

from __future__ import annotations

import copy
from contextlib import nullcontext

import pytest
import torch
from torch import Tensor, nn

from compress.train.fast_batch_norm import fast_batch_norms


def both(norm: nn.Module, given: Tensor, slope: Tensor) -> list[list[Tensor]]:
    """Output, slopes and statistics of two training steps, of torch's and of the fast one."""
    found = []
    for way in (nullcontext, fast_batch_norms):
        module = copy.deepcopy(norm).train()
        leaf = given.clone(memory_format=torch.preserve_format).requires_grad_()
        with way(module):
            module(leaf)
            output = module(leaf)
            output.backward(slope)
        assert leaf.grad is not None
        found.append([output.detach(), leaf.grad, *(p.grad for p in module.parameters()), *module.buffers()])  # type: ignore[list-item]
    return found


@pytest.mark.parametrize("shape", [(2, 8, 16, 24), (3, 20, 8, 8), (1, 5, 4, 4), (2, 4, 6, 8, 4), (2, 7, 5, 3)])
@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16], ids=str)
def test_a_batch_norm_is_what_torch_makes_of_it(shape: tuple[int, ...], kind: torch.dtype) -> None:
    torch.manual_seed(1)
    norm = nn.BatchNorm2d(shape[1]) if len(shape) == 4 else nn.BatchNorm3d(shape[1])
    nn.init.uniform_(norm.weight, 0.5, 2)
    nn.init.uniform_(norm.bias, -1, 1)
    layout = torch.channels_last if len(shape) == 4 else torch.channels_last_3d
    offset = torch.linspace(-3, 3, shape[1]).view(-1, *[1] * (len(shape) - 2))
    given, slope = (
        values.to(kind).contiguous(memory_format=layout)
        for values in (torch.randn(shape) * 2 + offset, torch.randn(shape) + 0.2)
    )
    for theirs, ours in zip(*both(norm, given, slope), strict=True):
        assert ours.dtype == theirs.dtype
        assert ours.shape == theirs.shape
        scale = theirs.double().abs().max()
        assert (ours.double() - theirs.double()).abs().max() <= scale * (2e-5 if kind == torch.float32 else 1.2e-2)


def test_other_layouts_and_modes_are_left_to_torch() -> None:
    norm = nn.BatchNorm2d(6)
    image = torch.randn(2, 6, 8, 8)
    for theirs, ours in zip(*both(norm, image, torch.ones_like(image)), strict=True):
        assert torch.equal(theirs, ours)
    norm.eval()
    expected = norm(image.contiguous(memory_format=torch.channels_last))
    with fast_batch_norms(norm):
        assert torch.equal(norm(image.contiguous(memory_format=torch.channels_last)), expected)
    assert "forward" not in vars(norm)


def test_nothing_stays_changed_after_an_error() -> None:
    net = nn.Sequential(nn.Conv2d(1, 6, 3), nn.BatchNorm2d(6), nn.BatchNorm2d(16), nn.BatchNorm2d(6, affine=False))
    with pytest.raises(ValueError, match="stop"), fast_batch_norms(net):
        assert ["forward" in vars(module) for module in net] == [False, True, False, False]
        raise ValueError("stop")
    assert not any("forward" in vars(module) for module in net)
