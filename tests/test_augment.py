"""Augmentation: presets keep their numbers, options change only what they name, image and mask move together."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from shared_fixtures import write_recipe

from compress.errors import RecipeError
from compress.recipe import load, schema
from compress.train.augment import Augment, Changes, augmentation, augmented
from compress.train.training import Training

SIDE = 48
ROWS, COLUMNS = np.mgrid[:SIDE, :SIDE]
MASK = ((ROWS - 30) ** 2 + (COLUMNS - 18) ** 2 < 90).astype(np.uint8)
IMAGE = (0.2 + 0.6 * MASK + 0.1 * COLUMNS / SIDE)[None].astype(np.float32)


def changed(how: Any, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    return augmented(augmentation(how), IMAGE, MASK, (1, 2, seed))


def kinds(how: Any) -> list[str]:
    return [type(each).__name__ for each in augmentation(how).transforms]


# Sums over images that "strong" made when it was the preset alone: trained weights were made with it.
@pytest.mark.parametrize(
    ("seed", "image", "mask"), [(0, 747.82, 266), (1, 709.384, 565), (2, 508.744, 326), (3, 451.587, 172)]
)
def test_strong_makes_the_images_it_always_made(seed: int, image: float, mask: int) -> None:
    image_CHW, mask_HW = changed("strong", seed)
    assert image_CHW.double().sum().item() == pytest.approx(image, rel=1e-4)
    assert int(mask_HW.sum()) == mask


@pytest.mark.parametrize("preset", ["none", "flips", "strong"])
def test_a_preset_is_itself_with_no_changes(preset: Any) -> None:
    for seed in range(5):
        for ours, theirs in zip(changed(preset, seed), changed(Augment(preset=preset), seed), strict=True):
            assert torch.equal(ours, theirs)


def test_none_changes_nothing() -> None:
    image, mask = changed("none")
    assert np.array_equal(image, IMAGE)
    assert np.array_equal(mask, MASK)


def test_options_change_only_what_they_name() -> None:
    assert kinds(Augment(preset="none", elastic=1.0)) == ["Rand2DElasticd"]
    assert kinds(Augment(preset="none", scale=0.3)) == ["RandAffined"]
    assert kinds(Augment(preset="flips", upside_down=0.5)) == ["RandFlipd", "RandFlipd"]
    assert kinds(Augment(preset="flips", flips=0)) == []
    assert kinds(Augment(elastic=0)) == [each for each in kinds("strong") if each != "Rand2DElasticd"]
    assert kinds(Augment(intensity=0)) == ["RandFlipd", "RandAffined", "Rand2DElasticd"]
    assert kinds(Augment(preset="none", intensity=1)) == kinds("strong")[3:]
    (*_, noise) = augmentation(Augment(intensity=2)).transforms
    assert type(noise).__name__ == "RandGaussianNoised"
    assert noise.rand_gaussian_noise.std == 0.08


def test_upside_down_is_just_that() -> None:
    image, mask = changed(Augment(preset="none", upside_down=1))
    assert np.array_equal(image, IMAGE[:, ::-1])
    assert np.array_equal(mask, MASK[::-1])


def test_flips_swap_left_and_right() -> None:
    image, mask = changed(Augment(preset="none", flips=1))
    assert np.array_equal(image, IMAGE[:, :, ::-1])
    assert np.array_equal(mask, MASK[:, ::-1])


@pytest.mark.parametrize("how", [{"elastic": 1.0}, {"scale": 0.5}])
def test_image_and_mask_are_bent_together(how: dict[str, float]) -> None:
    moved = 0
    for seed in range(8):
        image, mask = changed(Augment(preset="none", **how), seed)
        moved += not np.array_equal(mask, MASK)
        assert set(mask.unique().tolist()) <= {0, 1}
        assert ((image[0] > 0.55) != (mask == 1)).float().mean() < 0.05
    assert moved > 4


def test_intensity_leaves_the_mask_alone() -> None:
    for seed in range(5):
        image, mask = changed(Augment(preset="none", intensity=1.5), seed)
        assert np.array_equal(mask, MASK)
        assert image.isfinite().all()


def test_the_same_seed_gives_the_same_pair() -> None:
    how = Augment(elastic=1.0, upside_down=0.5, intensity=2)
    assert torch.equal(changed(how, 3)[0], changed(how, 3)[0])
    assert not torch.equal(changed(how, 3)[0], changed(how, 4)[0])


def test_crops_are_parts_of_the_image_and_differ_by_seed() -> None:
    number = np.arange(SIDE * SIDE, dtype=np.float32).reshape(1, SIDE, SIDE)
    crop = augmentation(Changes(crop=(16, 20), augment=Augment(preset="none")))
    corners = set()
    for seed in range(10):
        image, mask = augmented(crop, number, MASK, (0, 0, seed))
        assert image.shape == (1, 16, 20)
        top, left = divmod(int(image[0, 0, 0]), SIDE)
        assert np.array_equal(image[0], number[0, top : top + 16, left : left + 20])
        assert np.array_equal(mask, MASK[top : top + 16, left : left + 20])
        corners.add((top, left))
    assert len(corners) > 5


PLACES = np.meshgrid(*[np.arange(20)] * 3, indexing="ij")
BALL = (sum((place - at) ** 2 for place, at in zip(PLACES, (8, 12, 9), strict=True)) < 30).astype(np.uint8)
VOLUME = (0.2 + 0.6 * BALL + 0.1 * PLACES[0] / 20)[None].astype(np.float32)


def changed_volume(augment: Augment, axes: str = "RAS", seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    return augmented(augmentation(Changes(augment=augment, axes=axes)), VOLUME, BALL, (1, 2, seed))


@pytest.mark.parametrize(("axes", "sideways", "upright"), [("RAS", 0, 2), ("SPL", 2, 0), ("AIR", 2, 1)])
def test_volumes_are_flipped_along_the_patients_own_axes(axes: str, sideways: int, upright: int) -> None:
    for option, axis in (("flips", sideways), ("upside_down", upright)):
        image, mask = changed_volume(Augment(preset="none", **{option: 1}), axes)  # type: ignore[arg-type]
        assert np.array_equal(image, np.flip(VOLUME, 1 + axis))
        assert np.array_equal(mask, np.flip(BALL, axis))


@pytest.mark.parametrize("how", [{"elastic": 1.0}, {"scale": 0.4}, {}])
def test_volumes_are_bent_with_their_masks_and_along_every_axis(how: dict[str, float]) -> None:
    preset: Any = "none" if how else "strong"
    moved = np.zeros(3)
    for seed in range(6):
        image, mask = changed_volume(Augment(preset=preset, intensity=0, **how), seed=seed)
        assert image.shape == VOLUME.shape and mask.shape == BALL.shape
        assert set(mask.unique().tolist()) <= {0, 1}
        assert ((image[0] > 0.55) != (mask == 1)).float().mean() < 0.05
        moved += [mask.sum(axes).ne(torch.from_numpy(BALL).long().sum(axes)).any() for axes in ((1, 2), (0, 2), (0, 1))]
    assert (moved > 1).all()


def test_the_same_seed_gives_the_same_volume_and_crops_have_three_sides() -> None:
    how = Changes(augment=Augment(), crop=(8, 10, 12), axes="RAS")
    first, again, other = (augmented(augmentation(how), VOLUME, BALL, (0, 0, seed)) for seed in (1, 1, 2))
    assert first[0].shape == (1, 8, 10, 12)
    assert first[1].shape == (8, 10, 12)
    assert torch.equal(first[0], again[0])
    assert not torch.equal(first[0], other[0])


@pytest.mark.parametrize(
    ("augment", "sentence"),
    [
        ("strnog", "train: augment.preset: 'strnog' is not one of none, flips, strong; did you mean 'strong'?"),
        ({"elastc": 0.5}, "train: no option 'augment.elastc'; did you mean 'elastic'?"),
        ({"elastic": 2}, "train: augment.elastic: 2: input should be less than or equal to 1"),
        (5, "train: augment: 5: it is a preset, such as strong, or names of options with values"),
    ],
)
def test_a_mistake_is_told_with_its_place(
    augment: Any, sentence: str, recipe: dict[str, object], tmp_path: Path
) -> None:
    recipe["train"] = {"augment": augment}
    with pytest.raises(RecipeError) as caught:
        load(write_recipe(tmp_path, recipe))
    assert sentence in str(caught.value)


def test_a_recipe_takes_a_preset_or_a_preset_with_changes(recipe: dict[str, object], tmp_path: Path) -> None:
    for given, expected in (("flips", Augment(preset="flips")), ({"elastic": 0.5}, Augment(elastic=0.5))):
        recipe["train"] = {"augment": given}
        training = load(write_recipe(tmp_path, recipe)).train
        assert training is not None
        assert training.augment == expected
    assert Training().augment == Augment(preset="strong")
    choices = schema()["properties"]["train"]["properties"]["augment"]["anyOf"]
    assert {"enum": ["none", "flips", "strong"], "type": "string"} in choices
