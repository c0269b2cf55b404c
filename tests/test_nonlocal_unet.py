"""The non-local U-Net says which sizes its blocks can pool."""

from __future__ import annotations

import torch

from compress.networks.nonlocal_unet import NonLocalUNet


def test_a_size_that_its_blocks_cannot_pool_is_refused_with_one_that_they_can() -> None:
    shape = NonLocalUNet(classes=1, width=4, depth=2)
    assert shape.check_size((8, 16)) == "the non-local blocks pool by 4: pad to 16x16 or set data size"
    assert shape.check_size((18, 16)) == "this network needs multiples of 4: pad to 20x16 or set data size"
    assert shape.check_size((16, 16)) is None
    assert shape().eval()(torch.zeros(1, 1, 16, 16)).shape == (1, 1, 16, 16)


def test_the_more_is_pooled_the_larger_an_input_must_be() -> None:
    shape = NonLocalUNet(classes=1, width=4, depth=2, pool=2)
    assert shape.check_size((8, 16)) is None
    assert shape.check_size((4, 16)) == "the non-local blocks pool by 2: pad to 8x16 or set data size"
    assert shape().eval()(torch.zeros(1, 1, 8, 16)).shape == (1, 1, 8, 16)


def test_without_blocks_only_the_halvings_count() -> None:
    shape = NonLocalUNet(classes=1, width=4, depth=2, blocks=0)
    assert shape.check_size((8, 4)) is None
    assert shape().eval()(torch.zeros(1, 1, 8, 4)).shape == (1, 1, 8, 4)
