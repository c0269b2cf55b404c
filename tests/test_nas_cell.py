"""Cells of NAS-Unet are data, and data that makes no network is refused."""

import pytest
import torch

from compress.errors import WeightsError
from compress.networks.blocks.nas_cell import genotypes
from compress.storage.description import build_net, shape_of

OWN = {"down": [["down_conv", 0], ["avg_pool", 1]], "up": [["identity", 0], ["up_dil_conv", 1]]}


@pytest.mark.parametrize("cell", [*genotypes(), OWN])
def test_every_genotype_is_a_network(cell: object) -> None:
    options = {"classes": 2, "width": 2, "depth": 2, "cell": cell}
    assert shape_of({"nas_unet": options}).check_size((16, 8)) is None
    with torch.no_grad():
        assert build_net({"nas_unet": options}).eval()(torch.randn(1, 1, 16, 8)).shape == (1, 2, 16, 8)


def test_a_cell_minds_odd_sizes_only_where_poolings_meet_alone() -> None:
    alone = {**OWN, "down": [["max_pool", 0], ["avg_pool", 1], *OWN["down"]]}
    searched, pooled = ({"nas_unet": {"classes": 2, "depth": 2, "cell": cell}} for cell in ("v2", alone))
    assert shape_of(searched).check_size((17, 9)) is None
    assert str(shape_of(pooled).check_size((17, 9))).endswith("pad to 24x16")


@pytest.mark.parametrize(
    ("cell", "why"),
    [
        ("v9", "no genotype 'v9'; one of v1_en"),
        ({**OWN, "down": [["down_conv", 0]]}, "edges come in pairs, and here are 1"),
        ({**OWN, "down": [["down_conv", 0], ["down_conv", 2]]}, "reads state 2; it may read 0 to 1"),
        ({**OWN, "down": [["down_conv", 0], ["conv", 1]]}, "make 64 pixels of 64 where the cell makes 32"),
        ({**OWN, "up": [["up_conv", 1], ["up_conv", 1]]}, "make 63 pixels of 64 where the cell makes 64"),
    ],
)
def test_a_cell_that_makes_no_network_is_refused(cell: object, why: str) -> None:
    with pytest.raises(WeightsError, match=why):
        shape_of({"nas_unet": {"classes": 2, "cell": cell}})
