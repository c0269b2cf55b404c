"""`compress check`: what can be seen in seconds is said before hours of work rest on it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from shared_fixtures import SIZE, write_folder, write_recipe
from test_cli import compress, refused

from compress.commands.check import Findings, _briefly, check
from compress.commands.device import lacks
from compress.data.dataset import normal
from compress.data.dataset.cases import Case, Dataset, Fit, Normalization
from compress.data.dataset.images import Images
from compress.data.synthetic import Synthetic
from compress.errors import MissingExtra, SurroundingsError
from compress.gates.judging.scene import Scene
from compress.pipeline import foreseen
from compress.pipeline.deployment import Deployment
from compress.recipe import Recipe, load
from compress.storage.description import read_description
from compress.storage.weights import load_net, save_net
from export.registry import find_backend

Edit = Callable[[dict], None]


def quiet(_: str) -> None:
    """Progress nobody reads."""


def looked_at(place: Path, recipe: dict) -> Findings:
    return check(load(write_recipe(place, recipe)), quiet)


def said(lines: list[str], *parts: str) -> bool:
    """Whether one of the lines has all of these parts."""
    return any(all(part in line for part in parts) for line in lines)


@pytest.fixture
def spoiled(tmp_path: Path, recipe: dict) -> Path:
    """A small data folder of its own, which a test may spoil."""
    root = write_folder(tmp_path / "data", {"train": 3, "calibration": 8, "val": 2, "test": 30})
    recipe["data"]["folder"]["root"] = str(root)
    return root


@pytest.fixture
def answers(tmp_path: Path, weights: Path, recipe: dict) -> Callable[[list[float]], None]:
    """Gives the recipe a network that answers every pixel with these logits."""

    def always(bias: list[float]) -> None:
        net, described = load_net(weights), read_description(weights)
        assert described is not None
        head: Any = net.get_submodule("head")
        head.weight.data.zero_()
        head.bias.data = head.bias.data.new_tensor(bias)
        save_net(net, described, tmp_path / "always.safetensors")
        recipe["network"]["unet"]["weights"] = str(tmp_path / "always.safetensors")

    return always


# The whole check


def test_a_good_recipe_is_good_and_says_what_its_baseline_reaches(tmp_path: Path, recipe: dict) -> None:
    recipe["gates"] = [{"dice_drop": {"at_most": 0.05, "class": "disc"}}]
    done = compress("check", write_recipe(tmp_path, recipe))
    assert done.returncode == 0, done.stderr
    assert "baseline in torch over 8 test cases, Dice: square 0." in done.stdout
    assert done.stdout.endswith("good (int8; 1 gate; on cpu)\n")
    assert "scoring the uncompressed network" in done.stderr, "progress is told where no program reads"


def test_everything_that_is_missing_is_found_together_each_with_its_place(tmp_path: Path, recipe: dict) -> None:
    recipe["network"]["unet"]["weights"] = "nowhere.safetensors"
    recipe["data"]["folder"] |= {"root": str(tmp_path / "no_data"), "size": [SIZE, 33]}
    recipe["passes"].append({"distil": {}})
    recipe["gates"] = [{"size_mb": {"at_most": 9, "device": "rtx_40"}}]
    refused(
        compress("check", write_recipe(tmp_path, recipe)),
        "5 mistakes",
        "passes[1] (distil): no such pass",
        "nowhere.safetensors: no such weights file",
        "no_data/split.csv: no such file",
        "data: input is 32x33",
        "gates[0] (size_mb): never holds: the recipe builds nothing for the device 'rtx_40'",
    )


def test_a_quick_check_looks_at_no_file_that_the_recipe_names(tmp_path: Path, recipe: dict) -> None:
    recipe["network"]["unet"]["weights"] = "nowhere.safetensors"
    path = write_recipe(tmp_path, recipe)
    assert compress("check", path, "--quick").returncode == 0
    refused(compress("check", path), "nowhere.safetensors")


def test_warnings_are_listed_and_are_no_refusal(
    tmp_path: Path, recipe: dict, answers: Callable[[list[float]], None]
) -> None:
    answers([0, 1, 0])
    recipe["devices"] = ["cpu", "orin_nano"]
    done = compress("check", write_recipe(tmp_path, recipe))
    assert done.returncode == 0, done.stderr
    assert "warning: baseline: Dice is under 0.3 (square 0." in done.stdout
    assert "warning: devices[1] (orin_nano): what is built for it is not measured" in done.stdout
    assert "warning: the baseline's answers fit other cases' masks" in done.stdout
    assert "but for 4 warnings" in done.stdout


def test_a_network_that_finds_nothing_is_a_mistake(
    tmp_path: Path, recipe: dict, answers: Callable[[list[float]], None]
) -> None:
    answers([1, 0, 0])
    assert said(looked_at(tmp_path, recipe).mistakes, "baseline: Dice is 0 for every class", "0 background, 1 square")


def test_masks_that_lie_otherwise_than_the_answers_are_a_mistake_where_a_gate_reads_them(
    tmp_path: Path, recipe: dict, spoiled: Path
) -> None:
    for path in (spoiled / "masks").iterdir():
        Image.fromarray(np.asarray(Image.open(path))[:, ::-1]).save(path)
    told = "the baseline's answers fit masks mirrored left to right far better"
    recipe["gates"] = [{"dice_drop": {"at_most": 0.01}}]
    assert said(looked_at(tmp_path, recipe).mistakes, told)
    recipe["gates"] = [{"size_mb": {"at_most": 9}}]
    found = looked_at(tmp_path, recipe)
    assert said(found.warnings, told) and not found.mistakes


# Files


def in_0_and_255(root: Path) -> None:
    for path in (root / "masks").iterdir():
        Image.fromarray((np.asarray(Image.open(path)) > 0).astype(np.uint8) * 255).save(path)


def of_colours(root: Path) -> None:
    for path in (root / "masks").iterdir():
        Image.open(path).convert("RGB").save(path)


def of_another_size(root: Path) -> None:
    Image.new("L", (30, 32)).save(root / "masks" / "test_000.png")


def damaged(root: Path) -> None:
    path = root / "images" / "test_000.png"
    path.write_bytes(path.read_bytes()[:150])


@pytest.mark.parametrize(
    ("spoil", "parts"),
    [
        (in_0_and_255, ["masks/train_000.png", "class 255", "(and 24 more like it, of 25 looked at)"]),
        (of_colours, ["masks/train_000.png", "one class index a pixel"]),
        (of_another_size, ["masks/test_000.png", "30x32"]),
        (damaged, ["images/test_000.png"]),
    ],
)
def test_a_sample_of_images_and_masks_is_decoded(
    spoil: Callable[[Path], None], parts: list[str], tmp_path: Path, recipe: dict, spoiled: Path
) -> None:
    spoil(spoiled)
    (mistake,) = looked_at(tmp_path, recipe).mistakes
    assert all(part in mistake for part in parts), mistake


def test_two_kinds_of_faults_are_both_told(tmp_path: Path, recipe: dict, spoiled: Path) -> None:
    damaged(spoiled)
    Image.new("L", (30, 32)).save(spoiled / "masks" / "test_029.png")
    assert len(looked_at(tmp_path, recipe).mistakes) == 2


def without_foreground(root: Path) -> None:
    for path in (root / "masks").iterdir():
        Image.new("L", (SIZE, SIZE)).save(path)


def without_discs(root: Path) -> None:
    for path in (root / "masks").iterdir():
        Image.fromarray(np.asarray(Image.open(path)) % 2).save(path)


@pytest.mark.parametrize(("spoil", "what"), [(without_foreground, "any foreground"), (without_discs, "disc")])
def test_a_class_that_no_mask_has_is_warned_of(
    spoil: Callable[[Path], None], what: str, tmp_path: Path, recipe: dict, spoiled: Path
) -> None:
    spoil(spoiled)
    # A recipe that only trains: nothing is inferred.
    del recipe["passes"]
    recipe["train"] = {"epochs": 1}
    assert said(looked_at(tmp_path, recipe).warnings, f"none of the 25 masks looked at has {what}")


@pytest.mark.parametrize(
    ("counts", "passes", "part"),
    [
        ({"train": 3, "calibration": 4}, ["int8"], "the split 'test' is empty"),
        ({"train": 3, "test": 3}, ["distill"], "the split 'val' is empty, and passes[0] (distill) uses it"),
        ({"val": 3, "test": 3}, ["distill"], "the split 'train' is empty"),
        ({"train": 3, "test": 3}, ["int8"], "the split 'calibration' is empty, and passes[0] (int8) uses it"),
        (
            {"calibration": 3, "test": 3},
            [{"int8": {"calibrate": 9}}],
            "passes[0] (int8): calibrate is 9, but there are 3 calibration cases",
        ),
    ],
)
def test_a_split_that_something_needs_is_not_empty(
    counts: dict[str, int], passes: list, part: str, tmp_path: Path, recipe: dict
) -> None:
    root = write_folder(tmp_path / "few", counts)
    damaged_or_not = next((root / "images").iterdir())
    # One damaged file ends the check before anything is inferred.
    damaged_or_not.write_bytes(b"")
    recipe["data"]["folder"] |= {"root": str(root), "calibration": 0}
    recipe["passes"] = passes
    assert said(looked_at(tmp_path, recipe).mistakes, part)


def test_a_training_recipe_needs_cases_and_no_weights(tmp_path: Path, recipe: dict, spoiled: Path) -> None:
    del recipe["network"]["unet"]["weights"]
    del recipe["passes"]
    recipe["train"] = {"epochs": 1}
    assert looked_at(tmp_path, recipe).mistakes == []
    shutil.rmtree(spoiled)
    write_folder(spoiled, {"train": 3, "test": 2})
    recipe["data"]["folder"]["calibration"] = 0
    assert said(looked_at(tmp_path, recipe).mistakes, "the split 'val' is empty, and training needs it")


def test_of_phantoms_a_few_are_drawn_for_the_check(tmp_path: Path) -> None:
    few = Synthetic(train=500, val=0, calibration=3, test=100, size=(32, 32)).few(4, tmp_path)
    assert (few.train, few.val, few.calibration, few.test, few.root) == (4, 0, 3, 4, tmp_path)


# Options that name layers


def test_layers_that_options_name_are_looked_for(tmp_path: Path, recipe: dict, spoiled: Path) -> None:
    recipe["passes"] = [
        {"prune": {"ratio": 0.5, "keep": ["hed", "head"]}},
        {"int8": {"calibrate": 4, "keep": ["encoder.9", "encoder.*"]}},
    ]
    # What comes behind depthwise may name layers that only depthwise makes.
    recipe["compare"] = {"thin": ["distill", {"depthwise": {"where": "midle.*"}}, {"int8": {"keep": ["x"]}}]}
    mistakes = looked_at(tmp_path, recipe).mistakes
    assert said(mistakes, "passes[0] (prune): keep: 'hed' names no layer", "did you mean 'head'?")
    assert said(mistakes, "passes[1] (int8): keep: 'encoder.9' names no layer")
    assert said(mistakes, "compare.thin[1] (depthwise): where: 'midle.*' names no layer")
    assert len(mistakes) == 3


# Normalizations


def dataset(norm: Normalization, channels: int) -> Dataset:
    cases: dict[Any, list[Case]] = {"train": [], "calibration": [], "val": [], "test": []}
    return Dataset(
        cases=cases,
        class_names=("background", "x"),
        channels=channels,
        fit=Fit(size=(8, 8)),
        reader=Images(),
        normalization=norm,
        source="data",
    )


def judged(mean: list[float], std: list[float], level: float = 0.4, spread: float = 0.2) -> tuple[list[str], list[str]]:
    rng = np.random.default_rng(0)
    pixels = [rng.normal(level, spread, (len(mean), 8, 8)).clip(0, 1).astype(np.float32) for _ in range(3)]
    return normal.judged(
        dataset(Normalization(mean=tuple(mean), std=tuple(std)), len(mean)), pixels, whose="the recipe"
    )


@pytest.mark.parametrize(
    ("mean", "std", "part"),
    [
        ([123.675, 116.28, 103.53], [58.395, 57.12, 57.375], "of values of 0..255"),
        ([0.485, 0.456, 0.406], [58.395, 57.12, 57.375], "std: [0.229, 0.224, 0.225]"),
        ([123.675, 116.28, 103.53], [0.229, 0.224, 0.225], "mean: [0.485, 0.456, 0.406]"),
        ([2000.0], [800.0], "of values of 0..4095"),
        ([31000.0], [9000.0], "of values of 0..65535"),
        ([-500.0], [1.0], "which no training sees"),
        ([0.4], [0.012], "which no training sees"),
    ],
)
def test_a_normalization_that_cannot_be_is_a_mistake(mean: list[float], std: list[float], part: str) -> None:
    mistakes, warnings = judged(mean, std, spread=0.3 if std == [0.012] else 0.2)
    assert said(mistakes, part), mistakes
    assert warnings == []


@pytest.mark.parametrize(
    ("mean", "std"),
    [
        ([0.0], [1.0]),
        ([0.5], [0.5]),
        ([0.1443], [0.156]),
        ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
    ],
)
def test_a_usual_normalization_is_not_spoken_of(mean: list[float], std: list[float]) -> None:
    assert judged(mean, std) == ([], [])


def test_a_network_of_unscaled_values_is_only_warned_of() -> None:
    mistakes, warnings = judged([0.0], [1 / 255])
    assert mistakes == []
    assert said(warnings, "trained on values of 0..255")


@pytest.mark.parametrize("level", [0.0, 1.0])
def test_blank_images_are_a_mistake(level: float) -> None:
    assert said(judged([0.5], [0.5], level=level, spread=0.0)[0], "3 images looked at are blank")


def test_who_gives_no_normalization_is_told_what_is_used() -> None:
    assert said(normal.untold("the train cases, measured"), "set data normalization")
    assert normal.untold("the recipe") == normal.untold("the weights") == []


def test_gray_images_for_colours_and_colours_for_gray_are_told(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    gray, colour = tmp_path / "gray.png", tmp_path / "colour.png"
    Image.fromarray(rng.integers(0, 255, (8, 8), np.uint8)).save(gray)
    Image.fromarray(rng.integers(0, 255, (8, 8, 3), np.uint8)).save(colour)
    for path, channels, part in (
        (gray, 3, "images are gray"),
        (colour, 1, "in colour"),
        (gray, 1, ""),
        (colour, 3, ""),
    ):
        data, case = dataset(Normalization(), channels), Case(name="x", image=path, mask=path)
        told = normal.colours(data, case, [data.pixels(case)])
        assert said(told, part) if part else told == []


# Devices and gates


def met(place: Path, recipe: dict, gates: list[dict], tests: int | None = 40, **changes: Any) -> tuple[Recipe, Scene]:
    """A recipe with these gates, and what they will meet."""
    loaded = load(write_recipe(place, {**recipe, "gates": gates, **changes}))
    return loaded, foreseen.scene(loaded, foreseen.spots(loaded), ("square", "disc"), tests)


@pytest.mark.parametrize(
    ("gate", "part"),
    [
        ({"latency_ms": {"at_most": 9, "device": "rtx_40"}}, "builds nothing for the device 'rtx_40'"),
        ({"size_mb": {"at_most": 9, "device": "orin_nano"}}, "builds nothing for the device 'orin_nano'"),
        ({"size_mb": {"at_most": 9, "backend": "tensorrt"}}, "nothing of tensorrt is built"),
        ({"dice_drop": {"at_most": 1, "device": "cpu", "backend": "tensorrt"}}, "nothing of tensorrt is built for cpu"),
        ({"parity": {"at_most": 1, "backend": "torch"}}, "after int8 there is no torch artifact"),
        ({"dice_drop": {"at_most": 0.1, "class": "dics"}}, "no foreground class 'dics'; did you mean 'disc'?"),
        ({"hd95_rise": {"at_most": 1, "class": "background"}}, "no foreground class 'background'; there are"),
        ({"latency_ms": {"at_most": 9, "percentile": 95}}, "the percentile 95 needs 90 samples"),
        ({"speedup": {"at_least": 2, "percentile": 99}}, "the percentile 99 needs 459 samples"),
        ({"speedup": {"at_least": 2, "over": "01-int8"}}, "01-int8 is the step that is judged"),
        ({"smaller": {"at_least": 2, "over": "tensorrt"}}, "no baseline of tensorrt is built"),
        (
            {"fallback": {"at_most": 0}},
            "and onnxruntime on cpu, openvino on cpu are neither; give a device with dla: 0",
        ),
    ],
)
def test_a_gate_that_the_recipe_keeps_from_holding_is_a_mistake(
    gate: dict, part: str, tmp_path: Path, recipe: dict
) -> None:
    (mistake,) = foreseen.contradictions(*met(tmp_path, recipe, [gate]))
    assert mistake.startswith(f"gates[0] ({next(iter(gate))}): never holds: ")
    assert part in mistake


@pytest.mark.parametrize("over", ["02-int8", "int8_alone", "01-prune"])
def test_a_step_that_does_not_exist_is_refused_by_the_recipe(over: str, tmp_path: Path, recipe: dict) -> None:
    recipe["gates"] = [{"speedup": {"at_least": 1, "over": over}}]
    refused(compress("check", write_recipe(tmp_path, recipe), "--quick"), f"no backend or step '{over}'")


def test_gates_that_can_hold_are_not_spoken_of(tmp_path: Path, recipe: dict) -> None:
    gates = [
        {"dice_drop": {"at_most": 0.1, "class": "disc"}},
        {"latency_ms": {"at_most": 9, "backend": "openvino"}},
        {"speedup": {"at_least": 1, "over": "torch"}},
        {"smaller": {"at_least": 2, "over": "baseline"}},
    ]
    found = met(tmp_path, recipe, gates)
    assert [*foreseen.contradictions(*found), *foreseen.doubts(*found)] == []


@pytest.mark.parametrize(
    ("gate", "parts"),
    [
        ({"latency_ms": {"at_most": 9, "device": "rtx_40"}}, ["tensorrt on rtx_40 is not measured: no NVIDIA driver"]),
        ({"speedup": {"at_least": 1}}, ["tensorrt on rtx_40", "give device: cpu"]),
        ({"dice_drop": {"at_most": 0.1}}, ["not measured", "give device: cpu"]),
        ({"parity": {"at_most": 0.1, "backend": "tensorrt"}}, ["tensorrt on rtx_40 is not measured"]),
    ],
)
def test_a_gate_on_what_is_not_here_is_a_warning(
    gate: dict, parts: list[str], tmp_path: Path, recipe: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("export.device.cuda_capabilities", list)
    monkeypatch.setattr("compress.pipeline.foreseen.not_installed", lambda _: None)
    loaded, scene = met(tmp_path, recipe, [gate], devices=["cpu", "rtx_40"])
    assert said(list(foreseen.doubts(loaded, scene)), "gates[0]", "cannot hold from this host", *parts)
    assert list(foreseen.contradictions(loaded, scene)) == []
    assert said(list(foreseen.of_devices(loaded, scene.spots)), "devices[1] (rtx_40)", "no NVIDIA driver")


def test_a_device_that_is_not_reached_is_said_to_end_a_run(
    tmp_path: Path, recipe: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    def not_here(at: Deployment) -> None:
        if not at.target.is_this_host:
            raise SurroundingsError("tower-7: no such host")

    monkeypatch.setattr(Deployment, "not_here", not_here)
    loaded, scene = met(tmp_path, recipe, [], devices=["cpu", {"cpu": {"at": "tower-7"}}])
    (warning,) = foreseen.of_devices(loaded, scene.spots)
    assert warning == "devices[1] (cpu@tower-7): a run ends at once, with exit code 4: tower-7: no such host"


def test_where_one_runtime_of_a_device_is_missing_it_is_named_and_the_device_is_not_called_lost(
    tmp_path: Path, recipe: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    def not_here(at: Deployment) -> str | None:
        return "tower-7: python3 has no onnxruntime; it has tensorrt" if at.backend == "onnxruntime" else None

    monkeypatch.setattr(Deployment, "not_here", not_here)
    loaded, scene = met(tmp_path, recipe, [], devices=[{"orin_nano": {"at": "tower-7"}}])
    (warning,) = foreseen.of_devices(loaded, scene.spots)
    lost = "what is built for onnxruntime is not measured: tower-7: python3 has no onnxruntime; it has tensorrt"
    assert warning == f"devices[0] (orin_nano@tower-7): {lost}"


def test_the_reason_of_a_device_is_told_once() -> None:
    told = ["devices[1] (rtx_40): what is built for it is not measured: no NVIDIA driver"]
    begun = "gates[0] (parity): cannot hold from this host, since tensorrt on rtx_40"
    doubts = [f"{begun} is not measured: no NVIDIA driver; to judge only what is here, give device: cpu"]
    (doubt,) = _briefly(doubts, {"no NVIDIA driver", None}, told)
    assert doubt == f"{begun} is not measured (see devices); to judge only what is here, give device: cpu"
    # A runtime that is not installed is told of by another sentence.
    assert list(_briefly(doubts, {"no NVIDIA driver", None}, [])) == doubts


def test_a_python_without_a_runtime_is_told_with_what_would_be_right() -> None:
    known = {"executable": "/usr/bin/python3", "runtimes": {"onnxruntime": "1.23"}}
    assert lacks("pi", known) is None
    told = lacks("pi", known | {"runtimes": {}})
    assert told is not None and told.startswith("pi: /usr/bin/python3 has no runtime") and "--python PATH" in told


def test_a_normalization_is_said_in_words() -> None:
    assert str(Normalization(mean=(0.58024, 0.1), std=(0.25, 1.0))) == "mean 0.5802, 0.1; std 0.25, 1"


def test_a_gate_on_the_baseline_needs_one_runtime_that_is_here(
    tmp_path: Path, recipe: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("export.device.cuda_capabilities", list)
    gates = [{"baseline": {"dice": {"at_least": 0.5}}}]
    assert list(foreseen.doubts(*met(tmp_path, recipe, gates, devices=["cpu", "rtx_40"]))) == []
    (doubt,) = foreseen.doubts(*met(tmp_path, recipe, gates, devices=["rtx_40"]))
    assert said([doubt], "gates[0] (baseline)", "cannot hold from this host, since nothing is measured")


@pytest.mark.parametrize(("name", "tests"), [("dice_drop", 29), ("iou_drop", 5), ("hd95_rise", 1)])
def test_a_drop_gate_on_few_cases_is_a_warning(name: str, tests: int, tmp_path: Path, recipe: dict) -> None:
    (doubt,) = foreseen.doubts(*met(tmp_path, recipe, [{name: {"at_most": 1}}], tests))
    assert doubt == f"gates[0] ({name}): cannot hold: there are {tests} independent test cases, and 30 are needed"


@pytest.mark.parametrize("backend", ["openvino", "tensorrt"])
def test_a_runtime_that_is_not_installed_is_a_warning_with_how_to_install_it(
    backend: str, tmp_path: Path, recipe: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing() -> None:
        raise MissingExtra(backend, backend)

    monkeypatch.setattr(find_backend(backend), "check_installed", staticmethod(missing))
    device = "cpu" if backend == "openvino" else "rtx_40"
    gates = [{"size_mb": {"at_most": 9}}, {"size_mb": {"at_most": 9, "backend": "onnxruntime"}}]
    loaded, scene = met(tmp_path, recipe, gates, devices=["cpu", *({device} - {"cpu"})])
    told = list(foreseen.of_devices(loaded, scene.spots))
    assert said(told, f"({device}): nothing is built for {backend}", f"pip install 'segpress[{backend}]'")
    (doubt,) = foreseen.doubts(loaded, scene)
    assert f"{backend} on {device} is not built" in doubt
    assert "give backend: onnxruntime" in doubt if device == "cpu" else "give device: cpu" in doubt


def test_a_pass_that_measures_on_what_is_not_here_is_a_mistake(
    tmp_path: Path, recipe: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("export.device.cuda_capabilities", list)
    monkeypatch.setattr("compress.pipeline.foreseen.not_installed", lambda _: None)
    recipe["passes"] = [
        {"prune": {"latency_ms": 5, "device": "cuda", "backend": "onnxruntime"}},
        {"prune": {"latency_ms": 5, "device": "orin_nano", "backend": "tensorrt"}},
        {"prune": {"latency_ms": 5}},
    ]
    found = list(foreseen.of_passes(load(write_recipe(tmp_path, recipe))))
    assert [one.split(":")[0] for one in found] == ["passes[0] (prune)", "passes[1] (prune)"]


def test_patients_are_what_counts(tmp_path: Path, recipe: dict, spoiled: Path) -> None:
    table = (spoiled / "split.csv").read_text().splitlines()
    rows = [f"{line},p{number % 5}" for number, line in enumerate(table[1:])]
    (spoiled / "split.csv").write_text("\n".join([f"{table[0]},patient", *rows]))
    recipe["gates"] = [{"dice_drop": {"at_most": 1}}]
    # A mask that cannot be read ends the check before anything is inferred.
    (spoiled / "masks" / "test_000.png").write_bytes(yaml.safe_dump(recipe).encode())
    assert said(looked_at(tmp_path, recipe).warnings, "there are 5 independent test cases")


UNTRANSLATED = """
import torch, torch.nn.functional as F

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv2d(1, 3, 1)

    def forward(self, image):
        return self.conv(image) + F.interpolate(F.adaptive_max_pool2d(image, (3, 3)), size=image.shape[2:])
"""


def test_a_network_that_has_no_translation_to_onnx_is_a_mistake(tmp_path: Path, recipe: dict) -> None:
    (tmp_path / "net.py").write_text(UNTRANSLATED)
    conv = torch.nn.Conv2d(1, 3, 1)
    torch.save({f"conv.{name}": tensor for name, tensor in conv.state_dict().items()}, tmp_path / "net.pt")
    options = {"path": str(tmp_path / "net.py"), "build": "Net", "classes": 3, "in_channels": 1}
    recipe["network"] = {"python": {**options, "weights": str(tmp_path / "net.pt")}}
    assert said(looked_at(tmp_path, recipe).mistakes, "cannot be exported to ONNX", "aten.adaptive_max_pool2d")
