"""A folder of images/ and masks/ with a split.csv (columns image, mask, split; optionally patient)."""

from pathlib import Path
from typing import Annotated, ClassVar, Self

from pydantic import ConfigDict, Field, model_validator
from pydantic.dataclasses import dataclass

from compress.data.dataset.cases import Dataset, Fit, How, Normalization
from compress.data.dataset.drawn import Shares
from compress.data.dataset.images import Images
from compress.data.dataset.masks import labels_in, names_of, parsed_masks
from compress.data.dataset.on_disk import class_names, dataset_of, only_of_tiles
from compress.data.dataset.restore import Way


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class Folder:
    """Images and class-index masks on disk, and how they are fitted to the network.

    split.csv gives each case's role: train, val or test, and calibration if it likes. Where it
    names no calibration case, `calibration` of the train cases are set aside, the same ones in
    `compress train` and `compress run`, so that ranges are never taken from cases trained on.
    """

    dims: ClassVar[int] = 2
    root: Path
    table: Path | None = None
    """Where split.csv lies if not in `root`; its paths are relative to `root` all the same."""
    split: Shares | None = None
    """Where there is no split.csv: how much each role gets of the images and masks in `root`."""
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
    index, such as {0: background, 255: polyp} or {'#ff0000': polyp}, or of each label of annotations, such as
    {adenoma: polyp}; `ignore` is the class of what counts nowhere."""
    window: tuple[float, float] | None = None
    """The values of gray images, of DICOM after the rescale slope, that become 0 and 1; what lies beyond is clipped."""
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
        if self.window is not None and self.window[0] >= self.window[1]:
            raise ValueError(f"window goes from {self.window[0]:g} to {self.window[1]:g}; give the smaller end first")
        if self.table is not None and self.split is not None:
            raise ValueError("table names the split of every case, and split draws one; give one of them")
        labels = labels_in(self.masks or {})
        stored = {key: target for key, target in (self.masks or {}).items() if key not in labels}
        if self.masks is not None and (stored or not labels):
            parsed_masks(stored)
        return self

    def __call__(self, *, channels: int, classes: int) -> Dataset:
        """The data set for a network with this many input channels and classes.

        Raises:
            DataError: if a file is missing, the split is empty or lists a file twice, or the
                number of class names does not match the network.
        """
        names = class_names(names_of(self.masks, self.classes, classes), classes, f"{self.root}")
        fit = Fit(size=self.size, how=self.fit, restored_from=self.restore)
        return dataset_of(
            self,
            fit,
            channels=channels,
            classes=classes,
            reader_of=lambda masks: Images(
                known_spacing=self.spacing, masks=masks, names=names, window=self.window, channels=channels
            ),
            split=self.split,
        )
