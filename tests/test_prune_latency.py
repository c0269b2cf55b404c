"""Pruning to a latency: how much goes is found by measuring."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from pruning import chain, cut, size, stand_in
from pydantic import ValidationError
from torch import nn

import compress.editing.pruning.target as target_module
from compress.editing.budget import Runtime
from compress.editing.pruning.target import latency_ms
from compress.editing.timed_form import timed_form
from compress.errors import PassError
from compress.passes.blocks import Blocks
from compress.passes.prune import Prune
from compress.storage.description import build_net
from compress.storage.weights import load_net
from export.registry import find_device
from export.target import Target, target_of
from export.to_onnx import to_onnx

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.slow
def test_a_latency_is_met_on_the_built_artifact() -> None:
    torch.manual_seed(0)
    built = build_net({"unet": {"classes": 2, "in_channels": 1, "width": 48, "depth": 2}}).eval()
    image = torch.zeros(1, 1, 128, 128)
    notes: list[str] = []
    task = stand_in(built, image, notes)
    options: dict[str, Any] = {"threads": 1, "multiple": 2}
    here = Runtime(device="cpu", backend="onnxruntime", threads=1, python="python3")
    whole = latency_ms(built, image, here, seed=3)
    small = Prune(latency_ms=whole / 2, **options)(built, task)
    told = float(notes[0].split(" ms")[0])
    assert told == pytest.approx(whole / 2, rel=0.1)
    again = latency_ms(small, image, here, seed=3)
    # The host is shared: another minute may be slower.
    assert again == pytest.approx(whole / 2, rel=0.4)


def fake_clock(monkeypatch: pytest.MonkeyPatch, time_of: Callable[[int], float]) -> None:
    """A latency that is a function of the MACs alone."""
    monkeypatch.setattr(target_module, "latency_ms", lambda net, image, *_: time_of(size(net, image)[1]))


def test_a_device_elsewhere_measures_by_the_python_that_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    whole, seen = size(chain(), torch.zeros(1, 1, 32, 32))[1], list[Runtime]()

    def reached(runtime: Runtime) -> Target:
        seen.append(runtime)
        return target_of(find_device("cpu"), 1, load_net)

    monkeypatch.setattr(Runtime, "target", reached)
    fake_clock(monkeypatch, lambda macs: 10 * macs / whole)
    half = Prune(latency_ms=5, device="raspberry_pi_5@pi", python="/opt/venv/bin/python", multiple=1)
    half.smaller(chain(), stand_in(chain(), torch.zeros(1, 1, 32, 32), []))
    assert {(each.device, each.python) for each in seen} == {("raspberry_pi_5@pi", "/opt/venv/bin/python")}


@pytest.mark.parametrize("asked", [{"latency_ms": 5}, {"latency": 0.5}])
def test_a_latency_is_found_by_bisection(asked: dict[str, float], monkeypatch: pytest.MonkeyPatch) -> None:
    whole = size(chain(), torch.zeros(1, 1, 32, 32))[1]
    fake_clock(monkeypatch, lambda macs: 2 + 8 * macs / whole)
    small = cut(chain(), multiple=1, **asked)
    assert 2 + 8 * size(small, torch.zeros(1, 1, 32, 32))[1] / whole == pytest.approx(5, rel=0.1)


@pytest.mark.parametrize(
    ("target", "said"),
    [
        (1.0, r"1 ms on onnxruntime, cpu cannot be reached: the fastest, .* takes 4\.00 ms"),
        (12.0, r"nothing needs to be removed: the network has a latency of 10.00 ms"),
        (
            7.0,
            r"no width gives 7 ms .* nearest are 4\.00 ms and 10\.00 ms .* lower multiple .widths: multiples of 16",
        ),
    ],
)
def test_a_latency_that_cannot_be_met_says_what_can(target: float, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = size(chain(), torch.zeros(1, 1, 32, 32))[1]
    fake_clock(monkeypatch, lambda macs: 10.0 if macs == whole else 4.0)
    with pytest.raises(PassError, match=said):
        cut(chain(), latency_ms=target)


def test_a_latency_is_measured_where_the_device_is_by_the_python_there() -> None:
    there = Runtime(device="cpu@tower-7", backend="onnxruntime", threads=1, python="/opt/bin/python").target().device
    assert (there.name, there.reach.at, there.reach.python) == ("cpu@tower-7", "tower-7", "/opt/bin/python")
    assert Runtime(device="cpu@here", backend="onnxruntime", threads=1, python="python3").target().is_this_host


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino", "tensorrt"])
def test_what_is_timed_in_integers_is_written_as_the_runtime_has_them(backend: str, tmp_path: Path) -> None:
    runtime = Runtime(device="cpu", backend=backend, threads=1, python="python3", precision="int8")
    image = torch.zeros(1, 1, 16, 16)
    for net, integers in ((chain().eval(), True), (nn.Sequential(nn.ReLU()), False)):
        for of, wanted in ((runtime, integers), (replace(runtime, precision="float"), False)):
            path = to_onnx(timed_form(net, image, of), image, tmp_path / "net.onnx").path
            assert ("DequantizeLinear" in {node.op_type for node in onnx.load(path).graph.node}) == wanted
    assert str(runtime) == f"on {backend}, cpu, in int8"


def test_integers_are_not_timed_where_there_are_none() -> None:
    made = (
        Prune(latency_ms=5, backend="openvino", precision="int8"),
        Blocks(latency_ms=5, backend="openvino", precision="int8"),
    )
    for each in made:
        assert each.runtime.precision == "int8"
        with pytest.raises(ValidationError, match=r"precision int8: backend 'torch' computes in float alone"):
            type(each)(latency_ms=5, backend="torch", precision="int8")
