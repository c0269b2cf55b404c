"""The cases of a folder of nnUNet_raw, and their roles: which of them a fold has held out."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from compress.data.dataset.cases import ROLES, Case, Role
from compress.data.dataset.split import read_split, with_calibration
from compress.data.planned.results import Fold, Results
from compress.data.planned.volumes import FIRST
from compress.errors import DataError

TILES: Mapping[Role, int] = {"train": 8, "calibration": 4, "val": 4}
"""So many tiles are drawn of each volume; test cases are whole."""
SHARE = 10
"""One of so many training cases is for validation where the held-out ones are all for testing: the network has seen it,
a pass that trains has not."""
Cases = Mapping[Role, Sequence[Case]]


@dataclass(frozen=True, kw_only=True)
class Held:
    """Which training cases a fold has held out."""

    results: Results
    fold: Fold
    splits: Path | None

    def names(self) -> frozenset[str]:
        """Their names, as nnU-Net has them.

        Raises:
            DataError: if nothing tells them.
        """
        if self.fold == "all":
            return frozenset()
        if self.splits is not None:
            return self._in_splits(self.splits)
        folder = self.results.fold(self.fold) / "validation"
        ending = str(self.results.dataset()["file_ending"])
        found = frozenset(each.name.removesuffix(ending) for each in folder.glob(f"*{ending}"))
        if not found:
            raise DataError(
                f"{folder}: holds no answers to the cases that fold {self.fold} held out, so nothing tells which they "
                "are; set splits: the splits_final.json of nnUNet_preprocessed"
            )
        return found

    def _in_splits(self, path: Path) -> frozenset[str]:
        try:
            told = json.loads(path.read_text(encoding="utf-8"))[int(self.fold)]
            return frozenset(map(str, told["val"]))
        except FileNotFoundError:
            raise DataError(f"{path}: no such file; splits is nnU-Net's splits_final.json") from None
        except (OSError, ValueError, LookupError, TypeError) as error:
            raise DataError(f"{path}: no splits_final.json with a fold {self.fold} ({error})") from None


@dataclass(frozen=True, kw_only=True)
class Folder:
    """imagesTr, labelsTr and where they are there imagesTs, labelsTs; or images/, masks/ and split.csv."""

    root: Path
    ending: str
    table: Path | None
    held: Held

    def cases(self, calibration: int) -> Cases:
        """Every case by its role, each meaning its whole volume.

        Raises:
            DataError: if a file is missing or no case is for testing.
        """
        if self.table is not None or (self.root / "split.csv").is_file():
            return with_calibration(read_split(self.root, self.table), calibration, self.root)
        if not (self.root / "imagesTr").is_dir():
            raise DataError(
                f"{self.root}: has neither imagesTr and labelsTr, as nnUNet_raw/DatasetNNN_NAME has, nor a split.csv"
            )
        trained, tested = self._part("Tr"), self._part("Ts") if (self.root / "labelsTs").is_dir() else []
        held = self.held.names()
        rest = [case for case in trained if case.name not in held]
        aside = [case for case in trained if case.name in held]
        if not tested and not aside:
            raise DataError(
                f"{self.root}: fold {self.held.fold} has seen every labelled case, and nothing can be measured on "
                "those; give others in imagesTs and labelsTs, or a split.csv"
            )
        # By a hash: which they are must not change where a case is added.
        ordered = sorted(rest, key=lambda case: hashlib.sha256(case.name.encode()).digest())
        checked = aside if tested else ordered[: len(rest) // SHARE]
        rest = [case for case in rest if case not in checked]
        roles: Cases = {"train": rest, "calibration": [], "val": checked, "test": tested or aside}
        return with_calibration(roles, calibration, self.root)

    def _part(self, part: str) -> list[Case]:
        """The cases of imagesTr or imagesTs that have labels."""
        found = []
        for label in sorted((self.root / f"labels{part}").glob(f"*{self.ending}")):
            name = label.name.removesuffix(self.ending)
            image = self.root / f"images{part}" / f"{name}{FIRST}{self.ending}"
            if not image.is_file():
                raise DataError(f"{label}: its image, {image}, does not exist")
            found.append(Case(name=name, image=image, mask=label))
        if not found:
            raise DataError(f"{self.root / f'labels{part}'}: holds no label (*{self.ending})")
        return found


def drawn(cases: Cases) -> dict[Role, list[Case]]:
    """The cases, of which each is there once for every tile that is drawn of it."""
    found: dict[Role, list[Case]] = {"test": list(cases["test"])}
    for role in ROLES[:-1]:
        # One tile of every volume first: whoever takes a few has them of different volumes.
        found[role] = [replace(case, corner=(number,)) for number in range(TILES[role]) for case in cases[role]]
    return found
