"""Recipes: a good one loads, and a wrong one is told where it is wrong and what would be right."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from compress.data.dataset.cases import Normalization
from compress.data.folder import Folder
from compress.data.synthetic import Synthetic
from compress.errors import DataError, RecipeError, WeightsError
from compress.networks.unet import UNet
from compress.passes.int8 import Int8
from compress.recipe import KEYS, Recipe, load, schema
from compress.search.loading import has_choices
from compress.search.loading import load as load_search
from compress.storage.description import Description
from compress.storage.weights import save_net
from compress.train.training import Training
from export.registry import words

# A recipe of a network of nnU-Net reads its results folder: tests/test_nnunet.py loads it beside one.
SHIPPED = sorted(
    path for path in (Path(__file__).parent.parent / "recipes").rglob("*.yaml") if path.parent.name != "nnunet"
)
GOOD = """
name: good
seed: 3
network:
  unet: {classes: 3, width: 4, depth: 2, weights: weights/none.safetensors}
data:
  folder: {root: data/none, size: [64, 48], spacing: [0.5, 0.25]}
passes:
  - int8: {calibrate: 8, method: entropy}
opset: 21
dynamic: [batch]
devices: [cpu, rtx_40]
latency: {samples: 44, threads: 1}
train: {epochs: 2, rate: 3e-4}
gates:
  - dice_drop: {at_most: 0.01, class: nerve}
  - speedup: {at_least: 1.5, over: onnxruntime, percentile: 95}
"""
SHORT = "network: {unet: {classes: 2}}\ndata: synthetic\n"


def written(folder: Path, text: str) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def mistakes(folder: Path, text: str) -> list[str]:
    """What is said of a recipe; without its own path, which comes first."""
    path = written(folder, text)
    with pytest.raises(RecipeError) as told:
        load(path)
    assert str(told.value).startswith(f"{path}: ")
    return told.value.mistakes


def the_mistake(folder: Path, text: str) -> str:
    (only,) = mistakes(folder, text)
    return only


def test_a_good_recipe_loads_without_its_data_and_weights(tmp_path: Path) -> None:
    recipe = load(written(tmp_path, GOOD))
    assert (recipe.name, recipe.seed, recipe.opset, recipe.dynamic) == ("good", 3, 21, ("batch",))
    assert recipe.network == {"unet": dataclasses.asdict(UNet(classes=3, width=4, depth=2))}
    assert recipe.weights == tmp_path / "weights/none.safetensors"
    assert recipe.data == Folder(root=tmp_path / "data/none", size=(64, 48), spacing=(0.5, 0.25))
    assert recipe.passes == [("int8", Int8(calibrate=8, method="entropy"))]
    assert [device.name for device in recipe.devices] == ["cpu", "rtx_40"]
    assert recipe.train == Training(epochs=2, rate=3e-4)
    assert [(name, gate.bound.limit) for name, gate in recipe.gates] == [("dice_drop", 0.01), ("speedup", 1.5)]
    assert (recipe.gates[0][1].class_name, recipe.gates[1][1].percentile) == ("nerve", 95)


def test_what_is_left_out_has_a_default(tmp_path: Path) -> None:
    recipe = load(written(tmp_path, SHORT + "passes:\ngates:\n"))
    assert recipe.name == "recipe"
    assert recipe.data == Synthetic()
    assert (recipe.passes, recipe.gates, recipe.train, recipe.weights) == ([], [], None, None)
    assert [device.name for device in recipe.devices] == ["cpu"]


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_a_shipped_recipe_loads_from_anywhere(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    recipe = load_search(path).first if has_choices(path) else load(path)
    assert recipe.gates or recipe.train is not None


def test_a_path_is_looked_for_beside_the_recipe_then_where_we_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    text = "network: {unet: {classes: 2, weights: net.pt}}\ndata: synthetic\n"
    beside = tmp_path / "net.pt"
    assert load(written(tmp_path, text)).weights == beside
    (here / "net.pt").touch()
    assert load(written(tmp_path, text)).weights == Path("net.pt")
    beside.touch()
    assert load(written(tmp_path, text)).weights == beside


def test_the_data_folder_may_be_given_from_outside(tmp_path: Path) -> None:
    for data in ("{folder: {root: elsewhere, size: [64, 64]}}", "{folder: {size: [64, 64]}}"):
        recipe = load(written(tmp_path, f"network: {{unet: {{classes: 2}}}}\ndata: {data}\n"), tmp_path / "mine")
        assert recipe.data == Folder(root=tmp_path / "mine", size=(64, 64))
        assert recipe.text["data"]["folder"]["root"] == str(tmp_path / "mine")
    assert load(written(tmp_path, SHORT.replace("synthetic", "folder")), tmp_path / "mine").data.root.name == "mine"


@pytest.mark.parametrize(
    ("data", "told"),
    [
        ("synthetic", "--data gives a folder, but the recipe's data is not a folder"),
        ("{synthetic: {}}", "--data gives a folder, but the recipe's data is not a folder"),
        ("5", "--data gives a folder, but the recipe's data is not a folder"),
        ("{folder: images}", r"data \(folder\): its options are names with values, not 'images'"),
        ("{folder: {}, synthetic: {}}", "data: one word and its options"),
    ],
)
def test_a_data_folder_from_outside_needs_a_recipe_that_takes_one(tmp_path: Path, data: str, told: str) -> None:
    path = written(tmp_path, f"network: {{unet: {{classes: 2}}}}\ndata: {data}\n")
    with pytest.raises(RecipeError, match=told):
        load(path, tmp_path)


@pytest.mark.parametrize(
    ("line", "told"),
    [
        # A word
        ("pases: []", "no key 'pases'; did you mean 'passes'?"),
        (
            "5: 6",
            "no key '5'; there are about, compare, data, devices, dynamic, gates, latency, name, network, opset, ",
        ),
        ("passes: [int9: {}]", "passes[0] (int9): no such pass; did you mean 'int8'?"),
        ("passes: [int8, inte8]", "passes[1] (inte8): no such pass; did you mean 'int8'?"),
        ("passes: [int8: {most_drop: 0.01}]", "passes[0] (int8): 'most_drop' is now 'max_drop'"),
        ("passes: [int8: {keep_float: [head]}]", "passes[0] (int8): 'keep_float' is now 'keep'"),
        ("passes: [sparsify: {keep_dense: [head]}]", "passes[0] (sparsify): 'keep_dense' is now 'keep'"),
        (
            "passes: [truncate: {level: auto, drop: 0.1, max_drop: 0.1}]",
            "passes[0] (truncate): 'drop' is now 'max_drop'",
        ),
        ("devices: [cpu, rtx40]", "devices[1] (rtx40): no such device; did you mean 'rtx_40'?"),
        ("devices: [cpu, cpu]", "devices[1]: 'cpu' is given twice"),
        ("devices: [cpu: {at: a}, cpu: {at: a}]", "devices[1]: 'cpu@a' is given twice"),
        ("devices: [cpu: {att: a}]", "devices[0] (cpu): no option 'att'; did you mean 'at'?"),
        (
            "passes: [int8, prune: {ratio: 0.5}]",
            "passes[1] (prune): takes a network in float, and int8 made it integers; give prune before int8",
        ),
        (
            "passes: [int8, int8]",
            "passes[1] (int8): takes a network in float, and int8 made it integers; give it once",
        ),
        (
            "devices: [orin_nano: {at: tower-7, dla: 0}]",
            "devices[0] (orin_nano): dla: Jetson Orin Nano has no DLA core; leave it out",
        ),
        ("dynamic: [batsh]", "dynamic: no axis 'batsh'; did you mean 'batch'?"),
        ("gates: [dicedrop: {at_most: 1}]", "gates[0] (dicedrop): no such gate; did you mean 'dice_drop'?"),
        ("gates: [size_mb: {at_most: 1, device: cpuu}]", "gates[0] (size_mb): no device 'cpuu'; did you mean 'cpu'?"),
        (
            "gates: [size_mb: {at_most: 1, backend: onnxrt}]",
            "gates[0] (size_mb): no backend 'onnxrt'; did you mean 'onnxruntime'?",
        ),
        (
            "gates: [speedup: {at_least: 1, over: trch}]",
            "gates[0] (speedup): no backend or step 'trch'; did you mean 'torch'?",
        ),
        (
            "gates: [speedup: {at_least: 1, over: 01-int8}]",
            "gates[0] (speedup): no backend or step '01-int8'; there are baseline, onnxruntime, ",
        ),
        ("passes: [int8]\ncompare: [int8]", "compare: titles, each with its passes, such as 'int8_alone: [int8]'"),
        (
            "passes: [int8]\ncompare: {torch: [int8]}",
            "compare.torch: cannot be a title; use small letters, digits and '_', and no backend",
        ),
        ("passes: [int8]\ncompare: {alone: []}", "compare.alone: a list of passes, each one word and its options"),
        ("passes: [int8]\ncompare: {alone: [int9]}", "compare.alone[0] (int9): no such pass; did you mean 'int8'?"),
        ("compare: {alone: [int8]}", "compare: the recipe has no passes of its own to compare; give passes"),
        # An option
        ("passes: [int8: {methd: mse}]", "passes[0] (int8): no option 'methd'; did you mean 'method'?"),
        (
            "latency: {smples: 5}",
            "latency: no option 'smples'; did you mean 'samples'?",
        ),
        ("train: {epoch: 5}", "train: no option 'epoch'; did you mean 'epochs'?"),
        ("gates: [dice_drop: {at_mst: 1}]", "gates[0] (dice_drop): no option 'at_mst'; did you mean 'at_most'?"),
        (
            "gates: [dice_drop: {at_most: 1, percentile: 95}]",
            "gates[0] (dice_drop): no option 'percentile'; there are at_most, backend, class, device",
        ),
        (
            "gates: [size_mb: {at_most: 1}, dice_drop: {at_most: 1, class_name: a}]",
            "gates[1] (dice_drop): no option 'class_name'; did you mean 'class'?",
        ),
        ("gates: [dice_drop]", "gates[0] (dice_drop): lacks the option 'at_most'"),
        ("gates: [speedup: {}]", "gates[0] (speedup): lacks the option 'at_least'"),
        # A value
        (
            "passes: [int8: {method: entrophy}]",
            "passes[0] (int8): method: 'entrophy' is not one of min_max, percentile, entropy, mse; "
            "did you mean 'entropy'?",
        ),
        (
            "passes: [int8: {percentile: 40}]",
            "passes[0] (int8): percentile: 40: input should be greater than 50",
        ),
        ("passes: [int8: {calibrate: true}]", "passes[0] (int8): calibrate: True is not a number or a word"),
        ("passes: [int8: {method: no}]", "passes[0] (int8): method: False is not a number or a word"),
        ("passes: [int8: false]", "passes[0] (int8): its options are names with values, not False"),
        (
            "gates: [latency_ms: {at_most: 5, percentile: 97}]",
            "gates[0] (latency_ms): percentile: 97 is not one of 50, 90, 95, 99; did you mean '99'?",
        ),
        (
            "gates: [latency_ms: {at_most: 5, percentile: '95'}]",
            "gates[0] (latency_ms): percentile: '95' is not one of 50, 90, 95, 99",
        ),
        ("gates: [size_mb: {at_most: yes}]", "gates[0] (size_mb): at_most: True is not a number or a word"),
        ("gates: [size_mb: {at_most: .nan}]", "gates[0] (size_mb): at_most: nan: input should be a finite number"),
        ("gates: {size_mb: 4}", "gates: a list, each entry one word and its options"),
        ("passes: int8", "passes: a list, each entry one word and its options"),
        (
            "passes: [[int8]]",
            f"passes[0]: one word and its options, such as '{words('compress.passes')[0]}: {{...}}', not ['int8']",
        ),
        ("devices: cpu", "devices: a list of devices, such as [cpu] or [cpu, orin_nano: {at: HOST}]"),
        ("devices: [cpu@tower-7]", "devices[0] (cpu@tower-7): host and DLA core are options here: cpu: {at: tower-7}"),
        (
            "devices: [agx_orin@t+dla1]",
            "devices[0] (agx_orin@t+dla1): host and DLA core are options here: agx_orin: {at: t, dla: 1}",
        ),
        ("devices: [cpu@here]", "devices[0] (cpu@here): host and DLA core are options here: cpu"),
        ("dynamic: batch", "dynamic: a list of the axes left open: [batch], [size] or [batch, size]"),
        ("train: 5", "train: its options are names with values, not 5"),
        ("opset: 12", "opset: 12 is not one of 18 to 23"),
        ("opset: 21.0", "opset: 21.0 is not one of 18 to 23"),
        ("name: a/b", "name: 'a/b' cannot name a folder; use letters, digits, '-', '_' and '.'"),
        ("name: 2024-12-01", "name: datetime.date(2024, 12, 1) cannot name a folder; use letters, digits, "),
    ],
)
def test_a_mistake_is_told_with_its_place_and_the_nearest_right_word(tmp_path: Path, line: str, told: str) -> None:
    said = the_mistake(tmp_path, f"{SHORT}{line}\n")
    assert said == told or (told.endswith(", ") and said.startswith(told))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("data: synthetic", "lacks the key 'network'"),
        ("network: {unet: {classes: 2}}", "lacks the key 'data'"),
        ("network:\ndata: synthetic", "lacks the key 'network'"),
        ("network: {unit: {classes: 2}}\ndata: synthetic", "network (unit): no such network; did you mean 'unet'?"),
        ("network: {unet: {}}\ndata: synthetic", "network (unet): lacks the option 'classes'"),
        ("network: unet\ndata: synthetic", "network (unet): lacks the option 'classes'"),
        (
            "network: {unet: {classes: 2, widht: 8}}\ndata: synthetic",
            "network (unet): no option 'widht'; did you mean 'width'?",
        ),
        (
            "network: {unet: {classes: 2, width: true}}\ndata: synthetic",
            "network (unet): width: True is not a number or a word",
        ),
        (
            "network: {unet: {classes: 2, norm: bach}}\ndata: synthetic",
            "network (unet): norm: 'bach' is not one of none, batch, instance, group; did you mean 'batch'?",
        ),
        (
            "network: {unet: {classes: 2, weights: 5}}\ndata: synthetic",
            "network (unet): weights: 5 is not a path",
        ),
        ("network: {unet: {classes: 2}}\ndata: {folders: {}}", "data (folders): no such data; did you mean 'folder'?"),
        ("network: {unet: {classes: 2}}\ndata: {folder: {}}", "data (folder): lacks the option 'root'"),
        (
            "network: {unet: {classes: 2}}\ndata: {folder: {root: a, fit: padd}}",
            "data (folder): fit: 'padd' is not one of resize, pad, tile; did you mean 'pad'?",
        ),
        (
            "network: {unet: {classes: 2}}\ndata: {folder: {root: a, normalization: {men: [0]}}}",
            "data (folder): no option 'normalization.men'; did you mean 'mean'?",
        ),
        (
            "network: {unet: {classes: 2}}\ndata: {folder: {root: a, normalization: {std: [0]}}}",
            "data (folder): normalization.std.0: 0: input should be greater than 0",
        ),
        (
            "network: {unet: {classes: 2}}\ndata: {folder: {root: a, size: [true, 256]}}",
            "data (folder): size: [True, 256] is not a number or a word",
        ),
    ],
)
def test_a_network_and_data_that_are_wrong_are_told_too(tmp_path: Path, text: str, told: str) -> None:
    assert the_mistake(tmp_path, text) == told


def test_all_mistakes_are_listed_together(tmp_path: Path) -> None:
    text = (
        "network: {unit: {classes: 2}}\ndata: {folder: {rot: a}}\nseed: x\n"
        "passes: [int8: {methd: mse, calibrate: 0}]\ngates: [dice_drop: {at_mst: 0, device: cpuu}]\n"
    )
    told = mistakes(tmp_path, text)
    assert sorted(told) == [
        "data (folder): no option 'rot'; did you mean 'root'?",
        "gates[0] (dice_drop): no device 'cpuu'; did you mean 'cpu'?",
        "gates[0] (dice_drop): no option 'at_mst'; did you mean 'at_most'?",
        "network (unit): no such network; did you mean 'unet'?",
        "passes[0] (int8): calibrate: 0: input should be greater than or equal to 1",
        "passes[0] (int8): no option 'methd'; did you mean 'method'?",
        "seed: 'x' is not a whole number from 0 to 2^63 - 1",
    ]
    with pytest.raises(RecipeError, match=r"recipe\.yaml: 7 mistakes\n  seed: "):
        load(written(tmp_path, text))


@pytest.mark.parametrize("seed", ["1.5", "true", "-1", "'7'", "[7]", str(2**63)])
def test_a_seed_is_a_whole_number(tmp_path: Path, seed: str) -> None:
    assert the_mistake(tmp_path, f"{SHORT}seed: {seed}\n").endswith("is not a whole number from 0 to 2^63 - 1")


@pytest.mark.parametrize("rate", ["3e-4", "3.0e-4", "0.0003", "3E-04", "+3e-4"])
def test_a_number_may_be_written_as_people_write_it(tmp_path: Path, rate: str) -> None:
    recipe = load(written(tmp_path, f"{SHORT}train: {{rate: {rate}}}\n"))
    assert recipe.train is not None
    assert recipe.train.rate == 3e-4


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("name: [a\n", "not YAML: line 2: while parsing a flow sequence, expected ',' or ']', but got '<stream end>'"),
        ("seed: 1\nname: a\nseed: 2\n", "not YAML: line 3: 'seed' is given twice"),
        ("data:\n  folder: {root: a, root: b}\n", "not YAML: line 2: 'root' is given twice"),
        ("a: &a {b: 1}\nc: {<<: *a}\n", "not YAML: line 2: a recipe repeats what it needs: '<<' is not taken"),
        ("name: !!python/name:os.system\n", "not YAML: line 1: could not determine a constructor for the tag"),
        ("name: 2024-13-01\n", "not YAML: month must be in 1..12"),
        ("name: \x00\n", "not YAML: unacceptable character"),
        ("passes: " + "[" * 2000, "not YAML: "),
        ("", "a recipe is a list of keys (name, seed, network, data, passes, ...), each with its value"),
        ("- name: a\n", "a recipe is a list of keys"),
        ("name", "a recipe is a list of keys"),
    ],
)
def test_what_is_no_recipe_is_told_with_its_line(tmp_path: Path, text: str, told: str) -> None:
    assert the_mistake(tmp_path, text).startswith(told)


def test_a_file_that_is_not_there_or_no_text_is_told(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"none\.yaml: no such recipe"):
        load(tmp_path / "none.yaml")
    with pytest.raises(RecipeError, match="cannot be read"):
        load(tmp_path)
    (tmp_path / "a.yaml").write_bytes(b"name: caf\xe9\n")
    with pytest.raises(RecipeError, match=r"a\.yaml: cannot be read"):
        load(tmp_path / "a.yaml")


def phantom(tmp_path: Path, network: str, data: str = "") -> Recipe:
    options = f"{{root: {tmp_path}/phantom, train: 2, calibration: 1, val: 1, test: 2, size: [32, 32]{data}}}"
    return load(written(tmp_path, f"network: {{unet: {{classes: 3, {network}}}}}\ndata: {{synthetic: {options}}}\n"))


def trained(path: Path, *, described: bool = True, **more: Any) -> Path:
    torch.manual_seed(0)
    shape = UNet(classes=3, width=4, depth=2)
    if described:
        save_net(shape(), Description(network={"unet": dataclasses.asdict(shape)}, **more), path)
    else:
        torch.save(shape().state_dict(), path)
    return path


def test_a_task_has_the_trained_network_and_the_weights_own_normalization(tmp_path: Path) -> None:
    normalization = Normalization(mean=(0.3,), std=(0.1,))
    trained(tmp_path / "net.safetensors", normalization=normalization)
    recipe = phantom(tmp_path, "width: 4, depth: 2, weights: net.safetensors")
    task = recipe.task()
    assert task.data.normalization == normalization
    assert recipe.normalization_from() == "the weights"
    assert not task.net.training
    assert task.net(task.example).shape == (1, 3, 32, 32)


def test_the_recipes_normalization_comes_first_and_the_measured_one_last(tmp_path: Path) -> None:
    trained(tmp_path / "net.safetensors", normalization=Normalization(mean=(0.3,), std=(0.1,)))
    given = phantom(
        tmp_path, "width: 4, depth: 2, weights: net.safetensors", ", normalization: {mean: [0.5], std: [0.5]}"
    )
    assert given.task().data.normalization == Normalization(mean=(0.5,), std=(0.5,))
    trained(tmp_path / "theirs.pt", described=False)
    measured = phantom(tmp_path, "width: 4, depth: 2, weights: theirs.pt").task().data
    assert measured.normalization == measured.measured_normalization() != Normalization()


def test_weights_of_another_width_are_told_by_their_description(tmp_path: Path) -> None:
    trained(tmp_path / "net.safetensors")
    with pytest.raises(
        WeightsError,
        match=r"net\.safetensors: weights of another width: they have width 4, the recipe's network has 8; "
        "set width: 4 or give other weights",
    ):
        phantom(tmp_path, "width: 8, depth: 2, weights: net.safetensors").task()


def test_weights_of_another_kind_of_network_are_told(tmp_path: Path) -> None:
    path = trained(tmp_path / "net.safetensors")
    record = json.loads(path.with_suffix(".json").read_text())
    path.with_suffix(".json").write_text(json.dumps({**record, "network": {"int8": {}}}))
    with pytest.raises(WeightsError, match="the weights are of a int8, but the recipe's network is a unet"):
        phantom(tmp_path, "width: 4, depth: 2, weights: net.safetensors").task()


def test_a_network_without_weights_says_how_to_get_them(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"the network has no weights; train it \(compress train\)"):
        phantom(tmp_path, "width: 4, depth: 2").task()


def test_an_input_that_does_not_fit_the_network_is_told_with_what_would(tmp_path: Path) -> None:
    text = f"network: {{unet: {{classes: 3}}}}\ndata: {{synthetic: {{root: {tmp_path}/p, train: 1, size: [40, 40]}}}}\n"
    recipe = load(written(tmp_path, text.replace("train: 1", "train: 1, calibration: 0, val: 0, test: 0")))
    with pytest.raises(RecipeError, match="data: input is 40x40; this network needs multiples of 16: pad to 48x48"):
        recipe.dataset()


def test_data_without_train_cases_needs_a_normalization(tmp_path: Path) -> None:
    recipe = phantom(tmp_path, "width: 4, depth: 2")
    bare = dataclasses.replace(recipe, data=dataclasses.replace(recipe.data, train=0))
    with pytest.raises(RecipeError, match="no normalization: the weights store none and there are no train cases"):
        bare.dataset()


def test_class_names_come_from_the_weights_where_the_data_gives_none(tmp_path: Path) -> None:
    names = ("background", "nerve", "vessel")
    trained(tmp_path / "net.safetensors", classes=names)
    Synthetic(root=tmp_path / "p", size=(32, 32), train=2, calibration=0, val=1, test=2)(channels=1, classes=3)
    (root,) = (tmp_path / "p").iterdir()
    network = "unet: {classes: 3, width: 4, depth: 2, weights: net.safetensors}"
    data = f"folder: {{root: {root}, size: [32, 32], calibration: 0}}"
    text = f"network: {{{network}}}\ndata: {{{data}}}\n"
    assert load(written(tmp_path, text)).task().data.class_names == names
    trained(tmp_path / "net.safetensors", classes=names[:2])
    with pytest.raises(DataError, match=r"2 class names \(background, nerve\), but the network has 3 classes"):
        load(written(tmp_path, text)).task()


def parts(value: Any) -> Iterator[dict[str, Any]]:
    """Every object in a schema."""
    if isinstance(value, dict):
        yield value
        value = list(value.values())
    for each in value if isinstance(value, list) else ():
        yield from parts(each)


def test_the_schema_is_json_with_every_key_and_no_loose_end() -> None:
    made = json.loads(json.dumps(schema(), allow_nan=False))
    assert set(made["properties"]) == set(KEYS)
    assert made["additionalProperties"] is False
    assert made["required"] == ["network", "data"]
    for part in parts(made):
        if isinstance(part.get("$ref"), str):
            assert part["$ref"].removeprefix("#/$defs/") in made["$defs"]
        if isinstance(part.get("required"), list) and isinstance(part.get("properties"), dict):
            assert set(part["required"]) <= set(part["properties"])


WHERE = {"device", "backend"}
OF_GATES = {
    "dice_drop": ({"at_most", *WHERE, "class"}, ["at_most"]),
    "iou_drop": ({"at_most", *WHERE, "class"}, ["at_most"]),
    "hd95_rise": ({"at_most", *WHERE, "class"}, ["at_most"]),
    "fallback": ({"at_most", *WHERE}, ["at_most"]),
    "parity": ({"at_most", *WHERE}, ["at_most"]),
    "latency_ms": ({"at_most", *WHERE, "percentile"}, ["at_most"]),
    "energy_mj": ({"at_most", *WHERE}, ["at_most"]),
    "speedup": ({"at_least", *WHERE, "percentile", "over"}, ["at_least"]),
    "size_mb": ({"at_most", *WHERE}, ["at_most"]),
    "smaller": ({"at_least", *WHERE, "over"}, ["at_least"]),
    "fewer_bit_operations": ({"at_least", *WHERE, "over"}, ["at_least"]),
    "baseline": ({"dice", "class"}, ["dice"]),
}
"""The options of each gate, and which of them it cannot do without."""


def test_the_schema_knows_every_word_and_every_option_of_a_gate() -> None:
    properties = schema()["properties"]
    gates = {word: made for each in properties["gates"]["items"]["anyOf"] for word, made in each["properties"].items()}
    assert {word: (set(made["properties"]), made["required"]) for word, made in gates.items()} == OF_GATES
    (unet,) = (each["properties"]["unet"] for each in properties["network"]["anyOf"] if "unet" in each["properties"])
    assert {"classes", "weights", "width"} <= set(unet["properties"])
    assert "int8" in properties["passes"]["items"]["anyOf"][-1]["enum"]
    assert {"folder", "nifti", "nnunet", "synthetic"} == set(properties["data"]["anyOf"][-1]["enum"])


def in_an_editor(option: dict[str, Any], value: str | None) -> bool:
    """Whether an editor takes a value for an option of the schema."""
    return any(
        value in each.get("enum", ())
        or (value is not None and "pattern" in each and re.search(each["pattern"], value) is not None)
        for each in option["anyOf"]
    )


@pytest.fixture(scope="module")
def sections() -> dict[str, Any]:
    """The sections of a recipe in its schema, which takes a moment to make."""
    properties: dict[str, Any] = schema()["properties"]
    return properties


def options_of(section: dict[str, Any], word: str) -> dict[str, Any]:
    """The options of a word in a section that is a list."""
    (options,) = (each["properties"][word] for each in section["items"]["anyOf"] if word in each.get("properties", ()))
    found: dict[str, Any] = options["properties"]
    return found


@pytest.mark.parametrize(
    ("value", "good"),
    [
        ("orin_nano", True),
        ("cpu@here", True),
        ("cpu@clinic@192.168.1.40", True),
        ("agx_orin+dla0", True),
        ("agx_orin@tower-7+dla1", True),
        ("orin_nan", False),
        ("orin_nan@tower-7", False),
        ("orin_nano+dla0", False),
        ("agx_orin+dla", False),
        ("cpu@", False),
        ("cpu@-oProxyCommand", False),
        ("tower-7", False),
    ],
)
def test_an_editor_takes_a_device_as_a_recipe_names_it(sections: dict[str, Any], value: str, good: bool) -> None:
    for options in (options_of(sections["gates"], "latency_ms"), options_of(sections["passes"], "prune")):
        assert in_an_editor(options["device"], value) is good


def test_an_editor_lists_the_words_of_devices_and_lets_a_gate_have_none(sections: dict[str, Any]) -> None:
    options = options_of(sections["gates"], "parity")
    assert in_an_editor(options["device"], None) and None in options["backend"]["enum"]
    assert options["device"]["anyOf"][0] == {"enum": [*words("export.devices"), None]}
    assert not in_an_editor(options_of(sections["passes"], "prune")["device"], None)
