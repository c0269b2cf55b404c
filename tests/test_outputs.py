"""What CI reads of verdicts: JUnit XML, a job's summary, points of a benchmark."""

from __future__ import annotations

import json
import sys
from functools import cache
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as Xml

import numpy as np
import pytest
from finished_run import dice, finish, two_steps
from test_cli import compress, refused

from compress.errors import SegpressError, SurroundingsError
from compress.report.junit import to_junit
from compress.report.outputs import Outputs

GATES = (
    {"dice_drop": {"at_most": 0.01}},
    {"parity": {"at_most": 0.01}},
    {"latency_ms": {"at_most": 5}},
    {"latency_ms": {"at_most": 1, "percentile": 90}},
)

SCHEMA = Path(__file__).parent / "schemas" / "junit.xsd"


@cache
def schema() -> Any:
    return pytest.importorskip("xmlschema", reason="the extra `dev` has xmlschema").XMLSchema11(SCHEMA)


def faults(text: str) -> list[str]:
    """What a file has against the schema, by the place in it."""
    return [f"{error.path}: {error.reason}" for error in schema().iter_errors(text)]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of which a gate fails, one is inconclusive and two hold."""
    place = tmp_path_factory.mktemp("run")
    return finish(place / "run", two_steps(dice() - 0.05), gates=GATES, name="un & <b>et")


def written(run: Path, place: Path, *more: Any) -> tuple[str, str, Any]:
    files = {
        "--junit": place / "j unit.xml",
        "--summary": place / "summary.md",
        "--benchmark-json": place / "points.json",
    }
    done = compress("gate", run, *(word for option in files.items() for word in option), *more)
    assert (done.returncode, done.stderr) == (1, "")
    junit, summary, points = (path.read_text(encoding="utf-8") for path in files.values())
    return junit, summary, json.loads(points)


def test_junit_is_of_the_schema_and_counts_what_it_has(run: Path, tmp_path: Path) -> None:
    text, _, _ = written(run, tmp_path)
    assert faults(text) == []
    (suite,) = Xml.fromstring(text)
    cases = suite.findall("testcase")
    kinds = [[child.tag for child in case] for case in cases]
    assert kinds == [["failure"], ["error"], [], ["failure"]]
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == ("4", "2", "1")
    assert len({case.get("name") for case in cases}) == 4, "two percentiles are two test cases"
    assert cases[1][0].get("type") == "inconclusive" and "not measured" in str(cases[1][0].get("message"))
    assert suite.get("name") == "un & <b>et"


ROWS: dict[str, tuple[dict[str, Any], str]] = {
    "holds": ({}, "[]"),
    "fails": ({"latency_ms": {"at_most": 1}}, "['failure']"),
    "inconclusive": ({"dice_drop": {"at_most": 0.004}}, "['error']"),
    "not measured": ({"parity": {"at_most": 0.01}}, "['error']"),
    "of a device that the recipe has not": ({"size_mb": {"at_most": 9, "device": "orin_nano"}}, "['error']"),
}


@pytest.mark.parametrize("verdict", ROWS)
def test_junit_is_of_the_schema_in_every_verdict(tmp_path: Path, verdict: str) -> None:
    gate, kinds = ROWS[verdict]
    # Half of the cases gain what the others lose.
    rows = two_steps(dice() + np.resize([0.02, -0.02], dice().shape))
    place = finish(tmp_path / "run", rows, gates=(gate or {"size_mb": {"at_most": 9}},))
    compress("gate", place, "--junit", tmp_path / "j.xml")
    text = (tmp_path / "j.xml").read_text(encoding="utf-8")
    assert faults(text) == []
    (case,) = Xml.fromstring(text)[0].findall("testcase")
    assert str([child.tag for child in case]) == kinds


def test_junit_of_a_run_without_gates_is_of_the_schema(run: Path) -> None:
    report = json.loads((run / "report.json").read_text())
    assert faults(to_junit({**report, "gates": []})) == []
    assert faults(to_junit({**report, "gates": [], "made": None, "versions": {}})) == []


WRONG = {
    "case behind the output": ("<system-out />", "<system-out />", "<properties/>"),
    "no class": (' classname="segpress.a"', "", "classname"),
    "another count": ('tests="1"', 'tests="2"', "tests"),
    "a date that is none": ("2026-01-01T00:00:00", "yesterday", "timestamp"),
    "an empty name": ('name="gate"', 'name=" "', "name"),
    "two faults of one case": ("<failure", '<error type="x" />\n<failure', "Unexpected child with tag 'failure'"),
    "an attribute of nobody's": ('time="0">', 'time="0" owner="me">', "owner"),
}
RIGHT = """<testsuites>
  <testsuite id="0" name="a" package="segpress" timestamp="2026-01-01T00:00:00" hostname="localhost" time="0"
             tests="1" failures="1" errors="0">
    <properties><property name="seed" value="7" /></properties>
    <testcase name="gate" classname="segpress.a" time="0"><failure type="fails" message="past">why</failure></testcase>
    <system-out />
    <system-err />
  </testsuite>
</testsuites>"""


@pytest.mark.parametrize("wrong", WRONG)
def test_the_schema_here_tells_what_is_wrong(wrong: str) -> None:
    was, becomes, told = WRONG[wrong]
    text = RIGHT.replace("<system-out />", "").replace("<properties>", "<system-out /><properties>", 1)
    text = text if wrong == "case behind the output" else RIGHT.replace(was, becomes, 1)
    assert faults(RIGHT) == [] and text != RIGHT
    assert faults(text) and (told in " ".join(faults(text)) or wrong == "case behind the output")


def test_what_xml_has_no_place_for_is_replaced(run: Path) -> None:
    report = json.loads((run / "report.json").read_text())
    report["gates"][0]["reason"] = "an escape \x1b[31m, a nul \0 and half a pair \ud800"
    root = Xml.fromstring(to_junit(report).encode())
    assert "an escape \ufffd[31m, a nul \ufffd and half a pair \ufffd" in str(root[0][1][0].get("message"))


def test_a_summary_has_the_worst_news_first_and_is_appended(run: Path, tmp_path: Path) -> None:
    (tmp_path / "summary.md").write_text("## of an earlier step")
    _, summary, _ = written(run, tmp_path)
    lines = summary.splitlines()
    assert lines[0] == "## of an earlier step"
    assert "un &amp; &lt;b&gt;et: fails" in summary and "2 of 4 gates fail" in summary
    table = [line for line in lines if line.startswith("| ") and "---" not in line]
    rulings = [line.split("|")[-3].strip() for line in table[1:]]
    assert rulings == ["fails", "fails", "inconclusive", "holds"]
    _, again, _ = written(run, tmp_path)
    assert again.startswith(summary) and again.count("un &amp;") == 2


def test_points_of_a_benchmark_have_what_the_action_reads(run: Path, tmp_path: Path) -> None:
    _, _, points = written(run, tmp_path)
    assert [(each["name"], each["unit"]) for each in points] == [
        ("onnxruntime (cpu): p50 latency", "ms"),
        ("onnxruntime (cpu): size", "MB"),
        ("onnxruntime (cpu): Dice drop", "Dice"),
    ]
    assert all(
        isinstance(each["value"], float) and set(each) <= {"name", "unit", "value", "range", "extra"} for each in points
    )
    assert points[0]["value"] == pytest.approx(2, rel=0.05) and points[2]["value"] == pytest.approx(0.05)


def test_what_was_not_measured_is_no_point(tmp_path: Path) -> None:
    rows = two_steps(status="built", reason="no NVIDIA driver")
    rows[-1] = type(rows[-1])(**{**vars(rows[-1]), "scores": None, "latency_ms": None})
    run = finish(tmp_path / "run", rows)
    assert compress("gate", run, "--benchmark-json", tmp_path / "p.json").returncode == 3
    assert [each["unit"] for each in json.loads((tmp_path / "p.json").read_text())] == ["MB"]


@pytest.mark.parametrize("option", ["--junit", "--summary", "--benchmark-json"])
def test_a_file_that_cannot_be_written_is_told_before_anything_is_done(run: Path, tmp_path: Path, option: str) -> None:
    (tmp_path / "file").write_text("")
    refused(compress("gate", run, option, tmp_path), f"{option}: {tmp_path}: is a folder; give a file")
    refused(
        compress("compare", run, run, option, tmp_path / "file" / "f"), f"{option}: ", "file is a file, where a folder"
    )
    refused(compress("run", tmp_path / "none.yaml", option, tmp_path / "file" / "f"), f"{option}: ", "must be")
    refused(compress("gate", run, option, "/dev/null"), "is no ordinary file")
    assert list(tmp_path.iterdir()) == [tmp_path / "file"]


def test_folders_are_made(run: Path, tmp_path: Path) -> None:
    assert compress("gate", run, "--junit", tmp_path / "not there" / "yet" / "j.xml").returncode == 1
    assert (tmp_path / "not there" / "yet" / "j.xml").is_file()


def test_a_verdict_of_before_is_not_left_to_be_taken_for_this_ones(run: Path, tmp_path: Path) -> None:
    for name in ("j.xml", "s.md", "b.json"):
        (tmp_path / name).write_text("of before")
    words = ("--junit", tmp_path / "j.xml", "--summary", tmp_path / "s.md", "--benchmark-json", tmp_path / "b.json")
    refused(compress("gate", tmp_path / "no run", *words), "no such folder")
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"s.md": "of before"}


def test_a_file_is_whole_or_as_it_was(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "summary.md"
    path.write_text("as it was")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    done = compress("gate", run, "--summary", path)
    assert done.returncode == 4 and "make room" in done.stderr
    assert path.read_text() == "as it was" and list(tmp_path.iterdir()) == [path]


def test_nothing_is_written_that_is_not_asked_for(run: Path, tmp_path: Path) -> None:
    Outputs().begin()
    Outputs().write(json.loads((run / "report.json").read_text()))
    assert list(tmp_path.iterdir()) == []


def test_without_a_browser_a_pdf_is_refused_before_anything_is_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "before.pdf").write_bytes(b"an earlier one")
    with pytest.raises(SegpressError, match="--pdf: a Chromium prints it, and none is here"):
        Outputs(pdf=tmp_path / "before.pdf").begin()
    assert (tmp_path / "before.pdf").is_file()


def test_a_browser_that_does_not_print_is_told_with_what_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "chromium").write_text("#!/bin/sh\necho 'no display' >&2\nexit 1\n")
    (tmp_path / "chromium").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    (tmp_path / "report.html").write_text("")
    with pytest.raises(SurroundingsError, match=r"did not print .*report.html \(no display\)"):
        Outputs(pdf=tmp_path / "report.pdf").write({}, folder=tmp_path)
    assert not (tmp_path / "report.pdf").exists()


def test_mlflow_is_told_what_was_done_and_what_came_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow", reason="MLflow is not installed: pip install 'segpress[mlflow]'")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    mlflow.set_tracking_uri(f"file://{tmp_path / 'server'}")
    finish(tmp_path / "run", two_steps())
    record = json.loads((tmp_path / "run" / "report.json").read_text())
    told = Outputs(mlflow="nerves")
    told.begin()
    told.write(record, folder=tmp_path / "run")
    (run,) = mlflow.search_runs(experiment_names=["nerves"], output_format="list")
    assert run.data.tags["verdict"] and run.data.params["seed"] == str(record["seed"])
    assert any(name.endswith("/dice_drop") for name in run.data.metrics)
    assert {"report.json", "report.html"} <= {path.name for path in (tmp_path / "server").rglob("report.*")}


def test_a_server_that_takes_nothing_is_told_with_what_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow", reason="MLflow is not installed: pip install 'segpress[mlflow]'")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    (tmp_path / "server").write_text("a file")
    mlflow.set_tracking_uri(f"file://{tmp_path / 'server'}")
    with pytest.raises(SurroundingsError, match=r"--mlflow: file://"):
        Outputs(mlflow="nerves").write({"name": "x"}, folder=tmp_path)


def test_without_mlflow_it_is_said_how_to_install_it_before_anything_is_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(SegpressError, match=r"segpress\[mlflow\]"):
        Outputs(mlflow="nerves").begin()
