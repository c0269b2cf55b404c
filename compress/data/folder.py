"""A folder of images/ and masks/ with a split.csv (columns image, mask, split; optionally patient)."""

import csv
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, ClassVar, Self

from pydantic import ConfigDict, Field, model_validator
from pydantic.dataclasses import dataclass

from compress.data.dataset.cases import Case, Dataset, Fit, How, Normalization, Role, tiled
from compress.data.dataset.images import Images
from compress.data.dataset.masks import mask_values, names_of, parsed_masks
from compress.data.dataset.restore import Way
from compress.errors import DataError

SPLITS = ("train", "calibration", "val", "test")


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class Folder:
    """Images and class-index masks on disk, and how they are fitted to the network.

    split.csv gives each case's role: train, val or test, and calibration if it likes. Where it
    names no calibration case, `calibration` of the train cases are set aside, the same ones in
    `compress train` and `compress run`, so that ranges are never taken from cases trained on.
    """

    dims: ClassVar[int] = 2
    root: Path
    classes: tuple[str, ...] | None = None
    """The name of every mask index, background first; None names them "class 1", "class 2", ..."""
    size: tuple[Annotated[int, Field(ge=8)], Annotated[int, Field(ge=8)]] = (256, 256)
    """Height and width of the network's input."""
    fit: How = "resize"
    """resize squashes images to the size; pad keeps their aspect; tile keeps their resolution and takes them
    in tiles of the size."""
    overlap: Annotated[float, Field(ge=0, le=0.9)] | None = None
    """The share of a tile's length that its neighbour covers too (fit: tile); None is a quarter."""
    ignore: Annotated[int, Field(ge=1, le=255)] | None = None
    """Mask index whose pixels count neither in training nor in any score."""
    masks: dict[str | int, str | int] | None = None
    """Where the masks hold something else than class indices: the class of each stored value or colour, by name or by
    index, such as {0: background, 255: polyp} or {'#ff0000': polyp}; `ignore` is the class of what counts nowhere."""
    normalization: Normalization | None = None
    """None takes the one stored with the weights, else the one measured on the train cases."""
    calibration: Annotated[int, Field(ge=0)] = 32
    """How many train cases to set aside for calibration."""
    spacing: tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]] | None = None
    """Height and width of one pixel of the original images in mm."""
    restore: Way = "probabilities"
    """How answers get back to the size of the image: by their probabilities, interpolated linearly, or by their labels,
    each pixel that of the nearest."""
    tolerance: Annotated[float, Field(gt=0)] = 2.0
    """Surface distance that still counts as agreement, in mm (pixels where spacing is not given)."""

    batch: Annotated[int, Field(ge=1)] = 8
    """Cases in one step of training."""

    @model_validator(mode="after")
    def _belong_together(self) -> Self:
        only_of_tiles(self.fit, overlap=self.overlap)
        if self.masks is not None:
            parsed_masks(self.masks)
        return self

    def __call__(self, *, channels: int, classes: int) -> Dataset:
        """The data set for a network with this many input channels and classes.

        Raises:
            DataError: if a file is missing, the split is empty or lists a file twice, or the
                number of class names does not match the network.
        """
        fit = Fit(size=self.size, how=self.fit, restored_from=self.restore)
        fit = fit if self.overlap is None else replace(fit, overlap=self.overlap)
        names = class_names(names_of(self.masks, self.classes, classes), classes, f"{self.root}")
        masks = mask_values(self.masks, names, self.ignore, f"{self.root}")
        reader = Images(known_spacing=self.spacing, masks=masks)
        cases = with_calibration(read_split(self.root), self.calibration, self.root)
        return Dataset(
            cases=tiled(cases, fit, reader) if self.fit == "tile" else cases,
            class_names=names,
            channels=channels,
            fit=fit,
            reader=reader,
            normalization=normalized(self.normalization, channels, reader.scale),
            ignore=self.ignore if masks is None else masks.ignored,
            tolerance=self.tolerance,
            batch=self.batch,
            source=str(self.root),
        )


def only_of_tiles(fit: How, **options: object) -> None:
    """Refuse options that say how tiles are taken where there are none."""
    for name, given in options.items():
        if given is not None and fit != "tile":
            raise ValueError(f"{name} is of tiles, but fit is {fit}; leave it out or set fit: tile")


def normalized(given: Normalization | None, channels: int, scale: str) -> Normalization:
    """The normalization given, or one that changes nothing; of values on this scale unless it says otherwise."""
    if given is None:
        return Normalization(mean=(0.0,) * channels, std=(1.0,) * channels, scale=scale)
    return replace(given, scale=given.scale or scale)


def class_names(given: tuple[str, ...] | None, classes: int, source: str) -> tuple[str, ...]:
    """The names given, or plain ones; one logit means two classes (a sigmoid's off and on)."""
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


def read_split(root: Path) -> dict[Role, list[Case]]:
    """The cases of every role, from root/split.csv.

    Raises:
        DataError: naming the file and line that is wrong.
    """
    table = root / "split.csv"
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
        cases[role].append(case)  # type: ignore[index]
    if not seen:
        raise DataError(f"{table}: lists no case")
    return cases


def _lines(table: Path) -> list[tuple[int, dict[str, str | None]]]:
    """The table's rows, each with its line number."""
    if not table.is_file():
        raise DataError(f"{table}: no such file; a data folder holds images/, masks/ and split.csv")
    try:
        with table.open(newline="", encoding="utf-8-sig") as lines:
            rows = csv.DictReader(lines)
            lacking = {"image", "mask", "split"} - set(rows.fieldnames or ())
            if lacking:
                raise DataError(f"{table}: lacks the column {sorted(lacking)[0]}; it needs image, mask, split")
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
        if not (root / path).is_file():
            what = "image" if path == image else f"mask of {image}"
            raise DataError(f"{place}: the {what}, {root / path}, does not exist")
    patient = (row.get("patient") or "").strip() or None
    return Case(name=Path(image).as_posix(), image=root / image, mask=root / mask, patient=patient)


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
