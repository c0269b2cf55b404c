"""The shifts of a tokenized MLP, pixel for pixel."""

from typing import Literal

import pytest
import torch

from compress.networks.blocks.tokenized_mlp import shifted


@pytest.mark.parametrize("axis", [2, 3])
def test_each_group_of_channels_is_shifted_by_its_own_distance(axis: Literal[2, 3]) -> None:
    x = torch.arange(1.0, 7).expand(1, 5, 6, 6)
    x = x if axis == 3 else x.transpose(2, 3)
    moved = shifted(x, axis).select(5 - axis, 0)[0]
    expected = [[3, 4, 5, 6, 0, 0], [2, 3, 4, 5, 6, 0], [1, 2, 3, 4, 5, 6], [0, 1, 2, 3, 4, 5], [0, 0, 1, 2, 3, 4]]
    assert moved.int().tolist() == expected
