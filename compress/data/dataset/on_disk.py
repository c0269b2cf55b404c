"""A data set from a folder of images/, masks/ and split.csv, whatever kind of file its images are."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from compress.data.dataset.cases import ROLES, Case, Dataset, Fit, How, Normalization, Reader, Role
from compress.data.dataset.drawn import Shares
from compress.data.dataset.masks import Given, MaskValues, mask_values, names_of
from compress.data.dataset.split import read_split, with_calibration
from compress.data.dataset.tiles import corners
from compress.errors import DataError


class OnDisk(Protocol):
    """The options that every folder of images has: those of compress/data/folder.py, where each is explained."""

    @property
    def root(self) -> Path: ...
    @property
    def table(self) -> Path | None: ...
    @property
    def classes(self) -> tuple[str, ...] | None: ...
    @property
    def fit(self) -> How: ...
    @property
    def overlap(self) -> float | None: ...
    @property
    def ignore(self) -> int | None: ...
    @property
    def masks(self) -> Given | None: ...
    @property
    def normalization(self) -> Normalization | None: ...
    @property
    def calibration(self) -> int: ...
    @property
    def tolerance(self) -> float: ...
    @property
    def batch(self) -> int: ...


def dataset_of(
    options: OnDisk,
    fit: Fit,
    *,
    channels: int,
    classes: int,
    reader_of: Callable[[MaskValues | None], Reader],
    split: Shares | None = None,
) -> Dataset:
    """The data set for a network with this many input channels and classes.

    Args:
        fit: how images are fitted to the network; the options say how far its tiles overlap.
        reader_of: what reads the files, given the classes of the values that masks store.
        split: how the roles of cases are drawn, where no table says them.

    Raises:
        DataError: if a file is missing, the split is empty or lists a file twice, or the
            number of class names does not match the network.
    """
    fit = fit if options.overlap is None else replace(fit, overlap=options.overlap)
    names = class_names(names_of(options.masks, options.classes, classes), classes, f"{options.root}")
    masks = mask_values(options.masks, names, options.ignore, f"{options.root}")
    reader = reader_of(masks)
    cases = with_calibration(read_split(options.root, options.table, split), options.calibration, options.root)
    return Dataset(
        cases=tiled(cases, fit, reader) if options.fit == "tile" else cases,
        class_names=names,
        channels=channels,
        fit=fit,
        reader=reader,
        normalization=_normalized(options.normalization, channels, reader.scale),
        ignore=options.ignore if masks is None else masks.ignored,
        tolerance=options.tolerance,
        batch=options.batch,
        source=str(options.root),
    )


def only_of_tiles(fit: How, **options: object) -> None:
    """Refuse options that say how tiles are taken where there are none."""
    for name, given in options.items():
        if given is not None and fit != "tile":
            raise ValueError(f"{name} is of tiles, but fit is {fit}; leave it out or set fit: tile")


def _normalized(given: Normalization | None, channels: int, scale: str) -> Normalization:
    """The normalization given, or one that changes nothing; of values on this scale unless it says otherwise."""
    if given is None:
        return Normalization(mean=(0.0,) * channels, std=(1.0,) * channels, scale=scale)
    return replace(given, scale=given.scale or scale)


def class_names(given: tuple[str, ...] | None, classes: int, source: str) -> tuple[str, ...]:
    """The names given, or plain ones; one logit means two classes (a sigmoid's off and on).

    Raises:
        DataError: if there are too few or too many, or one cannot be a name.
    """
    count = max(classes, 2)
    if given is None:
        return ("background", *(f"class {index}" for index in range(1, count)))
    if len(given) != count:
        raise DataError(f"{source}: {len(given)} class names ({', '.join(given)}), but the network has {count} classes")
    for place, name in enumerate(given):
        # Scores are kept by class name, beside the words "patient" and "mean".
        if name in given[:place] or name in ("", "patient", "mean"):
            raise DataError(f"{source}: '{name}' cannot name class {place}: it is empty, taken or given twice")
    return given


def tiled(cases: Mapping[Role, Sequence[Case]], fit: Fit, reader: Reader) -> dict[Role, list[Case]]:
    """The cases of images taken in tiles: each tile is a case in every role but "test", whose images stay whole.

    Raises:
        DataError: if the size of an image cannot be read.
    """
    found: dict[Role, list[Case]] = {"test": list(cases["test"])}
    for role in ROLES[:-1]:
        found[role] = [
            replace(case, corner=corner)
            for case in cases[role]
            for corner in corners(fit.inner(reader.size(case.image), reader.spacing(case.image)), fit.size)
        ]
    # The first few calibration cases must not all be of one image.
    found["calibration"].sort(key=lambda case: hashlib.sha256(f"{case.name} {case.corner}".encode()).digest())
    return found
