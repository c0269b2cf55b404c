"""action.yml, its steps' shell executed in order as GitHub does it, on a finished run."""

from __future__ import annotations

import os
import re
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from finished_run import dice, finish, two_steps

ROOT = Path(__file__).parent.parent
ACTION: dict[str, Any] = yaml.safe_load((ROOT / "action.yml").read_text(encoding="utf-8"))
BASH = ["bash", "--noprofile", "--norc", "-e", "-o", "pipefail"]
"""What `shell: bash` is in an action (docs.github.com, workflow syntax, jobs.<job_id>.steps[*].shell)."""

# `run` finds all its work done, as a repeated run does, and writes what is asked for; it imports no torch.
COMPRESS = """
import json, sys
from pathlib import Path
from compress.cli import main
from compress.pipeline.manifest import seal
from compress.report.outputs import Outputs

words = sys.argv[1:]
if words[0] != "run":
    main()
recipe, given = words[1], dict(zip(words[2::2], words[3::2]))
if recipe != "recipe.yaml":
    sys.stderr.write(f"compress: {recipe}: no such recipe\\n")
    sys.exit(2)
folder = Path(given["--out"]) / "some run"
record = json.loads((folder / "report.json").read_text())
del given["--out"]
files = {option[2:].replace("-", "_"): Path(file) for option, file in given.items()}
Outputs(**files).write(record)
seal(folder)
rulings = {gate["verdict"] for gate in record["gates"]}
sys.exit(1 if "fails" in rulings else 3 if "inconclusive" in rulings else 0)
"""


def replaced(text: str, known: dict[str, str]) -> str:
    """A text with its expressions as GitHub replaces them: what is not there is empty."""
    return re.sub(r"\$\{\{\s*([\w.-]+)\s*\}\}", lambda found: known.get(found[1], ""), text)


def wanted(step: dict[str, Any], known: dict[str, str]) -> bool:
    condition = step.get("if")
    if condition is None:
        return True
    name = re.fullmatch(r"([\w.-]+) != ''", condition)
    assert name, f"a condition that this test does not know: {condition}"
    return known.get(name[1], "") != ""


class Done:
    """What became of an action."""

    def __init__(self) -> None:
        self.code = 0
        self.outputs: dict[str, str] = {}
        self.summary = ""
        self.skipped: list[str] = []


def act(place: Path, **inputs: str) -> Done:
    """Execute the action in this folder, with these inputs (dashes as underscores)."""
    given = {name.replace("_", "-"): value for name, value in inputs.items()}
    assert set(given) <= set(ACTION["inputs"])
    known = {f"inputs.{name}": given.get(name, of.get("default", "")) for name, of in ACTION["inputs"].items()}
    known["github.action_path"] = str(ROOT)
    summary, done = place / "step summary.md", Done()
    summary.touch()
    for number, step in enumerate(ACTION["runs"]["steps"]):
        if not wanted(step, known):
            done.skipped.append(step["name"])
        elif "uses" not in step and "pip install" not in step["run"]:
            output = place / f"output-{number}"
            output.write_text("")
            done.code = done.code or shell(place, step, known, output, summary)
            told = dict(line.split("=", 1) for line in output.read_text().splitlines())
            known |= {f"steps.{step.get('id')}.outputs.{name}": value for name, value in told.items()}
    done.summary = summary.read_text(encoding="utf-8")
    done.outputs = {name: replaced(of["value"], known) for name, of in ACTION["outputs"].items()}
    return done


def shell(place: Path, step: dict[str, Any], known: dict[str, str], output: Path, summary: Path) -> int:
    assert step["shell"] == "bash" and "${{" not in step["run"], "inputs reach the shell as variables alone"
    script = place / "step.sh"
    script.write_text(step["run"], encoding="utf-8")
    env = {name: replaced(value, known) for name, value in step.get("env", {}).items()}
    paths = {"GITHUB_OUTPUT": str(output), "GITHUB_STEP_SUMMARY": str(summary), "RUNNER_TEMP": str(place)}
    path = f"{place / 'bin'}:{os.environ['PATH']}"
    environment = {**os.environ, **env, **paths, "PATH": path, "PYTHONPATH": str(ROOT)}
    return subprocess.run([*BASH, str(script)], cwd=place, env=environment, check=False, timeout=60).returncode


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A checkout, its path with a space, in which the recipe is run already, with the command `compress`."""
    place = tmp_path / "a checkout"
    (place / "bin").mkdir(parents=True)
    (place / "bin" / "stub.py").write_text(COMPRESS)
    command = place / "bin" / "compress"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{place}/bin/stub.py" "$@"\n')
    command.chmod(command.stat().st_mode | stat.S_IXUSR)
    finish(place / "my runs" / "some run", two_steps()[1:])
    return place


def test_a_run_whose_gates_hold_passes_and_tells_where_everything_is(place: Path) -> None:
    done = act(place, recipe="recipe.yaml", out="my runs")
    assert done.code == 0 and done.outputs["exit-code"] == "0"
    assert done.outputs["run"] == "my runs/some run"
    assert (Path(done.outputs["junit"]) / "run.xml").is_file() and Path(done.outputs["benchmark-json"]).is_file()
    assert "some run: holds" in done.summary
    assert done.skipped == ["Other gates", "Compare with the main branch"]


def test_a_change_that_loses_fails_beside_the_main_branchs_run(place: Path) -> None:
    finish(place / "of main" / "run", two_steps(dice() + 0.02)[1:], content="b")
    done = act(place, recipe="recipe.yaml", out="my runs", baseline_run="of main/run", compare_options="--slower off")
    assert done.code == 1 and done.outputs["exit-code"] == "1"
    assert done.summary.index("some run: holds") < done.summary.index("beside of main/run: fails")
    assert (Path(done.outputs["junit"]) / "compare.xml").is_file()


def test_a_mistake_is_told_in_the_summary_and_is_the_exit_code(place: Path) -> None:
    done = act(place, recipe="$(touch injected).yaml", out="my runs", baseline_run="nowhere")
    assert done.code == 2 and done.outputs == {**done.outputs, "run": "", "exit-code": "2"}
    assert "compress run: exit code 2" in done.summary and "no such recipe" in done.summary
    assert not (place / "injected").exists()


def test_what_keeps_other_gates_and_the_comparison_from_judging_is_told_in_the_summary(place: Path) -> None:
    (place / "other.yaml").write_text("- dice_drops: {at_most: 1}\n")
    done = act(place, recipe="recipe.yaml", out="my runs", gates="other.yaml", baseline_run="nowhere")
    assert done.code == 2 and "some run: holds" in done.summary
    assert "compress gate: exit code 2" in done.summary and "did you mean 'dice_drop'?" in done.summary
    assert "compress compare: exit code 2" in done.summary and "nowhere: no such folder" in done.summary


def test_a_command_that_cannot_even_begin_is_no_failed_gate(place: Path) -> None:
    (place / "bin" / "stub.py").write_text("import nothing_of_this_name")
    done = act(place, recipe="recipe.yaml", out="my runs")
    assert done.code == 4 and "ModuleNotFoundError" in done.summary


@pytest.mark.slow
def test_without_a_summary_none_is_written(place: Path) -> None:
    assert act(place, recipe="recipe.yaml", out="my runs", summary="false").summary == ""


@pytest.mark.parametrize(
    ("codes", "code"),
    [("0", 0), ("0 3", 3), ("3 0 1", 1), ("1 3", 1), ("1 2", 2), ("3 4 1", 4), ("0 143", 143)],
)
def test_the_worst_code_is_the_actions(place: Path, codes: str, code: int) -> None:
    (step,) = (step for step in ACTION["runs"]["steps"] if step.get("id") == "verdict")
    known = dict(
        zip((f"steps.{name}.outputs.code" for name in ("run", "gates", "compare")), codes.split(), strict=False)
    )
    output = place / "output"
    output.touch()
    assert shell(place, step, known, output, place / "summary") == code
    assert output.read_text() == f"exit-code={code}\n"


PAGE = (ROOT / "docs" / "ci.md").read_text(encoding="utf-8")
BLOCKS = [yaml.safe_load(block.split("```")[0]) for block in PAGE.split("```yaml\n")[1:]]


def steps_of(block: Any) -> list[dict[str, Any]]:
    jobs = block.get("jobs", {}) if isinstance(block, dict) else {"": {"steps": block}}
    return [step for job in jobs.values() for step in job["steps"]]


def test_the_workflows_in_the_documents_ask_for_what_there_is() -> None:
    steps = [step for block in BLOCKS for step in steps_of(block)]
    ours = [step for step in steps if step.get("uses", "").startswith("segpress/segpress@")]
    assert len(ours) == 2
    assert all(set(step["with"]) <= set(ACTION["inputs"]) and "recipe" in step["with"] for step in ours)
    assert set(re.findall(r"steps\.segpress\.outputs\.([\w-]+)", PAGE)) <= set(ACTION["outputs"])


def test_the_shell_of_the_workflows_in_the_documents_is_shell(tmp_path: Path) -> None:
    scripts = [step["run"] for block in BLOCKS for step in steps_of(block) if "run" in step]
    scripts += [line for block in BLOCKS if "gate" in block for line in block["gate"]["script"]]
    assert len(scripts) >= 7
    for script in scripts:
        assert "${{" not in script, "expressions reach the shell as variables"
        done = subprocess.run(["bash", "-n"], input=script, text=True, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr


def test_every_input_is_used_and_every_step_has_a_name() -> None:
    text = (ROOT / "action.yml").read_text(encoding="utf-8")
    assert all(f"inputs.{name}" in text for name in ACTION["inputs"])
    assert all(step.get("name") for step in ACTION["runs"]["steps"])
