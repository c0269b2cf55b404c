"""What comes between the network and its scores: each step against a computation of its own, then a whole run."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch.nn.functional as F
from PIL import Image
from scipy import ndimage
from scipy.special import expit, softmax
from shared_fixtures import write_recipe
from torch import nn

from compress.commands.check import check
from compress.commands.run import run
from compress.data.folder import Folder
from compress.errors import RecipeError
from compress.postprocess.applying.chain import Postprocess, faults
from compress.postprocess.applying.step import Setting
from compress.postprocess.dense_crf import DenseCrf
from compress.postprocess.fill_holes import FillHoles
from compress.postprocess.largest_component import LargestComponent
from compress.postprocess.remove_small import RemoveSmall
from compress.postprocess.smooth import Smooth
from compress.postprocess.threshold import Threshold
from compress.recipe import load, schema
from compress.task import Task
from export.registry import named, words


def quiet(_: str) -> None:
    """A log nobody reads."""


NAMES = ("background", "polyp", "tool")
SIZES = {2: (24, 31), 3: (9, 12, 11)}
SEEDS = pytest.mark.parametrize("axes", SIZES)


def blobs(axes: int, classes: int = 3, seed: int = 0) -> np.ndarray:
    """Labels with several components of each class, some inside others."""
    noise = np.random.default_rng(seed).normal(size=(classes, *SIZES[axes]))
    return np.asarray(ndimage.gaussian_filter(noise, 1.1, axes=tuple(range(1, axes + 1))).argmax(0), np.uint8)


def everywhere(axes: int) -> np.ndarray:
    return np.ones((3,) * axes, int)


# Steps on labels


@SEEDS
@pytest.mark.parametrize("classes", [None, ("tool",)])
def test_of_each_class_only_its_largest_component_stays(axes: int, classes: tuple[str, ...] | None) -> None:
    given = blobs(axes)
    expected = given.copy()
    for index in [1, 2] if classes is None else [2]:
        numbers, count = ndimage.label(given == index, everywhere(axes))
        assert count > 1, "there is something to remove"
        sizes = [(numbers == number).sum() for number in range(1, count + 1)]
        expected[(numbers > 0) & (numbers != 1 + int(np.argmax(sizes)))] = 0
    before = given.copy()
    found = LargestComponent(classes=classes)(given, NAMES, None)
    assert np.array_equal(found, expected) and found.dtype == np.uint8
    assert np.array_equal(given, before), "what is given is not changed"


def test_a_class_that_is_absent_stays_absent_and_pixels_that_touch_at_corners_belong_together() -> None:
    diagonal = np.array([[1, 0, 0, 1], [0, 1, 0, 0], [0, 0, 0, 0]], np.uint8)
    wanted = [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0]]
    assert LargestComponent()(diagonal, NAMES, None).tolist() == wanted
    empty = np.zeros((3, 4), np.uint8)
    for step in (LargestComponent(), FillHoles(), RemoveSmall(under_px=3)):
        assert not step(empty, NAMES, None).any()


@SEEDS
def test_components_under_a_number_of_pixels_become_background_and_one_of_exactly_that_size_stays(axes: int) -> None:
    given = blobs(axes)
    expected, sizes = given.copy(), []
    for index in (1, 2):
        numbers, count = ndimage.label(given == index, everywhere(axes))
        sizes += [int((numbers == number).sum()) for number in range(1, count + 1)]
    limit = sorted(sizes)[len(sizes) // 2]
    for index in (1, 2):
        numbers, count = ndimage.label(given == index, everywhere(axes))
        for number in range(1, count + 1):
            if (numbers == number).sum() < limit:
                expected[numbers == number] = 0
    found = RemoveSmall(under_px=limit)(given, NAMES, None)
    assert np.array_equal(found, expected) and not np.array_equal(found, given)
    assert np.array_equal(RemoveSmall(under_px=limit, classes=("polyp",))(given, NAMES, None) == 2, given == 2)


@pytest.mark.parametrize(
    ("shape", "unit", "spacing"), [((4, 4), "under_mm2", (0.1, 0.7)), ((4, 4, 2), "under_mm3", (0.1, 0.7, 3.0))]
)
def test_sizes_in_mm_are_pixels_times_the_size_of_one(shape: Any, unit: str, spacing: Any) -> None:
    given = np.zeros(shape, np.uint8)
    given[0, :3] = 1
    size = given.sum() * np.prod(spacing)
    assert RemoveSmall(**{unit: size})(given, NAMES, spacing).any(), "exactly the size"
    assert not RemoveSmall(**{unit: size * 1.01})(given, NAMES, spacing).any()


@SEEDS
def test_holes_of_one_class_are_those_that_scipy_fills(axes: int) -> None:
    given = np.minimum(blobs(axes, classes=2, seed=3), 1)
    given[(slice(4, 9),) * axes] = 1
    given[(slice(5, 8),) * axes] = 0
    found = FillHoles()(given, NAMES[:2], None)
    assert np.array_equal(found, ndimage.binary_fill_holes(given)) and found.sum() > given.sum()


def test_what_lies_in_a_hole_stays_and_the_innermost_class_takes_what_it_encloses() -> None:
    given = np.ones((9, 9), np.uint8)
    given[1:8, 1:8] = 0
    given[2:7, 2:7] = 2
    given[3:6, 3:6] = 0
    wanted = given.copy()
    wanted[given == 0] = 1
    wanted[3:6, 3:6] = 2
    assert np.array_equal(FillHoles()(given, NAMES, None), wanted)
    wanted[3:6, 3:6] = 1
    assert np.array_equal(FillHoles(classes=("polyp",))(given, NAMES, None), wanted)
    wanted[given == 0] = 0
    wanted[3:6, 3:6] = 2
    assert np.array_equal(FillHoles(classes=("tool",))(given, NAMES, None), wanted)


# Steps on probabilities


@SEEDS
@pytest.mark.parametrize("classes", [1, 3])
def test_probabilities_are_smoothed_class_by_class_and_still_sum_to_1(axes: int, classes: int) -> None:
    given = shares_of(logits(classes, SIZES[axes])).astype(np.float32)
    found = Smooth(sigma_px=1.3)(given, given)
    expected = np.stack([ndimage.gaussian_filter(one.astype(float), 1.3, mode="nearest") for one in given])
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert classes == 1 or np.abs(found.sum(0) - 1).max() < 1e-5


@SEEDS
@pytest.mark.parametrize("classes", [1, 2])
def test_the_crf_draws_probabilities_to_the_edges_of_an_image_or_a_volume(axes: int, classes: int) -> None:
    places = np.indices(SIZES[axes])
    truth = (
        sum((place - size / 2) ** 2 for place, size in zip(places, SIZES[axes], strict=True))
        < (min(SIZES[axes]) / 3) ** 2
    )
    rng = np.random.default_rng(1)
    image = (np.where(truth, 0.7, 0.3) + rng.normal(0, 0.02, truth.shape))[None].astype(np.float32)
    noisy = np.where(truth ^ (rng.uniform(size=truth.shape) < 0.15), 0.7, 0.3)
    shares = noisy[None] if classes == 1 else np.stack([1 - noisy, noisy])
    refined = DenseCrf(alike_px=20, alike_intensity=20, iterations=3)(shares.astype(np.float32), image)
    assert refined.shape == shares.shape and refined.min() >= 0 and refined.max() <= 1
    assert ((refined[-1] > 0.5) != truth).mean() < 0.01 < 0.1 < ((noisy > 0.5) != truth).mean()


def logits(classes: int, size: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(classes).normal(0, 2, (classes, *size)).astype(np.float32)


def shares_of(logits_KHW: np.ndarray) -> np.ndarray:
    return expit(logits_KHW.astype(float)) if len(logits_KHW) == 1 else softmax(logits_KHW.astype(float), axis=0)


@pytest.mark.parametrize(("classes", "at"), [(1, 0.42), (1, 0.9), (2, 0.42), (2, {"polyp": 0.8})])
@pytest.mark.parametrize("size", [(8, 10), (19, 33), (4, 6, 5)])
def test_one_foreground_class_is_taken_above_the_threshold(classes: int, at: Any, size: tuple[int, ...]) -> None:
    given = logits(classes, (4, 6, 5) if len(size) == 3 else (8, 10))
    chain = Postprocess(steps=(("threshold", Threshold(at=at)),), class_names=NAMES[:2])
    share = enlarged(shares_of(given), size)[-1]
    found = chain.chosen(given, given, size)
    limit = 0.8 if isinstance(at, dict) else at
    clear = np.abs(share - limit) > 1e-5
    assert np.array_equal(found[clear], (share > limit)[clear]) and 0 < found.mean() < 1


@pytest.mark.parametrize("at", [0.6, {"tool": 0.7}, {"polyp": 0.45, "tool": 0.8}])
@pytest.mark.parametrize("size", [(8, 10), (19, 33)])
def test_of_several_classes_the_largest_is_taken_if_it_reaches_its_threshold(at: Any, size: tuple[int, ...]) -> None:
    given = logits(3, (8, 10))
    chain = Postprocess(steps=(("threshold", Threshold(at=at)),), class_names=NAMES)
    shares = enlarged(shares_of(given), size)
    least = [0, *(at.get(name, 0) if isinstance(at, dict) else at for name in NAMES[1:])]
    first, second = np.sort(shares, 0)[:-3:-1]
    best = shares.argmax(0)
    wanted = np.where(first >= np.take(least, best), best, 0)
    clear = (first - second > 1e-5) & (np.abs(first - np.take(least, best)) > 1e-5)
    assert np.array_equal(chain.chosen(given, given, size)[clear], wanted[clear])
    assert not np.array_equal(wanted, best)


def enlarged(shares_KHW: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    import torch

    mode = "bilinear" if len(size) == 2 else "trilinear"
    return F.interpolate(torch.from_numpy(shares_KHW)[None], size, mode=mode, align_corners=False)[0].numpy()


def test_a_threshold_of_a_half_on_one_logit_changes_nothing_not_even_where_the_logit_is_0() -> None:
    given = np.array([[[-1.0, 0.0, 1e-6, 2.0]]], np.float32)
    chain = Postprocess(steps=(("threshold", Threshold(at=0.5)),), class_names=NAMES[:2])
    assert chain.chosen(given, given, (1, 4)).tolist() == [[0, 0, 1, 1]]


# The task


def task_of(root: Path, steps: Any, how: str = "resize", restore: str = "probabilities", classes: int = 2) -> Task:
    for name in ("images", "masks"):
        (root / name).mkdir(exist_ok=True)
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 255, (40, 24)).astype(np.uint8)).save(root / "images/a.png")
    Image.fromarray(np.ones((40, 24), np.uint8)).save(root / "masks/a.png")
    (root / "split.csv").write_text("image,mask,split\nimages/a.png,masks/a.png,test\n")
    made: Any = Folder(root=root, size=(16, 16), fit=how, restore=restore, calibration=0)  # type: ignore[arg-type]
    data = made(channels=1, classes=classes)
    net, postprocess = nn.Conv2d(1, classes, 1), Postprocess(steps=tuple(steps), class_names=data.class_names)
    return Task(data=data, net=net, seed=0, postprocess=postprocess)


@pytest.mark.parametrize("how", ["resize", "pad", "tile"])
@pytest.mark.parametrize("restore", ["probabilities", "labels"])
def test_scores_latency_and_overlays_take_the_same_labels_and_no_image_is_mixed_with_its_padding(
    tmp_path: Path, how: str, restore: str
) -> None:
    steps = [("smooth", Smooth(sigma_px=1.0)), ("remove_small", RemoveSmall(under_px=40))]
    task, given = task_of(tmp_path, steps, how, restore), logits(2, (16, 16))[None]
    # What lies under the padding must be seen nowhere.
    spoiled = given.copy()
    spoiled[:, 1, :, 10:] = 50
    infer = lambda _: spoiled if how == "pad" else given  # noqa: E731
    case = task.data.cases["test"][0]
    labels_HW = task.labels(infer, case)
    if how != "tile":
        inner = given[0, :, :, :10] if how == "pad" else given[0]
        shares = np.stack([ndimage.gaussian_filter(one, 1.0, mode="nearest") for one in shares_of(inner)])
        size = (40, 24) if restore == "probabilities" else inner.shape[1:]
        plain = enlarged(shares, size).argmax(0).astype(np.uint8)
        large = plain if restore == "probabilities" else task.data.fit.restore(plain, (40, 24))
        assert np.array_equal(labels_HW, RemoveSmall(under_px=40)(large, task.data.class_names, None))
    assert labels_HW.shape == (40, 24) and 0 < labels_HW.mean() < 1
    assert task.score(infer, case)[0][0, 5] == pytest.approx(labels_HW.mean())
    shown_HW = task.fitted_labels(infer, case)
    assert shown_HW.shape == task.shown(case)[1].shape and np.array_equal(shown_HW, task.data.fit.mask(labels_HW))


def test_an_unpadded_networks_answer_is_taken_at_the_middle_of_its_image(tmp_path: Path) -> None:
    seen = []

    @dataclasses.dataclass
    class Looks:
        on, gives = "probabilities", "probabilities"

        def __call__(self, shares: np.ndarray, image: np.ndarray) -> np.ndarray:
            seen.append(image)
            return shares

    task = task_of(tmp_path, [("looks", Looks())])
    case = task.data.cases["test"][0]
    labels_HW = task.labels(lambda _: logits(2, (12, 10))[None], case)
    assert labels_HW.shape == (12, 10) and np.array_equal(labels_HW, logits(2, (12, 10)).argmax(0))
    assert np.array_equal(seen[0], task.data.pixels(case)[:, 2:14, 3:13])


def test_blended_tiles_are_cleaned_as_a_whole(tmp_path: Path) -> None:
    task = task_of(tmp_path, [("largest_component", LargestComponent())], "tile", classes=1)
    case = task.data.cases["test"][0]

    def infer(image: np.ndarray) -> np.ndarray:
        return image - np.float32(0.8)

    plain = dataclasses.replace(task, postprocess=Postprocess()).labels(infer, case)
    assert plain.shape == (40, 24) and ndimage.label(plain, everywhere(2))[1] > 1
    assert np.array_equal(task.labels(infer, case), LargestComponent()(plain, NAMES[:2], None))


# The recipe


def text_of(recipe: dict[str, Any], *steps: Any) -> dict[str, Any]:
    return {**recipe, "passes": [], "postprocess": list(steps)}


@pytest.mark.parametrize(
    ("step", "why"),
    [
        ({"treshold": {"at": 0.4}}, "postprocess[0] (treshold): no such step; did you mean 'threshold'?"),
        ({"threshold": {}}, "postprocess[0] (threshold): lacks the option 'at'"),
        ({"threshold": {"at": 1.2}}, "postprocess[0] (threshold): at: 1.2: a probability above 0 and below 1"),
        ({"threshold": {"at": {}}}, "postprocess[0] (threshold): at: {}: a probability above 0 and below 1"),
        ({"threshold": {"at": True}}, "postprocess[0] (threshold): at: True is not a number"),
        ({"threshold": {"at": [0.1]}}, "postprocess[0] (threshold): at: [0.1]: a probability above 0 and below 1"),
        (
            {"smooth": {"sigma_px": 1, "sigma": 2}},
            "postprocess[0] (smooth): no option 'sigma'; did you mean 'sigma_px'?",
        ),
        ({"remove_small": {}}, "postprocess[0] (remove_small): give one of under_px, under_mm2"),
        ({"remove_small": {"under_px": 3, "under_mm2": 3}}, "postprocess[0] (remove_small): give one of under_px"),
        ({"largest_component": {"classes": "disc"}}, "postprocess[0] (largest_component): classes: 'disc'"),
    ],
)
def test_a_wrong_step_is_told_in_one_sentence_with_its_place(
    tmp_path: Path, recipe: dict[str, Any], step: Any, why: str
) -> None:
    with pytest.raises(RecipeError) as told:
        load(write_recipe(tmp_path, text_of(recipe, step)))
    (only,) = told.value.mistakes
    assert only.startswith(why)


@pytest.mark.parametrize("first", ["largest_component", {"threshold": {"at": 0.4}}])
@pytest.mark.parametrize("second", ["dense_crf", {"smooth": {"sigma_px": 1}}, {"threshold": {"at": 0.4}}])
def test_probabilities_after_labels_are_refused(
    tmp_path: Path, recipe: dict[str, Any], first: Any, second: Any
) -> None:
    with pytest.raises(RecipeError) as told:
        load(write_recipe(tmp_path, text_of(recipe, "typo", first, "fill_holes", second)))
    word = next(iter(second)) if isinstance(second, dict) else second
    before = next(iter(first)) if isinstance(first, dict) else first
    assert told.value.mistakes[1:] == [
        f"postprocess[3] ({word}): works on probabilities, but postprocess[1] ({before}) leaves labels; "
        "put it before that"
    ], "places are those of the recipe, beside other mistakes"


FITTING = Setting(class_names=NAMES, logits=3, dims=2, spacing_known=True)


@pytest.mark.parametrize(
    ("step", "setting", "why"),
    [
        (LargestComponent(classes=("poly",)), {}, "classes: there is no class 'poly'; did you mean 'polyp'?"),
        (FillHoles(classes=("liver",)), {}, "classes: there is no class 'liver'; there are polyp, tool"),
        (Threshold(at={"background": 0.4}), {}, "at: 'background' is the background, which takes what no other"),
        (Threshold(at=0.3), {}, "at: 0.3 changes nothing: of the 3 probabilities of a pixel, which sum to 1"),
        (RemoveSmall(under_mm3=4), {}, "under_mm3: the data is of images; give under_mm2 or under_px"),
        (RemoveSmall(under_mm2=4), {"dims": 3}, "under_mm2: the data is of volumes; give under_mm3 or under_px"),
        (RemoveSmall(under_mm2=4), {"spacing_known": False}, "under_mm2: the spacing of the images is not known"),
        (Threshold(at=0.3), {"logits": 2, "class_names": NAMES[:2]}, None),
        (Threshold(at={"tool": 0.4}), {}, None),
        (RemoveSmall(under_mm2=4), {}, None),
    ],
)
def test_what_cannot_be_applied_to_this_data_says_why(step: Any, setting: dict[str, Any], why: str | None) -> None:
    told = faults([("smooth", Smooth(sigma_px=1)), ("step", step)], dataclasses.replace(FITTING, **setting))
    assert len(told) == (why is not None)
    assert why is None or told[0].startswith(f"postprocess[1] (step): {why}")


def test_a_check_and_a_run_refuse_a_class_that_is_not_there(tmp_path: Path, recipe: dict[str, Any]) -> None:
    text = text_of(recipe, {"largest_component": {"classes": ["disk"]}})
    with pytest.raises(RecipeError, match="no class 'disk'"):
        run(load(write_recipe(tmp_path, text)), tmp_path / "out", say=quiet)
    # Beside other mistakes, and without anything that takes long.
    text["network"]["unet"]["weights"] = "nowhere.safetensors"
    text["data"]["folder"]["classes"] = ["background", "square", "disc"]
    why = "postprocess[0] (largest_component): classes: there is no class 'disk'; did you mean 'disc'?"
    told = check(load(write_recipe(tmp_path, text)), quiet).mistakes
    assert len(told) == 2 and why in told


def test_the_schema_has_every_step_and_each_word_is_a_file() -> None:
    choices = schema()["properties"]["postprocess"]["items"]["anyOf"]
    listed = {next(iter(one["properties"])) for one in choices if "properties" in one}
    assert listed == set(words("compress.postprocess")) == set(choices[-1]["enum"])
    for word in listed:
        step = named("compress.postprocess", word)
        assert (step.on, step.gives) in {("probabilities",) * 2, ("probabilities", "labels"), ("labels",) * 2}


# The artifact


@pytest.mark.parametrize(
    ("steps", "logits_", "wanted"),
    [
        ((), 1, 0.5),
        ((), 3, None),
        ((("threshold", Threshold(at=0.42)),), 1, 0.42),
        ((("threshold", Threshold(at={"polyp": 0.42})),), 2, 0.42),
        ((("fill_holes", FillHoles()),), 2, None),
        ((("threshold", Threshold(at=0.6)),), 3, {"polyp": 0.6, "tool": 0.6}),
    ],
)
def test_the_threshold_that_a_device_is_told_is_that_of_the_steps(steps: Any, logits_: int, wanted: Any) -> None:
    chain = Postprocess(steps=steps, class_names=NAMES[: max(2, logits_)])
    said = chain.metadata(logits_)
    assert json.loads(said["segpress.threshold"]) == wanted
    assert ("segpress.postprocess" in said) == bool(steps)
