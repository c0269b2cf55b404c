"""What becomes of a finished run's folder: every changed byte is found, and every number that does not follow."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from finished_run import finish, two_steps
from judged import row, scores
from test_cli import compress, refused

from compress.commands.verify import verify
from compress.errors import SegpressError
from compress.pipeline.manifest import LOG, NAME, faults, seal
from export.files import write_json


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run that nobody changes; copy it to spoil it."""
    return finish(tmp_path_factory.mktemp("with space") / "some run", two_steps(size_mb=0.02))


@pytest.fixture
def run(kept: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(kept, tmp_path / "the run"))


def spoil(run: Path, change: Any) -> None:
    """Change the report, and make its manifest fit: what only the numbers can tell."""
    report = json.loads((run / "report.json").read_text())
    change(report)
    write_json(run / "report.json", report)
    seal(run)


def test_a_run_as_it_was_left_is_right_wherever_it_was_copied(run: Path) -> None:
    done = compress("verify", run)
    assert done.returncode == 0, done.stderr
    assert "as the run left them" in done.stdout and "3 rows, 2 verdicts" in done.stdout


def found(folder: Path) -> list[str]:
    try:
        return list(faults(folder))
    except SegpressError as error:
        return [str(error)]


def test_every_changed_byte_of_every_file_is_found_and_its_file_named(kept: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(11)
    folder = Path(shutil.copytree(kept, tmp_path / "run"))
    names = sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    assert {"manifest.json", "log.txt", "report.html"} <= {str(name) for name in names}
    for number in range(200):
        path = folder / names[number % len(names)]
        data = path.read_bytes()
        place = int(rng.integers(len(data)))
        other = (data[place] + int(rng.integers(1, 256))) % 256
        path.write_bytes(data[:place] + bytes([other]) + data[place + 1 :])
        told = found(folder)
        assert len(told) == 1 and str(path) in told[0] and "changed" in told[0], (path, place, told)
        path.write_bytes(data)
    assert not found(folder)


@pytest.mark.parametrize("white", [b" ", b"\n", b""])
def test_a_manifest_has_one_form_only(run: Path, white: bytes) -> None:
    manifest = run / NAME
    manifest.write_bytes(manifest.read_bytes().rstrip() + white)
    assert found(run) == ([f"{manifest}: was changed after the run (it is not as it was written); run the recipe again "
                           "(compress run), or restore the file"] if white != b"\n" else [])  # fmt: skip


def test_what_is_added_and_what_is_missing_is_told_and_what_is_not_the_runs_own_is_left_alone(run: Path) -> None:
    (run / "kept" / "more.json").write_text("{}")
    (run / "report.md").unlink()
    (run / "junit.xml").write_text("<a/>")
    (run / "kept" / "sensitivity").mkdir()
    (run / "kept" / "sensitivity" / "baseline.json").write_text("{}")
    with (run / LOG).open("a") as log:
        log.write("a later command\n")
    done = compress("verify", run)
    refused(done, "2 faults", f"{run}/report.md: is missing", f"{run}/kept/more.json: was added")
    (run / LOG).write_text("begun anew")
    assert any("log.txt" in line for line in found(run))


def test_a_run_that_has_not_ended_has_no_manifest_and_is_not_verified(run: Path, tmp_path: Path) -> None:
    (run / NAME).unlink()
    refused(compress("verify", run), "manifest.json: there is none", "run the recipe again")
    refused(compress("verify", tmp_path / "nowhere"), "no such folder")
    refused(compress("verify", run / "report.json"), "a file: give the folder of its run")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda r: r["rows"][2]["scores"].update(dice=0.95), "scores.dice is 0.95"),
        (lambda r: r["rows"][2]["scores"]["per_case"]["case_003"]["nerve"].update(dice=0.1), "scores"),
        (lambda r: r["rows"][2]["scores"]["per_class"]["nerve"].update(absent=3), "absent is 3, but 0 cases"),
        (lambda r: r["rows"][2]["dice_drop"]["nerve"].update(upper=-0.1), "dice_drop.nerve.upper is -0.1"),
        (lambda r: r["rows"][2].update(step_drop=None), "step_drop is missing"),
        (lambda r: r["rows"][2]["latency_ms"].update(p90=0.5), "latency_ms.p50 is"),
        (lambda r: r["rows"][2]["latency_ms"].update(p50=r["rows"][2]["latency_ms"]["p90"]), "outside its limits"),
        (
            lambda r: r["rows"][1]["latency_ms"].update(max=99.0),
            "latency_ms and watch are in none of kept/latency*.json",
        ),
        (lambda r: r["rows"][0]["latency_ms"].update(screening=True), "screening is True, with 460 samples"),
        (lambda r: r["rows"][2].update(size_mb=0.001), "size_mb is 0.001, but its files have 0.02"),
        (lambda r: r["rows"][2]["sha256"].update({"onnxruntime.onnx": "0" * 64}), "sha256 of onnxruntime.onnx"),
        (lambda r: r["rows"][2].update(parity={"flipped": 0.0}), "parity is not what kept/scores-01-int8"),
        (lambda r: r["gates"][0].update(verdict="fails"), "gates[0].verdict is fails"),
        (lambda r: r["gates"].pop(), "there are 1 verdicts, but the recipe's gates give 2"),
        (lambda r: r["recipe"]["gates"].clear(), "its recipe has no gates"),
        (lambda r: r["cases"].update(test=59), "cases.test is 59"),
        (lambda r: r["data"].update(test_looks=1), "test_looks is 1, but 3 rows"),
        (lambda r: r["steps"][1].update(params=2), "params and macs are not those of its rows"),
    ],
)
def test_a_number_that_does_not_follow_from_what_is_kept_is_found(run: Path, change: Any, said: str) -> None:
    spoil(run, change)
    refused(compress("verify", run), "report.json", said)


def test_a_run_of_patients_absent_classes_and_what_was_not_measured_is_right(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    dice = np.where(rng.random((40, 2)) < 0.3, np.nan, 0.9)
    by = [f"p{number // 4}" for number in range(40)]
    of = [scores(dice - lost, ("a", "b"), by) for lost in (0, 0.01)]
    rows = [row("baseline", "torch", scores=of[0], p50=2), row("01-int8", "torch", scores=of[1], p50=3)]
    rows.append(replace(row("01-int8", "tensorrt", "rtx_40"), status="built", reason="no NVIDIA driver"))
    assert len(verify(finish(tmp_path / "run", rows, gates=()))) == 3
