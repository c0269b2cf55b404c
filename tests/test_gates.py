"""Gates: every one keeps the contract, and none holds on what was not measured."""

from __future__ import annotations

import math
from dataclasses import fields, replace
from typing import Any

import pytest
from judged import NERVE, row, ruled, scores, verdict
from pydantic import ValidationError

from compress.gates.judging.judge import judge
from compress.gates.judging.scene import Scene, Spot
from compress.gates.judging.verdict import Ruling
from compress.gates.parity import Parity
from compress.measure.row import Row
from compress.report.report import Report
from export.registry import named, words


def options_of(word: str) -> dict[str, Any]:
    """A bound for a gate of any kind."""
    kind = named("compress.gates", word)
    bound = next(field.name for field in fields(kind))
    return {bound: {"at_least": 2e-3} if bound == "dice" else 2}


@pytest.mark.parametrize("word", words("compress.gates"))
def test_every_gate_says_what_it_is_and_never_keeps_silent(word: str) -> None:
    gate = named("compress.gates", word)(**options_of(word))
    bare = row("01-int8", status="not measured", reason="no driver")
    for rows in ([], [bare], [row("baseline", "torch"), row("01-int8")]):
        found = gate(rows)
        assert found, "a gate on what was not measured is not left out"
        for each in found:
            assert (each.name, each.bound, each.limit) == (gate.title, gate.bound.side, gate.bound.limit)
            assert (each.verdict, bool(each.reason)) == ("inconclusive", True)
    assert isinstance(gate.reads_scores, bool)
    with pytest.raises(ValidationError):
        named("compress.gates", word)(**options_of(word), nothing=1)


@pytest.mark.parametrize("word", words("compress.gates"))
def test_every_gate_can_be_asked_before_anything_is_built(word: str) -> None:
    gate = named("compress.gates", word)(**options_of(word))
    # What a DLA core leaves to the GPU is told of nothing else.
    device = "agx_orin+dla0" if word == "fallback" else "cpu"
    spots = [
        Spot(device=device, backend=backend, unbuilt=None, unmeasured=None, takes_integers=backend != "torch")
        for backend in ("torch", "onnxruntime")
    ]
    scene = Scene(
        devices=(device,), spots=spots, integers=True, last_step="01-int8", samples=459, classes=NERVE, tests=40
    )
    assert [*gate.never_holds(scene), *gate.cannot_hold(scene)] == []
    away = replace(scene, spots=[replace(spot, unbuilt="no driver", unmeasured="no driver") for spot in spots])
    (doubt,) = gate.cannot_hold(away)
    assert doubt.startswith("cannot hold from this host") and doubt.endswith("no driver")


def test_energy_is_judged_where_the_whole_is_measured() -> None:
    def watched(energy: float | None, **more: Any) -> Row:
        return row("01-int8", watch={"energy_mj": energy, "unknown": {"power": "only root may"}, **more})

    gate = ("energy_mj", {"at_most": 20})
    assert verdict(gate, watched(20.0)).verdict == "holds" and verdict(gate, watched(20.1)).verdict == "fails"
    unknown, nothing = verdict(gate, watched(None)), verdict(gate, row("01-int8", watch={"why": "no sensor"}))
    assert unknown.verdict == nothing.verdict == "inconclusive"
    assert unknown.reason == "not measured: its energy: only root may" and nothing.reason.endswith("no sensor")
    with pytest.raises(ValidationError, match="greater than 0"):
        named("compress.gates", "energy_mj")(at_most=0)


def test_a_latency_of_a_throttled_device_says_so() -> None:
    times = {"p50": 5.0, "p90": 5.0, "p95": 5.0, "p99": 5.0, "n": 459}
    for limit, ruling in ((9, "holds"), (1, "fails")):
        found = verdict(
            ("latency_ms", {"at_most": limit}), row("01-int8", latency_ms={**times, "throttled": ["oc1", "oc3"]})
        )
        assert (found.verdict, found.reason) == (ruling, "throttled while it was timed (oc1, oc3)")
    for quiet in ([], None):
        found = verdict(("latency_ms", {"at_most": 9}), row("01-int8", latency_ms={**times, "throttled": quiet}))
        assert found.reason == ""


def test_size_is_judged_even_where_the_artifact_cannot_run() -> None:
    built = row("01-int8", "tensorrt", "rtx_40", status="built", reason="no NVIDIA driver", size_mb=2.0)
    assert verdict(("size_mb", {"at_most": 2.0}), built).verdict == "holds"
    assert verdict(("size_mb", {"at_most": 1.9}), built).verdict == "fails"


def test_a_gate_on_an_absent_device_does_not_hold() -> None:
    absent = row("01-int8", "tensorrt", "rtx_40", status="not measured", reason="no NVIDIA driver")
    for gate in (("dice_drop", {"at_most": 1}), ("latency_ms", {"at_most": 99}), ("size_mb", {"at_most": 99})):
        found = verdict(gate, absent)
        assert (found.verdict, found.reason) == ("inconclusive", "not measured: no NVIDIA driver")
        assert (found.device, found.backend) == ("rtx_40", "tensorrt")


def test_a_gate_on_what_the_recipe_never_builds_does_not_hold_and_names_it() -> None:
    here, there = row("01-int8", size_mb=1.0), "there are onnxruntime on cpu"
    for options, which in (
        ({"device": "orin_nano"}, "device 'orin_nano'"),
        ({"backend": "openvino"}, "backend 'openvino'"),
        ({"device": "cpu", "backend": "openvino"}, "device 'cpu' and backend 'openvino'"),
    ):
        found = verdict(("size_mb", {"at_most": 9, **options}), here)
        assert (found.verdict, found.reason) == (
            "inconclusive",
            f"not measured: nothing was built for {which}; {there}",
        )
    assert verdict(("size_mb", {"at_most": 9})).verdict == "inconclusive"


def test_only_the_last_step_is_judged_and_every_artifact_of_it() -> None:
    rows = [row("baseline", size_mb=9), row("01-int8", size_mb=1), row("01-int8", "openvino", size_mb=3)]
    found = ruled(("size_mb", {"at_most": 2}), *rows)
    assert [(one.backend, one.verdict) for one in found] == [("onnxruntime", "holds"), ("openvino", "fails")]


def test_parity_is_the_share_of_pixels_that_change_class() -> None:
    gate = ("parity", {"at_most": 0.005})
    assert verdict(gate, row("01-int8", parity={"flipped": 0.005})).verdict == "holds"
    assert verdict(gate, row("01-int8", parity={"flipped": 0.006})).verdict == "fails"
    for parity in (None, {"flipped": math.nan}):
        assert verdict(gate, row("01-int8", parity=parity)).verdict == "inconclusive"


def test_how_many_times_smaller_is_over_the_baselines_artifact_on_the_same_backend() -> None:
    engine = ("tensorrt", "rtx_40")
    rows = [
        row("baseline", "torch", size_mb=100),
        row("baseline", size_mb=90),
        row("baseline", *engine, status="built", size_mb=60),
        row("01-prune", size_mb=45),
        row("02-int8", size_mb=2),
        row("02-int8", *engine, status="built", size_mb=2),
    ]
    found = ruled(("smaller", {"at_least": 40}), *rows)
    assert [(one.backend, one.value, one.verdict) for one in found] == [
        ("onnxruntime", 45, "holds"),
        ("tensorrt", 30, "fails"),
    ]
    assert ruled(("smaller", {"at_least": 40, "over": "torch"}), *rows)[0].value == 50
    assert ruled(("smaller", {"at_least": 40, "over": "01-prune"}), *rows)[0].value == 22.5
    (lost,) = ruled(("smaller", {"at_least": 1}), rows[4])
    assert (lost.verdict, lost.reason) == ("inconclusive", "not measured: the baseline on onnxruntime")
    none = row("02-int8", *engine, status="not measured", reason="no NVIDIA driver")
    assert verdict(("smaller", {"at_least": 1}), *rows[:3], none).reason == "not measured: no NVIDIA driver"


def test_bit_operations_are_judged_by_how_many_times_fewer_they_are() -> None:
    rows = [row("baseline", bit_operations=3200), row("01-int8", bit_operations=80)]
    assert verdict(("fewer_bit_operations", {"at_least": 40}), *rows).verdict == "holds"
    found = verdict(("fewer_bit_operations", {"at_least": 40.1}), *rows)
    assert (found.verdict, found.value) == ("fails", 40)
    assert verdict(("fewer_bit_operations", {"at_least": 1}), rows[0], row("01-int8")).verdict == "inconclusive"


def test_a_verdict_on_answers_that_hold_on_some_processors_only_says_so() -> None:
    told = {"measured_on": "AMX", "differs_on": ["AVX2 without VNNI"]}
    before, after = row("baseline", p50=2, scores=scores([0.9] * 40)), scores([0.9] * 40)
    gates = (("dice_drop", {"at_most": 0.01}), ("parity", {"at_most": 0.1}), ("latency_ms", {"at_most": 9}))
    more = {"scores": after, "p50": 1, "parity": {"flipped": 0.0}}
    for gate in gates:
        said = verdict(gate, before, row("01-int8", processors=told, **more)).reason
        assert ("on AMX; not shown for AVX2 without VNNI" in said) is (gate[0] != "latency_ms")
        assert "AMX" not in verdict(gate, before, row("01-int8", processors={**told, "differs_on": []}, **more)).reason


# The exit code


@pytest.mark.parametrize(
    ("rulings", "code"),
    [
        ([], 0),
        (["holds", "holds"], 0),
        (["holds", "inconclusive"], 3),
        (["inconclusive", "fails"], 1),
        (["holds", "fails"], 1),
    ],
)
def test_only_an_explicit_pass_of_every_gate_is_0(rulings: list[Ruling], code: int) -> None:
    sizes: dict[str, float] = {"holds": 1.0, "fails": 3.0, "inconclusive": math.nan}
    gates = [("parity", Parity(at_most=2, backend=f"{place}")) for place in range(len(rulings))]
    rows = [row("01-int8", f"{place}", parity={"flipped": sizes[ruling]}) for place, ruling in enumerate(rulings)]
    report = Report(
        name="x",
        seed=0,
        recipe={},
        versions={},
        host={},
        cases={},
        data={},
        steps=[],
        rows=rows,
        gates=judge(gates, rows),
    )
    assert [gate.verdict for gate in report.gates] == rulings
    assert report.exit_code == code
