"""Chains of passes beside the recipe's own: what they share, what they are scored on, what a refusal costs."""

from __future__ import annotations

from pathlib import Path

import pytest
from whole_run import Done, gone_on

from compress.commands.verify import verify
from compress.data.dataset.cases import Case
from compress.measure.segmentation import Scoring
from compress.report.report import Report


@pytest.fixture(scope="module")
def compared(done: Done, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Report]:
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
def chained(done: Done, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Report]:
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


def test_every_finished_run_is_as_it_was_left_and_its_numbers_follow_from_what_is_kept(
    done: Done, compared: tuple[Path, Report], chained: tuple[Path, Report]
) -> None:
    for folder in (done[0], compared[0] / "out", chained[0]):
        assert len(verify(folder)) == 3
