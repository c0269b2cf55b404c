"""Two runs, the main branch's and a change's: equals hardly ever alarm, losses do, what has no comparison says why."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from finished_run import CASES, HOST, VERSIONS, around, dice, finish, two_steps
from judged import row, scores, times
from test_cli import compress, refused

from benchmarks import equals
from compress.gates.judging.change import Allowed, judge_change
from compress.gates.judging.two_runs import Measured, paired
from compress.gates.judging.verdict import Verdict
from compress.measure.row import Row
from compress.report.report import exit_code

ROOT = Path(__file__).parents[1]
NETWORK = {"unet": {"width": 8}}
Dice = np.ndarray


@pytest.fixture(scope="module")
def main(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of the main branch."""
    return finish(tmp_path_factory.mktemp("main") / "main run", two_steps())


def change(tmp_path: Path, rows: list[Row] | None = None, content: str = "b", **more: Any) -> Path:
    """The run of a change, whose artifacts are other files."""
    return finish(tmp_path / "a change", two_steps(seed=1) if rows is None else rows, content=content, **more)


def words(done: Any) -> str:
    return " ".join(done.stdout.split())


# Equals.


def session(rng: np.random.Generator, common: float, own: float) -> list[Row]:
    """The rows of one session, its artifacts timed in turns: all drift and wander together, each a little by itself,
    and one inference in fifty waits for something. Their Dice is that of one network, trained anew each time.
    """
    together = rng.lognormal(0, common) * np.exp(np.cumsum(rng.normal(0, 0.002, 460)))
    found = []
    for step, backend, p50 in ARTIFACTS:
        late = np.where(rng.random(460) < 0.02, rng.exponential(0.5, 460), 0)
        drawn = p50 * together * rng.lognormal(0, own) * np.exp(rng.normal(0, 0.04, 460)) + late
        fitted = TRUE if step == "baseline" else np.clip(TRUE + rng.normal(0, 0.03, TRUE.shape), 0, 1)
        found.append(row(step, backend, scores=scores(fitted), size_mb=1.0, latency_ms=times(list(drawn))))
    return found


ARTIFACTS = (
    *(("baseline", "torch", 8), ("baseline", "onnxruntime", 4), ("baseline", "openvino", 3)),
    *(("01-int8", "onnxruntime", 2), ("01-int8", "openvino", 1.5)),
)
TRUE = np.random.default_rng(3).beta(9, 1.5, 40)


def measured(rows: list[Row], **more: Any) -> Measured:
    return Measured(rows=rows, **{"host": HOST, "versions": VERSIONS, "network": NETWORK, **more})


def on_change(before: list[Row], after: list[Row], allowed: Allowed | None = None, **more: Any) -> list[Verdict]:
    return judge_change(measured(before), measured(after, **more), paired(before, after), allowed or Allowed())


@pytest.mark.parametrize(
    ("common", "own"),
    [
        (0.10, 0.02),
        *(pytest.param(*each, marks=pytest.mark.slow) for each in ((0.02, 0.01), (0.30, 0.03), (0.0, 0.05))),
    ],
)
def test_two_runs_of_equals_alarm_at_most_once_in_a_hundred(common: float, own: float) -> None:
    rng = np.random.default_rng(5)
    codes = Counter(exit_code(on_change(session(rng, common, own), session(rng, common, own))) for _ in range(100))
    assert codes[1] <= 1, codes


def test_the_limit_alarms_less_than_a_gate_and_lets_nothing_more_through() -> None:
    limit, gate = equals.codes(next(each for each in equals.EQUALS if each.spread == 0.04), repeats=20)
    assert limit[1] == 0 and gate[1] > 4 and limit[0] == gate[0]
    limit, gate = equals.codes(next(each for each in equals.WORSE if each.loss == 0.03), repeats=10)
    assert limit[1] == gate[1] == 10


def test_the_page_has_the_simulated_figures() -> None:
    page, simulated = ((ROOT / name).read_text(encoding="utf-8") for name in ("docs/ci.md", "benchmarks/equals.md"))
    rows = [line for line in page.splitlines() if re.fullmatch(r"\| .+ \| \d+ \|( [\d.]+ \|){7}", line)]
    assert len(rows) == 6 and set(rows) <= set(simulated.splitlines())
    assert {row.split(" | ")[0].removeprefix("| ") for row in rows} <= {
        change.what for change in (*equals.EQUALS, *equals.WORSE)
    }


def test_what_drifts_together_is_taken_out_by_the_baselines() -> None:
    rng = np.random.default_rng(6)
    before, after = session(rng, 0, 0.01), session(rng, 0, 0.01)
    slow = [replace(each, latency_ms=around(1.4 * each.latency_ms["p50"], 3)) for each in after]
    allowed = Allowed(drop=None, larger=None)
    held = on_change(before, slow, allowed)
    assert {each.verdict for each in held} == {"holds"}
    assert all(each.value and each.value > 1.3 and "baselines timed in both took" in each.reason for each in held)
    only = [*after[:3], *(replace(each, latency_ms=around(1.4 * each.latency_ms["p50"], 3)) for each in after[3:])]
    assert {each.verdict for each in on_change(before, only, allowed)} == {"fails"}


@pytest.mark.parametrize(
    ("times_as_long", "verdict"), [(0.5, "holds"), (1.0, "holds"), (1.15, "inconclusive"), (1.5, "fails")]
)
def test_a_change_that_takes_longer_fails_where_no_session_explains_it(times_as_long: float, verdict: str) -> None:
    before, after = two_steps(p50=(8, 4, 2)), two_steps(p50=(8, 4, 2 * times_as_long), seed=1)
    (only,) = on_change(before, after, Allowed(drop=None, larger=None))
    assert only.verdict == verdict, only
    assert "not timed in turns" in only.reason


def test_without_a_network_that_did_not_change_drift_is_unknown_and_nothing_holds() -> None:
    before, after = two_steps(), two_steps(seed=1)
    (only,) = on_change(before, after, Allowed(drop=None, larger=None), network={"unet": {"width": 16}})
    assert only.verdict == "inconclusive" and "is not known" in only.reason
    slow = two_steps(p50=(8, 4, 4), seed=1)
    (only,) = on_change(before, slow, Allowed(drop=None, larger=None), network={"unet": {"width": 16}})
    assert only.verdict == "fails"


@pytest.mark.parametrize(
    ("host", "said"),
    [
        ({"cpu": "Other CPU"}, "not comparable: cpu Some CPU and Other CPU"),
        ({"threads": 4}, "not comparable: threads 2 and 4"),
        ({"isa": ["avx2", "amx_int8"]}, "not comparable: isa avx2 and avx2+amx_int8"),
    ],
)
def test_times_of_two_hosts_are_not_compared(main: Path, tmp_path: Path, host: dict[str, Any], said: str) -> None:
    done = compress("compare", main, change(tmp_path, host={**HOST, **host}))
    assert done.returncode == 3
    assert said in words(done)
    assert compress("compare", main, tmp_path / "a change", "--slower", "off").returncode == 0


def test_the_baselines_of_another_device_say_nothing_of_this_ones_sessions() -> None:
    far = row("baseline", "onnxruntime", "cpu@tower-7", scores=scores(dice()), latency_ms=around(4))
    slow = replace(far, latency_ms=around(12, 5))
    limits = Allowed(drop=None, larger=None)
    (only,) = on_change([far, *two_steps()], [slow, *two_steps(seed=1)], limits)
    assert only.verdict == "holds" and "2 baselines" in only.reason


def test_one_device_at_two_hosts_is_one_artifact_whose_times_are_not_compared() -> None:
    def at(host: str) -> list[Row]:
        told = {**around(5), "host": {"cpu": "A78", "threads": 6, "at": host}}
        of = scores(dice())
        first = row("baseline", "onnxruntime", f"cpu@{host}", scores=of, latency_ms=told)
        return [first, replace(first, step="01-int8", size_mb=1.0)]

    found = on_change(at("tower-7"), at("tower-8"))
    assert [each.verdict for each in found] == ["holds", "inconclusive", "holds"]
    assert "at tower-7 and tower-8" in found[1].reason


def test_the_same_file_on_the_same_host_is_not_slower_whatever_its_times_say(main: Path, tmp_path: Path) -> None:
    same = change(tmp_path, two_steps(p50=(8, 4, 3), seed=1), content="a")
    done = compress("compare", main, same)
    assert done.returncode == 0, done.stdout
    assert "the same file, versions and host" in words(done)
    # Nor is it faster, where that is asked for.
    assert compress("compare", main, same, "--slower", "0.9").returncode == 1


# Losses.


@pytest.mark.parametrize(
    ("after", "code", "said"),
    [
        (dice() - 0.02, 1, "dice_drop of nerve on onnxruntime (cpu)"),
        (dice() - 0.004, 0, "All 3 gates hold."),
        (dice() - 0.0049 + np.random.default_rng(0).normal(0, 0.01, CASES), 3, "more like these would decide it"),
        (
            np.clip(dice() - 0.006 + np.random.default_rng(0).normal(0, 0.04, CASES) - 0.004, 0, 1),
            3,
            "equals can differ as much",
        ),
    ],
)
def test_a_drop_past_the_margin_fails_where_it_is_no_chance(
    main: Path, tmp_path: Path, after: Dice, code: int, said: str
) -> None:
    done = compress("compare", main, change(tmp_path, two_steps(after, seed=1)))
    assert (done.returncode, done.stderr) == (code, ""), done.stdout
    assert said in words(done)
    assert ("would decide it" in words(done)) == (code == 3)


def test_a_larger_file_fails_and_every_limit_can_be_set_or_turned_off(main: Path, tmp_path: Path) -> None:
    other = change(tmp_path, two_steps(dice() - 0.02, seed=1, size_mb=0.02))
    done = compress("compare", main, other)
    assert done.returncode == 1 and "larger" in done.stdout and "2.00" in done.stdout
    off = ("--drop", "off", "--slower", "off", "--larger")
    assert compress("compare", main, other, *off, "2.1").returncode == 0
    refused(compress("compare", main, other, *off, "off"), "nothing is judged: every limit is off")
    for word, wrong in (("drop", "2"), ("drop", "nan"), ("slower", "0"), ("slower", "fast"), ("larger", "inf")):
        refused(compress("compare", main, other, f"--{word}", wrong), f"--{word}: '{wrong}' is not", "nor 'off'")


def test_gates_of_a_file_judge_with_main_as_the_baseline(main: Path, tmp_path: Path) -> None:
    other, gates = change(tmp_path, two_steps(dice() - 0.02, seed=1)), tmp_path / "gates.yaml"
    gates.write_text("- dice_drop: {at_most: 0.03}\n- smaller: {at_least: 0.9}\n- size_mb: {at_most: 1, device: cpu}\n")
    done = compress("compare", main, other, "--gates", gates)
    assert done.returncode == 0, done.stdout
    assert "All 3 gates hold." in done.stdout
    assert compress("compare", main, other, "--gates", gates, "--drop", "0.01").returncode == 1
    gates.write_text("- dice_drop: {at_most: 0.03, device: orin_nano}")
    done = compress("compare", main, other, "--gates", gates)
    assert done.returncode == 3 and "nothing was built for device 'orin_nano'" in words(done)
    gates.write_text("- speedup: {at_least: 1}")
    refused(
        compress("compare", main, other, "--gates", gates), "gates[0] (speedup): its two artifacts must be timed in"
    )


def test_an_artifact_that_the_change_lost_never_holds(main: Path, tmp_path: Path) -> None:
    rows = two_steps(seed=1)
    rows[-1] = replace(rows[-1], status="built", scores=None, latency_ms=None, reason="no openvino")
    done = compress("compare", main, change(tmp_path, rows))
    assert done.returncode == 3 and "not measured: no openvino" in words(done)
    both = [*two_steps(), row("01-int8", "openvino", scores=scores(dice()), latency_ms=around(1))]
    found = on_change(both, two_steps(seed=1))
    assert [each.reason for each in found if each.backend == "openvino"] == [
        "not measured: the change has no openvino artifact for it"
    ] * 3


def test_every_step_can_be_compared(main: Path, tmp_path: Path) -> None:
    done = compress("compare", main, change(tmp_path), "--every-step")
    assert "dice_drop of baseline" in words(done) and "slower of 01-int8" in words(done)
    assert done.returncode in (0, 3)


def test_cases_in_another_order_are_the_same_cases(main: Path, tmp_path: Path) -> None:
    rows = two_steps(seed=1)
    turned = [
        replace(each, scores={**each.scores, "per_case": dict(reversed(each.scores["per_case"].items()))})
        for each in rows
        if each.scores is not None
    ]
    done = compress("compare", main, change(tmp_path, turned))
    assert (done.returncode, done.stderr) == (0, "")


def test_steps_that_were_scored_on_other_few_cases_are_compared_on_those_that_both_have(tmp_path: Path) -> None:
    def run(folder: str, some: slice) -> Path:
        of = scores(dice()).as_dict()
        few = {**of, "per_case": dict(list(of["per_case"].items())[some])}
        first = row("01-prune", scores=few, latency_ms=around(3), size_mb=1.0)
        return finish(tmp_path / folder, [*two_steps()[:2], first, two_steps()[2]])

    done = compress(
        "compare", run("main", slice(0, 40)), run("change", slice(5, 50)), "--every-step", "--slower", "off"
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "35 cases" in words(done)


def test_a_baseline_without_skill_makes_every_drop_inconclusive(tmp_path: Path) -> None:
    nothing = np.full(CASES, 0.01)
    first = finish(tmp_path / "main", two_steps(nothing))
    done = compress("compare", first, change(tmp_path, two_steps(nothing, seed=1)))
    assert done.returncode == 3 and "no skill" in words(done)


# What cannot be compared.


@pytest.mark.parametrize(
    ("rows", "more", "said"),
    [
        (None, {"hashes": {"data": "f" * 64}}, "the data differs (SHA-256 dddddddddddd... and ffffffffffff...)"),
        (None, {"data": {"classes": ["background", "artery"]}}, "classes differ: background, nerve and background,"),
        ([row("01-int8", scores=scores(dice(n=40)))], {}, "the test case 'case_040' and 19 more is in"),
        ([row("01-int8", scores=scores(dice(), units=["p"] * CASES))], {}, "the case 'case_000' is of patient"),
        ([row("01-int8", "openvino", scores=scores(dice()))], {}, "no backend and device in common"),
    ],
)  # fmt: skip
def test_runs_of_other_data_are_refused_with_what_differs(
    main: Path, tmp_path: Path, rows: list[Row] | None, more: dict[str, Any], said: str
) -> None:
    done = compress("compare", main, change(tmp_path, rows, **more))
    refused(done, "main run and", "a change", said)
    assert len(done.stderr.splitlines()) == 1


def test_other_seeds_weights_and_versions_are_told_and_compared(main: Path, tmp_path: Path) -> None:
    other = change(
        tmp_path, seed=8, versions={**VERSIONS, "onnxruntime": "1.33"}, hashes={"data": "d" * 64, "weights": "f" * 64}
    )
    done = compress("compare", main, other, "--summary", tmp_path / "summary.md")
    assert done.returncode == 0, done.stdout
    for said in ("The seeds differ: 7 and 8.", "other weights", "onnxruntime 1.32 and 1.33"):
        assert said in words(done)
        assert said in " ".join((tmp_path / "summary.md").read_text().split())


def test_a_run_is_equal_to_itself(main: Path) -> None:
    done = compress("compare", main, main)
    assert done.returncode == 0 and "All 3 gates hold." in done.stdout


def test_a_page_shows_both_with_the_cases_that_changed_most(main: Path, tmp_path: Path) -> None:
    after = dice()
    after[7] -= 0.4
    page = tmp_path / "to" / "page.html"
    done = compress("compare", main, change(tmp_path, two_steps(after, seed=1)), "--page", page)
    assert done.returncode in (0, 1, 3)
    text = page.read_text()
    assert "case_007" in text and "+0.4000" in text and "<svg" in text and "<script" not in text
    assert text.index("Verdict") < text.index("Before and after") < text.index("Cases that changed most")
    (tmp_path / "folder").mkdir()
    refused(compress("compare", main, main, "--page", tmp_path / "folder"), "--page: ", "is a folder; give a file")
