"""`compress sensitivity`: one thing changed at a time, on validation cases."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from shared_fixtures import write_folder, write_recipe

from compress.commands import sensitivity as asked
from compress.commands.sensitivity import Questions, sensitivity, write
from compress.errors import DataError
from compress.networks.unet import UNet
from compress.recipe import load
from compress.report.sensitivity import draw, show
from compress.task import Task

LAYERS = {f"{part}.{n}.{m}" for part, count in (("encoder", 3), ("decoder", 2)) for n in range(count) for m in (0, 3)}


def quiet(_: str) -> None:
    """A log nobody reads."""


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory, folder: Path, weights: Path) -> tuple[Path, dict[str, Any], Path]:
    place = tmp_path_factory.mktemp("sensitivity")
    recipe = {
        "name": "tiny",
        "network": {"unet": {"classes": 3, "in_channels": 1, "width": 8, "depth": 2, "weights": str(weights)}},
        "data": {"folder": {"root": str(folder), "size": [32, 32]}},
        "passes": [{"int8": {"calibrate": 4, "method": "min_max", "keep": ["head"]}}],
    }
    path = write_recipe(place, recipe)
    found = sensitivity(load(path), place / "run", Questions(ratios=(0.75,), cases=2), say=quiet)
    return place / "run", found, path


def test_every_prunable_group_and_every_layer_is_asked_about(done: tuple[Path, dict, Path]) -> None:
    found = done[1]
    assert {one["layers"][0] for one in found["prune"]} >= LAYERS
    assert {one["ratio"] for one in found["prune"]} == {0.75}
    assert [one["layers"] for one in found["kept"]] == [["head"]]
    assert {one["layer"] for one in found["int8"]["layers"]} == LAYERS | {"up.0", "up.1", "head"}
    assert found["cases"] == 2
    assert found["dice"] > 0.8


def test_what_costs_most_stands_first(done: tuple[Path, dict, Path]) -> None:
    for drops in (
        [one["drop"] for one in done[1]["prune"]],
        [one["alone"]["drop"] for one in done[1]["int8"]["layers"]],
    ):
        assert drops == sorted(drops, reverse=True)
    assert done[1]["prune"][0]["drop"] > 0.02, "three quarters of some layer's channels are missed"


def test_only_the_group_asked_about_is_pruned(done: tuple[Path, dict, Path]) -> None:
    sizes = {(one["layers"][0], one["ratio"]): one["params"] for one in done[1]["prune"]}
    whole = sum(tensor.numel() for tensor in UNet(classes=3, width=8, depth=2)().parameters())
    # A filter has 9 weights, a bias, two numbers of its norm, and 9 weights in each of the 8 filters behind it.
    assert sizes["encoder.0.0", 0.75] == whole - 6 * (9 + 1 + 2 + 9 * 8)


def test_integers_alone_cost_less_than_all_together_and_float_wins_back_the_difference(
    done: tuple[Path, dict, Path],
) -> None:
    whole = done[1]["int8"]["all"]["drop"]
    for one in done[1]["int8"]["layers"]:
        assert abs(one["alone"]["drop"]) < 0.05
        assert one["won_back"] == pytest.approx(whole - one["all_but"]["drop"], abs=2e-6)
        assert one["alone"]["lower"] <= one["alone"]["drop"] <= one["alone"]["upper"]


def test_what_is_done_is_kept_and_an_interrupted_run_goes_on(
    done: tuple[Path, dict, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    records = sorted((done[0] / "kept" / "sensitivity").glob("*.json"))
    assert len(records) == 2 + len(done[1]["prune"]) + 2 * len(done[1]["int8"]["layers"])
    scored: list[str] = []
    real = Task.score

    def counting(self: Task, *given: Any, **more: Any) -> Any:
        scored.append("")
        return real(self, *given, **more)

    monkeypatch.setattr(Task, "score", counting)
    next(path for path in records if path.name.startswith("prune-encoder.0.0")).unlink()
    assert sensitivity(load(done[2]), done[0], Questions(ratios=(0.75,), cases=2), say=quiet) == done[1]
    assert len(scored) == 2, "one network on the two cases; all others were kept"


def test_test_cases_are_never_looked_at(done: tuple[Path, dict, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[str] = []
    monkeypatch.setattr(asked._Measure, "_scores", lambda self, net: looked.extend(c.name for c in self.cases) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        sensitivity(load(done[2]), done[0].parent / "other", Questions(ratios=(0.5,), cases=2), say=quiet)
    assert len(looked) == 2
    assert all("val" in name for name in looked)


def test_no_validation_cases_or_too_few_are_refused(tmp_path: Path, recipe: dict) -> None:
    path = write_recipe(tmp_path, recipe)
    with pytest.raises(DataError, match="--cases is 9, but there are only 4 validation cases"):
        sensitivity(load(path), tmp_path / "run", Questions(cases=9), say=quiet)
    bare = write_folder(tmp_path / "bare", {"train": 2, "calibration": 2, "test": 2})
    recipe["data"]["folder"]["root"] = str(bare)
    with pytest.raises(DataError, match="no validation cases, and test cases choose nothing"):
        sensitivity(load(write_recipe(tmp_path, recipe)), tmp_path / "run", Questions(), say=quiet)


def test_the_files_and_the_tables_are_written(done: tuple[Path, dict, Path]) -> None:
    folder, found, _ = done
    write(found, folder)
    assert json.loads((folder / "sensitivity.json").read_text()) == found
    assert (folder / "sensitivity.png").read_bytes().startswith(b"\x89PNG")
    first = (folder / "sensitivity.svg").read_bytes()
    draw(found, folder)
    assert (folder / "sensitivity.svg").read_bytes() == first
    text = printed(found)
    assert "2 validation cases" in text
    assert "integers simulated in float" in text
    assert "not prunable: head: it makes the network's output" in text


def printed(found: dict[str, Any]) -> str:
    console = Console(width=110)
    with console.capture() as capture:
        show(found, console)
    return " ".join(capture.get().split())


@pytest.mark.parametrize("layers", [(), ("a",), tuple(f"[layer] $x^{n}" for n in range(45))])
def test_any_number_of_layers_can_be_drawn(layers: Sequence[str], tmp_path: Path) -> None:
    failed = {"drop": None, "lower": None, "upper": None, "reason": "its logits are not finite"}
    one = {"drop": 0.1, "lower": None, "upper": None, "reason": None, "params": 3, "macs": 4}
    found = {
        "cases": 1,
        "dice": 0.9,
        "measured_in": "torch",
        "prune": [
            {"layers": [layer], "channels": 8, "ratio": 0.5, **(one if n else failed)} for n, layer in enumerate(layers)
        ],
        "kept": [],
        "int8": {
            "all": failed,
            "layers": [{"layer": layer, "alone": one, "all_but": failed, "won_back": None} for layer in layers],
        },
    }
    draw(found, tmp_path)
    assert "its logits are not finite" in printed(found)
    assert printed(found | {"int8": None})
    if len(layers) < 2:
        draw(found | {"int8": None}, tmp_path)
