"""What is built from one step is made once, however many runtimes it is for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from conftest import write_recipe

import compress.builds
from compress.builds import Builder, places
from compress.kept import Kept
from compress.peak_memory import PeakMemory
from compress.recipe import load
from compress.stages import baseline
from export.artifact import Artifact
from export.to_onnx import Style, to_onnx


def quiet(_: str) -> None:
    """A log nobody reads."""


def test_a_network_in_float_is_exported_once_for_all_runtimes(
    tmp_path: Path, recipe: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    written = []

    def counted(*given: Any) -> Artifact:
        written.append(given[2].name)
        return to_onnx(*given)

    monkeypatch.setattr(compress.builds, "to_onnx", counted)
    task, kept = load(write_recipe(tmp_path, recipe)).task(), Kept(tmp_path / "out")
    stage = baseline(task, "key", kept, quiet)
    with PeakMemory() as peaks:
        builder = Builder(task, Style(), kept, quiet, peaks)
        builds = [builder.build(stage, place) for place in places(["cpu"], threads=1)]
    assert written == ["model.onnx"]
    assert [build.artifact is not None for build in builds if build is not None] == [True, True, True]
