"""What people's masks hold besides class indices: 0 and 255, colours, palettes, soft edges; and what is said of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from compress.data.dataset.cases import Dataset
from compress.data.folder import Folder
from compress.errors import DataError, RecipeError
from compress.recipe import load
from compress.recipe.yaml_file import Loader
from export.registry import words

SIDE = 16
INDEX_HW = (np.arange(SIDE)[:, None] // 6 + np.zeros((1, SIDE), int)).astype(np.uint8)
"""Three bands: classes 0, 1 and 2."""
RED, BLUE = [255, 0, 0], [0, 0, 255]
COLOURS = np.array([[0, 0, 0], RED, BLUE], np.uint8)
NAMES = ("background", "nerve", "vessel")


def data(root: Path, *masks: Any, classes: int = 3, suffix: str = "png", **options: Any) -> Dataset:
    """A data set of one test case for each mask, an array or an image."""
    for name in ("images", "masks"):
        (root / name).mkdir(exist_ok=True)
    rows = ["image,mask,split"]
    for number, mask in enumerate(masks):
        image = mask if isinstance(mask, Image.Image) else Image.fromarray(mask)
        image.save(root / f"masks/{number}.{suffix}")
        Image.fromarray(np.arange(image.width * image.height, dtype=np.uint8).reshape(image.size[::-1])).save(
            root / f"images/{number}.png"
        )
        rows.append(f"images/{number}.png,masks/{number}.{suffix},test")
    (root / "split.csv").write_text("\n".join(rows))
    options = {"size": (SIDE, SIDE), "calibration": 0, "classes": NAMES[:classes] if classes > 1 else None, **options}
    return Folder(root=root, **options)(channels=1, classes=classes)


def read(found: Dataset) -> np.ndarray:
    found.check()
    return found.mask(found.cases["test"][0])


def palette(index_HW: np.ndarray = INDEX_HW) -> Image.Image:
    image = Image.fromarray(index_HW)
    image.putpalette(COLOURS.tobytes())
    return image


def told(found: Dataset) -> str:
    with pytest.raises(DataError) as caught:
        found.check()
    return str(caught.value)


BY_VALUE = {0: "background", 128: "nerve", 255: "vessel"}
BY_COLOUR = {"#000000": "background", "#FF0000": "nerve", "[0, 0, 255]": "vessel"}
OF_THREE = np.array([0, 128, 255], np.uint8)[INDEX_HW]


@pytest.mark.parametrize(
    ("mask", "masks"),
    [
        (OF_THREE, BY_VALUE),
        (OF_THREE, {str(value): index for index, value in enumerate(BY_VALUE)}),
        (OF_THREE, {"128": "1", 255: "vessel"}),
        (OF_THREE, {"#808080": "nerve", "#ffffff": "vessel"}),
        (Image.fromarray(OF_THREE).convert("RGB"), BY_VALUE),
        (Image.fromarray(OF_THREE).convert("LA"), BY_VALUE),
        (INDEX_HW.astype(np.uint16) * 30_000, {30_000: "nerve", 60_000: "vessel"}),
        (INDEX_HW.astype(np.int32) * 100_000, {100_000: "nerve", 200_000: "vessel"}),
        (INDEX_HW.astype(np.float32) * 0.9999999, {1: "nerve", 2: "vessel"}),
        (COLOURS[INDEX_HW], BY_COLOUR),
        (COLOURS[INDEX_HW], {0: "background", "255, 0, 0": 1, "(0,0,255)": 2}),
        (Image.fromarray(COLOURS[INDEX_HW]).convert("RGBA"), BY_COLOUR),
        (palette(), BY_COLOUR),
        (palette(), {1: "nerve", 2: "vessel"}),
    ],
)
def test_stored_values_and_colours_become_the_classes_that_masks_names(
    tmp_path: Path, mask: Any, masks: dict[Any, Any]
) -> None:
    suffix = "tif" if isinstance(mask, np.ndarray) and mask.dtype.itemsize == 4 else "png"
    assert np.array_equal(read(data(tmp_path, mask, suffix=suffix, masks=masks)), INDEX_HW)


def test_opacity_is_left_out_where_each_colour_has_one_and_told_where_not(tmp_path: Path) -> None:
    opacity_HW = np.array([0, 90, 255], np.uint8)[INDEX_HW]
    drawn = np.dstack([COLOURS[INDEX_HW], opacity_HW])
    assert np.array_equal(read(data(tmp_path, drawn, masks=BY_COLOUR)), INDEX_HW)
    drawn[8, 3, 3] = 30
    assert "0.png: the colour '#ff0000' has several opacities" in told(data(tmp_path, drawn, masks=BY_COLOUR))


@pytest.mark.parametrize("masks", [{1: "polyp"}, {255: "polyp"}, {"#ffffff": "polyp"}])
def test_white_of_a_1_bit_mask_is_1_and_where_masks_says_so_255(tmp_path: Path, masks: dict[Any, Any]) -> None:
    found = data(tmp_path, INDEX_HW > 0, classes=1, masks=masks)
    assert found.class_names == ("background", "polyp")
    assert np.array_equal(read(found), INDEX_HW > 0)


@pytest.mark.parametrize("value", [0, 255])
def test_a_mask_may_be_all_background_or_all_foreground(tmp_path: Path, value: int) -> None:
    found = data(tmp_path, np.full((SIDE, SIDE), value, np.uint8), classes=1, masks={255: "polyp"})
    assert set(np.unique(read(found))) == {value // 255}


def test_what_is_ignored_counts_nowhere_whatever_it_is_stored_as(tmp_path: Path) -> None:
    mask_HW = np.array([0, 1, 255], np.uint8)[INDEX_HW]
    for options in ({"masks": {255: "nerve", 1: "ignore"}}, {"masks": {255: "nerve"}, "ignore": 1}):
        found = data(tmp_path, mask_HW, **options)
        assert found.ignore == 255
        assert np.array_equal(read(found), np.array([0, 255, 1])[INDEX_HW])


@pytest.mark.parametrize(
    ("mask", "classes", "pasted"),
    [
        (INDEX_HW.clip(0, 1) * 255, 1, "masks: {0: background, 255: class 1}"),
        (INDEX_HW.clip(0, 1) * 255, 2, "masks: {0: background, 255: nerve}"),
        (np.full((SIDE, SIDE), 255, np.uint8), 2, "masks: {0: background, 255: nerve}"),
        (OF_THREE, 3, "masks: {0: background, 128: nerve, 255: vessel}"),
        (INDEX_HW.astype(np.uint16) * 30_000, 3, "masks: {0: background, 30000: nerve, 60000: vessel}"),
        (Image.fromarray(OF_THREE).convert("RGB"), 3, "masks: {0: background, 128: nerve, 255: vessel}"),
        (COLOURS[INDEX_HW], 3, "masks: {'#000000': background, '#0000ff': nerve, '#ff0000': vessel}"),
    ],
)
def test_the_refusal_names_what_was_found_ready_to_paste_and_never_advises_to_ignore_it(
    tmp_path: Path, mask: Any, classes: int, pasted: str
) -> None:
    said = told(data(tmp_path, mask, classes=classes))
    assert "masks/0.png" in said
    assert pasted in said
    assert "ignore" not in said
    found = data(tmp_path, mask, classes=classes, **yaml.load(pasted, Loader))
    assert read(found).max() == max(1, classes - 1)


def test_a_value_beside_classes_that_are_there_may_be_one_to_ignore(tmp_path: Path) -> None:
    # The first file alone would look as if 255 were the foreground.
    said = told(data(tmp_path, INDEX_HW.clip(0, 1) * 255, INDEX_HW))
    assert said.endswith("correct the mask, the number of classes, or set ignore: 255")


@pytest.mark.parametrize("suffix", ["jpg", "png"])
@pytest.mark.parametrize("masks", [None, {255: "nerve"}])
def test_soft_edges_have_a_sentence_of_their_own(tmp_path: Path, suffix: str, masks: dict[Any, Any] | None) -> None:
    disc_HW = np.uint8(np.hypot(*np.mgrid[-8:8, -8:8]) < 6) * 255
    soft = Image.fromarray(disc_HW)
    soft = soft if suffix == "jpg" else soft.resize((50, 50), Image.Resampling.BICUBIC)
    said = told(data(tmp_path, soft, classes=2, suffix=suffix, masks=masks))
    assert "values that are no class" in said
    assert ("JPEG has changed what was drawn" in said) or suffix == "png"
    assert "ignore" not in said


def test_a_value_that_masks_does_not_name_is_told_with_its_file(tmp_path: Path) -> None:
    said = told(data(tmp_path, OF_THREE, masks={255: "vessel"}))
    assert "masks/0.png: holds the value 128, which masks does not name (it names 0, 255)" in said
    assert said.endswith("add it with its class, or as ignore")
    said = told(data(tmp_path, INDEX_HW.clip(0, 1) * 255, masks={254: "vessel"}))
    assert said.endswith("add it with its class"), "the only foreground is never proposed to be ignored"
    said = told(data(tmp_path, COLOURS[INDEX_HW], masks={"#ff0000": "vessel"}))
    assert "holds the colour '#0000ff', which masks does not name (it names '#000000', '#ff0000')" in said
    said = told(data(tmp_path, INDEX_HW.astype(np.uint16) * 30_000, masks={"#ff0000": "vessel"}))
    assert "16-bit gray holds 60000, but masks names colours" in said


@pytest.mark.parametrize(
    ("masks", "words_"),
    [
        ({255: "vesel"}, "masks: 255 is to be 'vesel', but there is no class of that name; did you mean 'vessel'"),
        ({255: "bone"}, "there is no class of that name; there are background, nerve, vessel"),
        ({255: 3}, "masks: 255 is to be '3', but there is no class of that name"),
    ],
)
def test_a_class_that_does_not_exist_is_told_with_what_was_meant(
    tmp_path: Path, masks: dict[Any, Any], words_: str
) -> None:
    with pytest.raises(DataError) as caught:
        data(tmp_path, OF_THREE, masks=masks)
    assert words_ in str(caught.value)


@pytest.mark.parametrize(
    ("masks", "said"),
    [
        ("{}", "masks names no value"),
        ("{'#red': nerve}", "masks: '#red' is neither a stored value (0, 255) nor a colour ('#ff0000' or [255, 0, 0])"),
        ("{[256, 0, 0]: nerve}", "'[256, 0, 0]' is neither"),
        ("{'#ff0000': nerve, [255, 0, 0]: vessel}", "masks: '#ff0000' is given twice"),
        ("{'#ff0000': nerve, 300: vessel}", "300 stands among colours, where a number is a gray from 0 to 255"),
        ("[nerve]", "masks: ['nerve']: input should be a valid dictionary"),
    ],
)
def test_masks_that_cannot_be_read_are_a_mistake_of_the_recipe(tmp_path: Path, masks: str, said: str) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        f"network: {{unet: {{classes: 3, width: 8}}}}\ndata: {{folder: {{root: {tmp_path}, masks: {masks}}}}}\n"
    )
    with pytest.raises(RecipeError) as caught:
        load(recipe)
    assert said in str(caught.value)


def test_colours_are_keys_in_yaml() -> None:
    text = "masks: {'#00ff00': a, [255, 0, 0]: b, 255: c}"
    assert yaml.load(text, Loader) == {"masks": {"#00ff00": "a", "[255, 0, 0]": "b", "255": "c"}}


def test_a_value_is_a_class_or_ignored_and_not_both(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="255 has a class in masks, and ignore names it too; drop one"):
        data(tmp_path, OF_THREE, masks=BY_VALUE, ignore=255)


def test_what_masks_says_changes_the_fingerprint(tmp_path: Path) -> None:
    ways = (BY_VALUE, {**BY_VALUE, 128: "vessel"}, {**BY_VALUE, 7: "nerve"}, None)
    assert len({data(tmp_path, OF_THREE, masks=masks).fingerprint() for masks in ways}) == len(ways)


def test_what_reads_masks_is_no_kind_of_data() -> None:
    assert words("compress.data") == ["folder", "nifti", "nnunet", "synthetic"]
