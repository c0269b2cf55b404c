"""Masks given as COCO, as Labelme, or as a folder for each class: read in place, paired by names, drawn alike."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from compress.data.dataset.annotated import files_of, form_of, forms
from compress.data.dataset.cases import Dataset
from compress.data.dataset.drawn import Shares
from compress.data.dataset.pairs import find_pairs, without_mask
from compress.data.dataset.regions import counts_in, filled, of_runs
from compress.data.folder import Folder
from compress.errors import DataError
from compress.recognition.masks import stored_values

CLASSES = ("background", "polyp", "tool")
SIZE = (20, 24)
POLYP, TOOL = [2.0, 3, 10, 3, 10, 12, 2, 12], [8.0, 10, 20, 10, 20, 18, 8, 18]
"""Boxes as polygons, (x, y) in turn; the tool covers a corner of the polyp."""


def wanted() -> np.ndarray:
    mask = np.zeros(SIZE, np.uint8)
    mask[3:12, 2:10] = 1
    mask[10:18, 8:20] = 2
    return mask


def images(root: Path, names: list[str]) -> None:
    for number, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full(SIZE, 40 + number, np.uint8)).save(root / name)


def runs(region: np.ndarray) -> list[int]:
    """RLE as COCO counts it."""
    flat = np.concatenate([[0], region.T.ravel().astype(int), [1 - int(region.T.ravel()[-1])]])
    places = [0, *np.flatnonzero(np.diff(flat)).tolist()]
    return np.diff(places).tolist()


def compressed(counts: list[int]) -> str:
    """As pycocotools writes them (rleToString)."""
    text = ""
    for place, count in enumerate(counts):
        number, more = count - (counts[place - 2] if place > 2 else 0), True
        while more:
            code, number = number & 0x1F, number >> 5
            more = number != (-1 if code & 0x10 else 0)
            text += chr(code + (0x20 if more else 0) + 48)
    return text


def coco(root: Path, segmentation: str = "polygon", names: tuple[str, ...] = ("a", "b", "c", "d")) -> None:
    images(root, [f"pictures/{name}.png" for name in names])
    given: dict[str, Callable[[np.ndarray, list[float]], Any]] = {
        "polygon": lambda region, polygon: [polygon],
        "runs": lambda region, polygon: {"size": list(SIZE), "counts": runs(region)},
        "compressed": lambda region, polygon: {"size": list(SIZE), "counts": compressed(runs(region))},
    }
    full = wanted() == 1
    full[10:12, 8:10] = True
    regions = {7: (full, POLYP), 3: (wanted() == 2, TOOL)}
    told = {
        "images": [
            {"id": 10 + place, "file_name": f"{name}.png", "height": SIZE[0], "width": SIZE[1]}
            for place, name in enumerate(names)
        ],
        "categories": [{"id": 3, "name": "tool"}, {"id": 7, "name": "polyp"}, {"id": 9, "name": "never"}],
        "annotations": [
            {
                "id": 1,
                "image_id": 10 + place,
                "category_id": number,
                "segmentation": given[segmentation](*regions[number]),
            }
            for place in range(len(names))
            for number in (7, 3)
        ],
    }
    (root / "annotations").mkdir()
    (root / "annotations" / "instances.json").write_text(json.dumps(told))


def labelme(root: Path, names: tuple[str, ...] = ("a", "b", "c", "d")) -> None:
    images(root, [f"{name}.png" for name in names])
    tool = {"label": "tool", "shape_type": "rectangle", "points": [[8, 10], [20, 18]]}
    polyp = {"label": "polyp", "shape_type": "polygon", "points": np.reshape(POLYP, (-1, 2)).tolist()}
    told = {"shapes": [polyp, tool], "imageHeight": SIZE[0], "imageWidth": SIZE[1], "imageData": None}
    for name in names:
        (root / f"{name}.json").write_text(json.dumps(told))


def layers(root: Path, names: tuple[str, ...] = ("a", "b", "c", "d")) -> None:
    images(root, [f"images/{name}.png" for name in names])
    for index, label in enumerate(CLASSES[1:], start=1):
        (root / "masks" / label).mkdir(parents=True)
        for name in names:
            Image.fromarray((wanted() == index).astype(np.uint8) * 255).save(root / "masks" / label / f"{name}.png")


KINDS = {"coco": coco, "labelme": labelme, "layers": layers}


def data(root: Path, **given: Any) -> Dataset:
    split = Shares(by="image", train=50, val=25, test=25)
    options = {"split": split, "classes": CLASSES, "size": SIZE, "calibration": 0, **given}
    return Folder(root=root, **options)(channels=1, classes=3)


@pytest.mark.parametrize("kind", KINDS)
def test_masks_are_found_by_names_and_drawn(kind: str, tmp_path: Path) -> None:
    KINDS[kind](tmp_path)
    (tmp_path / ".hidden").mkdir()
    (tmp_path / ".hidden" / "settings.json").write_text("// no JSON")
    found = data(tmp_path)
    cases = [case for role in ("train", "val", "test") for case in found.cases[role]]  # type: ignore[index]
    assert len(cases) == 4
    for case in cases:
        np.testing.assert_array_equal(found.mask(case), wanted())
    assert all(look.values == {0, 1, 2} for _, look in found.check()["train"])
    assert not without_mask(tmp_path, find_pairs(tmp_path))
    stored = stored_values([case.mask for case in cases])
    assert set(stored.labels) == set(CLASSES) and stored.values == (0, 1, 2)
    np.testing.assert_array_equal(np.array(stored.labels)[stored.read(cases[0].mask)], np.array(CLASSES)[wanted()])


@pytest.mark.parametrize("kind", KINDS)
def test_a_table_names_them_and_what_they_are_read_from_counts(kind: str, tmp_path: Path) -> None:
    KINDS[kind](tmp_path)
    roles = ("train", "train", "val", "test")
    rows = [f"{pair.image},{pair.mask},{role}" for pair, role in zip(find_pairs(tmp_path), roles, strict=True)]
    (tmp_path / "split.csv").write_text("image,mask,split\n" + "\n".join(rows) + "\n")
    found = data(tmp_path, split=None)
    (case,) = found.cases["test"]
    np.testing.assert_array_equal(found.mask(case), wanted())
    before = found.fingerprint(), found.sha256()
    file = files_of(case.mask)[-1]
    changed = file.read_bytes() + b" "
    file.write_bytes(changed)
    assert found.fingerprint() != before[0] and found.sha256() != before[1]
    file.unlink()
    with pytest.raises(DataError, match=r"the mask of .*, does not exist"):
        data(tmp_path, split=None)


@pytest.mark.parametrize("segmentation", ["polygon", "runs", "compressed"])
def test_polygons_and_runs_of_coco_are_the_same(segmentation: str, tmp_path: Path) -> None:
    coco(tmp_path, segmentation)
    found = data(tmp_path)
    np.testing.assert_array_equal(found.mask(found.cases["test"][0]), wanted())


def test_runs_are_read_as_they_were_written() -> None:
    random = np.random.default_rng(0)
    for share in (0.0, 0.02, 0.5, 1.0):
        region = random.random((70, 50)) < share
        counts = runs(region)
        assert counts_in(compressed(counts)) == counts
        np.testing.assert_array_equal(of_runs(counts, 70, 50), region)


def test_a_pixel_is_in_a_polygon_where_its_middle_is() -> None:
    rows, columns = np.mgrid[:30, :30] + 0.5
    triangle = np.array([[-5.0, 2], [25, 10.2], [4, 40]])
    (ax, ay), (bx, by), (cx, cy) = triangle
    sides = [
        (bx - ax) * (rows - ay) - (by - ay) * (columns - ax),
        (cx - bx) * (rows - by) - (cy - by) * (columns - bx),
        (ax - cx) * (rows - cy) - (ay - cy) * (columns - cx),
    ]
    np.testing.assert_array_equal(filled(triangle, 30, 30), np.all(np.stack(sides) > 0, axis=0))


@pytest.mark.parametrize("kind", KINDS)
def test_a_label_that_is_no_class_is_told_and_can_be_named(kind: str, tmp_path: Path) -> None:
    KINDS[kind](tmp_path)
    classes = ("background", "lesion", "tool")
    found = data(tmp_path, classes=classes)
    with pytest.raises(
        DataError, match=r"the label 'polyp' is no class .*masks: \{polyp: tool\}, or masks: \{polyp: ignore"
    ):
        found.mask(found.cases["test"][0])
    named = data(tmp_path, classes=classes, masks={"polyp": "lesion"})
    np.testing.assert_array_equal(named.mask(named.cases["test"][0]), wanted())
    without = data(tmp_path, classes=classes, masks={"polyp": "ignore"})
    assert without.ignore == 255
    np.testing.assert_array_equal(without.mask(without.cases["test"][0]) == 255, wanted() == 1)
    with pytest.raises(DataError, match=r"masks: polyp is to be 'lesoin'.*did you mean 'lesion'"):
        data(tmp_path, classes=classes, masks={"polyp": "lesoin"})


def shape(**given: Any) -> dict[str, Any]:
    return {"label": "polyp", "shape_type": "polygon", "points": [[1, 1], [9, 1], [9, 9]], **given}


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ({"shapes": [shape(shape_type="point", points=[[1, 1]])]}, "the shape 'polyp' is a point of 1 points"),
        ({"shapes": [shape(points="x")]}, "the shape 'polyp' has no points that can be read"),
        ({"shapes": 3}, "no annotation of Labelme"),
        ("{", "not a JSON file that can be read"),
    ],
)
def test_what_is_wrong_with_a_file_of_labelme_is_told(told: Any, said: str, tmp_path: Path) -> None:
    labelme(tmp_path)
    found = data(tmp_path)
    case = found.cases["test"][0]
    whole = told if isinstance(told, str) else json.dumps({"imageHeight": 20, "imageWidth": 24, **told})
    case.mask.write_text(whole)
    with pytest.raises(DataError, match=said):
        found.mask(case)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"category_id": 4}, "annotation 1 has the category 4, which is none of the file's"),
        ({"segmentation": []}, "has no segmentation, only a box"),
        ({"segmentation": {"size": [2, 2], "counts": [4]}}, r"is of \[2, 2\], its image of \[20, 24\]"),
        ({"segmentation": {"size": list(SIZE), "counts": [4]}}, "neither polygons nor RLE .*runs of 4 pixels"),
        ({"segmentation": [[1, 2, 3]]}, "neither polygons nor RLE"),
    ],
)
def test_what_is_wrong_with_an_annotation_of_coco_is_told(given: dict[str, Any], said: str, tmp_path: Path) -> None:
    coco(tmp_path)
    file = tmp_path / "annotations" / "instances.json"
    told = json.loads(file.read_text())
    found = data(tmp_path)
    told["annotations"] = [{**each, **given} for each in told["annotations"]]
    file.write_text(json.dumps(told))
    with pytest.raises(DataError, match=said):
        found.mask(found.cases["test"][0])


def test_an_image_without_annotations_is_background_and_one_without_masks_is_left_out(tmp_path: Path) -> None:
    coco(tmp_path / "coco")
    file = tmp_path / "coco" / "annotations" / "instances.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "annotations": []}))
    found = data(tmp_path / "coco")
    assert not found.mask(found.cases["test"][0]).any()
    layers(tmp_path / "layers")
    images(tmp_path / "layers", ["images/e.png"])
    (tmp_path / "layers" / "masks" / "tool" / "a.png").unlink()
    pairs = find_pairs(tmp_path / "layers")
    assert [str(pair.mask) for pair in pairs][:2] == ["masks/{polyp}/a.png", "masks/{polyp|tool}/b.png"]
    assert without_mask(tmp_path / "layers", pairs) == [Path("images/e.png")]


def test_layers_hold_one_value_and_are_of_one_size(tmp_path: Path) -> None:
    layers(tmp_path)
    found = data(tmp_path)
    case = found.cases["test"][0]
    polyp, tool = files_of(case.mask)
    Image.fromarray(wanted()).save(polyp)
    with pytest.raises(DataError, match="a mask of the class 'polyp' alone is 0 and one value; it holds 1, 2"):
        found.mask(case)
    Image.fromarray(np.zeros((4, 6), np.uint8)).save(polyp)
    with pytest.raises(DataError, match=r"is \(24, 20\), the masks of the other classes are \(6, 4\)"):
        found.mask(case)
    assert tool.name == polyp.name


def test_a_plain_image_has_no_form() -> None:
    assert form_of(Path("masks/a.png")) is None and files_of(Path("masks/a.png")) == (Path("masks/a.png"),)
    for form in forms():
        assert all(hasattr(form, name) for name in ("takes", "files", "labels", "drawn", "found"))
