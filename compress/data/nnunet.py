"""Volumes as nnU-Net's plans say: its folders, its preparation, its sliding window, its way back.

Legend: D, H, W the axes of a volume in the plan's order.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self

from pydantic import ConfigDict, Field, model_validator
from pydantic.dataclasses import dataclass

from compress.data.dataset.cases import Dataset, Fit, Normalization
from compress.data.dataset.tiles import Size
from compress.data.planned.cases import Folder, Held, drawn
from compress.data.planned.plan import Plan, plan_of
from compress.data.planned.results import Fold, results_in
from compress.data.planned.rules import pickles_beside, rules_beside, steps_of
from compress.data.planned.volumes import Planned
from compress.errors import DataError


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class Nnunet:
    """A folder of nnUNet_raw, or one with images/, masks/ and split.csv, read as a training's plans say.

    Test cases are those of imagesTs where labelsTs has their labels, else those that the fold held out. Scores are
    taken on the original voxels, distances in mm.
    """

    root: Path
    """Such as nnUNet_raw/Dataset004_Hippocampus."""
    results: Path
    """The results folder, whose plans.json and dataset.json say the rest; the network's where it is left out."""
    fold: Fold = 0
    """Whose training and validation cases are told apart; the network's where it is left out."""
    table: Path | None = None
    """A split.csv that says the roles of cases; its paths are relative to `root`."""
    splits: Path | None = None
    """nnU-Net's splits_final.json; None takes those cases for held out that the fold's validation folder has."""
    mirror: tuple[Annotated[int, Field(ge=0, le=2)], ...] | None = None
    """Axes along which each tile is answered mirrored too, the answers averaged; [] none, None those that the
    checkpoint allows."""
    overlap: Annotated[float, Field(ge=0, le=0.9)] = 0.5
    """The share of a tile's length that its neighbour covers at least; nnU-Net's step size is the rest of it."""
    calibration: Annotated[int, Field(ge=0)] = 32
    """How many train cases to set aside for calibration."""
    tolerance: Annotated[float, Field(gt=0)] = 2.0
    """Surface distance that still counts as agreement, in mm."""
    batch: Annotated[int, Field(ge=1)] = 2
    """Tiles in one step of training."""

    whose: ClassVar[str] = "nnU-Net's plans"
    """Where the normalization is from."""

    @model_validator(mode="after")
    def _can_be_read(self) -> Self:
        if self.mirror is not None and (
            len(set(self.mirror)) != len(self.mirror) or max(self.mirror, default=0) >= self.dims
        ):
            raise ValueError(f"mirror: {list(self.mirror)} are not different axes of the {self.dims} of a tile")
        return self

    @cached_property
    def plan(self) -> Plan:
        """What the results folder says; read once."""
        return plan_of(results_in(self.results))

    @property
    def dims(self) -> int:
        """2 where the network takes slices, 3 where it takes volumes."""
        return self.plan.dims

    @property
    def size(self) -> Size:
        return self.plan.patch

    @property
    def classes(self) -> tuple[str, ...]:
        return self.plan.classes

    @property
    def normalization(self) -> Normalization:
        """None more: the plans' own is part of reading."""
        return Normalization(scale=Planned(plan=self.plan).scale)

    def notes(self, postprocess: Sequence[Any]) -> list[str]:
        """What a report says of the plans, and of rules of theirs that the recipe does not have."""
        results = results_in(self.results)
        found, pickled = rules_beside(results), pickles_beside(results)
        told = [f"classes and preparation are those of nnU-Net's plans ({self.plan.name})"]
        if found is not None and not postprocess and steps_of(found, self.classes):
            told.append(
                f"nnU-Net found rules of post-processing ({found}), and the recipe has none; compress init writes them"
            )
        elif found is None and pickled and not postprocess:
            told.append(
                f"{pickled[0]} is a pickle and is not opened; its rules stand in the postprocessing.json beside it"
            )
        return told

    def __call__(self, *, channels: int, classes: int) -> Dataset:
        """The data set for a network with this many input channels and classes.

        Raises:
            DataError: if a file is missing, no case is held out, or the network is for other data.
        """
        if (channels, classes) != (self.plan.channels, len(self.plan.classes)):
            raise DataError(
                f"{self.results}: dataset.json has {self.plan.channels} channels and {len(self.plan.classes)} classes, "
                f"the network takes {channels} and gives {classes}"
            )
        reader = Planned(plan=self.plan)
        held = Held(results=results_in(self.results), fold=self.fold, splits=self.splits)
        folder = Folder(root=self.root, ending=self.plan.ending, table=self.table, held=held)
        mirrored = tuple(range(self.dims)) if self.mirror is None else self.mirror
        return Dataset(
            cases=drawn(folder.cases(self.calibration)),
            class_names=self.plan.classes,
            channels=channels,
            fit=Fit(
                size=self.size,
                how="nnunet",
                overlap=self.overlap,
                spacing=self.plan.spacing,
                mirrored=mirrored,
            ),
            reader=reader,
            normalization=self.normalization,
            ignore=self.plan.ignore,
            tolerance=self.tolerance,
            batch=self.batch,
            source=str(self.root),
        )
