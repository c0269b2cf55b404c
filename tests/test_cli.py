"""The command line as a user meets it: exit codes, and one clear sentence for each kind of bad input."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout, suppress
from functools import partial
from io import StringIO
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
import torch
from forked import exit_code, forked
from PIL import Image
from shared_fixtures import write_recipe

from compress.cli import main
from compress.networks.unet import UNet

COMPRESS = [sys.executable, "-m", "compress"]
# Whoever runs the tests in the background has Ctrl-C ignored, and children inherit that.
_HEEDS = "signal.signal(signal.SIGINT, signal.default_int_handler); runpy.run_module('compress', run_name='__main__')"
TO_BE_STOPPED = [sys.executable, "-c", f"import runpy, signal; {_HEEDS}"]


def in_a_process(*words: str | Path) -> subprocess.CompletedProcess[str]:
    """Run the command line in a process of its own."""
    return subprocess.run([*COMPRESS, *map(str, words)], capture_output=True, text=True, check=False)


def compress(*words: str | Path) -> subprocess.CompletedProcess[str]:
    """Run the console script in this process, which has imported torch already; a traceback would end the test."""
    command, out, err = ["compress", *map(str, words)], StringIO(), StringIO()
    with (
        redirect_stdout(out),
        redirect_stderr(err),
        patch.object(sys, "argv", command),
        patch.object(sys, "excepthook", sys.excepthook),
        pytest.raises(SystemExit) as ended,
    ):
        main()
    assert isinstance(ended.value.code, int)
    return subprocess.CompletedProcess(command, ended.value.code, out.getvalue(), err.getvalue())


def refused(done: subprocess.CompletedProcess[str], *parts: str) -> None:
    """It was refused with exit 2 and one message that has these parts, and no traceback."""
    assert done.returncode == 2, done.stderr + done.stdout
    assert "Traceback" not in done.stderr
    for part in parts:
        assert part in done.stderr


def test_help_answers_and_lists_the_commands() -> None:
    done = in_a_process("--help")
    assert done.returncode == 0
    assert all(word in done.stdout for word in ("run", "check", "train", "schema", "gate", "compare", "verify"))


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from compress.cli import app; import typer.testing as t; t.CliRunner().invoke(app, ['--help']); "
        "print([m for m in ('torch', 'numpy', 'monai', 'onnx', 'matplotlib') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_schema_prints_json() -> None:
    done = compress("schema")
    assert done.returncode == 0
    assert json.loads(done.stdout)["title"] == "segpress recipe"


def test_check_says_what_the_recipe_would_do(tmp_path: Path, recipe: dict) -> None:
    done = compress("check", write_recipe(tmp_path, recipe))
    assert done.returncode == 0
    assert "int8" in done.stdout


def test_misspellings_are_reported_together_with_the_nearest_right_word(tmp_path: Path, recipe: dict) -> None:
    recipe["passes"] = [{"int9": {}}, {"int8": {"calibrat": 8}}, {"int8": {"method": "entropi"}}]
    done = compress("run", write_recipe(tmp_path, recipe), "--out", tmp_path / "runs")
    refused(done, "passes[0] (int9)", "'int8'", "passes[1] (int8)", "'calibrate'", "passes[2] (int8)", "'entropy'")
    assert not (tmp_path / "runs").exists()


@pytest.fixture
def spoiled(tmp_path: Path, folder: Path, recipe: dict) -> Path:
    """A copy of the data that the recipe uses and a test may spoil."""
    copy = tmp_path / "data"
    shutil.copytree(folder, copy)
    recipe["data"]["folder"]["root"] = str(copy)
    return copy


def run(tmp_path: Path, recipe: dict) -> subprocess.CompletedProcess[str]:
    return compress("run", write_recipe(tmp_path, recipe), "--out", tmp_path / "runs")


def test_missing_weights_are_named(tmp_path: Path, recipe: dict) -> None:
    recipe["network"]["unet"]["weights"] = "nowhere.safetensors"
    refused(run(tmp_path, recipe), "nowhere.safetensors", "no such weights file")


def test_weights_of_another_width_are_refused(tmp_path: Path, recipe: dict) -> None:
    recipe["network"]["unet"]["width"] = 16
    refused(run(tmp_path, recipe), "weights of another width", "8", "16")


def test_a_third_partys_weights_of_another_width_are_refused(tmp_path: Path, recipe: dict) -> None:
    torch.save(UNet(classes=3, width=4, depth=2)().state_dict(), tmp_path / "theirs.pt")
    recipe["network"]["unet"]["weights"] = str(tmp_path / "theirs.pt")
    refused(run(tmp_path, recipe), "theirs.pt", "weights of another width")


def test_a_pickle_is_refused_with_the_reason(tmp_path: Path, recipe: dict) -> None:
    torch.save(UNet(classes=3, width=8, depth=2)(), tmp_path / "whole.pt")
    recipe["network"]["unet"]["weights"] = str(tmp_path / "whole.pt")
    refused(run(tmp_path, recipe), "whole.pt", "pickle", "run any code")


def test_a_plain_pickle_is_refused(tmp_path: Path, recipe: dict) -> None:
    (tmp_path / "plain.pkl").write_bytes(pickle.dumps({"weights": [1, 2, 3], "of": Path("x")}))
    recipe["network"]["unet"]["weights"] = str(tmp_path / "plain.pkl")
    refused(run(tmp_path, recipe), "plain.pkl")


def test_a_truncated_safetensors_file_is_refused(tmp_path: Path, recipe: dict, weights: Path) -> None:
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(weights.read_bytes()[:-1000])
    recipe["network"]["unet"]["weights"] = str(cut)
    refused(run(tmp_path, recipe), "cut.safetensors", "truncated")


def test_a_mask_with_a_class_outside_is_named(tmp_path: Path, recipe: dict, spoiled: Path) -> None:
    path = spoiled / "masks" / "test_003.png"
    mask = np.asarray(Image.open(path)).copy()
    mask[0, 0] = 7
    Image.fromarray(mask).save(path)
    refused(run(tmp_path, recipe), "test_003.png", "class 7")


def test_a_mask_of_another_size_is_named(tmp_path: Path, recipe: dict, spoiled: Path) -> None:
    Image.new("L", (30, 32)).save(spoiled / "masks" / "test_004.png")
    refused(run(tmp_path, recipe), "test_004.png", "30x32", "32x32")


def test_an_empty_split_is_named(tmp_path: Path, recipe: dict, spoiled: Path) -> None:
    table = spoiled / "split.csv"
    table.write_text(
        "".join(line for line in table.read_text().splitlines(keepends=True) if not line.endswith("test\n"))
    )
    refused(run(tmp_path, recipe), "test", "empty")


def test_a_calibration_set_of_zero_is_refused(tmp_path: Path, recipe: dict, spoiled: Path) -> None:
    recipe["passes"] = [{"int8": {"calibrate": 0}}]
    refused(run(tmp_path, recipe), "passes[0] (int8)", "calibrate")
    table = spoiled / "split.csv"
    table.write_text(
        "".join(line for line in table.read_text().splitlines(keepends=True) if not line.endswith("calibration\n"))
    )
    recipe["passes"] = ["int8"]
    recipe["data"]["folder"]["calibration"] = 0
    refused(run(tmp_path, recipe), "int8", "calibration cases")


def test_a_corrupt_image_in_the_middle_of_the_test_split_is_named(tmp_path: Path, recipe: dict, spoiled: Path) -> None:
    path = spoiled / "images" / "test_016.png"
    path.write_bytes(path.read_bytes()[:200])
    refused(run(tmp_path, recipe), "test_016.png")
    assert not (tmp_path / "runs" / "tiny" / "report.json").exists()


def test_an_output_that_cannot_be_written_is_refused(tmp_path: Path, recipe: dict) -> None:
    (tmp_path / "file").write_text("not a folder")
    path = write_recipe(tmp_path, recipe)
    refused(compress("run", path, "--out", tmp_path / "file" / "runs"), "cannot be written")


def test_a_disk_that_fills_up_exits_4_and_leaves_nothing_half_written(tmp_path: Path, recipe: dict) -> None:
    small = tmp_path / "small"
    small.mkdir()
    if (
        os.geteuid() != 0
        or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300k", "none", small], check=False).returncode
    ):
        pytest.skip("a small tmpfs can be mounted only by root with the right to mount")
    try:
        done = compress("run", write_recipe(tmp_path, recipe), "--out", small)
        assert done.returncode == 4, done.stderr
        assert "No space left" in done.stderr
        assert "Traceback" not in done.stderr
        assert not list(small.rglob("*.partial"))
        assert not list(small.rglob("report.*"))
    finally:
        subprocess.run(["umount", small], check=True)


def killed(path: Path, out: Path, there: str) -> int:
    """The exit code of a process that runs the recipe and is killed as soon as a file is kept."""
    process = forked(partial(compress, "run", path, "--out", out))
    wait_for(out, there, lambda: os.waitpid(process, os.WNOHANG) == (0, 0))
    os.kill(process, signal.SIGKILL)
    return exit_code(process)


def wait_for(out: Path, there: str, runs: Callable[[], bool]) -> None:
    """Until a file is kept, a minute is over, or whoever would keep it has ended."""
    limit = time.monotonic() + 60
    while not list((out / "tiny" / "kept").glob(there)) and time.monotonic() < limit and runs():
        time.sleep(0.02)


def stopped_by_ctrl_c(path: Path, out: Path, there: str) -> tuple[int, str]:
    """The exit code and the last words of a process that runs the recipe and is sent Ctrl-C once a file is kept."""
    process = subprocess.Popen(
        [*TO_BE_STOPPED, "run", str(path), "--out", str(out)],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    wait_for(out, there, lambda: process.poll() is None)
    # Python loses a Ctrl-C that comes while it drops an object: a person presses again.
    limit, said = time.monotonic() + 120, None
    while said is None and time.monotonic() < limit:
        process.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            _, said = process.communicate(timeout=30)
    assert said is not None
    return process.returncode, said


def interrupted(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


def stopped(code: int, said: str) -> None:
    """It was stopped with the one sentence for that."""
    assert code == 130
    assert said.endswith("compress: stopped; the same command goes on from the last finished step\n")
    assert "Traceback" not in said


def gone_on_with(done: subprocess.CompletedProcess[str], out: Path) -> None:
    """It ended well without doing the pass once more."""
    assert done.returncode == 0, done.stderr
    assert "01-int8: done" not in done.stdout, "the finished pass was kept, not done again"
    assert json.loads((out / "tiny" / "report.json").read_text())["rows"]


def test_a_run_that_is_killed_or_stopped_goes_on(tmp_path: Path, recipe: dict, monkeypatch: pytest.MonkeyPatch) -> None:
    path, out = write_recipe(tmp_path, recipe), tmp_path / "runs"
    assert killed(path, out, "01-int8.json") == -signal.SIGKILL
    # What Python makes of Ctrl-C, in the middle of an export; the next test sends it to a process of its own.
    with monkeypatch.context() as patch:
        patch.setattr("compress.pipeline.exporting.to_onnx", interrupted)
        done = compress("run", path, "--out", out)
    stopped(done.returncode, done.stderr)
    assert "01-int8: done" not in done.stdout
    gone_on_with(compress("run", path, "--out", out), out)


@pytest.mark.slow
def test_a_process_that_is_stopped_by_ctrl_c_goes_on(tmp_path: Path, recipe: dict) -> None:
    path, out = write_recipe(tmp_path, recipe), tmp_path / "runs"
    stopped(*stopped_by_ctrl_c(path, out, "build-*.json"))
    gone_on_with(compress("run", path, "--out", out), out)


def test_a_second_run_in_one_folder_waits_its_turn(tmp_path: Path, recipe: dict) -> None:
    import fcntl

    folder = tmp_path / "runs" / "tiny"
    folder.mkdir(parents=True)
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = run(tmp_path, recipe)
    assert done.returncode == 4
    assert "another run" in done.stderr


def test_inspect_and_sensitivity_refuse_what_they_cannot_do(tmp_path: Path, recipe: dict, weights: Path) -> None:
    path = write_recipe(tmp_path, recipe)
    refused(compress("inspect", tmp_path / "nowhere.onnx"), "nowhere.onnx", "no such file")
    refused(compress("inspect", weights, "--size", "32"), "--size: '32' is not a height and a width")
    refused(compress("inspect", weights, "--sensitivity"), "--sensitivity needs a recipe")
    refused(compress("sensitivity", path, "--ratios", "0.5,2"), "--ratios: '0.5,2' is not a list of shares")


def test_inspect_prints_json_that_a_program_can_read(weights: Path) -> None:
    done = compress("inspect", weights, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["input"] == [1, 1, 32, 32]
