"""What is done to an image's values: numbers given, or the image's own, in the order that the network takes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydantic import TypeAdapter, ValidationError

from compress.data.dataset.cases import ROLES, Case, Dataset, Fit, Normalization
from compress.data.dataset.images import Images
from compress.data.dataset.normal import judged
from compress.errors import DataError

PIXELS = np.random.default_rng(0).random((3, 9, 7)).astype(np.float32) * np.float32(0.3) + np.float32(0.2)


def dataset(normalization: Normalization, channels: int = 3, **fit: object) -> Dataset:
    return Dataset(
        cases={role: [] for role in ROLES},
        class_names=("background", "disc"),
        channels=channels,
        fit=Fit(**{"size": (8, 8), **fit}),  # type: ignore[arg-type]
        reader=Images(),
        normalization=normalization,
    )


@pytest.mark.parametrize(("z_score", "axes"), [("image", (0, 1, 2)), ("channel", (1, 2))])
@pytest.mark.parametrize("order", ["RGB", "BGR"])
def test_an_image_by_its_own_numbers_has_mean_0_and_deviation_1(
    z_score: str, axes: tuple[int, ...], order: str
) -> None:
    given = TypeAdapter(Normalization).validate_python({"z_score": z_score, "order": order})
    turned = PIXELS if order == "RGB" else PIXELS[::-1]
    wanted = (turned - turned.mean(axes, keepdims=True)) / turned.std(axes, keepdims=True)
    seen = given(PIXELS)
    assert seen.dtype == np.float32
    np.testing.assert_allclose(seen, wanted, atol=1e-5)
    np.testing.assert_allclose(seen.mean(axes), 0, atol=1e-5)
    assert not given(np.full((3, 4, 4), 0.3, np.float32)).any(), "an image of one value is 0"


def test_mean_and_std_are_in_the_order_of_the_network() -> None:
    seen = Normalization(mean=(0.1, 0.2, 0.3), std=(1.0, 2.0, 4.0), order="BGR")(PIXELS)
    np.testing.assert_allclose(seen[0], PIXELS[2] - 0.1, atol=1e-6)
    np.testing.assert_allclose(seen[2], (PIXELS[0] - 0.3) / 4, atol=1e-6)


def test_what_cannot_be_said_together_is_told() -> None:
    with pytest.raises(ValidationError, match="z_score takes each image's own mean and std; leave these out"):
        Normalization(z_score="image", mean=(0.5,))
    with pytest.raises(DataError, match="has the order BGR, but the network takes 1 channels: leave order out"):
        dataset(Normalization(order="BGR"), channels=1)


def test_a_tile_is_normalized_by_its_whole_image(tmp_path: Path) -> None:
    image = np.zeros((16, 16, 3), np.uint8)
    image[:, 8:] = 200
    Image.fromarray(image).save(tmp_path / "a.png")
    whole = Case(name="a", image=tmp_path / "a.png", mask=tmp_path / "a.png")
    left = replace(whole, corner=(0, 0))
    data = dataset(Normalization(z_score="image"), how="tile")
    np.testing.assert_allclose(data.image(left), -1, atol=1e-5)
    np.testing.assert_allclose(data.normalized(data.pixels(left), left), -1, atol=1e-5)
    np.testing.assert_allclose(data.normalization(data.whole_pixels(whole))[:, :8, :8], data.image(left))


def test_a_look_at_the_numbers_knows_the_order_and_lets_an_images_own_be() -> None:
    dark = np.stack([np.full((4, 4), value, np.float32) for value in (0.9, 0.5, 0.1)])
    dark[:, 0] += np.float32(0.02)
    bgr = Normalization(mean=(0.1, 0.5, 0.9), std=(0.02, 0.02, 0.02), order="BGR")
    assert judged(dataset(bgr), [dark], "the recipe") == ([], [])
    assert judged(dataset(replace(bgr, order="RGB")), [dark], "the recipe")[0]
    assert judged(dataset(Normalization(z_score="channel")), [dark], "the recipe") == ([], [])


def test_it_is_told_as_a_recipe_writes_it() -> None:
    for given in (
        Normalization(mean=(0.4,), std=(0.2,)),
        Normalization(z_score="image"),
        Normalization(mean=(0.1, 0.2, 0.3), order="BGR"),
        Normalization(z_score="channel", order="BGR"),
    ):
        assert TypeAdapter(Normalization).validate_python(given.told) == given
    assert Normalization(z_score="image").told == {"z_score": "image"}
    assert str(Normalization(z_score="image", order="BGR")) == (
        "each image by its own mean and std; channels in the order BGR"
    )
