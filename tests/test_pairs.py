"""Images and masks without a split.csv: which belong together, whose they are, and the split that is drawn of them."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import pytest
from shared_fixtures import write_folder, write_recipe

from compress.commands.run import _on_split
from compress.data.dataset.cases import Case
from compress.data.dataset.drawn import Row, Shares, as_csv, draw, roles_by_name
from compress.data.dataset.pairs import Pair, find_pairs, without_mask
from compress.data.dataset.patients import patients_of
from compress.data.dataset.split import read_split
from compress.data.folder import Folder
from compress.data.nifti import Nifti
from compress.errors import DataError
from compress.recipe import load, read


def laid(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


FOLDERS = ("train2017", "val2017", "test2017")


def pairs(*stems: str) -> list[Pair]:
    return [Pair(image=Path(f"images/{stem}.png"), mask=Path(f"masks/{stem}.png")) for stem in stems]


def of_patients(patients: int, images: int) -> list[Pair]:
    return pairs(*(f"p{patient:02d}_{image}" for patient in range(patients) for image in range(images)))


@pytest.mark.parametrize(
    ("image", "mask"),
    [
        ("images/a.jpg", "masks/a.png"),
        ("imgs/a.png", "labels/a_mask.png"),
        ("train/images/a.png", "train/masks/a.png"),
        ("images/train/a.png", "masks/train/a.png"),
        ("benign/a (1).png", "benign/a (1)_mask.png"),
        ("a.tif", "a_mask.tif"),
        ("a_image.png", "a_segmentation.png"),
        ("images/a.png", "groundtruth/a_gt.png"),
    ],
)
def test_an_image_and_its_mask_find_each_other(tmp_path: Path, image: str, mask: str) -> None:
    assert find_pairs(laid(tmp_path, image, mask, "._a.png")) == [Pair(image=Path(image), mask=Path(mask))]


def test_what_has_no_partner_is_left_out_and_told(tmp_path: Path) -> None:
    root = laid(tmp_path, "images/a.png", "images/b.png", "masks/a.png", "notes.txt")
    assert without_mask(root, find_pairs(root)) == [Path("images/b.png")]


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ((), "holds no image"),
        (("images/a.png", "masks/b.png"), "none of its 2 images has a mask of its name"),
        (("images/a.png", "images/a.jpg", "masks/a.png"), "are images of one case"),
        (("a.png", "a_mask.png", "a_label.png"), "are masks of one case"),
    ],
)
def test_what_cannot_be_paired_is_told(tmp_path: Path, names: Sequence[str], said: str) -> None:
    with pytest.raises(DataError, match=said):
        find_pairs(laid(tmp_path, *names))


def test_patients_are_found_where_names_tell_them() -> None:
    told = patients_of(of_patients(4, 3))
    assert told is not None and told.told and told.count == 4
    numbers = patients_of(pairs(*(f"{patient}_{image}" for patient in range(4) for image in range(3))))
    assert numbers is not None and not numbers.told and numbers.count == 4
    folders = [Pair(image=Path(f"images/patient{n}/{k}.png"), mask=Path("m.png")) for n in range(3) for k in range(2)]
    assert (patients_of(folders) or numbers).count == 3


@pytest.mark.parametrize("stems", [("0001", "0002", "0003"), ("train_01", "train_02"), ("cju0qkwl35", "cju0rx1idx")])
def test_names_that_tell_nobody_are_nobodys(stems: Sequence[str]) -> None:
    assert patients_of(pairs(*stems)) is None


def test_a_pattern_says_who_is_the_patient_and_must_find_one_everywhere() -> None:
    found = patients_of(pairs("ab-1", "ab-2", "cd-1"), r"/(\w+)-")
    assert found is not None and found.count == 2
    for pattern, said in (
        (r"/(x\w+)-", "finds no patient in images/ab-1.png"),
        ("x", "has no group"),
        ("(", "is no reg"),
    ):
        with pytest.raises(DataError, match=said):
            patients_of(pairs("ab-1"), pattern)


def test_a_drawn_split_keeps_patients_together_is_repeated_and_near_its_shares() -> None:
    some = of_patients(40, 5)
    found = patients_of(some)
    assert found is not None
    rows = draw(some, Shares(seed=3), found.of)
    assert rows == draw(list(reversed(some)), Shares(seed=3), found.of)
    assert rows != draw(some, Shares(seed=4), found.of)
    assert all(len({row.role for row in rows if row.patient == patient}) == 1 for patient in found.of.values())
    counts = {role: sum(row.role == role for row in rows) for role in ("train", "val", "test")}
    assert counts == {"train": 140, "val": 30, "test": 30}


def test_of_few_each_role_gets_one_and_of_too_few_none() -> None:
    assert {row.role for row in draw(pairs("a", "b", "c"), Shares(), None)} == {"train", "val", "test"}
    with pytest.raises(DataError, match="2 images are too few"):
        draw(pairs("a", "b"), Shares(), None)


def test_names_that_tell_the_role_are_taken() -> None:
    rows = roles_by_name(pairs("train_1", "train_2", "val_1", "test_1"), None)
    assert rows is not None and [row.role for row in rows] == ["train", "train", "val", "test"]
    assert roles_by_name(pairs("train_1", "other"), None) is None
    found = [Pair(image=Path(f"{folder}/{name}.png"), mask=Path("m.png")) for folder in FOLDERS for name in "ab"]
    rows = roles_by_name(found, None)
    assert rows is not None and [row.role for row in rows] == ["train", "train", "val", "val", "test", "test"]


def test_a_table_may_lie_beside_the_recipe(tmp_path: Path) -> None:
    root = laid(tmp_path / "data", "images/a.png", "masks/a.png")
    table = tmp_path / "mine" / "split.csv"
    table.parent.mkdir()
    row = Row(pair=Pair(image=Path("images/a.png"), mask=Path("masks/a.png")), role="test", patient="p1")
    table.write_text(as_csv([row]))
    case = Case(name="images/a.png", image=root / "images/a.png", mask=root / "masks/a.png", patient="p1")
    assert read_split(root, table)["test"] == [case]
    assert Folder(root=root, table=table)(channels=1, classes=2).cases["test"] == [case]
    (volume,) = Nifti(root=root, table=table, calibration=0)(channels=1, classes=2).cases["test"]
    assert volume.name == case.name


def drawing(place: Path, **split: object) -> dict:
    root = laid(
        place / "data", *(f"{what}/p{n}_{k}.png" for what in ("images", "masks") for n in range(9) for k in (1, 2))
    )
    return {
        "network": {"unet": {"classes": 3, "width": 8, "depth": 2}},
        "seed": 11,
        "data": {"folder": {"root": str(root), "size": [32, 32], "calibration": 2, "split": split}},
    }


def test_a_recipe_draws_a_split_by_its_seed(tmp_path: Path) -> None:
    recipe = drawing(tmp_path, train=60, val=20, test=20, by="patient")
    data = load(write_recipe(tmp_path, recipe)).data
    assert data.split.seed == 11 and data.split.patients is None
    cases = data(channels=1, classes=3).cases
    assert len({case.patient for some in cases.values() for case in some}) == 9 and cases["calibration"]
    recipe["data"]["folder"]["split"] |= {"by": "patient", "patients": r"(p\d)", "seed": 1}
    other = load(write_recipe(tmp_path, recipe)).data(channels=1, classes=3).cases
    assert other["test"] != cases["test"]


def test_a_split_that_cannot_be_drawn_is_refused(tmp_path: Path) -> None:
    recipe = drawing(tmp_path, train=-1)
    assert read(write_recipe(tmp_path, recipe))[1] == ["data (folder): split.train: -1: input should be greater than 0"]
    recipe["data"]["folder"] |= {"split": {"by": "image"}, "table": "split.csv"}
    assert "give one of them" in read(write_recipe(tmp_path, recipe))[1][0]
    recipe = drawing(tmp_path / "nobody")
    for path in (tmp_path / "nobody").rglob("*.png"):
        path.rename(path.with_name(path.name.replace("_", "")))
    with pytest.raises(DataError, match="tell no patients"):
        load(write_recipe(tmp_path / "nobody", recipe)).data(channels=1, classes=3)


def test_a_run_keeps_the_split_that_was_drawn_and_says_so(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "data", {"train": 12})
    (root / "split.csv").unlink()
    recipe = {
        **drawing(tmp_path / "other"),
        "data": {"folder": {"root": str(root), "size": [32, 32], "calibration": 2}},
    }
    recipe["data"]["folder"]["split"] = {"by": "image"}
    loaded = load(write_recipe(tmp_path, recipe))
    task = SimpleNamespace(data=loaded.data(channels=1, classes=3))
    (said,) = _on_split(loaded, task, tmp_path / "run")  # type: ignore[arg-type]
    assert said.startswith(
        "the split was drawn by image: 70 % train, 15 % val, 15 % test, seed 11; kept/split.csv names"
    )
    again = read_split(root, tmp_path / "run" / "kept" / "split.csv")
    assert again == {role: list(cases) for role, cases in task.data.cases.items()} and again["calibration"]


def test_links_to_folders_are_followed_once_and_a_folder_that_cannot_be_read_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_folder(tmp_path / "elsewhere", {"train": 2})
    root = tmp_path / "data"
    root.mkdir()
    for name in ("images", "masks"):
        (root / name).symlink_to(tmp_path / "elsewhere" / name)
    (root / "images" / "round").symlink_to(root)
    assert [str(pair.image) for pair in find_pairs(root)] == ["images/train_000.png", "images/train_001.png"]

    def refused(path: str) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", path)

    monkeypatch.setattr(os, "scandir", refused)
    with pytest.raises(DataError, match="data: the folder cannot be read \\(Permission denied\\)"):
        find_pairs(root)
