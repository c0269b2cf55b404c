"""The integer program of mixed precision, what it is given, and that no runtime gets slower by it."""

from __future__ import annotations

import dataclasses
import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from shared_fixtures import write_recipe
from torch import Tensor, nn

from compress.editing.calibration import calibrated
from compress.editing.precisions import bench, choice
from compress.editing.precisions.bench import Bench, Names
from compress.editing.precisions.choice import NOWHERE, Search, Trial, Wanted
from compress.editing.precisions.program import Neighbours, Program, Unit
from compress.editing.precisions.sensitivity import feared, lost
from compress.editing.precisions.table import by_work, corrected, measured, us_of
from compress.editing.precisions.units import Units, units_of
from compress.errors import PassError
from compress.measure.latency import Timing
from compress.passes.int8 import Int8
from compress.recipe import load
from compress.storage.description import Description
from compress.storage.integers import description_of
from compress.storage.weights import load_net, save_net
from compress.task import Task
from export.backends import onnxruntime, openvino
from export.capture import folded_graph
from export.quantization.quantized import Quantized


def program(seed: int) -> Program:
    rng = np.random.default_rng(seed)
    names = [f"layer{place}" for place in range(5)]
    units = [
        Unit(
            name=name,
            us={
                "int8": float(rng.uniform(1, 5)),
                "float16": float(rng.uniform(2, 7)),
                "float32": float(rng.uniform(1, 9)),
            },
            error={"int8": float(rng.uniform(0, 1e-6)), "float16": float(rng.uniform(0, 1e-8)), "float32": 0.0},
        )
        for name in names
    ]
    units.append(Unit(name="cat", us={"int8": 0.1, "float32": 0.3}, error={"int8": 0.0, "float32": -3e-7}))
    links = [Neighbours(before=a, behind=b, us=float(rng.uniform(0, 2))) for a, b in itertools.pairwise(names)]
    return Program(units=units, neighbours=links, needs=[("cat", "layer1")])


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("limit", [math.inf, 1e-6, 2e-8])
def test_the_program_finds_what_trying_all_finds(seed: int, limit: float) -> None:
    given = program(seed)
    every = itertools.product(*(unit.us for unit in given.units))
    choices = [dict(zip((unit.name for unit in given.units), each, strict=True)) for each in every]
    allowed = [
        each
        for each in choices
        if given.error_of(each) <= limit and (each["cat"] == "int8" or each["layer1"] == "float32")
    ]
    found = given.solved(limit)
    assert found is not None and found in allowed
    assert given.us_of(found) == pytest.approx(min(map(given.us_of, allowed)))


def test_where_nothing_is_below_the_limit_nothing_is_chosen() -> None:
    assert program(0).solved(-1e-3) is None


class Joined(nn.Module):
    """Two branches that are multiplied and joined, and a layer that reads both."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(1, 8, 3, padding=1), nn.Conv2d(1, 8, 3, padding=1)
        self.behind, self.head = nn.Conv2d(16, 8, 3, padding=1), nn.Conv2d(8, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.a(x), self.b(x)
        return self.head(torch.relu(self.behind(torch.cat([a * b, a], 1))))  # type: ignore[no-any-return]


def joined() -> Quantized:
    torch.manual_seed(0)
    seen = torch.randn(1, 1, 16, 16)
    graph = folded_graph(Joined().eval(), seen, ())
    return Quantized(graph, calibrated(graph, [seen], None, 1))


def units(quantized: Quantized) -> Units:
    return units_of(quantized, onnxruntime.RULES, torch.zeros(1, 1, 16, 16))


def test_units_are_layers_and_what_joins_or_multiplies_integers() -> None:
    found = units(joined())
    # The head is in float by this runtime's own rules.
    assert found.layers == ("a", "b", "behind")
    assert found.operators == ("operator:mul", "operator:cat")
    links = {(link.before, link.behind): link.values for link in found.links}
    assert links["operator:cat", "behind"] == 16 * 16 * 16 and links["a", "operator:mul"] == 8 * 16 * 16
    assert set(found.needs) == {("operator:mul", "a"), ("operator:mul", "b"), ("operator:cat", "a")}
    assert found.macs == {"a": 9 * 8 * 256, "b": 9 * 8 * 256, "behind": 9 * 16 * 8 * 256}
    assert units_of(joined(), openvino.RULES, torch.zeros(1, 1, 16, 16)).needs == ()


def test_without_measurements_time_is_work_times_bits() -> None:
    found = units(joined())
    table = by_work(found)
    assert us_of(table, found, frozenset(found.names)) == pytest.approx(4 * us_of(table, found, NOWHERE))


class Stopwatch(Bench):
    """A bench on which every choice takes what is written down."""

    def ms(self, choices: Any) -> list[float]:
        known = {NOWHERE: 4.0, frozenset(units(self.quantized).names): 6.0}
        return [known.get(choice, 8.0) for choice in choices]


@pytest.fixture
def task(tmp_path: Path, recipe: dict[str, Any]) -> Task:
    return load(write_recipe(tmp_path, recipe)).task()


def watch(kind: type[Bench], quantized: Quantized, task: Task, folder: Path) -> Bench:
    target = bench.target_on("cpu", 1)
    rules = onnxruntime.RULES
    return kind(quantized=quantized, task=task, word="onnxruntime", rules=rules, target=target, folder=folder)


def test_a_table_takes_at_both_ends_what_was_measured_and_prices_conversions(tmp_path: Path, task: Task) -> None:
    quantized = joined()
    found, task = units(quantized), dataclasses.replace(task, net=quantized.graph)
    vars(task)["example"] = torch.zeros(1, 1, 16, 16)
    object.__setattr__(task, "probes", lambda most=4: iter([np.zeros((1, 1, 16, 16), np.float32)]))
    table = measured(watch(Stopwatch, quantized, task, tmp_path), found)
    assert table is not None
    assert us_of(table, found, NOWHERE) == pytest.approx(4000)
    assert us_of(table, found, frozenset(found.names)) == pytest.approx(6000)
    assert table.value_us > 0 and table.fixed_us > 0
    mixture: Names = frozenset({"a"})
    assert us_of(corrected(table, found, mixture, 9000), found, mixture) == pytest.approx(9000)


TIMES = {
    # mixture, integers, float: what is taken.
    (3.0, 5.0, 4.0): "mixture",
    (4.1, 4.2, 6.0): "integers",
    (5.0, 9.0, 4.0): "float",
    (4.0, 4.05, 4.1): "integers",
}


@pytest.mark.parametrize(("times", "taken"), TIMES.items(), ids=TIMES.values())
def test_the_fastest_of_integers_float_and_a_mixture_is_taken(
    times: tuple[float, float, float], taken: str, task: Task
) -> None:
    notes: list[str] = []
    task, quantized = dataclasses.replace(task, note=notes.append), joined()
    wanted = Wanted(max_drop=None, faster=True, device="cpu")
    search = Search(quantized=quantized, task=task, wanted=wanted, rules=onnxruntime.RULES, bench=None, before_NK=None)
    vars(search)["units"] = units(quantized)
    mixture: Names = frozenset({"a"})
    trial = Trial(
        choice=mixture,
        ms=times[0],
        predicted_ms=times[0],
        integers_ms=times[1],
        float_ms=times[2],
        scale=1.0,
        lost=None,
        holds=True,
    )
    expected = {"mixture": mixture, "integers": NOWHERE, "float": search.every}[taken]
    assert search._no_slower(trial) == expected
    assert f"the mixture takes {times[0]:.3g} ms" in notes[0]


def test_what_was_chosen_for_a_runtime_is_saved_and_built_again(
    tmp_path: Path, task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench, "TIMING", Timing(samples=10, seconds=0.2, warm_up=0.0))
    monkeypatch.setattr(choice, "REBUILT", 1)
    # tests/test_mixed.py has a choice made for each runtime.
    monkeypatch.setattr(choice, "_every_rules", lambda: [onnxruntime.RULES])
    notes: list[str] = []
    task = dataclasses.replace(task, note=notes.append)
    # What is in float is the clock's choice, on this host or another: it is told, and kept.
    net = Int8(method="min_max", when="faster")(task.net, task)
    assert isinstance(net, Quantized)
    assert sum("all in integers" in line and "were predicted" in line for line in notes) == 1
    chosen = {"openvino": {"decoder.0.0": "float32"}}
    net = bench.assigned(net, chosen)
    net.description = description_of(net, task.net, task)
    described = Description(network=net.description, classes=task.data.class_names)
    save_net(net, described, tmp_path / "net.safetensors")
    again = load_net(tmp_path / "net.safetensors")
    assert isinstance(again, Quantized) and again.assignment.by_runtime == chosen
    assert "decoder.0.0" in dict(again.in_float(openvino.RULES))
    assert "decoder.0.0" not in dict(again.in_float(onnxruntime.RULES))


def test_of_two_that_lose_the_same_on_average_the_steady_one_is_surer() -> None:
    before = np.ones((50, 2))
    steady, lucky = before - 0.002, before - 0.002
    lucky[::2, 0] -= 0.02
    lucky[1::2, 0] += 0.02
    assert math.isclose(lost(before, steady, "int8"), lost(before, lucky, "int8"), rel_tol=1e-6)
    assert math.isclose(feared(before, steady, "int8"), 0.002, rel_tol=1e-6)
    assert 0.0045 < feared(before, lucky, "int8") < 0.0052
    # Of one case nothing is known of chance, and no case is no answer.
    assert math.isclose(feared(before[:1], steady[:1], "int8"), 0.002, rel_tol=1e-6)
    with pytest.raises(PassError, match="no case holds"):
        feared(before * np.nan, steady, "int8")
