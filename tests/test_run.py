"""A whole run over tiny real things: what is measured, what is kept, what the gates make of it."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import onnx
import pytest
from conftest import write_recipe
from scipy.special import softmax

from compress import gates, passes
from compress.commands.run import run
from compress.commands.verify import verify
from compress.data.dataset.cases import Case
from compress.errors import RecipeError, SegpressError
from compress.measure.segmentation import Scoring
from compress.pipeline.foreseen import contradictions, scene, spots
from compress.postprocess.fill_holes import FillHoles
from compress.postprocess.largest_component import LargestComponent
from compress.recipe import load, schema
from compress.report.derived.applied import sentences
from compress.report.report import Report
from export.artifact import Artifact
from export.backends.torch import infer_from_module
from export.to_onnx import metadata_of

TIMES = ("latency_ms", "peak_memory_mb", "slower")


def quiet(_: str) -> None:
    """A log nobody reads."""


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory, folder: Path, weights: Path) -> tuple[Path, dict[str, Any]]:
    """One finished run with gates of every kind, and its report."""
    place = tmp_path_factory.mktemp("run")
    recipe = {
        "name": "tiny",
        "network": {"unet": {"classes": 3, "in_channels": 1, "width": 8, "depth": 2, "weights": str(weights)}},
        "data": {"folder": {"root": str(folder), "size": [32, 32]}},
        "passes": [{"int8": {"calibrate": 8, "method": "mse", "keep": ["head"]}}],
        "devices": ["cpu", "rtx_40"],
        "latency": {"samples": 10, "seconds": 0.2, "warm_up": 0, "threads": 1},
        "gates": [
            {"dice_drop": {"at_most": 0.05, "device": "cpu"}},
            {"hd95_rise": {"at_most": 5, "device": "cpu", "class": "square"}},
            {"parity": {"at_most": 0.05, "device": "cpu"}},
            {"size_mb": {"at_most": 1}},
            {"latency_ms": {"at_most": 10_000, "device": "rtx_40"}},
            {"latency_ms": {"at_most": 10_000, "device": "cpu", "percentile": 99}},
        ],
    }
    run(load(write_recipe(place, recipe)), place / "out", say=quiet)
    return place / "out", json.loads((place / "out" / "report.json").read_text())


def gone_on(done: tuple[Path, dict], place: Path, **changes: Any) -> Report:
    """The finished run under a changed recipe: what the change leaves as it was is not done again."""
    shutil.copytree(done[0], place / "out")
    recipe = {**done[1]["recipe"], "devices": ["cpu"], "gates": [], **changes}
    return run(load(write_recipe(place, recipe)), place / "out", say=quiet)


def test_the_report_has_a_row_for_each_step_on_each_runtime(done: tuple[Path, dict]) -> None:
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


def test_the_report_says_which_cases_were_used_for_what(done: tuple[Path, dict]) -> None:
    report = done[1]
    assert report["cases"] == {"train": 6, "calibration": 8, "val": 4, "test": 32}
    assert "int8" in report["data"]["roles"]["calibration"]


def test_the_three_report_files_and_a_log_are_written(done: tuple[Path, dict]) -> None:
    names = {path.name for path in done[0].iterdir()}
    assert names >= {"report.json", "report.md", "report.html", "log.txt"}
    assert "<html" in (done[0] / "report.html").read_text()


def test_every_artifact_in_the_report_is_there_with_its_sidecar(done: tuple[Path, dict]) -> None:
    for row in done[1]["rows"]:
        path = done[0] / row["artifact"]
        assert path.is_file()
        if row["backend"] != "torch":
            Artifact.read(path).verify()
            assert row["size_mb"] == pytest.approx(Artifact.read(path).size_mb, abs=1e-6)


def test_the_onnx_file_tells_classes_and_normalization(done: tuple[Path, dict]) -> None:
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


def test_weights_are_stored_as_int8(done: tuple[Path, dict]) -> None:
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


def test_gates_hold_fail_or_are_inconclusive_with_their_reason(done: tuple[Path, dict]) -> None:
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


def test_the_same_seed_gives_the_same_report_but_for_times(
    done: tuple[Path, dict], tmp_path: Path, recipe: dict
) -> None:
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
    done: tuple[Path, dict], monkeypatch: pytest.MonkeyPatch
) -> None:
    import compress.passes.int8
    import compress.pipeline.exporting
    import compress.pipeline.measure

    def never(*_: object, **__: object) -> None:
        raise AssertionError("this was done before")

    monkeypatch.setattr(compress.pipeline.measure, "in_turns", never)
    monkeypatch.setattr(compress.pipeline.exporting, "to_onnx", never)
    monkeypatch.setattr(compress.passes.int8, "calibrated", never)
    # Another day and another commit are no reason for another report.
    monkeypatch.setattr("compress.pipeline.provenance.now", lambda: "2030-01-01T00:00:00+00:00")
    monkeypatch.setattr("compress.pipeline.provenance.commit_of", lambda _: "0" * 40)
    names = ("report.json", "report.md", "report.html")
    before = [((done[0] / name).read_bytes(), (done[0] / name).stat().st_mtime_ns) for name in names]
    recipe = load(write_recipe(done[0], done[1]["recipe"]))
    report = run(recipe, done[0], say=quiet)
    assert [((done[0] / name).read_bytes(), (done[0] / name).stat().st_mtime_ns) for name in names] == before
    assert report.as_dict()["rows"] == done[1]["rows"]


def test_a_changed_artifact_is_built_again(done: tuple[Path, dict], tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(done[0], copy)
    path = copy / "artifacts" / "01-int8" / "openvino.bin"
    right = path.read_bytes()
    path.write_bytes(right[:-4] + b"evil")
    run(load(write_recipe(tmp_path, done[1]["recipe"])), copy, say=quiet)
    assert path.read_bytes() == right


def test_a_gate_too_tight_fails_and_is_named(done: tuple[Path, dict], tmp_path: Path) -> None:
    report = gone_on(done, tmp_path, gates=[{"size_mb": {"at_most": 0.001}}])
    assert report.exit_code == 1
    (first, *_) = report.gates
    assert (first.name, first.limit, first.verdict) == ("size_mb", 0.001, "fails")
    assert first.value is not None
    assert first.value > 0.001


def test_a_gate_on_a_device_that_is_not_there_is_inconclusive(done: tuple[Path, dict], tmp_path: Path) -> None:
    report = gone_on(done, tmp_path, gates=[{"latency_ms": {"at_most": 33, "device": "cuda"}}])
    assert report.exit_code == 3, "a device that is not there was not measured"


@pytest.fixture(scope="module")
def compared(done: tuple[Path, dict], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Report]:
    """The finished run beside two chains, one of which a pass refuses, and gates on both."""
    place = tmp_path_factory.mktemp("compared")
    compare = {
        "int8_alone": [{"int8": {"calibrate": 4, "method": "min_max"}}],
        "pruned": [{"prune": {"ratio": 0.4, "multiple": 64}}],
    }
    gates = [
        {"speedup": {"at_least": 0.001, "over": "int8_alone", "backend": "openvino"}},
        {"smaller": {"at_least": 1.5, "backend": "onnxruntime"}},
        {"fewer_bit_operations": {"at_least": 2, "backend": "onnxruntime"}},
        {"speedup": {"at_least": 1, "over": "pruned", "backend": "onnxruntime"}},
        {"smaller": {"at_least": 1, "over": "pruned", "backend": "onnxruntime"}},
    ]
    return place, gone_on(done, place, compare=compare, gates=gates)


def test_a_chain_beside_the_recipes_own_is_timed_in_the_same_run_and_judged_by_no_gate(
    compared: tuple[Path, Report],
) -> None:
    report = compared[1]
    steps = [row.step for row in report.rows if row.backend == "openvino" and row.status == "measured"]
    assert steps == ["baseline", "int8_alone", "01-int8"]
    assert [(step["step"], step["chain"]) for step in report.steps] == [
        ("baseline", None),
        ("01-int8", None),
        ("int8_alone", "int8_alone"),
        ("pruned", "pruned"),
    ]
    assert report.steps[2]["options"]["calibrate"] == 4
    assert {gate.name: gate.verdict for gate in report.gates[:3]} == {
        "speedup": "inconclusive" if report.gates[0].reason else "holds",
        "smaller": "holds",
        "fewer_bit_operations": "holds",
    }
    rows = {(row.step, row.backend): row for row in report.rows}
    assert all(rows[step, "onnxruntime"].latency_ms for step in ("baseline", "int8_alone", "01-int8"))
    before, now, alone = (rows[step, "onnxruntime"] for step in ("baseline", "01-int8", "int8_alone"))
    assert before.bit_operations == 32 * before.macs
    head = 8 * 3 * 32 * 32
    # The logits' convolution stays in float on this runtime; the stem's counts 8 bits like the rest.
    assert now.bit_operations == 8 * (now.macs - head) + 32 * head == alone.bit_operations
    assert rows["01-int8", "openvino"].step_drop is not None
    assert "drop" in rows["01-int8", "openvino"].step_drop["mean"]
    assert rows["baseline", "openvino"].step_drop is None


def test_a_chain_that_is_refused_costs_its_row_and_not_the_run(compared: tuple[Path, Report]) -> None:
    place, report = compared
    rows = [row for row in report.rows if row.step == "pruned"]
    assert [row.backend for row in rows] == ["torch", "onnxruntime", "openvino"]
    assert {row.status for row in rows} == {"not measured"}
    assert all("prune: nothing was removed" in str(row.reason) and "multiple" in str(row.reason) for row in rows)
    assert report.exit_code == 3
    assert len(report.gates) == 5
    for gate in report.gates[3:]:
        assert gate.verdict == "inconclusive" and "pruned on onnxruntime (prune: nothing was removed" in gate.reason
    assert report.steps[-1]["step"] == "pruned" and "nothing was removed" in report.steps[-1]["notes"][0]
    for name in ("report.md", "report.html"):
        (page,) = place.rglob(name)
        assert "nothing was removed" in page.read_text()


PRUNED, SEPARATED = {"prune": {"ratio": 0.5, "multiple": 2}}, {"depthwise": {"at_least": 4}}


@pytest.fixture(scope="module")
def chained(done: tuple[Path, dict], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Report]:
    """A run of two passes beside two other chains, scored on few cases where no gate on a drop reads."""
    place = tmp_path_factory.mktemp("chained")
    compare = {
        "pruned": [PRUNED, {"depthwise": {"at_least": 16}}],
        "wholly_the_same": [PRUNED, SEPARATED],
    }
    gates = [{"dice_drop": {"at_most": 1.0, "backend": "openvino"}}]
    passes, scoring = [PRUNED, SEPARATED], {"others": 5}
    return place / "out", gone_on(done, place, passes=passes, compare=compare, scoring=scoring, gates=gates)


def test_what_no_drop_gate_reads_is_scored_on_fewer_cases_where_the_recipe_says_so(
    chained: tuple[Path, Report],
) -> None:
    folder, report = chained
    rows = {(row.step, row.backend): row for row in report.rows}
    scored = {place: len((row.scores or {})["per_case"]) for place, row in rows.items()}
    whole = {("baseline", "torch"), *(("02-depthwise", word) for word in ("torch", "onnxruntime", "openvino"))}
    assert {place for place, count in scored.items() if count == 32} == whole
    assert {count for place, count in scored.items() if place not in whole} == {5}
    both = [rows["01-prune", "openvino"].dice_drop, rows["02-depthwise", "openvino"].step_drop]
    assert all(drop is not None and 0 < drop["mean"]["n"] <= 5 for drop in both)
    assert (rows["02-depthwise", "openvino"].dice_drop or {})["mean"]["n"] > 5
    assert {gate.verdict for gate in report.gates} == {"holds"}
    assert "scored on 5 of the test cases" in (folder / "report.md").read_text()


def test_the_cases_that_others_are_scored_on_are_the_same_for_the_same_seed() -> None:
    cases = [Case(name=f"{place}.png", image=Path(), mask=Path()) for place in range(9)]
    drawn = [case.name for case in Scoring(others=4).drawn(cases, 7)]
    assert len(drawn) == 4
    assert drawn == sorted(drawn)
    assert drawn == [case.name for case in Scoring(others=4).drawn(cases, 7)]
    assert drawn != [case.name for case in Scoring(others=4).drawn(cases, 8)]
    assert Scoring().drawn(cases, 7) == Scoring(others=9).drawn(cases, 7) == cases


def test_what_two_chains_begin_with_is_done_once(chained: tuple[Path, Report]) -> None:
    folder, report = chained
    lines = (folder / "log.txt").read_text().splitlines()
    assert sum("01-prune: done" in line for line in lines) == 1
    assert not any("done in" in line for line in lines if "pruned-01-prune: " in line or "wholly_the_same" in line)
    assert [step["step"] for step in report.steps if step["chain"] == "pruned"] == ["pruned-01-prune", "pruned"]
    rows = {row.step: row for row in report.rows if row.backend == "onnxruntime"}
    assert rows["pruned"].params < rows["01-prune"].params
    assert rows["wholly_the_same"].params == rows["02-depthwise"].params < rows["01-prune"].params
    few, every = ((rows[name].scores or {})["per_case"] for name in ("wholly_the_same", "02-depthwise"))
    assert few == {case: every[case] for case in few}


ADDED = '''
"""How many parameters the network has."""

from collections.abc import Iterator, Sequence
from typing import ClassVar

from pydantic.dataclasses import dataclass

from compress.gates.judging.artifacts import each_built
from compress.gates.judging.beforehand import not_built, nowhere
from compress.gates.judging.options import OPTIONS, Limit, OneBackend, OneDevice
from compress.gates.judging.scene import Scene
from compress.gates.judging.verdict import Bound, Verdict, at_most
from compress.measure.row import Row


@dataclass(frozen=True, kw_only=True, config=OPTIONS)
class FewParams:
    """Holds where the network has at most so many parameters."""

    title: ClassVar[str] = "few_params"
    reads_scores: ClassVar[bool] = False

    at_most: Limit
    device: OneDevice = None
    backend: OneBackend = None

    @property
    def bound(self) -> Bound:
        return at_most(self.at_most)

    def __call__(self, rows: Sequence[Row]) -> list[Verdict]:
        return each_built(self, rows, lambda row: [self.bound.outcome(row.params)])

    def never_holds(self, scene: Scene) -> Iterator[str]:
        return nowhere(self, scene)

    def cannot_hold(self, scene: Scene) -> Iterator[str]:
        return not_built(self, scene)
'''


@pytest.fixture
def added_gate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A gate that lies in a folder of its own; its word."""
    (tmp_path / "gates").mkdir()
    (tmp_path / "gates" / "few_params.py").write_text(ADDED)
    monkeypatch.setattr(gates, "__path__", [*gates.__path__, str(tmp_path / "gates")])
    yield "few_params"
    sys.modules.pop("compress.gates.few_params", None)
    vars(gates).pop("few_params", None)


def test_to_add_a_gate_is_to_add_one_file(done: tuple[Path, dict], tmp_path: Path, added_gate: str) -> None:
    report = gone_on(done, tmp_path, gates=[{added_gate: {"at_most": 10}}, {added_gate: {"at_most": 1e6}}])
    assert {(gate.name, gate.limit, gate.verdict) for gate in report.gates} == {
        ("few_params", 10, "fails"),
        ("few_params", 1e6, "holds"),
    }
    assert "few_params" in (tmp_path / "out" / "report.md").read_text().replace("\\", "")

    entries = schema()["properties"]["gates"]["items"]["anyOf"]
    (options,) = (entry["properties"][added_gate] for entry in entries if added_gate in entry["properties"])
    assert (set(options["properties"]), options["required"]) == ({"at_most", "device", "backend"}, ["at_most"])

    recipe = {**done[1]["recipe"], "gates": [{added_gate: {"at_mst": 1, "device": "cpuu"}}]}
    with pytest.raises(RecipeError) as refused:
        load(write_recipe(tmp_path, recipe))
    assert "gates[0] (few_params): no option 'at_mst'; did you mean 'at_most'?" in str(refused.value)
    assert "gates[0] (few_params): no device 'cpuu'; did you mean 'cpu'?" in str(refused.value)

    nowhere = {**done[1]["recipe"], "devices": ["cpu"], "gates": [{added_gate: {"at_most": 1, "device": "rtx_40"}}]}
    loaded = load(write_recipe(tmp_path, nowhere))
    (never,) = contradictions(loaded, scene(loaded, spots(loaded), None, None))
    assert never.startswith("gates[0] (few_params): never holds: the recipe builds nothing for the device 'rtx_40'")


# Post-processing

STEPS = [{"threshold": {"at": {"disc": 0.9}}}, {"largest_component": {"classes": ["disc"]}}, "fill_holes"]


@pytest.fixture(scope="module")
def processed(done: tuple[Path, dict], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict, list[str]]:
    """The finished run, gone on with steps after the network: its folder, its report, and what was said."""
    place = tmp_path_factory.mktemp("processed")
    before = len((done[0] / "log.txt").read_text().splitlines())
    report = gone_on(done, place, postprocess=STEPS)
    return place / "out", report.as_dict(), (place / "out/log.txt").read_text().splitlines()[before:]


def test_a_changed_postprocess_is_scored_again_for_all_alike_and_nothing_is_trained_or_built_again(
    done: Any, processed: Any
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


def test_every_finished_run_is_as_it_was_left_and_its_numbers_follow_from_what_is_kept(
    done: tuple[Path, dict], compared: tuple[Path, Report], chained: tuple[Path, Report]
) -> None:
    for folder in (done[0], compared[0] / "out", chained[0]):
        assert len(verify(folder)) == 3


def test_a_run_that_goes_on_has_no_manifest_until_it_ends(done: tuple[Path, dict], tmp_path: Path) -> None:
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


def test_without_steps_again_files_and_report_are_what_they_were(done: Any, processed: Any, tmp_path: Path) -> None:
    folder, report, _ = processed
    recipe = {key: value for key, value in report["recipe"].items() if key != "postprocess"}
    again = run(load(write_recipe(tmp_path, recipe)), folder, say=quiet).as_dict()
    theirs = {(row["step"], row["backend"], row["device"]): row for row in done[1]["rows"]}
    for row in again["rows"]:
        was = theirs[row["step"], row["backend"], row["device"]]
        same = [key for key in row if key not in TIMES]
        assert {key: row[key] for key in same} == {key: was[key] for key in same}
    assert "postprocess" not in again["data"] and sentences(again) == []


ADDED_PASS = '''
"""Nothing is changed."""

import copy
from typing import ClassVar

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class LeftAlone:
    """The network as it came."""

    requires: ClassVar = "float"
    ensures: ClassVar = "float"
    times: int = 1
    """How often it is left alone."""

    @property
    def uses(self):
        return ()

    def __call__(self, net, task):
        task.note(f"left alone {self.times} times")
        return copy.deepcopy(net)
'''


@pytest.fixture
def added_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A pass that lies in a folder of its own; its word."""
    (tmp_path / "passes").mkdir()
    (tmp_path / "passes" / "left_alone.py").write_text(ADDED_PASS)
    monkeypatch.setattr(passes, "__path__", [*passes.__path__, str(tmp_path / "passes")])
    yield "left_alone"
    sys.modules.pop("compress.passes.left_alone", None)
    vars(passes).pop("left_alone", None)


def test_to_add_a_pass_is_to_add_one_file(done: tuple[Path, dict], tmp_path: Path, added_pass: str) -> None:
    report = gone_on(done, tmp_path, passes=[{added_pass: {"times": 3}}])
    assert {row.step for row in report.rows if row.status == "measured"} == {"baseline", "01-left_alone"}
    assert report.steps[1]["notes"] == ["left alone 3 times"]
    entries = schema()["properties"]["passes"]["items"]["anyOf"]
    (options,) = (each["properties"][added_pass] for each in entries if added_pass in each.get("properties", {}))
    assert set(options["properties"]) == {"times"}
    with pytest.raises(RecipeError, match=r"passes\[0\] \(left_alone\): no option 'time'; did you mean 'times'"):
        load(write_recipe(tmp_path, {**done[1]["recipe"], "passes": [{added_pass: {"time": 1}}]}))
