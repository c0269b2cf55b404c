"""The split: the role of every case, and the train cases that are set aside for calibration."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from compress.data.dataset.annotated import files_of
from compress.data.dataset.cases import Case, Role
from compress.data.dataset.drawn import Row, Shares, as_csv, drawn_from
from compress.data.dataset.pairs import Pair
from compress.errors import DataError

KNOWN = frozenset(("image", "mask", "split", "patient"))
"""The columns of a split that say what a case is; others are told of it."""
SPLITS: tuple[Role, ...] = ("train", "calibration", "val", "test")


def read_split(root: Path, table: Path | None = None, split: Shares | None = None) -> dict[Role, list[Case]]:
    """The cases of every role, from root/split.csv.

    Args:
        table: another file than that one; its paths are relative to `root` all the same.
        split: how much each role gets of what lies there, where no table says it.

    Raises:
        DataError: naming the file and line that is wrong.
    """
    if split is not None:
        return of_rows(root, drawn_from(root, split))
    table = table or root / "split.csv"
    cases: dict[Role, list[Case]] = {"train": [], "calibration": [], "val": [], "test": []}
    seen: dict[str, str] = {}
    names: set[str] = set()
    for number, row in _lines(table):
        role = (row["split"] or "").strip()
        if role not in SPLITS:
            raise DataError(f"{table}:{number}: split is '{role}'; it must be one of {', '.join(SPLITS)}")
        case = _case(root, row, f"{table}:{number}")
        for file in (case.image, case.mask):
            # A mask may serve two images of one split (two frames of one still scene).
            before = seen.setdefault(str(file.resolve()), role)
            if before != role:
                raise DataError(f"{table}:{number}: {file} is in two splits, {before} and {role}")
        if case.name in names:
            raise DataError(f"{table}:{number}: {case.image} is listed twice")
        names.add(case.name)
        cases[role].append(case)
    if not seen:
        raise DataError(f"{table}: lists no case")
    return cases


def of_rows(root: Path, rows: Sequence[Row]) -> dict[Role, list[Case]]:
    """The cases of a split that was drawn."""
    cases: dict[Role, list[Case]] = {"train": [], "calibration": [], "val": [], "test": []}
    for row in rows:
        image, mask = root / row.pair.image, root / row.pair.mask
        name = row.pair.image.as_posix()
        cases[row.role].append(Case(name=name, image=image, mask=mask, patient=row.patient))  # type: ignore[index]
    return cases


def _lines(table: Path) -> list[tuple[int, dict[str, str | None]]]:
    """The table's rows, each with its line number."""
    if not table.is_file():
        raise DataError(
            f"{table}: no such file; a data folder holds images/, masks/ and split.csv; where there is none, compress "
            "init writes one, and split: {train: 70, val: 15, test: 15} draws it"
        )
    try:
        with table.open(newline="", encoding="utf-8-sig") as lines:
            rows = csv.DictReader(lines)
            lacking = {"image", "mask", "split"} - set(rows.fieldnames or ())
            if lacking:
                has = f"it has '{', '.join(rows.fieldnames)}'" if rows.fieldnames else "it is empty"
                raise DataError(
                    f"{table}: lacks the column {sorted(lacking)[0]}: {has}; it needs image,mask,split, with commas"
                )
            return [(rows.line_num, row) for row in rows]
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{table}: not a table of comma-separated UTF-8 text ({error})") from None


def _case(root: Path, row: dict[str, str | None], place: str) -> Case:
    image, mask = (row["image"] or "").strip(), (row["mask"] or "").strip()
    if not image:
        raise DataError(f"{place}: names no image")
    if not mask:
        raise DataError(f"{place}: {image} has no mask")
    for path in (image, mask):
        if not all(file.is_file() for file in ((root / image,) if path == image else files_of(root / path))):
            what = "image" if path == image else f"mask of {image}"
            raise DataError(f"{place}: the {what}, {root / path}, does not exist")
    patient = (row.get("patient") or "").strip() or None
    told = tuple((column, (value or "").strip()) for column, value in row.items() if column not in KNOWN and column)
    return Case(name=Path(image).as_posix(), image=root / image, mask=root / mask, patient=patient, told=told)


def split_table(cases: Mapping[Role, Sequence[Case]], root: Path) -> str:
    """The text of a split.csv that names the roles that cases have, those that are set aside among them."""
    rows = [
        Row(pair=Pair(image=_within(case.image, root), mask=_within(case.mask, root)), role=role, patient=case.patient)
        for role in SPLITS
        for case in dict.fromkeys(replace(case, corner=None) for case in cases[role])
    ]
    return as_csv(rows)


def _within(path: Path, root: Path) -> Path:
    return path.relative_to(root) if path.is_relative_to(root) else path


def with_calibration(cases: Mapping[Role, Sequence[Case]], count: int, root: Path) -> Mapping[Role, Sequence[Case]]:
    """Where no case is for calibration, `count` train cases set aside, whole patients at a time, by a hash of the name.

    A hash rather than a seed: training and compressing must agree, whatever their recipes' seeds.

    Raises:
        DataError: if that would leave no train case.
    """
    train = cases["train"]
    if cases["calibration"] or count == 0 or not train:
        return cases
    if count >= len(train):
        raise DataError(
            f"{root}/split.csv: {count} cases are to be set aside for calibration, but there are "
            f"only {len(train)} train cases; lower data calibration"
        )
    units = sorted({case.unit for case in train}, key=lambda unit: hashlib.sha256(unit.encode()).digest())
    aside: set[str] = set()
    for unit in units:
        if sum(case.unit in aside for case in train) >= count:
            break
        aside.add(unit)
    if len(aside) == len(units):
        raise DataError(
            f"{root}/split.csv: {count} cases set aside for calibration, whole patients at a time, would be all "
            f"{len(units)} train patients; lower data calibration, or give cases the split 'calibration'"
        )
    return {
        **cases,
        "train": [case for case in train if case.unit not in aside],
        "calibration": [case for case in train if case.unit in aside],
    }
