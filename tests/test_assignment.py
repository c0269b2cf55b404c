"""What is left in float, and in whose name it is told: that of the pass that asks, whichever it is."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from shared_fixtures import tiny_task

from compress.editing.layer_replacement import copied
from compress.editing.precisions.choice import Wanted, chosen
from compress.editing.precisions.sensitivity import lost
from compress.errors import PassError, WeightsError
from compress.passes.low_bit import LowBit
from compress.storage.description import build_net
from compress.task import Task
from export.backends import onnxruntime, tensorrt
from export.quantization.assignment import Assignment
from export.quantization.quantized import Quantized


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory, folder: Path, weights: Path) -> Task:
    return tiny_task(tmp_path_factory.mktemp("recipe"), folder, weights, "low_bit")


@pytest.fixture(scope="module")
def few(task: Task) -> Quantized:
    """The tiny U-Net in 4 bits, its head in float."""
    net = LowBit(calibrate=3, steps=1, keep=("head",))(task.net, task)
    assert isinstance(net, Quantized)
    return net


def test_where_a_layer_is_in_float_is_said_with_why() -> None:
    given = Assignment(
        word="low_bit", keep_float=("head",), exact=("up.0",), by_runtime={"tensorrt": {"encoder.0.0": "float32"}}
    )
    (kept,) = {given.in_float(rules)["head"] for rules in (onnxruntime.RULES, tensorrt.RULES)}
    assert kept == "the recipe keeps it in float (low_bit: keep)"
    assert set(given.in_float(onnxruntime.RULES)) == {"head", "up.0"}
    assert set(given.in_float(tensorrt.RULES)) == {"head", "encoder.0.0"}


def test_the_pass_that_was_asked_speaks_of_what_it_left(few: Quantized) -> None:
    assert dict(few.in_float(onnxruntime.RULES))["head"].endswith("(low_bit: keep)")
    assert few.placed(onnxruntime.RULES).meta["assigned_by"] == "low_bit"
    with pytest.raises(PassError, match="prune: the network is in 8-bit integers already; give prune before low_bit"):
        copied(few, "prune")


def test_the_pass_that_was_asked_refuses_in_its_own_name(few: Quantized, task: Task) -> None:
    broken = copy.deepcopy(task.net)
    next(broken.parameters()).data.fill_(torch.inf)
    with pytest.raises(PassError, match=r"^low_bit: the activation .* is not finite on the calibration cases"):
        LowBit(calibrate=3, steps=1)(broken, task)
    with pytest.raises(PassError, match=r"^low_bit: no case holds anything of any class"):
        lost(np.full((2, 2), np.nan), np.ones((2, 2)), "low_bit")
    cases = {**task.data.cases, "val": []}
    empty = dataclasses.replace(task, data=dataclasses.replace(task.data, cases=cases))
    with pytest.raises(PassError, match=r"^low_bit: max_drop is measured on validation cases and there are none"):
        chosen(few, empty, Wanted(max_drop=0.01, faster=False, device="cpu"))


def test_a_saved_network_is_built_again_and_refused_in_the_name_of_its_pass(few: Quantized) -> None:
    again = build_net(few.description)
    assert isinstance(again, Quantized) and again.assignment == few.assignment
    options: dict[str, Any] = copy.deepcopy(dict(few.description["int8"]))
    options["ranges"] = options["ranges"][1:]
    with pytest.raises(WeightsError, match=r"^low_bit: saved with another version of torch: it has no range for"):
        build_net({"int8": options})
    # As it was saved when there was one such pass.
    with pytest.raises(WeightsError, match=r"^int8: saved with another version of torch"):
        build_net({"int8": {key: value for key, value in options.items() if key != "pass"}})
