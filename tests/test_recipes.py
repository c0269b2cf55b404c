"""Every shipped recipe runs, at toy size: the same words and options, fewer and smaller cases."""

from __future__ import annotations

import json
import re
import textwrap
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from shared_fixtures import write_recipe, write_volumes

from compress.cache import Cache
from compress.cli import check
from compress.commands.run import run
from compress.commands.search import search
from compress.commands.train import train
from compress.pipeline import foreseen
from compress.pipeline.deployment import Deployment
from compress.pipeline.first_key import first_key
from compress.pipeline.slower import with_slow_layers
from compress.pipeline.stages import baseline, chain
from compress.recipe import load
from compress.report.plots import plots
from compress.search.loading import has_choices
from compress.search.loading import load as load_search
from compress.storage.description import Description, build_net
from compress.storage.weights import load_weights, save_net
from export import registry
from export.files import make_folder, sha256

ROOT = Path(__file__).parent.parent
SHIPPED = sorted((ROOT / "recipes").glob("*.yaml"))
SEARCHES = [path for path in SHIPPED if has_choices(path)]
RECIPES = [path for path in SHIPPED if path not in SEARCHES]
TRAINING = sorted((ROOT / "recipes" / "train").glob("*.yaml"))
# Whole chains take long even at toy size: they run on demand.
SLOW = (
    "nerve_unet_int8",
    "nerve_unet_half",
    "nerve_unet_mixed",
    "nerve_unet_int8_best",
    "nerve_unet_int4",
    "unet_edge",
    "nerve_unet_edge",
    "polyp_unet_edge",
    "polyp_unet16_edge",
    "hippocampus_unet3d_int8",
    "phantom_unet_binary",
    "phantom_unet_blocks",
    "nerve_unet_blocks",
)
# That of `make demo` as well, which CI runs behind the others (.ci/run).
TOYS = [pytest.param(path, marks=pytest.mark.slow) for path in RECIPES]
# One that widens, one of volumes, one of phantoms and one of images in a folder; the others have other numbers.
TOY_TRAINING = [
    pytest.param(path, marks=[pytest.mark.slow] if path.stem in ("nerve_unet", "polyp_unet", "polyp_unet_128") else [])
    for path in TRAINING
]
REAL = ROOT.parent / "shared" / "data" / "usgra_nerve"


def say(_: str) -> None:
    """A log nobody reads."""


def toy_data(recipe: dict[str, Any], place: Path) -> dict[str, Any]:
    """Phantoms, or volumes, of three classes; a recipe's own data may not be on this machine."""
    counts = {"train": 8, "calibration": 4, "val": 2, "test": 3}
    if "nifti" in recipe["data"]:
        root = write_volumes(place / "volumes", counts, [(16, 24, 16), (20, 22, 14)])
        return {"nifti": {**recipe["data"]["nifti"], "root": str(root), "size": [16, 24, 16]}}
    return {"synthetic": {"root": str(place / "phantom"), "size": [32, 32], **counts}}


def toy_network(recipe: dict[str, Any], place: Path) -> dict[str, Any]:
    """The recipe's network, narrow and untrained; shallow as well where no pass names its layers."""
    ((word, given),) = recipe["network"].items()
    options = {**given, "classes": 3, "in_channels": 1, "width": 16}
    options.pop("weights", None)
    if recipe["passes"] in (["int8"], ["half"]) or any(word in recipe["passes"][0] for word in ("int8", "blocks")):
        options |= {"width": 8, "depth": 2}
    torch.manual_seed(0)
    made = place / "toy.safetensors"
    save_net(build_net({word: options}).eval(), Description(network={word: options}), made)
    return {word: {**options, "weights": str(made)}}


def without_latency(options: dict[str, Any]) -> dict[str, Any]:
    """A toy's time is the runtime's own, and no half of it can be reached."""
    return {key: value for key, value in options.items() if key not in ("latency", "backend", "precision")}


def toy_step(step: Any) -> Any:
    """A pass that takes a moment."""
    ((word, options),) = step.items() if isinstance(step, dict) else ((step, {}),)
    if word == "int8":
        # Of an untrained network Dice means nothing.
        allowed = {"max_drop": 0.9} if "max_drop" in options else {}
        return {word: {**options, **allowed, "calibrate": 4}}
    if word == "blocks":
        few = {"macs": 0.9, "steps": 1, "space": options["space"][:2], "where": "decoder", "tried": 1}
        return {word: {**without_latency(options), **few}}
    if word == "prune" and "latency" in options:
        return {word: {**without_latency(options), "ratio": 0.5}}
    if word == "low_bit":
        return {word: {**options, "calibrate": 4, "steps": 5}}
    if word == "distill":
        others = {key: value for key, value in options.items() if key not in ("epochs", "steps", "minutes")}
        return {word: {**others, "epochs": 1, "rate": 1e-3}}
    if word == "binary":
        return {word: {**options, "recover": toy_step({"distill": options.get("recover", {})})["distill"]}}
    return step


def toy(path: Path, place: Path) -> dict[str, Any]:
    """The recipe with the same words and options, over a small network and few small cases."""
    recipe = yaml.safe_load(path.read_text())
    recipe["network"] = toy_network(recipe, place)
    recipe["data"] = toy_data(recipe, place)
    recipe["passes"] = [toy_step(step) for step in recipe["passes"]]
    recipe["compare"] = {
        title: [toy_step(step) for step in steps] for title, steps in recipe.get("compare", {}).items()
    }
    return recipe


@pytest.mark.parametrize("path", TOYS, ids=lambda path: path.stem)
def test_a_shipped_recipe_runs_at_toy_size(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("compress.report.html.plots", plots)
    monkeypatch.setattr("compress.commands.run.with_slow_layers", with_slow_layers)
    recipe = toy(path, tmp_path)
    recipe["latency"] = {"samples": 10, "seconds": 0.1, "warm_up": 0, "threads": 1}
    if path.stem not in SLOW:
        # Engines of the other generations of cards are built in the slow runs.
        recipe["devices"] = recipe["devices"][:2]
    report = run(load(write_recipe(tmp_path, recipe)), tmp_path / "out", say=say)
    measured = [row for row in report.rows if row.status == "measured"]
    assert {row.backend for row in measured} == {"torch", "onnxruntime", "openvino"}
    assert all(row.scores is not None and row.latency_ms is not None for row in measured)
    assert {gate.name for gate in report.gates} == {next(iter(gate)) for gate in recipe["gates"]}
    assert "<svg" in (tmp_path / "out" / "report.html").read_text()


def toy_choices(node: Any) -> Any:
    """What a search chooses from, each pass in it one that takes a moment."""
    if isinstance(node, list):
        return [toy_choices(each) for each in node]
    if not isinstance(node, dict):
        return node
    if len(node) == 1 and set(node) <= set(registry.words("compress.passes")):
        return toy_step(node)
    return {key: toy_choices(value) for key, value in node.items()}


@pytest.mark.slow
@pytest.mark.parametrize("path", SEARCHES, ids=lambda path: path.stem)
def test_a_shipped_search_runs_at_toy_size(path: Path, tmp_path: Path) -> None:
    recipe = yaml.safe_load(path.read_text())
    if recipe["search"]["strategy"].startswith("nni_"):
        pytest.importorskip("nni", reason="the extra `nni` has what proposes its recipes")
    given = {**recipe, "passes": ["int8"]}
    if "train" in recipe:
        recipe["train"]["epochs"] = 1
    else:
        recipe["network"] = toy_network(given, tmp_path)
    recipe["data"] = toy_data(given, tmp_path)
    recipe["passes"] = toy_choices(recipe["passes"])
    recipe["latency"] = {"samples": 10, "seconds": 0.1, "warm_up": 0, "threads": 1}
    # Of an untrained network Dice means nothing.
    objectives = ["score" if "score" in each else each for each in recipe["search"]["objectives"]]
    recipe["search"] |= {"trials": 2, "margin": None, "objectives": objectives}
    record = search(load_search(write_recipe(tmp_path, recipe)), tmp_path / "out", say=say)
    assert [each["state"] for each in record["trials"]] == ["finished"] * 2, [each["why"] for each in record["trials"]]
    for point in record["front"]:
        assert load(tmp_path / "out" / point["file"]).gates
    assert record["exit_code"] == 0


@pytest.mark.slow
def test_the_passes_of_a_shipped_recipe_follow_each_other_at_toy_size(tmp_path: Path) -> None:
    recipe = load(write_recipe(tmp_path, toy(ROOT / "recipes" / "unet_edge.yaml", tmp_path)))
    task, cache = recipe.task(), Cache(make_folder(tmp_path / "out"))
    begun = baseline(task, first_key(recipe, task), cache, say)
    stages = chain(recipe.passes, begun, task, cache, say)
    assert [stage.name.split("-")[1] for stage in stages] == [word for word, _ in recipe.passes]
    macs = [stage.macs for stage in (begun, *stages)]
    assert macs == sorted(macs, reverse=True) and macs[-1] < 0.5 * macs[0]
    assert stages[-1].net(task.example).shape == (1, 3, 32, 32)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_the_weights_that_a_shipped_recipe_is_committed_with_fit_its_network(path: Path) -> None:
    recipe = load(path)
    assert recipe.weights is not None
    if recipe.weights.parent != ROOT / "recipes" / "weights":
        pytest.skip("its weights are what another recipe trains")
    load_weights(build_net(recipe.network), recipe.weights)


WEIGHTS = ROOT / "recipes" / "weights"
STATED = ("network", "data", "licence of the data", "licence of these weights", "training", "scores", "SHA-256")


@pytest.mark.parametrize("path", sorted(WEIGHTS.glob("*.safetensors")), ids=lambda path: path.stem)
def test_every_committed_network_has_a_model_card(path: Path) -> None:
    cards = (WEIGHTS / "MODEL_CARDS.md").read_text().split("\n## ")
    (card,) = (card for card in cards if card.startswith(f"{path.name}\n"))
    rows = [line.strip("|").split("|", 1) for line in card.splitlines() if line.startswith("| ")]
    stated = {what.strip(): said.strip() for what, said in rows}
    assert all(stated.get(what) for what in STATED)
    assert stated["SHA-256"] == sha256(path), "the card is of these weights"
    assert "\nLimits: " in card
    made = json.loads(path.with_suffix(".json").read_text())["made"]
    for said in (f"seed {made['seed']}", f"{made['epochs']} epochs", f"{made['train_cases']} training"):
        assert said in card
    assert f"Dice {made['validation_dice']:.3f} on validation" in card


def test_no_committed_network_was_trained_on_what_may_not_be_shipped() -> None:
    for path in WEIGHTS.glob("*.json"):
        assert "kvasir" not in path.read_text().lower()


@pytest.mark.parametrize("path", TOY_TRAINING, ids=lambda path: path.stem)
def test_a_shipped_training_recipe_trains_at_toy_size(path: Path, tmp_path: Path) -> None:
    recipe = yaml.safe_load(path.read_text())
    ((word, given),) = recipe["network"].items()
    options = {**given, "classes": 3, "in_channels": 1, "width": 4}
    options.pop("weights", None)
    if recipe["train"].get("widen"):
        narrow = {**options, "width": 2}
        torch.manual_seed(0)
        save_net(build_net({word: narrow}).eval(), Description(network={word: narrow}), tmp_path / "narrow.safetensors")
        options["weights"] = str(tmp_path / "narrow.safetensors")
    recipe["network"] = {word: options}
    recipe["data"] = toy_data(recipe, tmp_path)
    recipe["train"]["epochs"] = 1
    weights = train(load(write_recipe(tmp_path, recipe)), tmp_path / "out", say=say)
    described = json.loads(weights.with_suffix(".json").read_text())
    assert described["network"][word]["width"] == 4
    assert described["made"]["epochs"] == 1


@pytest.mark.parametrize("path", [*RECIPES, *TRAINING], ids=lambda path: path.stem)
def test_a_shipped_recipe_is_good(path: Path) -> None:
    load(path)


@pytest.mark.parametrize("path", SEARCHES, ids=lambda path: path.stem)
def test_a_shipped_search_is_good(path: Path) -> None:
    first = load_search(path).first
    assert (first.weights is None) == (first.train is not None), "it has weights, or a search trains it"
    net = build_net(first.network)
    if first.weights is not None:
        load_weights(net, first.weights)


@pytest.mark.slow
@pytest.mark.skipif(not REAL.is_dir(), reason="the ultrasound set usgra_nerve is not on this machine")
def test_int8_costs_real_ultrasound_at_most_half_a_percent(tmp_path: Path) -> None:
    recipe = load(ROOT / "recipes" / "nerve_unet_int8.yaml", REAL)
    report = run(recipe, tmp_path / "out", say=say)
    rows = {row.backend: row for row in report.rows if row.step == "01-int8"}
    for backend in ("onnxruntime", "openvino"):
        drop = rows[backend].dice_drop
        assert drop is not None
        assert drop["mean"]["drop"] <= 0.005


def blocks_of(language: str, page: str = "README.md") -> list[str]:
    """The blocks of a page in a language, those inside lists too."""
    text = (ROOT / page).read_text()
    found = re.findall(rf"^( *)```{language}\n(.*?)^ *```", text, re.DOTALL | re.MULTILINE)
    return [textwrap.dedent(block) for _, block in found]


def on_a_jetson(folder: Path) -> Path:
    """The README's recipe with what its section on a Jetson puts into it."""
    whole, changed, *_ = map(yaml.safe_load, blocks_of("yaml"))
    return write_recipe(folder, {**whole, **changed})


def test_the_commands_in_the_readme_are_real(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(ROOT)
    lines = [line.split("#")[0].strip() for block in blocks_of("bash") for line in block.splitlines()]
    commands = [line.split() for line in lines if line.startswith("compress ")]
    assert commands
    for _, verb, *words in commands:
        if verb in ("run", "check", "train", "search"):
            # Its data and weights may not be on this machine.
            check(on_a_jetson(tmp_path) if words[0] == "my_recipe.yaml" else Path(words[0]), quick=True)
        elif verb in ("inspect", "sensitivity"):
            assert (ROOT / words[0]).is_file()
        else:
            # tests/test_gate.py executes those that look at finished runs, tests/test_init.py those that begin.
            assert verb in ("init", "schema", "gate", "compare", "verify", "predict") or words[0] in ("facts", "clean")
    targets = (ROOT / "Makefile").read_text()
    for line in lines:
        if line.startswith("make "):
            assert f"\n{line.split()[1]}:" in targets


@pytest.mark.parametrize("page", ["devices", "ci"])
def test_what_a_page_puts_into_a_recipe_is_good(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its devices and gates load, and nothing in the recipe of the README keeps a gate from ever holding."""
    monkeypatch.chdir(ROOT)
    whole = yaml.safe_load(blocks_of("yaml")[0])
    blocks = [yaml.safe_load(each) for each in blocks_of("yaml", f"docs/{page}.md")]
    known = set(registry.words("compress.gates"))
    lists = [each for each in blocks if isinstance(each, list) and all(set(gate) & known for gate in each)]
    parts = [each for each in blocks if isinstance(each, dict) and "gates" in each]
    assert parts
    # The host is not asked: what is built for what is elsewhere is known without it.
    monkeypatch.setattr(Deployment, "not_here", lambda at: None)
    for part in parts:
        loaded = load(write_recipe(tmp_path, {**whole, "latency": {}, **part}))
        named = [gate for _, gate in loaded.gates if getattr(gate, "device", None) == "orin_nano"]
        assert all(getattr(gate, "backend", None) == "tensorrt" for gate in named)
    for gates in lists:
        loaded = load(write_recipe(tmp_path, {**whole, "gates": gates}))
        assert list(foreseen.contradictions(loaded, foreseen.scene(loaded, foreseen.spots(loaded), None, None))) == []


def test_the_readmes_recipes_are_good(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    blocks = blocks_of("yaml")
    assert len(blocks) == 4
    for block in (blocks[0], blocks[2]):
        load(write_recipe(tmp_path, yaml.safe_load(block)))
    open_ones = {**yaml.safe_load(blocks[0]), **yaml.safe_load(blocks[3])}
    assert load_search(write_recipe(tmp_path, open_ones)).space.count() == 24
    there = load(on_a_jetson(tmp_path))
    jetson = there.devices[1]
    assert (jetson.name, jetson.reach.at) == ("orin_nano@tower-7", "tower-7")
    # A Jetson has TensorRT from JetPack, and no other runtime until somebody installs one.
    assert all(getattr(gate, "backend", None) == "tensorrt" for _, gate in there.gates)
    shown, demonstrated = (yaml.safe_load(each) for each in (blocks[0], Path("recipes/unet_int8.yaml").read_text()))
    assert shown["network"]["unet"].pop("weights") == f"recipes/{demonstrated['network']['unet'].pop('weights')}"
    assert shown == demonstrated, "what `make demo` runs is the recipe that the README shows"
