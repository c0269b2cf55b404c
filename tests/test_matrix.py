"""The matrix of networks and ways: a small part of it, what it calls a crash, and what its page says."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
import typer

from benchmarks.matrix import COLUMNS, _cell, _known, as_page, tried
from benchmarks.matrix_rows import Cell, Found, Network, built, networks
from benchmarks.matrix_steps import FOREGROUND, Steps, decided
from benchmarks.matrix_ways import Ways
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
    for word in ("fp32", "depthwise", "onnxruntime"):
        cell = _cell(ways[word])
        assert cell.state == "done", cell.said


@pytest.mark.parametrize(
    "word", ["half", *(pytest.param(word, marks=pytest.mark.slow) for word in ("low_bit", "signs"))]
)
def test_a_pass_that_leaves_fewer_bits_is_taken_as_a_run_takes_it(word: str, tmp_path: Path) -> None:
    network = Network(word="unet", options={"classes": 2, "width": 4, "depth": 1})
    cell = _cell(Steps(network=network, folder=tmp_path).columns()[word])
    assert cell.state == "done", cell.said
    assert cell.said.startswith({"half": "8 of 8 layers", "low_bit": "6 of 8 layers in 4 bits"}.get(word, ""))


@pytest.mark.parametrize("classes", [1, 3])
def test_a_network_is_brought_to_be_sure_of_the_background(classes: int) -> None:
    network = Network(word="unet", options={"classes": classes, "width": 4, "depth": 1})
    logits = decided(built(network), network.shape)(torch.randn(network.shape)).detach()
    share = (logits > 0 if classes == 1 else logits.argmax(1) > 0).float().mean()
    assert 0.2 * FOREGROUND < share < 5 * FOREGROUND


def test_columns_are_chosen_by_their_words() -> None:
    assert _known(["low_bit", "half"]) == ["half", "low_bit"]
    with pytest.raises(typer.BadParameter, match="there is no way 'halves'; there are fp32, "):
        _known(["halves"])


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
    cells = dict.fromkeys(COLUMNS, Cell(state="done")) | {"openvino": Cell(state="refused", said="no such layer")}
    network = Network(word="unet", options={"classes": 2, "width": 4})
    page = as_page([(network, Found(cells=cells))])
    assert "**3 of 4 cells (75.0%)" in page
    assert "**6 of 6 cells (100.0%)" in page
    assert "`python -m benchmarks.matrix`" in page
    assert "| unet: width 4 | done | done | done | done | done | refused | done | done |" in page
    part = as_page([(network, Found(cells=cells))], ["int8", "half"])
    assert "| unet: width 4 | done | done |\n" in part
    assert "--ways int8,half`" in part
    assert "- unet: width 4: OpenVINO: refused: no such layer" in page


def test_a_network_is_tried_on_the_smallest_input_that_it_takes() -> None:
    assert Network(word="unet", options={"classes": 2, "depth": 4}).shape == (1, 1, 64, 64)
    assert len(Network(word="unet3d", options={"classes": 2, "width": 4, "depth": 2}).shape) == 5
    network = Network(word="unet", options={"classes": 2, "width": 4, "depth": 1})
    steps = Steps(network=network, folder=Path())
    assert [*Ways(network, Path()).columns(), *steps.columns()] == list(COLUMNS)
