"""A search: what is proposed, shared, stopped, kept and written; its front against brute force."""

from __future__ import annotations

import json
import pickle
import re
import shutil
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from importlib.util import find_spec
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
import yaml
from rich.console import Console
from shared_fixtures import write_recipe

from compress.cache import claimed
from compress.cli import main
from compress.cluster import Processes, Workers, opened
from compress.commands.search import search
from compress.errors import DataError, MissingExtra, NotHere, RecipeError, SurroundingsError
from compress.passes.prune import Prune
from compress.recipe import load as load_recipe
from compress.report.derived.chosen import chosen_in_words, titles
from compress.report.search_tables import front_table
from compress.report.tables import Table
from compress.report.terminal import show_table
from compress.search.bench import Bench
from compress.search.ending import may_be_on_the_front
from compress.search.front import Goals, front_of
from compress.search.loading import load
from compress.search.objectives.judging.objective import Measured, Place
from compress.search.objectives.latency_ms import LatencyMs
from compress.search.objectives.macs import Macs
from compress.search.objectives.score import Score
from compress.search.objectives.size_mb import SizeMb
from compress.search.points import recipe_of
from compress.search.proposing import Proposing, told_to
from compress.search.space.space import Choice, Space, space_of
from compress.search.stopping import Sight, why_stopped
from compress.search.strategies.sampling import samplers
from compress.search.strategies.sampling.strategy import Start
from compress.search.trial import Trial
from export.registry import named, words

HERE = Place(backend="onnxruntime", device="cpu")
GOALS = Goals(
    objectives=[("score", Score()), ("size_mb", SizeMb(at_most=9)), ("latency_ms", LatencyMs())], device="cpu"
)
SPACE = """
passes:
  - prune: {ratio: {choices: [0.25, 0.5, 0.75]}}
  - choices: [none, {lowrank: {energy: {between: [0.7, 0.9], step: 0.1}}}]
  - choices: [none, int8]
"""


def quiet(_: str) -> None:
    """A log nobody reads."""


def measured(score: float, size: float, ms: float = 1.0) -> Measured:
    return Measured(
        scores={"dice": score, "per_class": {}},
        latency_ms={"p50": ms, "p95": ms},
        size_mb=size,
        macs=1,
        params=1,
        bit_operations=None,
    )


def trial(number: int, score: float, size: float, ms: float = 1.0, **changes: Any) -> Trial:
    given = {"state": "finished", "measured": {HERE: measured(score, size, ms)}, **changes}
    return Trial(number=number, **given)


def test_the_front_is_that_of_brute_force() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        # Few values, so that equals are among them.
        drawn = rng.integers(1, 12, (40, 3)).tolist()
        trials = [trial(number, score / 12, size, ms) for number, (score, size, ms) in enumerate(drawn, start=1)]
        good = [(score, -size, -ms) for score, size, ms in drawn if size <= 9]
        best = {one for one in good if not any(all(np.greater_equal(other, one)) and other != one for other in good)}
        found = [GOALS.values(each) or [] for each in front_of(GOALS, trials)]
        assert {(round(score * 12), -size, -ms) for score, size, ms in found} == best
        assert len(found) == len(best), "equals stand there once"
        assert [each[0] for each in found] == sorted((each[0] for each in found), reverse=True)


def test_what_is_the_networks_own_is_measured_nowhere() -> None:
    goals = Goals(objectives=[("score", Score(backend="openvino")), ("macs", Macs())], device="cpu")
    assert goals.places == [Place(backend="openvino", device="cpu")] and goals.titles == ["Dice", "MACs"]


def test_what_finds_nothing_or_was_not_measured_is_on_no_front() -> None:
    trials = [trial(1, 0.0, 1), trial(2, 0.5, 10), trial(3, 0.5, 2, state="stopped", measured={})]
    assert front_of(GOALS, trials) == []


def test_what_a_little_less_latency_brings_to_the_front_is_timed_again() -> None:
    trials = [trial(1, 0.8, 1, ms=1.0), trial(2, 0.8, 1, ms=1.04), trial(3, 0.8, 1, ms=1.5)]
    assert [each.number for each in may_be_on_the_front(GOALS, trials)] == [1, 2]


@pytest.mark.parametrize(
    ("sight", "why"),
    [
        ({}, None),
        ({"scores": [0.61]}, "trial 1 has 0.8000 with no more MACs, parameters, bytes or bits"),
        ({"scores": [0.76]}, None),
        ({"scores": [0.61], "macs": 9}, None),
        ({"scores": [0.61], "params": 9}, None),
        ({"scores": [0.61], "bits": 8}, None),
        ({"scores": [0.61], "stored_bytes": 9}, None),
        ({"scores": [0.61], "is_final": False}, None),
        ({"scores": [0.44], "is_final": False}, "more than 0.05 below 0.5"),
        ({"scores": [0.44]}, "more than 0.05 below 0.5"),
        ({"scores": [0.46], "macs": 9}, None),
    ],
)
def test_a_trial_is_stopped_where_another_is_ahead_in_all_that_is_known(sight: dict[str, Any], why: str | None) -> None:
    before = [trial(1, 0.8, 1, macs=10, params=10, stored_bytes=10, bits=16, torch_scores=[0.8])]
    given = {"scores": [0.9], "macs": 20, "params": 20, "stored_bytes": 20, "bits": 32, **sight}
    said = why_stopped(Sight(**given), [Score(at_least=0.5)], before, 0.05)
    assert (said is None) == (why is None) and (why or "") in (said or "")


def test_trials_that_were_not_finished_stop_no_others() -> None:
    before = [trial(1, 0.8, 1, state="stopped", macs=10, params=10, stored_bytes=10, torch_scores=[0.8])]
    sight = Sight(scores=[0.1], macs=20, params=20, stored_bytes=20, bits=32)
    assert why_stopped(sight, [Score()], before, 0.05) is None


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (trial(1, 0.7, 3, 2), [0.7, 3, 2]),
        (trial(1, 0.7, 12, 2), [0.0, 12, 5]),
        (trial(1, 0.0, 3, 2), [0.0, 4, 5]),
        (trial(1, 0, 0, state="stopped", measured={}, torch_scores=[0.3]), [0.3, 4, 5]),
        (trial(1, 0, 0, state="refused", measured={}), [0.0, 4, 5]),
    ],
)
def test_a_strategy_is_told_that_what_is_beyond_a_limit_gains_nothing(given: Trial, told: list[float]) -> None:
    assert told_to(GOALS, given, trial(0, 0.9, 4, 5)) == told


def space() -> Space:
    found, mistakes = space_of(yaml.safe_load(SPACE))
    assert mistakes == []
    return found


def valued(choice: Choice) -> list[float]:
    """Numbers that depend on the recipe alone."""
    ratio, size = choice.values["passes[0].prune.ratio"], 8.0 - 4 * (choice.values["passes[2]"] == "int8")
    energy = choice.values.get("passes[1].lowrank.energy", 1.0)
    return [0.9 - 0.3 * ratio**2 - 0.2 * (1 - energy), size * (1 - ratio) * energy]


def proposals(strategy: str, seed: int, most: int) -> list[Choice]:
    where = space()
    made = named("compress.search.strategies", strategy)(
        Start(space=where, directions=["maximize", "minimize"], seed=seed)
    )
    proposing, found = Proposing(strategy=made, space=where, seed=seed), []
    while len(found) < most and (proposal := proposing.next()):
        found.append(proposal.choice)
        proposing.learn(proposal, valued(proposal.choice))
    return found


NNI = pytest.mark.skipif(find_spec("nni") is None, reason="NNI is not installed: pip install '.[nni]'")
STRATEGIES = [
    pytest.param(word, marks=[NNI] if word.startswith("nni_") else []) for word in words("compress.search.strategies")
]
ENDLESS = [word for word in STRATEGIES if word.values != ("grid",)]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_recipe_is_proposed_once_and_then_none(strategy: str) -> None:
    found = proposals(strategy, 7, 99)
    assert len(found) == len({each.key for each in found}) == space().count() == 24


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_same_answers_lead_to_the_same_proposals(strategy: str) -> None:
    first, again, longer = (proposals(strategy, 7, count) for count in (12, 12, 16))
    assert [each.chosen for each in first] == [each.chosen for each in again]
    assert [each.chosen for each in longer[:12]] == [each.chosen for each in first], "more trials begin with the same"


@pytest.mark.parametrize("strategy", ENDLESS)
def test_numbers_lie_where_the_recipe_says(strategy: str) -> None:
    numbers = (
        "{v: {between: [0.5, 2]}, w: {between: [1, 500], log: true}, x: {between: [1.0e-4, 1.0e-2], log: true}, "
        "y: {between: [2, 8], step: 3}, z: {between: [1, 9]}}"
    )
    where, _ = space_of(yaml.safe_load(f"passes: [{{a: {numbers}}}]"))
    made, small = named("compress.search.strategies", strategy)(Start(space=where, directions=["minimize"], seed=1)), 0
    for _ in range(24):
        proposal = made.propose()
        v, w, x, y, z = proposal.choice.values.values()
        assert 0.5 <= v <= 2 and w in range(1, 501) and 1e-4 <= x <= 1e-2 and y in (2, 5, 8) and z in range(1, 10)
        assert [type(each) for each in (v, w, x, y, z)] == [float, int, float, int, int]
        small += w < 100
        made.learn(proposal, [x])
    assert small >= 8, "its logarithm is drawn evenly"


@pytest.mark.parametrize("word", ["tpe", "nsga2"])
def test_optunas_sampler_gets_arguments_that_it_knows_and_warns_of_none(word: str) -> None:
    """Of both 4.5 and 5: what 5.0 changed the default of is given, what it gave up is not."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sampler = samplers.sampler_of(word, 7)
    assert set(samplers.OF_TPE) <= set(signature(optuna.samplers.TPESampler).parameters)
    assert {"multivariate", "constant_liar", "group", "n_startup_trials"} == set(samplers.OF_TPE)
    assert type(sampler).__name__ == {"tpe": "TPESampler", "nsga2": "NSGAIISampler"}[word]


def test_without_optuna_the_error_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(MissingExtra, match=r"pip install 'segpress\[search\]'"):
        named("compress.search.strategies", "tpe")(Start(space=space(), directions=["minimize"], seed=1))
    assert len(proposals("random", 7, 3)) == 3


def test_what_is_chosen_of_a_network_is_called_by_its_place_in_it() -> None:
    names = ["network.nas_unet.width", "network.nas_unet.cell.down[0][0]", "passes[0].prune.ratio"]
    listed = [{"name": name} for name in names]
    assert list(titles(listed).values()) == ["width", "cell.down[0][0]", "prune.ratio"]
    said = chosen_in_words(listed, dict(zip(names, [8, "max_pool", 0.5], strict=True)))
    assert said == "width 8, cell.down[0][0] max_pool, prune.ratio 0.5"


def test_many_decisions_are_told_in_one_column() -> None:
    names = [f"network.nas_unet.cell.down[{place}][0]" for place in range(9)]
    objectives = [{"title": "Dice", "objective": "score"}]
    chosen = {"number": 1, "values": dict.fromkeys(names, "conv")}
    record: dict[str, Any] = {"trials": [chosen], "front": [{"trial": 1, "objectives": [0.5]}], "cases": {"val": 4}}
    record |= {"objectives": objectives, "reference": {"objectives": [0.4]}}
    for count, head in ((9, ["chosen"]), (2, ["cell.down[0][0]", "cell.down[1][0]"])):
        table = front_table({**record, "space": [{"name": name} for name in names[:count]]})
        assert list(table.head[3:]) == head and all(len(row) == len(table.head) for row in table.rows)
    assert "cell.down[8][0] conv" in front_table({**record, "space": [{"name": each} for each in names]}).rows[1][3]


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory, folder: Path, weights: Path) -> dict[str, Any]:
    """A recipe with choices over data whose test images nobody can read."""
    place = tmp_path_factory.mktemp("searched")
    shutil.copytree(folder, place / "data")
    for image in (place / "data" / "images").glob("test_*.png"):
        image.write_bytes(b"no image")
    return {
        "name": "tiny",
        "network": {"unet": {"classes": 3, "in_channels": 1, "width": 8, "depth": 2, "weights": str(weights)}},
        "data": {"folder": {"root": str(place / "data"), "size": [32, 32]}},
        "passes": [
            {"prune": {"ratio": {"choices": [0.25, 0.3]}, "multiple": 1}},
            {"choices": ["none", {"int8": {"calibrate": 8, "effort": "fast"}}]},
        ],
        "latency": {"samples": 10, "seconds": 0.2, "warm_up": 0, "threads": 1},
        "search": {"trials": 9, "strategy": "grid", "objectives": ["score", "latency_ms", "size_mb"]},
    }


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory, given: dict[str, Any]) -> tuple[Path, dict[str, Any]]:
    """A finished search, and its record."""
    place = tmp_path_factory.mktemp("found")
    search(load(write_recipe(place, given)), place / "out", say=quiet)
    return place / "out", json.loads((place / "out" / "search.json").read_text())


def test_a_search_ends_where_every_recipe_was_tried(found: tuple[Path, dict[str, Any]]) -> None:
    _, record = found
    assert record["format"] == 1 and record["exit_code"] == 0 and record["recipes"] == 4
    assert [each["state"] for each in record["trials"]] == ["finished"] * 4
    assert record["ended"] == "no recipe was left that had not been tried"


def test_steps_that_trials_share_are_done_once(found: tuple[Path, dict[str, Any]]) -> None:
    _, record = found
    shared = [[step["shared"] for step in each["steps"]] for each in record["trials"]]
    assert shared == [[False], [True, False], [False], [True, False]]


def test_test_cases_are_not_looked_at(found: tuple[Path, dict[str, Any]]) -> None:
    """Their images are none: reading one would have ended the search."""
    _, record = found
    assert record["looks"]["test"] == 0 and "test" not in record["cases"]
    # The uncompressed network and two that were pruned in torch, and its artifact and four others.
    assert record["looks"]["validation"] == 8


def test_a_point_of_the_front_is_a_recipe_for_run(found: tuple[Path, dict[str, Any]], given: dict[str, Any]) -> None:
    folder, record = found
    assert len(record["front"]) == len(list((folder / "front").glob("*.yaml"))) >= 2
    for number, point in enumerate(record["front"], start=1):
        chosen = next(each for each in record["trials"] if each["number"] == point["trial"])
        recipe = load_recipe(folder / point["file"])
        assert recipe.name == f"tiny-{number:02d}" and recipe.weights is not None and recipe.weights.is_file()
        assert point["command"] == f"compress run {folder / point['file']}"
        ratio = chosen["values"]["passes[0].prune.ratio"]
        assert recipe.text["passes"][0] == {"prune": {"ratio": ratio, "multiple": 1}}
        assert len(recipe.passes) == 1 + ("int8" in chosen["values"]["passes[1]"])


def test_a_point_finds_what_lay_beside_the_recipe_from_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shipped = Path(__file__).parent.parent / "recipes" / "phantom_unet_search.yaml"
    loaded = load(shipped)
    point = tmp_path / "runs" / "front" / "01.yaml"
    point.parent.mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    point.write_text(yaml.safe_dump(recipe_of(loaded, Trial(number=1, state="finished"), point, 1, None)))
    recipe = load_recipe(point)
    assert recipe.weights is not None and recipe.weights.samefile(
        shipped.parent / "weights" / "phantom_unet.safetensors"
    )
    assert recipe.passes == [] and recipe.gates and recipe.name == "phantom-unet-search-01"


def test_the_page_needs_nothing_beside_it(found: tuple[Path, dict[str, Any]]) -> None:
    folder, record = found
    page = (folder / "search.html").read_text()
    assert (
        page.count("<svg") == 2
        and "<script" not in page
        and not re.search(r'(src|href)="(?!#)|url\((?!#)|@import', page)
    )
    for point in record["front"]:
        assert point["command"] in page


def test_a_search_repeated_is_answered_from_what_is_kept(
    found: tuple[Path, dict[str, Any]], tmp_path: Path, given: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, record = found
    shutil.copytree(folder, tmp_path / "out")
    monkeypatch.setattr(Bench, "trial", None)
    again = search(load(write_recipe(folder.parent, given)), tmp_path / "out", say=quiet)
    assert json.loads(json.dumps(again["trials"])) == record["trials"]


@pytest.fixture
def cheap(given: dict[str, Any], found: Any, tmp_path: Path) -> dict[str, Any]:
    """A search whose trials are all stopped before their export, in a folder that has the uncompressed network."""
    shutil.copytree(found[0], tmp_path / "out")
    objectives = [{"score": {"at_least": 0.99}}, "size_mb"]
    return {**deepcopy(given), "search": {"trials": 4, "strategy": "tpe", "margin": 0.001, "objectives": objectives}}


def test_a_search_that_was_cut_goes_on_and_ends_as_an_undisturbed_one(
    cheap: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(tmp_path / "out", tmp_path / "cut")
    loaded = load(write_recipe(tmp_path, cheap))
    whole = search(loaded, tmp_path / "out", say=quiet)
    assert [each["state"] for each in whole["trials"]] == ["stopped"] * 4
    assert all("more than 0.001 below 0.99" in each["why"] for each in whole["trials"])
    assert whole["exit_code"] == 3 and whole["front"] == []
    made, original = [], Bench.trial

    def cut(self: Bench, number: int, *rest: Any) -> Trial:
        made.append(number)
        outcome = original(self, number, *rest)
        if made == [1, 2, 3]:
            # Its steps are done, and it is not kept.
            raise KeyboardInterrupt
        return outcome

    monkeypatch.setattr(Bench, "trial", cut)
    with pytest.raises(KeyboardInterrupt):
        search(loaded, tmp_path / "cut", say=quiet)
    again = search(loaded, tmp_path / "cut", say=quiet)
    assert made == [1, 2, 3, 3, 4]
    parts = ("number", "chosen", "state", "why", "torch_scores")
    assert [[each[part] for part in parts] for each in again["trials"]] == [
        [each[part] for part in parts] for each in whole["trials"]
    ]
    assert all(step["shared"] for step in again["trials"][2]["steps"])


def test_networks_that_have_no_weights_are_trained_once_each(cheap: dict[str, Any], tmp_path: Path) -> None:
    width = {"choices": [2, 3]}
    cheap["network"] = {"unet": {"classes": 3, "in_channels": 1, "width": width, "depth": 1}}
    cheap["data"]["folder"] |= {"normalization": {"mean": [0.45], "std": [0.2]}, "batch": 2}
    cheap["train"] = {"epochs": 3, "rate": 0.05, "augment": "none"}
    cheap["passes"] = []
    cheap["search"] |= {"strategy": "grid", "objectives": ["score", "params"], "margin": None}
    record = search(load(write_recipe(tmp_path, cheap)), tmp_path / "out", say=quiet)
    assert len(list((tmp_path / "out" / "trained").iterdir())) == 2 == len(record["trials"])
    for point in record["front"]:
        recipe = load_recipe(tmp_path / "out" / point["file"])
        assert recipe.train is None and recipe.weights is not None and recipe.weights.is_file()


@pytest.mark.usefixtures("one_thread")
def test_trials_made_at_once_end_as_those_made_one_after_the_other(
    found: Any, given: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here another process is this one; that Ray has others do the same is a slow test."""
    shutil.copytree(found[0], tmp_path / "out")
    objectives = ["score", "size_mb"]
    loaded = load(write_recipe(tmp_path, {**given, "search": {**given["search"], "objectives": objectives}}))
    orders: list[list[int]] = []

    @contextmanager
    def here(workers: Workers, _: Any) -> Iterator[Any]:
        def each(work: Any, wanted: Any) -> list[Any]:
            orders.append([order.number for order in wanted])
            # The process that made the first of them died.
            return [
                None,
                *(pickle.loads(pickle.dumps(work(pickle.loads(pickle.dumps(order))))) for order in wanted[1:]),
            ]

        yield Processes(count=workers.count, threads=1, each=each)

    monkeypatch.setattr("compress.commands.search.opened", here)
    record = search(loaded, tmp_path / "out", say=quiet, workers=Workers(count=3))
    assert orders == [[1, 2, 3], [4]]
    assert [each["chosen"] for each in record["trials"]] == [each["chosen"] for each in found[1]["trials"]]
    assert [each["state"] for each in record["trials"]] == ["finished"] * 4 and record["front"]


@pytest.mark.slow
def test_ray_makes_trials_at_once(given: dict[str, Any], tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="the extra `cluster` has Ray")
    said: list[str] = []
    record = search(load(write_recipe(tmp_path, given)), tmp_path / "out", say=said.append, workers=Workers(count=2))
    assert [each["state"] for each in record["trials"]] == ["finished"] * 4 and record["front"]
    assert any(line.startswith("2 workers of ") for line in said)


def test_without_ray_the_error_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtra, match=r"pip install 'segpress\[cluster\]'"), opened(Workers(count=2), quiet):
        pass
    with opened(Workers(), quiet) as processes:
        assert processes.each(abs, [-1, 2]) == [1, 2]


def test_two_searches_in_one_folder_are_refused(cheap: dict[str, Any], tmp_path: Path) -> None:
    with claimed(tmp_path / "out", fresh=False), pytest.raises(SurroundingsError, match="another run is writing there"):
        search(load(write_recipe(tmp_path, cheap)), tmp_path / "out", say=quiet)


def test_a_combination_that_a_pass_refuses_is_a_refused_trial(cheap: dict[str, Any], tmp_path: Path) -> None:
    where = {"choices": ["*", "no.such.layer"]}
    last = [{"choices": ["half", "none"]}, {"choices": ["int8", "none"]}]
    cheap["passes"] = [{"depthwise": {"where": where, "at_least": 4, "refit": False}}, *last]
    cheap["search"] |= {"strategy": "grid", "trials": 6}
    record = search(load(write_recipe(tmp_path, cheap)), tmp_path / "out", say=quiet)
    states = [each["state"] for each in record["trials"]]
    assert states == ["refused", "stopped", "stopped", "stopped", "refused", "refused"]
    assert "takes a network in float" in record["trials"][0]["why"]
    assert "no.such.layer" in record["trials"][5]["why"]


def test_what_nobody_foresaw_in_one_trial_does_not_end_the_search(
    cheap: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = Prune.__call__

    def fails(self: Prune, net: Any, task: Any) -> Any:
        if self.ratio == 0.35:
            raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")
        return original(self, net, task)

    monkeypatch.setattr(Prune, "__call__", fails)
    cheap["passes"] = [{"prune": {"ratio": {"choices": [0.35, 0.25]}, "multiple": 1}}]
    record = search(load(write_recipe(tmp_path, cheap)), tmp_path / "out", say=quiet)
    assert sorted(each["state"] for each in record["trials"]) == ["refused", "stopped"]
    (why,) = (each["why"] for each in record["trials"] if each["state"] == "refused")
    assert why == "unexpected RuntimeError: mat1 and mat2 shapes cannot be multiplied; its trace is in log.txt"
    assert "Traceback" in (tmp_path / "out" / "log.txt").read_text()


def test_a_front_beyond_its_limits_is_none_and_fails(found: Any, given: dict[str, Any], tmp_path: Path) -> None:
    shutil.copytree(found[0], tmp_path / "out")
    objectives = ["score", {"size_mb": {"at_most": 1e-6}}]
    given = {**given, "search": {**given["search"], "objectives": objectives}}
    record = search(load(write_recipe(tmp_path, given)), tmp_path / "out", say=quiet)
    assert record["exit_code"] == 1 and record["front"] == []
    assert all(step["shared"] for each in record["trials"] for step in each["steps"])


def test_no_trial_is_begun_once_the_minutes_are_over(cheap: dict[str, Any], tmp_path: Path) -> None:
    cheap["search"]["minutes"] = 1e-9
    record = search(load(write_recipe(tmp_path, cheap)), tmp_path / "out", say=quiet)
    assert len(record["trials"]) == 1 and "minutes of trials are over" in record["ended"]


def refusal(kind: type[Exception], recipe: dict[str, Any], place: Path) -> str:
    with pytest.raises(kind) as error:
        search(load(write_recipe(place, recipe)), place / "out", say=quiet)
    return str(error.value)


def test_what_cannot_be_measured_here_is_told_before_any_trial(cheap: dict[str, Any], tmp_path: Path) -> None:
    cheap["devices"] = ["cpu", "rtx_40"]
    cheap["search"]["objectives"] = ["score", {"latency_ms": {"device": "rtx_40", "backend": "tensorrt"}}]
    assert "nothing can be measured there" in refusal(NotHere, cheap, tmp_path)


def test_an_extra_that_is_missing_is_told_before_anything_is_measured(cheap: dict[str, Any], tmp_path: Path) -> None:
    cheap["search"]["strategy"] = "nni_evolution"
    with pytest.MonkeyPatch.context() as patched:
        patched.setitem(sys.modules, "nni", None)
        patched.setattr(Bench, "reference", None)
        assert "pip install 'segpress[nni]'" in refusal(MissingExtra, cheap, tmp_path)


def test_a_class_that_is_not_there_is_told_before_any_trial(cheap: dict[str, Any], tmp_path: Path) -> None:
    cheap["search"]["objectives"] = [{"score": {"class": "circle"}}]
    assert "no foreground class 'circle'; there are square, disc" in refusal(RecipeError, cheap, tmp_path)


def test_without_validation_cases_nothing_is_chosen(cheap: dict[str, Any], tmp_path: Path) -> None:
    root = tmp_path / "data"
    shutil.copytree(cheap["data"]["folder"]["root"], root)
    table = (root / "split.csv").read_text()
    (root / "split.csv").write_text(table.replace(",val\n", ",train\n"))
    cheap["data"] = {"folder": {"root": str(root), "size": [32, 32]}}
    assert "there are no validation cases, and test cases choose nothing" in refusal(DataError, cheap, tmp_path)


def test_a_network_that_finds_nothing_is_told_before_any_trial(
    cheap: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nothing = {"scores": {"dice": 0.0, "per_class": {}}, "reason": None}
    monkeypatch.setattr("compress.search.bench.on_artifact", lambda *_: nothing)
    assert "the uncompressed network's Dice is 0.0000 on the 4 validation cases" in refusal(DataError, cheap, tmp_path)


def test_the_command_prints_the_front_and_ends_with_its_exit_code(
    found: Any,
    given: dict[str, Any],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shutil.copytree(found[0], tmp_path / "runs" / "tiny")
    recipe = write_recipe(tmp_path, given)
    monkeypatch.setattr(sys, "argv", ["compress", "search", str(recipe), "--out", str(tmp_path / "runs")])
    with pytest.raises(SystemExit) as ended:
        main()
    said = capsys.readouterr()
    assert ended.value.code == 0, said.err
    assert "The front" in said.out and "trial 4 of 9 (prune.ratio 0.3, int8)" in said.out
    assert "front/01.yaml" in "".join(said.out.split())
    monkeypatch.setattr(sys, "argv", ["compress", "check", str(recipe), "--quick"])
    with pytest.raises(SystemExit):
        main()
    assert "2 decisions, 4 recipes; 9 trials by grid" in "".join(capsys.readouterr().out.splitlines())


def test_names_in_brackets_are_told_as_they_are() -> None:
    console = Console(record=True, width=80)
    show_table(Table(title="[/b]", head=("[/i]", "[x](<b>)"), align="ll", rows=[("[/u]", "1")]), console)
    assert "[/i]  [x](<b>)" in console.export_text()
