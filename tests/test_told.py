"""Steps after the network in a whole run: scored for all alike, and told by every file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.special import softmax
from shared_fixtures import write_recipe
from whole_run import TIMES, Done, gone_on, quiet

from compress.commands.run import run
from compress.postprocess.fill_holes import FillHoles
from compress.postprocess.largest_component import LargestComponent
from compress.recipe import load
from compress.report.derived.applied import sentences
from export.artifact import Artifact
from export.backends.torch import infer_from_module
from export.to_onnx import metadata_of

STEPS = [{"threshold": {"at": {"disc": 0.9}}}, {"largest_component": {"classes": ["disc"]}}, "fill_holes"]


@pytest.fixture(scope="module")
def processed(done: Done, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict, list[str]]:
    """The finished run, gone on with steps after the network: its folder, its report, and what was said."""
    place = tmp_path_factory.mktemp("processed")
    before = len((done[0] / "log.txt").read_text().splitlines())
    report = gone_on(done, place, postprocess=STEPS)
    return place / "out", report.as_dict(), (place / "out/log.txt").read_text().splitlines()[before:]


def test_a_changed_postprocess_is_scored_again_for_all_alike_and_nothing_is_trained_or_built_again(
    done: Done, processed: Any
) -> None:
    _, report, log = processed
    assert sum("mean foreground Dice" in line for line in log) == len(report["rows"])
    assert any("timed" in line for line in log), "its time is part of the end-to-end latency"
    assert not [line for line in log if "done in" in line or "built" in line or "building" in line]
    before = {(row["step"], row["backend"]): row for row in done[1]["rows"]}
    for row in report["rows"]:
        was = before[row["step"], row["backend"]]
        assert row["scores"]["per_class"]["disc"] != was["scores"]["per_class"]["disc"], row["backend"]
        assert row["parity"] == was["parity"], "logits are compared as they are"


def test_what_was_scored_is_what_the_steps_give(processed: Any) -> None:
    folder, report, _ = processed
    task = load(write_recipe(folder.parent, report["recipe"])).task()
    case = task.data.cases["test"][0]
    shares = softmax(infer_from_module(task.net)(task.data.image(case)[None])[0], axis=0)
    labels = shares.argmax(0).astype(np.uint8)
    labels[(labels == 2) & (shares.max(0) < 0.9)] = 0
    labels = FillHoles()(
        LargestComponent(classes=("disc",))(labels, task.data.class_names, None), task.data.class_names, None
    )
    truth = task.data.mask(case) == 2
    dice = 2 * (truth & (labels == 2)).sum() / (truth.sum() + (labels == 2).sum())
    (row,) = [row for row in report["rows"] if (row["step"], row["backend"]) == ("baseline", "torch")]
    assert row["scores"]["per_case"][case.name]["disc"]["dice"] == pytest.approx(dice, abs=1e-5)


def test_files_sidecars_and_the_report_say_it(processed: Any) -> None:
    folder, report, _ = processed
    told = [
        {"threshold": {"at": {"disc": 0.9}}},
        {"largest_component": {"classes": ["disc"]}},
        {"fill_holes": {"classes": None}},
    ]
    assert report["data"]["postprocess"] == told
    for path in (folder / "artifacts").rglob("*.onnx"):
        if path.stem == "tensorrt":
            # Of the card, which the recipe does not have any more.
            continue
        said = metadata_of(path)
        assert json.loads(said["segpress.postprocess"]) == told
        assert json.loads(said["segpress.threshold"]) == {"disc": 0.9}
    for row in report["rows"]:
        if row["backend"] != "torch":
            artifact = Artifact.read(folder / row["artifact"])
            artifact.verify()
            assert (artifact.made["postprocess"], artifact.made["threshold"]) == (told, {"disc": 0.9})
            assert row["sha256"] == artifact.made["sha256"]
    sentence = (
        "Post-processing, of the baseline and every artifact alike: threshold (at disc 0.9), then largest_component "
        "(classes disc), then fill_holes."
    )
    assert sentences(report) == [sentence]
    for name in ("report.md", "report.html"):
        assert "of the baseline and every artifact alike: threshold" in (folder / name).read_text()


@pytest.mark.slow
def test_without_steps_again_files_and_report_are_what_they_were(done: Done, processed: Any, tmp_path: Path) -> None:
    folder, report, _ = processed
    recipe = {key: value for key, value in report["recipe"].items() if key != "postprocess"}
    again = run(load(write_recipe(tmp_path, recipe)), folder, say=quiet).as_dict()
    theirs = {(row["step"], row["backend"], row["device"]): row for row in done[1]["rows"]}
    for row in again["rows"]:
        was = theirs[row["step"], row["backend"], row["device"]]
        same = [key for key in row if key not in TIMES]
        assert {key: row[key] for key in same} == {key: was[key] for key in same}
    assert "postprocess" not in again["data"] and sentences(again) == []
