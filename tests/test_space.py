"""Recipes with choices: which recipes they stand for, and what is refused before anything runs."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from shared_fixtures import write_recipe

from compress.errors import RecipeError
from compress.recipe import load as load_recipe
from compress.search.foreseen import foreseen
from compress.search.json_schema import schema
from compress.search.loading import load
from compress.search.objectives.judging.objective import Place
from compress.search.space.space import Space, space_of

HERE = Place(backend="onnxruntime", device="cpu")


def space(text: str) -> Space:
    found, mistakes = space_of(yaml.safe_load(text))
    assert mistakes == []
    return found


def passes(text: str) -> list[Any]:
    return [choice.text["passes"] for choice in space(f"passes: {text}").every()]


def mistakes(text: str) -> list[str]:
    return space_of(yaml.safe_load(text))[1]


def test_a_value_becomes_each_of_its_choices() -> None:
    assert passes("[{prune: {ratio: {choices: [0.25, 0.5]}}}]") == [
        [{"prune": {"ratio": 0.25}}],
        [{"prune": {"ratio": 0.5}}],
    ]


def test_in_a_list_none_is_no_entry_and_a_list_is_all_of_its_entries() -> None:
    assert passes("[a, {choices: [none, b, [c, d]]}, e]") == [["a", "e"], ["a", "b", "e"], ["a", "c", "d", "e"]]


def test_a_list_as_an_options_value_stays_one() -> None:
    assert passes("[{x: {size: {choices: [[8, 8], none]}}}]") == [[{"x": {"size": [8, 8]}}], [{"x": {"size": "none"}}]]


@pytest.mark.parametrize(
    ("given", "numbers"),
    [
        ("{between: [1, 3]}", [1, 2, 3]),
        ("{between: [2, 8], step: 3}", [2, 5, 8]),
        ("{between: [0.1, 0.4], step: 0.1}", [0.1, 0.2, 0.3, 0.4]),
    ],
)
def test_numbers_in_steps_are_those_that_are_written(given: str, numbers: list[float]) -> None:
    assert passes(f"[{{x: {{y: {given}}}}}]") == [[{"x": {"y": number}}] for number in numbers]


def test_a_choice_with_a_name_is_the_same_wherever_it_stands() -> None:
    found = space("{choices: {w: [8, 16]}, network: {unet: {width: {choice: w}}}, passes: [{x: {y: {choice: w}}}]}")
    assert [(each.text["network"]["unet"]["width"], each.text["passes"][0]["x"]["y"]) for each in found.every()] == [
        (8, 8),
        (16, 16),
    ]
    assert "choices" not in found.text


def test_what_stands_in_a_pass_that_is_left_out_is_not_decided() -> None:
    found = space("passes: [{choices: [none, {x: {y: {choices: [1, 2, 3]}}}]}]")
    assert [dict(each.values) for each in found.every()] == [
        {"passes[0]": "none"},
        {"passes[0]": {"x": {"y": 1}}, "passes[0].x.y": 1},
        {"passes[0]": {"x": {"y": 2}}, "passes[0].x.y": 2},
        {"passes[0]": {"x": {"y": 3}}, "passes[0].x.y": 3},
    ]
    assert found.count() == 4


def test_two_passes_of_one_word_have_decisions_of_their_own() -> None:
    found = space("passes: [{choices: [{x: {y: {choices: [1, 2]}}}, {x: {y: {choices: [3, 4]}}}]}]")
    assert [each.text["passes"][0]["x"]["y"] for each in found.every()] == [1, 2, 3, 4]
    assert len({each.name for each in found.decisions.values()}) == 3


def test_numbers_without_steps_are_endlessly_many() -> None:
    assert space("passes: [{x: {y: {between: [0.1, 0.4]}}}]").count() is None


def test_an_argument_of_anothers_network_that_is_called_so_is_no_choice() -> None:
    assert mistakes("network: {python: {args: {choices: 3, width: 8}}}")[0].startswith("has no choices")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x: {y: {choices: []}}", "x.y: choices: a list of values"),
        ("x: {y: {choices: 3}}", "x.y: choices: a list of values"),
        ("x: {y: {choices: [1, 2, 1]}}", "x.y: choices: 1 is given twice"),
        ("x: {y: {between: [3, 1]}}", "x.y: between: [3, 1] is not two numbers, the lower first"),
        ("x: {y: {between: [1, true]}}", "x.y: between: [1, True] is not two numbers"),
        ("x: {y: {between: [0.2, 0.85], step: 0.1}}", "0.8 would be"),
        ("x: {y: {between: [1, 2], step: 0}}", "x.y: step: 0 is not a number above 0"),
        ("x: {y: {between: [0, 2], log: true}}", "x.y: log: takes no step, and two numbers above 0"),
        ("x: {y: {between: [1, 2], log: 3}}", "x.y: log: 3 is not true or false"),
        ("x: {y: {choice: w}}", "x.y: no choice is named 'w'; there are none"),
        ("{choices: {v: [1]}, x: {y: {choice: w}}}", "x.y: no choice is named 'w'; there are v"),
        ("{choices: {v: [1]}, x: {y: {choices: [1, 2]}}}", "choices.v: stands nowhere"),
        ("{choices: {v: 3}, x: {y: {choice: v}}}", "choices.v: choices: a list of values"),
        ("{choices: [1], x: {y: {choices: [1, 2]}}}", "choices: names, each with what it may be"),
        ("{choices: {v: [1, 2], w: [{choice: v}]}, x: [{choice: v}, {choice: w}]}", "refers to no other"),
    ],
)
def test_a_choice_that_is_none_is_told_with_its_place(text: str, said: str) -> None:
    assert any(said in line for line in mistakes(text)), mistakes(text)


@pytest.fixture
def searched(recipe: dict[str, Any]) -> dict[str, Any]:
    """The whole recipe with choices."""
    recipe["passes"] = [
        {"prune": {"ratio": {"choices": [0.25, 0.5]}, "multiple": 1}},
        {"choices": ["none", {"int8": {"calibrate": 8, "effort": "fast"}}]},
    ]
    recipe["search"] = {"trials": 4, "strategy": "grid", "objectives": ["score", "size_mb"]}
    return recipe


def refused(place: Path, recipe: dict[str, Any]) -> list[str]:
    with pytest.raises(RecipeError) as error:
        load(write_recipe(place, recipe))
    return error.value.mistakes


def test_a_recipe_with_choices_is_good(searched: dict[str, Any], tmp_path: Path) -> None:
    found = load(write_recipe(tmp_path, searched))
    assert found.space.count() == 4 and [word for word, _ in found.settings.objectives] == ["score", "size_mb"]


def test_run_refuses_choices_and_names_search(searched: dict[str, Any], tmp_path: Path) -> None:
    for section in (searched, {**searched, "passes": []}, {key: searched[key] for key in searched if key != "search"}):
        with pytest.raises(RecipeError, match="`compress search` tries them"):
            load_recipe(write_recipe(tmp_path, section))


def test_search_refuses_a_recipe_without_choices_and_names_run(recipe: dict[str, Any], tmp_path: Path) -> None:
    (said,) = refused(tmp_path, recipe)
    assert "`compress run` runs it" in said
    recipe["search"] = {"objectives": ["score"]}
    (said,) = refused(tmp_path, recipe)
    assert "`compress run` runs it" in said


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"search": {}}, "search.objectives: a list of what counts"),
        ({"search": {"objectives": ["size_mb"]}}, "search.objectives: lacks score"),
        ({"search": {"objectives": ["score", "sice_mb"]}}, "did you mean 'size_mb'?"),
        ({"search": {"objectives": ["score", {"size_mb": {"at_least": 3}}]}}, "no option 'at_least'"),
        ({"search": {"objectives": ["score", "score"]}}, "the same objective is given twice"),
        ({"search": {"objectives": ["score"], "strategy": "tpee"}}, "did you mean 'tpe'?"),
        ({"search": {"objectives": ["score"], "trials": 0}}, "trials"),
        ({"search": {"objectives": [{"score": {"device": "orin_nano"}}]}}, "the recipe has no device 'orin_nano'"),
        ({"search": {"objectives": [{"score": {"backend": "tensorrt"}}]}}, "cpu has no backend 'tensorrt'"),
        ({"passes": [{"prune": {"ratio": {"between": [0.2, 0.5]}}}]}, "grid takes numbers in steps: give passes[0]"),
        ({"compare": {"alone": ["int8"]}}, "compare: a search compares its own trials"),
        ({"search": {"objectives": [{"score": {"at_least": 80}}]}}, "at_least: 80: input should be less than or equal"),
        ({"search": {"objectives": ["score", {"size_mb": {"at_most": -1}}]}}, "at_most: -1: input should be greater"),
        ({"name": {"choices": ["a", "b"]}}, "name: what is chosen here makes no difference"),
        ({"gates": [{"size_mb": {"at_most": {"between": [1, 2]}}}]}, "gates[0].size_mb.at_most: what is chosen here"),
        ({"latency": {"samples": {"choices": [20, 30]}}}, "latency.samples: what is chosen here"),
        ({"passes": [{"prune": {"ratio": {"between": [0.2, 0.4], "stp": 0.1}}}]}, "'stp' beside 'between', beside wh"),
        ({"passes": [{"choices": ["int8", {"choices": ["half"], "x": 1}]}]}, "passes[0].choices[1]: 'x' beside 'cho"),
        ({"passes": [{"prune": {"ratio": {"choices": [0.5, 1.5]}}}]}, "passes[0].prune.ratio: with 1.5: "),
        ({"passes": [{"prune": {"ratio": {"between": [0.5, 1.5]}}}]}, "passes[0].prune.ratio: with 1.5: "),
        ({"passes": [{"choices": ["none", "int9"]}]}, "passes[0]: with int9: passes[0] (int9): no such pass"),
        ({"passes": [{"choices": ["int8"]}], "opset": 7}, "opset: 7 is not one of"),
    ],
)
def test_every_value_is_tried_before_anything_runs(
    change: dict[str, Any], said: str, searched: dict[str, Any], tmp_path: Path
) -> None:
    lines = refused(tmp_path, {**searched, **change})
    assert len(lines) == 1 and said in lines[0], lines


def test_a_value_that_is_wrong_in_some_recipes_only_is_let_through(searched: dict[str, Any], tmp_path: Path) -> None:
    searched["passes"] = [{"choices": ["half", "none"]}, {"choices": ["int8", "none"]}]
    assert load(write_recipe(tmp_path, searched)).space.count() == 4


@pytest.fixture(scope="module")
def errors() -> Any:
    """What an editor finds wrong in a recipe."""
    validator = pytest.importorskip("jsonschema", reason="nncf, of the extra `benchmarks`, brings it")
    made = validator.Draft202012Validator(schema())
    return lambda recipe: list(made.iter_errors(recipe))


def test_the_schema_takes_choices_wherever_a_value_stands(searched: dict[str, Any], errors: Any) -> None:
    searched["data"]["folder"]["size"] = {"choices": [[32, 32], [64, 64]]}
    searched["network"]["unet"]["width"] = {"choice": "width"}
    searched["choices"] = {"width": [8, 16], "rate": {"between": [1e-4, 1e-2], "log": True}}
    searched["passes"] += [{"distill": {"choices": [{"epochs": 2}, {"steps": {"between": [10, 90], "step": 10}}]}}]
    searched["passes"] += [{"choices": ["none", ["half", {"distill": {"rate": {"choice": "rate"}}}]]}]
    assert errors(searched) == []


@pytest.mark.parametrize(
    "change",
    [
        {"passes": [{"choices": ["none", "int9"]}]},
        {"passes": [{"prune": {"ratio": {"choices": ["many"]}}}]},
        {"passes": [{"prune": {"ratio": {"between": [0.2]}}}]},
        {"search": {"trials": 3}},
        {"search": {"objectives": ["speed"]}},
        {"search": {"objectives": ["score"], "strategy": "luck"}},
    ],
)
def test_the_schema_refuses_what_a_search_refuses(
    change: dict[str, Any], searched: dict[str, Any], errors: Any
) -> None:
    assert errors(searched | change)


def test_what_the_page_shows_is_good(tmp_path: Path) -> None:
    page = (Path(__file__).parent.parent / "docs" / "search.md").read_text()
    opened, scratch, section = (yaml.safe_load(each) for each in re.findall(r"```yaml\n(.*?)```", page, re.DOTALL))
    network = {"unet": {"classes": 2, "in_channels": 1}}
    found = load(write_recipe(tmp_path, {"network": network, "devices": ["cpu", "orin_nano"], **opened, **section}))
    assert found.goals.places == [HERE, Place(backend="tensorrt", device="orin_nano")]
    whole = {"data": {"synthetic": {}}, "passes": [], "devices": ["cpu", "orin_nano"], **scratch, **section}
    assert load(write_recipe(tmp_path, whole)).first.train is not None


def test_a_choice_may_have_any_name(searched: dict[str, Any], tmp_path: Path) -> None:
    names = [7, None, "größe mit | . leer", "a|1b", "[x](<b>)"]
    searched["choices"] = {name: [0.25, 0.5] for name in names}
    searched["passes"] = [{"prune": {"ratio": {"choice": name}, "multiple": 1}} for name in names]
    found = load(write_recipe(tmp_path, searched))
    assert found.space.count() == 2 ** len(names)
    assert [each.name for each in found.space.decisions.values()] == [str(name) for name in names]
    chosen = found.space.choice(lambda decision: int("7" in decision.name)).text["passes"]
    assert [each["prune"]["ratio"] for each in chosen] == [0.5, 0.25, 0.25, 0.25, 0.25]


def test_numbers_in_billions_of_steps_take_no_memory(searched: dict[str, Any], tmp_path: Path) -> None:
    searched["seed"] = {"between": [0, 4_000_000_000]}
    found = load(write_recipe(tmp_path, searched))
    listed = found.space.decisions["seed"].domain.listed()
    assert (len(listed), listed[3_999_999_999], listed[-1]) == (4_000_000_001, 3_999_999_999, 4_000_000_000)
    assert listed[1:3] == (1, 2) and found.space.count() is None
    with pytest.raises(IndexError):
        listed[4_000_000_001]


def test_an_objective_means_the_device_that_a_gate_means(searched: dict[str, Any], tmp_path: Path) -> None:
    """`orin_nano`, wherever it is; of two of them one must be named."""
    searched["search"]["objectives"] = ["score", {"latency_ms": {"device": "orin_nano", "backend": "tensorrt"}}]
    searched["devices"] = ["cpu", {"orin_nano": {"at": "tower-7"}}]
    found = load(write_recipe(tmp_path, searched))
    assert found.goals.places[1] == Place(backend="tensorrt", device="orin_nano@tower-7")
    searched["devices"].append({"orin_nano": {"at": "tower-8"}})
    (said,) = refused(tmp_path, searched)
    assert "no device 'orin_nano'; there are cpu, orin_nano@tower-7, orin_nano@tower-8" in said


def test_check_sees_what_a_search_would_stop_at(searched: dict[str, Any], tmp_path: Path) -> None:
    searched["search"]["objectives"] = [{"score": {"class": "spleen"}}]
    assert foreseen(load(write_recipe(tmp_path, searched))) == [
        "search.objectives: no foreground class 'spleen'; there are class 1, class 2"
    ]
