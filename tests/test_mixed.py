"""Mixed precision: layers that integers hurt go back to float, and no more of them than that needs."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from shared_fixtures import write_recipe
from torch import nn

from compress.editing import mixed_precision
from compress.editing.mixed_precision import with_exact, with_float
from compress.editing.precisions import bench, choice
from compress.errors import PassError
from compress.measure.latency import Timing
from compress.passes.int8 import Int8
from compress.recipe import load
from compress.storage.description import Description
from compress.storage.weights import load_net, save_net
from compress.task import Task
from export.backends import onnxruntime, openvino, tensorrt
from export.quantization.quantized import Quantized


@pytest.fixture
def task(tmp_path: Path, recipe: dict[str, Any]) -> Task:
    """A trained U-Net whose last decoder conv has a channel so loud that integers see nothing of the others."""
    found = load(write_recipe(tmp_path, recipe)).task()
    first, second = (layer for layer in found.net.decoder[-1] if isinstance(layer, nn.Conv2d))  # type: ignore[union-attr, index]
    norm = next(layer for layer in found.net.decoder[-1] if isinstance(layer, nn.BatchNorm2d))  # type: ignore[union-attr, index]
    with torch.no_grad():
        # A ReLU between them passes the factor on: the network answers as before.
        norm.weight[:2] *= 3000
        norm.bias[:2] *= 3000
        second.weight[:, :2] /= 3000
    assert isinstance(first, nn.Conv2d)
    return found


def lost(net: nn.Module, task: Task) -> float:
    def dice(one: nn.Module) -> float:
        with torch.no_grad():
            some = task.data.cases["test"][:12]
            return task.measure(lambda image: one(torch.from_numpy(image)).numpy(), cases=some).mean("dice")

    return dice(task.net) - dice(net)


@pytest.fixture(autouse=True)
def few_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    """Times of toys decide nothing here."""
    monkeypatch.setattr(bench, "TIMING", Timing(samples=10, seconds=0.2, warm_up=0.0))
    monkeypatch.setattr(choice, "ROUNDS", 2)
    monkeypatch.setattr(choice, "REBUILT", 1)


def test_the_layers_that_integers_hurt_stay_in_float(task: Task) -> None:
    notes: list[str] = []
    task = dataclasses.replace(task, note=notes.append)
    plain = Int8(effort="fast")(task.net, task)
    assert lost(plain, task) > 0.05
    mixed = Int8(method="min_max", max_drop=0.01, device="cpu", threads=1)(task.net, task)
    assert isinstance(mixed, Quantized)
    assert mixed.assignment.keep_float == () and set(mixed.assignment.by_runtime) >= {"onnxruntime", "openvino"}
    for rules in (onnxruntime.RULES, openvino.RULES):
        chosen = mixed.assignment.by_runtime[rules.runtime]
        assert set(chosen.values()) == {"float32"} and "decoder.1.3" in chosen
        assert mixed.layers(rules)["integer"] > 0, "\n".join(notes)
        assert lost(mixed.placed(rules), task) < 0.02
        (note,) = (line for line in notes if f"int8 for {rules.runtime}" in line)
        assert "decoder.1.3" in note and "ms (" in note and "of Dice lost as built" in note
    assert any("int8 for tensorrt" in line for line in notes)


def test_where_integers_cost_nothing_all_layers_are_in_integers(tmp_path: Path, recipe: dict[str, Any]) -> None:
    notes: list[str] = []
    task = dataclasses.replace(load(write_recipe(tmp_path, recipe)).task(), note=notes.append)
    net = Int8(method="min_max", max_drop=0.05)(task.net, task)
    assert isinstance(net, Quantized)
    assert net.assignment.keep_float == ()
    assert any("all layers in integers" in note for note in notes)


def test_without_validation_cases_it_is_refused(task: Task) -> None:
    data = dataclasses.replace(task.data, cases={**task.data.cases, "val": ()})
    with pytest.raises(PassError, match="max_drop is measured on validation cases and there are none"):
        Int8(max_drop=0.01)(task.net, dataclasses.replace(task, data=data))


def test_more_layers_in_float_are_added_to_those_that_were(task: Task) -> None:
    net = Int8(method="min_max", keep=("head",))(task.net, task)
    assert isinstance(net, Quantized)
    more = with_float(with_exact(net, ("decoder.1.0",)), ("encoder.0.0",))
    assert (more.assignment.keep_float, more.assignment.exact) == (("head", "encoder.0.0"), ("decoder.1.0",))


def test_coarser_steps_that_cost_nothing_are_told_and_kept(tmp_path: Path, recipe: dict[str, Any]) -> None:
    notes: list[str] = []
    task = dataclasses.replace(load(write_recipe(tmp_path, recipe)).task(), note=notes.append)
    net = Int8(method="min_max")(task.net, task)
    assert isinstance(net, Quantized)
    assert net.assignment.exact == ()
    coarser = net.coarser(onnxruntime.RULES)
    assert net.coarser(dataclasses.replace(onnxruntime.RULES, pairs_in_16_bits=False)) == {}
    (note,) = (line for line in notes if "coarser steps" in line)
    assert note.startswith(f"int8: {sum(coarser.values())} output channels in {len(coarser)} layers have coarser steps")


def test_layers_that_bear_no_coarser_step_are_in_float_only_where_16_bits_must_do(
    tmp_path: Path, recipe: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    notes: list[str] = []
    task = dataclasses.replace(load(write_recipe(tmp_path, recipe)).task(), note=notes.append)
    # Every disturbance is suspect, and as if Dice fell while a layer is coarser that is named here.
    monkeypatch.setattr(mixed_precision, "SUSPECT", 0.0)
    monkeypatch.setattr(mixed_precision, "dice_of", lambda net, *_: net.meta.get("coarser", {}))
    monkeypatch.setattr(mixed_precision, "lost", lambda before, after, word: 0.01 if after.get("encoder.0.0") else 0.0)
    monkeypatch.setattr(mixed_precision, "_sure", lambda before, after: True)
    net = Int8(method="min_max")(task.net, task)
    assert isinstance(net, Quantized) and net.assignment.exact
    assert "stay in float instead" in notes[-1] and all(layer in notes[-1] for layer in net.assignment.exact)
    whole = with_exact(Quantized(net.graph, _ranges(net)), ())
    assert net.layers(onnxruntime.RULES)["float"] == whole.layers(onnxruntime.RULES)["float"] + len(
        net.assignment.exact
    )
    assert net.layers(tensorrt.RULES) == whole.layers(tensorrt.RULES)
    description = Description(
        network=net.description,
        classes=task.data.class_names,
        normalization=task.data.normalization,
        size=task.data.fit.size,
    )
    save_net(net, description, tmp_path / "net.safetensors")
    again = load_net(tmp_path / "net.safetensors")
    assert isinstance(again, Quantized) and again.assignment.exact == net.assignment.exact


def test_a_drop_is_told_from_chance() -> None:
    before = np.full((8, 2), 0.9)
    assert not mixed_precision._sure(before, before)
    noisy = before + np.array([[0.1, -0.1] * 4, [0.0] * 8]).T
    assert not mixed_precision._sure(before, noisy)
    lower = before - np.array([[0.01, 0.012] * 4, [np.nan] * 8]).T
    assert mixed_precision._sure(before, lower)
    assert not mixed_precision._sure(before[:3], lower[:3]), "three cases say nothing"


def _ranges(net: Quantized) -> dict[str, tuple[float, float]]:
    return {name: (low, high) for name, (low, high) in zip(net.names, net.ranges.tolist(), strict=True)}
