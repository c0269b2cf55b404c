"""A report lists each layer that did not run in the integers asked for, and why, as the runtime tells."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from compress.editing.calibration import calibrated
from compress.measure.row import Row
from compress.pipeline.build import Build
from compress.pipeline.deployment import Deployment, target_on
from compress.pipeline.executed import uncovered
from compress.pipeline.stages import Stage
from compress.report.derived import uncovered as told
from compress.report.derived.compared import lines
from compress.report.tables import uncovered_tables
from export.backends import openvino
from export.capture import folded_graph
from export.devices.cpu import CPU
from export.quantization.assignment import Assignment
from export.quantization.quantized import Quantized
from export.quantization.rules import Rules
from export.registry import find_backend
from export.to_onnx import to_onnx


class Attending(nn.Module):
    """Convolutions, a product of two activations, a kept layer, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.kept = nn.Conv2d(1, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.behind, self.head = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.kept(torch.relu(self.stem(x))))
        flat = x.flatten(2)
        likeness = torch.softmax(flat @ flat.transpose(1, 2) / math.sqrt(flat.shape[-1]), -1)
        return self.head(torch.relu(self.behind((likeness @ flat).reshape(x.shape))))  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def net() -> Quantized:
    torch.manual_seed(0)
    seen = torch.randn(1, 1, 16, 16)
    graph = folded_graph(Attending().eval(), seen, ())
    ranges = calibrated(graph, [seen], None, 1)
    assignment = Assignment(keep_float=("kept",), by_runtime={"openvino": {"behind": "float32"}})
    return Quantized(graph, ranges, assignment).eval()


def found(net: Quantized, word: str, rules: Rules, folder: Path) -> dict[str, tuple[str, str]]:
    backend = find_backend(word)(device=CPU, threads=1)
    artifact = backend.build(to_onnx(net.placed(rules), torch.zeros(1, 1, 16, 16), folder / f"{word}.onnx"), folder)
    stage = Stage(name="01-int8", key="", path=folder, params=1, macs=1, seconds=0, notes=(), precision="integers")
    object.__setattr__(stage, "net", net)
    deployment = Deployment(backend=word, target=target_on(CPU, 1))
    build = Build(stage=stage, deployment=deployment, key="", artifact=artifact)
    rows = uncovered(build, backend, np.zeros((1, 1, 16, 16), np.float32))
    assert rows is not None
    return {row["layer"]: (row["ran"], row["why"]) for row in rows}


def test_each_layer_in_float_has_its_reason(net: Quantized, tmp_path: Path) -> None:
    ort = found(net, "onnxruntime", find_backend("onnxruntime").rules, tmp_path)  # type: ignore[arg-type]
    assert ort["kept"] == ("FP32", "the recipe keeps it in float (int8: keep)")
    assert ort["head"][0] == "FP32" and "puts out the logits" in ort["head"][1]
    assert sum("two activations" in why for _, why in ort.values()) == 2
    assert {"stem", "behind"}.isdisjoint(ort)
    vino = found(net, "openvino", openvino.RULES, tmp_path)
    assert vino["behind"][0] == "FP32" and "mixed precision chose float for this runtime" in vino["behind"][1]
    assert {"stem", "head"}.isdisjoint(vino)


def test_what_the_runtime_itself_ran_in_float_is_told_apart(net: Quantized, tmp_path: Path) -> None:
    # Without a pair behind them ONNX Runtime has no integer kernel for convolutions.
    ran, why = found(net, "onnxruntime", openvino.RULES, tmp_path)["stem"]
    assert ran == "FP32" and "the runtime itself chose a kernel in FP32" in why


def test_a_report_has_them_by_their_reasons(report: dict[str, Any]) -> None:
    rows = [
        {"layer": "a", "ran": "FP32", "why": "in integers in the file; the runtime itself chose a kernel in FP32"},
        {"layer": "b", "ran": "FP32", "why": "kept"},
        {"layer": "c", "ran": "FP32", "why": "kept"},
    ]
    report["rows"][-1]["uncovered"] = rows
    (table,) = uncovered_tables(report)
    assert [row[1:4] for row in table.rows] == [("FP32", "1", "a"), ("FP32", "2", "b, c")]
    (said,) = told.sentences(report)
    assert "ran 1 in float by its own choice (a)" in said
    assert list(told.rows(lines(report)[0])) == []


@pytest.fixture
def report() -> dict[str, Any]:
    rows = [
        Row(step=step, backend="openvino", device="cpu", status="measured", params=1, macs=1)
        for step in ("baseline", "01-int8")
    ]
    return {"rows": [dict(vars(row)) for row in rows], "cases": {"test": 1}, "data": {}, "steps": []}
