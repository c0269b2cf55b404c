"""A whole run over tiny real things: what is measured, what is kept, what the gates make of it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from unittest.mock import Mock

import onnx
import pytest
from shared_fixtures import write_recipe
from whole_run import TIMES, Done, gone_on, quiet

from compress.commands.run import run
from compress.commands.verify import verify
from compress.errors import SegpressError
from compress.recipe import load
from export.artifact import Artifact
from export.to_onnx import metadata_of


def test_the_report_has_a_row_for_each_step_on_each_runtime(done: Done) -> None:
    rows = {(row["step"], row["backend"], row["device"]): row for row in done[1]["rows"]}
    assert set(rows) == {
        ("baseline", "torch", "cpu"),
        ("baseline", "onnxruntime", "cpu"),
        ("baseline", "openvino", "cpu"),
        ("baseline", "tensorrt", "rtx_40"),
        ("01-int8", "onnxruntime", "cpu"),
        ("01-int8", "openvino", "cpu"),
        ("01-int8", "tensorrt", "rtx_40"),
    }
    for (step, _, device), row in rows.items():
        if device == "cpu":
            assert row["status"] == "measured"
            assert row["scores"]["dice"] > 0.8, "the tiny network has learnt its task, and int8 keeps it"
            assert set(row["scores"]) >= {"dice", "iou", "hd95", "nsd", "precision", "recall", "per_class", "per_case"}
            assert set(row["latency_ms"]) >= {"p50", "p95", "p99", "end_to_end_p50"}
            assert row["parity"]["flipped"] < 0.02
        else:
            assert (row["status"], row["reason"]) == ("built", "no NVIDIA driver")
            assert row["scores"] is None
            assert row["latency_ms"] is None
        assert row["params"] > 0
        assert row["macs"] > 0
        assert row["layers"] is None if step == "baseline" else row["layers"]["float"] >= 1


def test_the_report_says_which_cases_were_used_for_what(done: Done) -> None:
    report = done[1]
    assert report["cases"] == {"train": 6, "calibration": 8, "val": 4, "test": 32}
    assert "int8" in report["data"]["roles"]["calibration"]


def test_the_three_report_files_and_a_log_are_written(done: Done) -> None:
    names = {path.name for path in done[0].iterdir()}
    assert names >= {"report.json", "report.md", "report.html", "log.txt"}
    assert "<html" in (done[0] / "report.html").read_text()


def test_every_artifact_in_the_report_is_there_with_its_sidecar(done: Done) -> None:
    for row in done[1]["rows"]:
        path = done[0] / row["artifact"]
        assert path.is_file()
        if row["backend"] != "torch":
            Artifact.read(path).verify()
            assert row["size_mb"] == pytest.approx(Artifact.read(path).size_mb, abs=1e-6)


def test_the_onnx_file_tells_classes_and_normalization(done: Done) -> None:
    path = next(path for path in (done[0] / "artifacts").rglob("*.onnx"))
    told = metadata_of(path)
    assert json.loads(told["segpress.classes"]) == ["background", "square", "disc"]
    assert json.loads(told["segpress.normalization"])["mean"] == [0.45]
    assert (told["segpress.fit"], told["segpress.restore"]) == ("resize", "probabilities")
    assert told["segpress.resize"].startswith("bilinear, antialiased")
    assert told["segpress.channels"].startswith("gray")
    assert (told["segpress.activation"], told["segpress.threshold"], told["segpress.padding"]) == (
        "softmax",
        *["null"] * 2,
    )


def test_weights_are_stored_as_int8(done: Done) -> None:
    for name in ("onnxruntime", "openvino"):
        graph = onnx.load(done[0] / "artifacts" / "01-int8" / f"{name}.onnx").graph
        stored = [
            tensor
            for tensor in graph.initializer
            if tensor.data_type == onnx.TensorProto.INT8 and len(tensor.dims) == 4
        ]
        assert stored, name
        floats = [t for t in graph.initializer if t.data_type == onnx.TensorProto.FLOAT and len(t.dims) == 4]
        assert len(floats) < len(stored), name


def test_gates_hold_fail_or_are_inconclusive_with_their_reason(done: Done) -> None:
    by_name: dict[str, list[dict]] = {}
    for gate in done[1]["gates"]:
        by_name.setdefault(gate["name"], []).append(gate)
    assert {gate["class"] for gate in by_name["dice_drop"]} == {"square", "disc"}
    assert {gate["class"] for gate in by_name["hd95_rise"]} == {"square"}
    assert {gate["verdict"] for gate in by_name["parity"]} == {"holds"}
    assert len(by_name["size_mb"]) == 3, "an engine that cannot run here still has a size"
    absent = [gate for gate in by_name["latency_ms"] if gate["device"] == "rtx_40"]
    assert [(gate["verdict"], gate["value"]) for gate in absent] == [("inconclusive", None)]
    assert "no NVIDIA driver" in absent[0]["reason"]
    few = [gate for gate in by_name["latency_ms"] if gate["device"] == "cpu"]
    assert all(gate["verdict"] == "inconclusive" and "459" in gate["reason"] for gate in few)


def test_the_same_seed_gives_the_same_report_but_for_times(done: Done, tmp_path: Path, recipe: dict) -> None:
    # Without the card: an engine holds nothing that depends on the seed, and building it takes longest.
    text = {**done[1]["recipe"], "devices": ["cpu"]}
    again = run(load(write_recipe(tmp_path, text)), tmp_path / "again", say=quiet)
    ours, theirs = json.loads(json.dumps(again.as_dict())), json.loads(json.dumps(done[1]))
    theirs["recipe"] = text
    for report in (ours, theirs):
        for what in ("rows", "gates"):
            report[what] = [one for one in report[what] if one["device"] != "rtx_40"]
        assert set(report.pop("made")) == {"date", "commit"}
        for row in report["rows"]:
            for key in TIMES:
                row.pop(key)
        for step in report["steps"]:
            step.pop("seconds")
        report["gates"] = [gate for gate in report["gates"] if gate["name"] != "latency_ms"]
    assert ours == theirs


def test_the_same_run_twice_is_answered_from_what_is_kept(
    done: Done, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import compress.editing.integers.effort
    import compress.pipeline.exporting
    import compress.pipeline.measure

    def never(*_: object, **__: object) -> None:
        raise AssertionError("this was done before")

    monkeypatch.setattr(compress.pipeline.measure, "in_turns", never)
    monkeypatch.setattr(compress.pipeline.exporting, "to_onnx", never)
    monkeypatch.setattr(compress.editing.integers.effort, "calibrated", never)
    # Another day and another commit are no reason for another report.
    monkeypatch.setattr("compress.pipeline.provenance.now", lambda: "2030-01-01T00:00:00+00:00")
    monkeypatch.setattr("compress.pipeline.provenance.commit_of", lambda _: "0" * 40)
    names = ("report.json", "report.md", "report.html")
    copy = tmp_path / "copy"
    shutil.copytree(done[0], copy)
    before = [((copy / name).read_bytes(), (copy / name).stat().st_mtime_ns) for name in names]
    report = run(load(write_recipe(tmp_path, done[1]["recipe"])), copy, say=quiet)
    assert [((copy / name).read_bytes(), (copy / name).stat().st_mtime_ns) for name in names] == before
    assert report.as_dict()["rows"] == done[1]["rows"]


def test_a_changed_artifact_is_built_again(done: Done, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(done[0], copy)
    path = copy / "artifacts" / "01-int8" / "openvino.bin"
    right = path.read_bytes()
    path.write_bytes(right[:-4] + b"evil")
    run(load(write_recipe(tmp_path, done[1]["recipe"])), copy, say=quiet)
    assert path.read_bytes() == right


def test_a_gate_too_tight_fails_and_is_named(done: Done, tmp_path: Path) -> None:
    report = gone_on(done, tmp_path, gates=[{"size_mb": {"at_most": 0.001}}])
    assert report.exit_code == 1
    (first, *_) = report.gates
    assert (first.name, first.limit, first.verdict) == ("size_mb", 0.001, "fails")
    assert first.value is not None
    assert first.value > 0.001


def test_a_gate_on_a_device_that_is_not_there_is_inconclusive(done: Done, tmp_path: Path) -> None:
    report = gone_on(done, tmp_path, gates=[{"latency_ms": {"at_most": 33, "device": "cuda"}}])
    assert report.exit_code == 3, "a device that is not there was not measured"


def test_a_run_that_goes_on_has_no_manifest_until_it_ends(done: Done, tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("compress.commands.run.judge", Mock(side_effect=KeyboardInterrupt))
        gone_on(done, tmp_path)
    with pytest.raises(SegpressError, match=r"manifest\.json: there is none: the run has not ended"):
        verify(tmp_path / "out")
    recipe = {**done[1]["recipe"], "devices": ["cpu"], "gates": []}
    run(load(write_recipe(tmp_path, recipe)), tmp_path / "out", say=quiet)
    assert len(verify(tmp_path / "out")) == 3
    run(load(write_recipe(tmp_path, done[1]["recipe"])), tmp_path / "out", say=quiet)
    assert verify(tmp_path / "out")[1:] != verify(done[0])[1:], "another folder is named"
    assert [line.split(": ", 1)[1] for line in verify(tmp_path / "out")] == [
        line.split(": ", 1)[1] for line in verify(done[0])
    ]
