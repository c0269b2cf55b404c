"""The folder is the registry: to add a gate or a pass is to add one file."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from shared_fixtures import write_recipe
from whole_run import Done, gone_on

from compress import gates, passes
from compress.errors import RecipeError
from compress.pipeline.foreseen import contradictions, scene, spots
from compress.recipe import load, schema

ADDED = '''
"""How many parameters the network has."""

from collections.abc import Iterator, Sequence
from typing import ClassVar

from pydantic.dataclasses import dataclass

from compress.gates.judging.artifacts import each_built
from compress.gates.judging.beforehand import not_built, nowhere
from compress.gates.judging.options import OPTIONS, Limit, OneBackend, OneDevice
from compress.gates.judging.scene import Scene
from compress.gates.judging.verdict import Bound, Verdict, at_most
from compress.measure.row import Row


@dataclass(frozen=True, kw_only=True, config=OPTIONS)
class FewParams:
    """Holds where the network has at most so many parameters."""

    title: ClassVar[str] = "few_params"
    reads_scores: ClassVar[bool] = False

    at_most: Limit
    device: OneDevice = None
    backend: OneBackend = None

    @property
    def bound(self) -> Bound:
        return at_most(self.at_most)

    def __call__(self, rows: Sequence[Row]) -> list[Verdict]:
        return each_built(self, rows, lambda row: [self.bound.outcome(row.params)])

    def never_holds(self, scene: Scene) -> Iterator[str]:
        return nowhere(self, scene)

    def cannot_hold(self, scene: Scene) -> Iterator[str]:
        return not_built(self, scene)
'''


@pytest.fixture
def added_gate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A gate that lies in a folder of its own; its word."""
    (tmp_path / "gates").mkdir()
    (tmp_path / "gates" / "few_params.py").write_text(ADDED)
    monkeypatch.setattr(gates, "__path__", [*gates.__path__, str(tmp_path / "gates")])
    yield "few_params"
    sys.modules.pop("compress.gates.few_params", None)
    vars(gates).pop("few_params", None)


def test_to_add_a_gate_is_to_add_one_file(done: Done, tmp_path: Path, added_gate: str) -> None:
    report = gone_on(done, tmp_path, gates=[{added_gate: {"at_most": 10}}, {added_gate: {"at_most": 1e6}}])
    assert {(gate.name, gate.limit, gate.verdict) for gate in report.gates} == {
        ("few_params", 10, "fails"),
        ("few_params", 1e6, "holds"),
    }
    assert "few_params" in (tmp_path / "out" / "report.md").read_text().replace("\\", "")

    entries = schema()["properties"]["gates"]["items"]["anyOf"]
    (options,) = (entry["properties"][added_gate] for entry in entries if added_gate in entry["properties"])
    assert (set(options["properties"]), options["required"]) == ({"at_most", "device", "backend"}, ["at_most"])

    recipe = {**done[1]["recipe"], "gates": [{added_gate: {"at_mst": 1, "device": "cpuu"}}]}
    with pytest.raises(RecipeError) as refused:
        load(write_recipe(tmp_path, recipe))
    assert "gates[0] (few_params): no option 'at_mst'; did you mean 'at_most'?" in str(refused.value)
    assert "gates[0] (few_params): no device 'cpuu'; did you mean 'cpu'?" in str(refused.value)

    nowhere = {**done[1]["recipe"], "devices": ["cpu"], "gates": [{added_gate: {"at_most": 1, "device": "rtx_40"}}]}
    loaded = load(write_recipe(tmp_path, nowhere))
    (never,) = contradictions(loaded, scene(loaded, spots(loaded), None, None))
    assert never.startswith("gates[0] (few_params): never holds: the recipe builds nothing for the device 'rtx_40'")


ADDED_PASS = '''
"""Nothing is changed."""

import copy
from typing import ClassVar

from pydantic import ConfigDict
from pydantic.dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class LeftAlone:
    """The network as it came."""

    requires: ClassVar = "float"
    ensures: ClassVar = "float"
    times: int = 1
    """How often it is left alone."""

    @property
    def uses(self):
        return ()

    def __call__(self, net, task):
        task.note(f"left alone {self.times} times")
        return copy.deepcopy(net)
'''


@pytest.fixture
def added_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A pass that lies in a folder of its own; its word."""
    (tmp_path / "passes").mkdir()
    (tmp_path / "passes" / "left_alone.py").write_text(ADDED_PASS)
    monkeypatch.setattr(passes, "__path__", [*passes.__path__, str(tmp_path / "passes")])
    yield "left_alone"
    sys.modules.pop("compress.passes.left_alone", None)
    vars(passes).pop("left_alone", None)


def test_to_add_a_pass_is_to_add_one_file(done: Done, tmp_path: Path, added_pass: str) -> None:
    report = gone_on(done, tmp_path, passes=[{added_pass: {"times": 3}}])
    assert {row.step for row in report.rows if row.status == "measured"} == {"baseline", "01-left_alone"}
    assert report.steps[1]["notes"] == ["left alone 3 times"]
    entries = schema()["properties"]["passes"]["items"]["anyOf"]
    (options,) = (each["properties"][added_pass] for each in entries if added_pass in each.get("properties", {}))
    assert set(options["properties"]) == {"times"}
    with pytest.raises(RecipeError, match=r"passes\[0\] \(left_alone\): no option 'time'; did you mean 'times'"):
        load(write_recipe(tmp_path, {**done[1]["recipe"], "passes": [{added_pass: {"time": 1}}]}))
