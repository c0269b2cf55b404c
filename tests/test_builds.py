"""What is built from one step is made once, however many runtimes it is for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from shared_fixtures import write_recipe

import compress.pipeline.exporting
from compress.cache import Cache
from compress.measure.row import Row
from compress.pipeline.build import Builder
from compress.pipeline.deployment import deployments
from compress.pipeline.peak_memory import PeakMemory
from compress.pipeline.stages import baseline
from compress.pipeline.worst_cases import lost_most
from compress.recipe import load
from export.artifact import Artifact
from export.devices.cpu import CPU
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

    monkeypatch.setattr(compress.pipeline.exporting, "to_onnx", counted)
    task, cache = load(write_recipe(tmp_path, recipe)).task(), Cache(tmp_path / "out")
    stage = baseline(task, "key", cache, quiet)
    with PeakMemory() as peaks:
        builder = Builder(task, Style(), cache, quiet, peaks)
        builds = [builder.build(stage, each) for each in deployments([CPU], threads=1)]
    assert written == ["model.onnx"]
    assert [build.artifact is not None for build in builds if build is not None] == [True, True, True]


def scored(step: str, backend: str, dice: list[float] | None, device: str = "cpu") -> Row:
    """A row with this Dice, case by case; not measured where it is None."""
    cases = {f"case_{place}": {"square": {"dice": value}} for place, value in enumerate(dice or [])}
    status: Any = "measured" if dice else "built"
    scores = {"per_case": cases} if dice else None
    return Row(step=step, backend=backend, device=device, status=status, params=1, macs=1, scores=scores)


@pytest.mark.parametrize(
    ("after", "which"),
    [
        # The first, the last, one in the middle; of equals the first; what was not measured lost nothing that is known.
        ([("onnxruntime", [0.1, 0.9]), ("openvino", [0.9, 0.9]), ("tensorrt", None)], "onnxruntime"),
        ([("onnxruntime", [0.9, 0.9]), ("openvino", [0.9, 0.8]), ("tensorrt", None)], "openvino"),
        ([("onnxruntime", [0.8, 0.9]), ("openvino", [0.5, 0.5]), ("tensorrt", [0.8, 0.8])], "openvino"),
        ([("onnxruntime", [0.7, 0.9]), ("openvino", [0.7, 0.9])], "onnxruntime"),
        # All got better: the one that got better least.
        ([("onnxruntime", [1.0, 1.0]), ("openvino", [0.95, 0.9])], "openvino"),
    ],
)
def test_worst_cases_are_those_of_the_artifact_that_lost_most(
    after: list[tuple[str, list[float] | None]], which: str
) -> None:
    rows = [scored("baseline", "onnxruntime", [0.5, 0.5]), scored("baseline", "torch", [0.9, 0.9])]
    rows += [scored("01-int8", backend, dice) for backend, dice in after]
    found = lost_most(rows)
    assert found is not None
    assert [row.backend for row in found] == ["torch", which]


def test_where_nothing_was_measured_there_are_no_worst_cases() -> None:
    assert lost_most([scored("baseline", "torch", [0.9]), scored("01-int8", "onnxruntime", None)]) is None
    assert lost_most([scored("baseline", "torch", None), scored("01-int8", "onnxruntime", [0.9])]) is None
