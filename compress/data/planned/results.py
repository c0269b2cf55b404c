"""A results folder of nnU-Net v2: which it is, which fold of it, and what its JSON files say.

nnU-Net's names: `nnUNet_results/Dataset004_Hippocampus/nnUNetTrainer__nnUNetPlans__3d_fullres/fold_0`
(Isensee et al. 2021, Nature Methods 18; github.com/MIC-DKFZ/nnUNet, documentation).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from compress.errors import DataError

Fold = int | Literal["all"]
EXAMPLE = "nnUNet_results/Dataset004_Hippocampus/nnUNetTrainer__nnUNetPlans__3d_fullres"
_FIRST = ("plans.pkl", "plans.pkl.json")
"""What trainings of nnU-Net v1 left."""


@dataclass(frozen=True, kw_only=True)
class Results:
    """A folder of one trainer, one set of plans and one configuration, whose folds lie in it."""

    path: Path

    @property
    def trainer(self) -> str:
        return self.path.name.split("__")[0]

    @property
    def configuration(self) -> str:
        """Such as `2d` or `3d_fullres`."""
        return self.path.name.split("__")[2]

    def plans(self) -> dict[str, Any]:
        """plans.json."""
        return _read(self.path / "plans.json")

    def dataset(self) -> dict[str, Any]:
        """dataset.json."""
        return _read(self.path / "dataset.json")

    def fold(self, fold: Fold) -> Path:
        """The folder of a fold.

        Raises:
            DataError: naming the folds that there are.
        """
        there = sorted(each.name.removeprefix("fold_") for each in self.path.glob("fold_*") if each.is_dir())
        if str(fold) not in there:
            known = (
                f"there are {', '.join(there)}" if there else "it has no fold_0, fold_1, ... at all: nothing is trained"
            )
            raise DataError(f"{self.path}: has no fold {fold}; {known}")
        return self.path / f"fold_{fold}"

    def checkpoint(self, fold: Fold, name: str) -> Path:
        """The checkpoint of a fold.

        Raises:
            DataError: naming the checkpoints that there are.
        """
        folder = self.fold(fold)
        if not (folder / name).is_file():
            there = sorted(each.name for each in folder.glob("*.pth"))
            known = f"set checkpoint: {there[0]}" if there else "its training has not written one yet"
            raise DataError(f"{folder}: has no {name}; {known}")
        return folder / name


def results_in(path: Path) -> Results:
    """The results folder at this path.

    Raises:
        DataError: if it is none, with what would be one.
    """
    if not path.is_dir():
        raise DataError(f"{path}: no such folder; results is a folder such as {EXAMPLE}")
    if any((place / name).exists() for name in _FIRST for place in (path, *path.glob("fold_*"))):
        raise DataError(
            f"{path}: is of nnU-Net v1 (it has a plans.pkl, a pickle), and nnU-Net v2 builds and prepares otherwise; "
            "train it with nnU-Net v2"
        )
    inside = sorted(each.name for each in path.iterdir() if each.is_dir() and each.name.count("__") == 2)
    if inside:
        raise DataError(f"{path}: holds trainings ({', '.join(inside[:4])}); name one of them")
    if path.name.count("__") != 2:
        raise DataError(
            f"{path}: its name does not tell trainer, plans and configuration, as nnUNetTrainer__nnUNetPlans__2d does; "
            "results is the folder that nnU-Net made, by the name that it gave"
        )
    return Results(path=path)


def _read(path: Path) -> dict[str, Any]:
    try:
        read = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(
            f"{path}: no such file; nnU-Net writes plans.json and dataset.json beside the folds as a training begins"
        ) from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise DataError(f"{path}: not a JSON file that can be read ({error})") from None
    if not isinstance(read, Mapping):
        raise DataError(f"{path}: holds no JSON object, as nnU-Net writes it")
    return dict(read)
