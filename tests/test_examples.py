"""Every example runs as it stands, and says what it promises."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"
SAYS = {
    "00_load": "1,943,795 parameters",
    "01_score": "nerve: Dice 0.",
    "02_prune": "times fewer operations",
    "03_recover": "Dice after one epoch on 4 cases",
    "04_quantize": "onnxruntime: {'integer': 2",
    "05_export": "model.onnx: 7.8 MB",
    "06_build": "openvino: Dice 0.",
    "07_time": "onnxruntime: p50 ",
    "08_compare": "nerve: Dice falls by",
    "09_run": "01-int8 on onnxruntime: measured, 1.98",
    "10_any_module": "Dice 0.",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where all examples run, so that the phantoms are made once."""
    return tmp_path_factory.mktemp("examples")


def test_every_example_is_run() -> None:
    assert sorted(SAYS) == sorted(path.stem for path in EXAMPLES.glob("*.py"))
    assert [name[:2] for name in sorted(SAYS)] == [f"{number:02}" for number in range(11)]


BEHIND = ("03_recover", "06_build", "07_time", "08_compare", "09_run")
"""What trains, builds and times as many other tests do: CI runs these behind them (.ci/run)."""


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow if name in BEHIND else ()) for name in SAYS]
)
def test_it_says_what_it_promises(
    name: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    runpy.run_path(str(EXAMPLES / f"{name}.py"))
    said = capsys.readouterr().out
    assert SAYS[name] in said and "Dice 0.000" not in said


@pytest.mark.slow
def test_the_notebook_runs_from_its_first_cell_to_its_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / "examples"
    place.mkdir()
    for name in ("phantom.yaml", "notebook.ipynb"):
        (place / name).write_bytes((EXAMPLES / name).read_bytes())
    (tmp_path / "recipes").symlink_to(EXAMPLES.parent / "recipes")
    monkeypatch.chdir(place)
    cells = json.loads((place / "notebook.ipynb").read_text(encoding="utf-8"))["cells"]
    known: dict[str, object] = {"__name__": "__main__"}
    for cell in cells:
        assert not cell.get("outputs"), "results are of whoever runs it"
        if cell["cell_type"] == "code":
            exec("".join(cell["source"]), known)
    said = capsys.readouterr().out
    assert "as trained: Dice 0." in said and "small: Dice 0." in said and "small.onnx" in said
    assert "Dice 0.000" not in said
