"""A split that is drawn: the roles of the pairs of a folder that has no split.csv."""

from __future__ import annotations

import csv
import io
import random
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import pydantic
from pydantic import ConfigDict, Field

from compress.data.dataset.pairs import Pair, find_pairs
from compress.data.dataset.patients import patients_of
from compress.errors import DataError

Share = Annotated[float, Field(gt=0, allow_inf_nan=False)]
DRAWN: tuple[Literal["train", "val", "test"], ...] = ("train", "val", "test")


@pydantic.dataclasses.dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class Shares:
    """How much of a folder's cases, or of its patients' cases, each role gets."""

    train: Share = 70
    val: Share = 15
    test: Share = 15
    by: Literal["patient", "image"] = "patient"
    """patient: whole patients, as the names of files tell them; image: each for itself."""
    patients: str | None = None
    """A regular expression whose group in an image's path is the patient; None finds it in the usual names."""
    seed: Annotated[int, Field(ge=0)] | None = None
    """None takes the recipe's."""

    def __str__(self) -> str:
        whole = sum(getattr(self, role) for role in DRAWN) / 100
        shares = ", ".join(f"{getattr(self, role) / whole:.3g} % {role}" for role in DRAWN)
        return f"drawn by {self.by}: {shares}, seed {self.seed or 0}"


@dataclass(frozen=True, kw_only=True)
class Row:
    """A line of split.csv."""

    pair: Pair
    role: str
    patient: str | None = None


def drawn_from(root: Path, shares: Shares) -> list[Row]:
    """The cases of a folder of images and masks, each with a role that is the same for the same files and seed.

    Raises:
        DataError: if there are no pairs, their patients are wanted and not told, or a role gets none.
    """
    pairs = find_pairs(root)
    if shares.by == "image":
        return draw(pairs, shares, None)
    patients = patients_of(pairs, shares.patients)
    if patients is None:
        raise DataError(
            f"{root}: the names of its {len(pairs)} images tell no patients (such as p01_003.png); say how with "
            "patients: '^(.*)_', a regular expression, or set by: image where each is another patient's"
        )
    return draw(pairs, shares, patients.of)


def draw(pairs: Sequence[Pair], shares: Shares, patients: Mapping[Path, str] | None) -> list[Row]:
    """A role for each pair, the pairs of one patient (by image) together; in order of names.

    Raises:
        DataError: if there are too few to give each role one.
    """
    units: dict[str, list[Pair]] = defaultdict(list)
    for pair in sorted(pairs, key=lambda each: each.image.as_posix()):
        units[pair.image.as_posix() if patients is None else patients[pair.image]].append(pair)
    if len(units) < len(DRAWN):
        what = "images" if patients is None else "patients"
        raise DataError(f"{len(units)} {what} are too few for train, val and test; name the roles in a split.csv")
    names = sorted(units)
    random.Random(shares.seed or 0).shuffle(names)
    role_of = _roles([(name, len(units[name])) for name in names], shares)
    return [
        Row(pair=pair, role=role_of[name], patient=None if patients is None else name)
        for name in sorted(units)
        for pair in units[name]
    ]


def _roles(units: Sequence[tuple[str, int]], shares: Shares) -> dict[str, str]:
    """Each unit to the role that lacks most of its share; every role gets one first."""
    total, whole = sum(count for _, count in units), sum(getattr(shares, role) for role in DRAWN)
    wanted = {role: total * getattr(shares, role) / whole for role in DRAWN}
    has = dict.fromkeys(DRAWN, 0)
    found: dict[str, str] = {}
    for place, (name, count) in enumerate(units):
        empty = [role for role in DRAWN if not has[role]]
        among = empty if len(units) - place <= len(empty) else DRAWN
        role = max(among, key=lambda each: (wanted[each] - has[each]) / wanted[each])
        has[role] += count
        found[name] = role
    return found


def as_csv(rows: Sequence[Row]) -> str:
    """The text of a split.csv; a column for patients where they are known."""
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    known = any(row.patient for row in rows)
    table.writerow(["image", "mask", "split", *(["patient"] if known else [])])
    for row in rows:
        files = row.pair.image.as_posix(), row.pair.mask.as_posix()
        table.writerow([*files, row.role, *([row.patient] if known else [])])
    return text.getvalue()


_ROLE_OF = {
    **dict.fromkeys(("train", "training", "tr"), "train"),
    **dict.fromkeys(("val", "valid", "validation"), "val"),
    **dict.fromkeys(("test", "testing", "ts"), "test"),
    **dict.fromkeys(("calibration",), "calibration"),
}


def roles_by_name(pairs: Sequence[Pair], patients: Mapping[Path, str] | None) -> list[Row] | None:
    """The roles that folders or names begin with, such as `test/images/a.png`; None where they do not tell them all."""
    rows = []
    for pair in pairs:
        # As in train2017/.
        folders = [part.rstrip("0123456789") for part in pair.image.parent.parts]
        words = [part.lower() for part in (*folders, *re.split(r"[-_]", pair.stem)[:1])]
        role = next((_ROLE_OF[word] for word in words if word in _ROLE_OF), None)
        if role is None:
            return None
        rows.append(Row(pair=pair, role=role, patient=None if patients is None else patients[pair.image]))
    return rows if {"train", "test"} <= {row.role for row in rows} else None
