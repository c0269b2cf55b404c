"""The matrix of networks and ways: a small part of it, what it calls a crash, and what its page says."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest

from benchmarks.matrix import COLUMNS, Cell, Found, Network, Ways, _cell, as_page, networks, tried
from compress.errors import PassError
from export.registry import words


def test_every_network_has_a_row() -> None:
    assert {network.word for network in networks(whole=False)} == set(words("compress.networks"))
    assert {network.word for network in networks(whole=True)} == set(words("compress.networks"))


@pytest.mark.parametrize(
    "network",
    [
        pytest.param(
            Network(word="attention_unet", options={"classes": 3, "width": 4, "depth": 2}), marks=pytest.mark.slow
        ),
        pytest.param(Network(word="segnet", options={"classes": 2, "width": 4}), marks=pytest.mark.slow),
        pytest.param(Network(word="unet3d", options={"classes": 2, "width": 4, "depth": 2}), marks=pytest.mark.slow),
        pytest.param(
            Network(word="smp", options={"arch": "Unet", "encoder": "resnet18", "classes": 2}), marks=pytest.mark.slow
        ),
    ],
    ids=str,
)
def test_a_network_goes_every_way(network: Network) -> None:
    for needed in ("openvino", "tensorrt_rtx_bindings"):
        if find_spec(needed) is None:
            pytest.skip(f"{needed} is not installed")
    found = tried(network)
    assert set(found.cells) == set(COLUMNS)
    assert {name: cell.said for name, cell in found.cells.items() if cell.state != "done"} == {}


def test_a_small_network_runs_in_integers_as_torch_says(tmp_path: Path) -> None:
    ways = Ways(Network(word="unet", options={"classes": 2, "width": 4, "depth": 1}), tmp_path).columns()
    for name in ("fp32 export", "depthwise", "ONNX Runtime"):
        cell = _cell(ways[name])
        assert cell.state == "done", cell.said


def test_what_our_own_errors_refuse_is_told_from_a_crash() -> None:
    def refused() -> str:
        raise PassError("prune: nothing was removed")

    def crashed() -> str:
        raise ValueError("oh")

    assert _cell(refused) == Cell(state="refused", said="prune: nothing was removed")
    assert _cell(crashed).state == "crash"
    assert _cell(crashed).said.startswith("ValueError: oh (test_matrix.py:")
    assert _cell(lambda: "1.0x") == Cell(state="done", said="1.0x")


def test_the_page_counts_what_is_done_and_tells_why_not() -> None:
    cells = dict.fromkeys(COLUMNS, Cell(state="done")) | {"OpenVINO": Cell(state="refused", said="no such layer")}
    page = as_page([(Network(word="unet", options={"classes": 2, "width": 4}), Found(cells=cells))], whole=False)
    assert "**3 of 4 cells (75.0%)" in page
    assert "| unet: width 4 | done | done | done | done | done | refused | done |" in page
    assert "- unet: width 4: OpenVINO: refused: no such layer" in page


def test_a_network_is_tried_on_the_smallest_input_that_it_takes() -> None:
    assert Network(word="unet", options={"classes": 2, "depth": 4}).shape == (1, 1, 64, 64)
    assert len(Network(word="unet3d", options={"classes": 2, "width": 4, "depth": 2}).shape) == 5
    assert set(Ways(Network(word="unet", options={"classes": 2, "width": 4, "depth": 1}), None).columns()) == set(
        COLUMNS
    )  # type: ignore[arg-type]
