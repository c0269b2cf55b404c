"""The program that is sent to a device: small, the same bytes each time, and taken by every Python from 3.8 on."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from export.remote.package import ROOT, runner, shipped


def test_the_runner_is_the_same_bytes_from_the_same_source_and_small() -> None:
    runner.cache_clear()
    first = runner()
    runner.cache_clear()
    assert runner() == first and len(first) < 100_000


def test_what_is_sent_takes_python_3_8() -> None:
    import ast

    for path in shipped():
        ast.parse(path.read_text(), filename=str(path), feature_version=(3, 8))


def pythons() -> list[str]:
    """Other Pythons of this host that the runner must take."""
    versions = [sorted(Path.home().glob(f".pyenv/versions/3.{minor}.*/bin/python")) for minor in (8, 9, 10, 12, 13)]
    return [str(found[0]) for found in versions if found]


@pytest.mark.parametrize("python", pythons() or ["none"])
def test_other_pythons_import_all_that_is_sent_but_for_the_runtimes(tmp_path: Path, python: str) -> None:
    if python == "none":
        pytest.skip("no other Python is installed")
    program = tmp_path / "runner.pyz"
    program.write_bytes(runner())
    (tmp_path / "numpy.py").write_text("ndarray = float32 = None\n")
    names = [str(path.relative_to(ROOT.parent).with_suffix("")).replace("/", ".") for path in shipped()]
    names = [name for name in names if not name.startswith("export.sessions.")]
    code = "\n".join(
        [
            f"import sys; sys.path[:0] = [{str(program)!r}, {str(tmp_path)!r}]",
            *(f"import {name}" for name in names),
            "from export.remote.runner.facts import facts",
            # A machine may have trtexec, which needs no Python.
            "assert set(facts()['runtimes']) <= {'tensorrt'}",
        ]
    )
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    subprocess.run([python, "-W", "error", "-c", code], check=True, env=environment)
