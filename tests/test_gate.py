"""A finished run judged again: by its own gates, by others, and what is refused."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import pytest
from finished_run import dice, finish, two_steps
from test_cli import compress, refused


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run whose gates hold; copy it to spoil it."""
    return finish(tmp_path_factory.mktemp("gate") / "a run", two_steps())


@pytest.fixture
def run(kept: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(kept, tmp_path / "the run"))


def gates(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "other gates.yaml"
    path.write_text(text)
    return path


def test_the_runs_own_gates_say_again_what_they_said(run: Path) -> None:
    done = compress("gate", run)
    assert done.returncode == 0, done.stderr
    assert "dice_drop" in done.stdout and "All 2 gates hold." in done.stdout


@pytest.mark.parametrize(
    ("text", "code", "said"),
    [
        ("- latency_ms: {at_most: 5}", 0, "The only gate holds."),
        ("- latency_ms: {at_most: 1}\n- size_mb: {at_most: 1}", 1, "1 of 2 gates fails: latency_ms"),
        ("gates:\n  - parity: {at_most: 0.1}", 3, "not measured"),
        ("name: a whole recipe\ngates: [speedup: {at_least: 1.5, over: torch}]", 0, "speedup over torch"),
        ("- dice_drop: {at_most: 0.01, device: orin_nano}", 3, "nothing was built for device 'orin_nano'"),
    ],
)
def test_other_gates_judge_the_same_measurements(run: Path, tmp_path: Path, text: str, code: int, said: str) -> None:
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    done = compress("gate", run, "--gates", gates(tmp_path, text))
    assert (done.returncode, done.stderr) == (code, "")
    assert said in " ".join(done.stdout.split())
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("- dice_drops: {at_most: 1}", "gates[0] (dice_drops): no such gate; did you mean 'dice_drop'?"),
        ("- dice_drop: {at_mots: 1}", "gates[0] (dice_drop): no option 'at_mots'; did you mean 'at_most'?"),
        ("- dice_drop: {at_most: .nan}", "gates[0] (dice_drop): at_most"),
        ("- speedup: {at_least: 1, over: 02-int8}", "no backend or step '02-int8'; did you mean '01-int8'?"),
        ("[]", "it has no gates, such as"),
        ("", "a list of gates, such as"),
        ("dice_drop: 0.1", "a list of gates, such as"),
        ("- dice_drop: {at_most: 1", "not YAML: line"),
    ],
)
def test_a_mistake_in_the_gates_is_told_with_its_place(run: Path, tmp_path: Path, text: str, said: str) -> None:
    refused(compress("gate", run, "--gates", gates(tmp_path, text)), "other gates.yaml", said)
    refused(compress("gate", run, "--gates", tmp_path / "none.yaml"), "none.yaml: no such file of gates")


def test_a_run_without_gates_asks_for_some(tmp_path: Path) -> None:
    run = finish(tmp_path / "run", two_steps(), gates=())
    refused(compress("gate", run), "its recipe has no gates: give others in a file (--gates)")


def test_a_read_only_folder_is_judged(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Root may write anywhere: nothing is even opened for it.
    def refuse(*_: object) -> None:
        raise AssertionError("written to")

    monkeypatch.setattr("export.files.write_bytes", refuse)
    monkeypatch.setattr(Path, "mkdir", refuse)
    assert compress("gate", run).returncode == 0
    assert compress("verify", run).returncode == 0


def test_a_folder_without_a_finished_run_is_refused(run: Path, tmp_path: Path) -> None:
    refused(compress("gate", tmp_path / "none"), "none: no such folder")
    (run / "report.json").unlink()
    refused(compress("gate", run), "report.json: there is none; give the folder of a run that has ended")


def test_a_report_that_was_changed_after_its_run_is_not_judged(run: Path) -> None:
    path = run / "report.json"
    path.write_text(path.read_text().replace('"seed": 7', '"seed": 8'))
    refused(compress("gate", run), "report.json: was changed after the run")


def test_a_report_alone_is_judged_as_it_is(run: Path, tmp_path: Path) -> None:
    alone = tmp_path / "alone"
    alone.mkdir()
    shutil.copy(run / "report.json", alone)
    assert compress("gate", alone).returncode == 0


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('"p50": ', '"p50": NaN, "x": ', "rows[0].latency_ms.p50: input should be a finite number"),
        ('"dice": 0.', '"dice": Infinity, "x": 0.', "input should be a finite number"),
        ('"n": 460', '"m": 460', "lacks 'rows[0].latency_ms.n', which this version needs"),
        ('"absent": 0', '"old": 0', "lacks 'rows[0].scores.per_class.nerve.absent'"),
        ('"versions": {', '"version": {', "lacks 'versions', which this version needs"),
        ('"status": "measured"', '"status": "done"', "rows[0].status: input should be 'measured', 'built' or"),
        ('"case_007": {\n', '"case_007": {"artery": {}}, "case": {\n', "'case_007' has none of the class 'nerve'"),
        ('{\n  "name"', '[1, {"name"', "not JSON"),
    ],
)  # fmt: skip
def test_what_no_run_can_have_written_is_refused_with_its_place(run: Path, old: str, new: str, said: str) -> None:
    (run / "manifest.json").unlink()
    path = run / "report.json"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    refused(compress("gate", run), "report.json", said)


def test_a_report_of_an_older_version_lacks_what_can_be_missed(run: Path) -> None:
    (run / "manifest.json").unlink()
    report = json.loads((run / "report.json").read_text())
    for row in report["rows"]:
        for key in ("sha256", "slower", "processors", "bit_operations", "step_drop"):
            del row[key]
        del row["latency_ms"]["p50_limits"], row["latency_ms"]["min"]
    del report["hashes"], report["made"], report["steps"]
    (run / "report.json").write_text(json.dumps(report))
    assert compress("gate", run).returncode == 0
    assert compress("compare", run, run).returncode in (0, 3)


@pytest.mark.parametrize("page", ["README.md", "docs/ci.md"])
def test_the_commands_on_finished_runs_in_the_documents_do_what_they_say(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (Path(__file__).parent.parent / page).read_text(encoding="utf-8")
    blocks = [block.split("```")[0] for block in text.split("```bash\n")[1:]]
    lines = [line.partition("#")[0].split() for block in blocks for line in block.splitlines()]
    commands = [
        line[1:] for line in lines if line[:2] in [["compress", verb] for verb in ("gate", "compare", "verify")]
    ]
    assert len(commands) >= 3
    monkeypatch.chdir(tmp_path)
    gates(tmp_path, "- latency_ms: {at_most: 33}").rename("release.yaml")
    finish(Path("runs/unet-int8"), two_steps())
    finish(Path("main-run/unet-int8"), two_steps())
    for words in commands:
        assert compress(*words).returncode == 0, words


def test_a_number_that_a_run_itself_could_not_tell_is_inconclusive(tmp_path: Path) -> None:
    rows = two_steps(parity={"relative_error": math.nan, "flipped": math.nan, "cases": 4})
    run = finish(tmp_path / "run", rows, gates=[{"parity": {"at_most": 0.1}}])
    assert "NaN" in (run / "report.json").read_text()
    done = compress("gate", run, "--junit", tmp_path / "j.xml", "--benchmark-json", tmp_path / "b.json")
    assert done.returncode == 3
    assert "NaN" not in (tmp_path / "b.json").read_text()


def test_a_report_without_its_manifest_is_judged_and_that_is_said(run: Path, tmp_path: Path) -> None:
    (run / "manifest.json").unlink()
    for words in (("gate", run), ("compare", run, run)):
        done = compress(*words, "--summary", tmp_path / "summary.md")
        assert done.returncode == 0
        assert "without manifest.json, so whether its run has ended is not known" in " ".join(done.stdout.split())
    assert (tmp_path / "summary.md").read_text().count("whether its run has ended is not known") == 2


def test_a_failing_gate_is_seen_in_every_form(tmp_path: Path) -> None:
    run = finish(tmp_path / "run", two_steps(dice() - 0.05))
    assert compress("gate", run).returncode == 1
