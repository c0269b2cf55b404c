"""Images and their masks in a folder that has no split.csv: found by the names of folders and files."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from compress.data.dataset import dicom
from compress.data.dataset.annotated import files_of, forms
from compress.data.dataset.channels import ARRAY
from compress.data.dataset.walk import files_below
from compress.errors import DataError

SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp", ".gif", *dicom.SUFFIXES, ARRAY)
"""Of files that Pillow opens, of DICOM, and of NumPy's arrays."""
MASKS = (
    "masks|mask|labels|label|annotations|annotation|segmentations|segmentation|seg|segs|gt|groundtruth|ground_truth|"
    "ground truth|masks_png|labelstr|labelsts|manual|targets|target|truth"
)
IMAGES = "images|image|imgs|img|frames|original|originals|inputs|input|jpegimages|scans"
_MASK_FOLDER, _IMAGE_FOLDER = (re.compile(f"(?:{words})", re.IGNORECASE) for words in (MASKS, IMAGES))
_MASK_WORD = re.compile(rf"(?:^|(?<=[^a-z]))(?:{MASKS}|manual1)(?=$|[^a-z])", re.IGNORECASE)
_IMAGE_WORD = re.compile(rf"(?:^|(?<=[^a-z]))(?:{IMAGES})(?=$|[^a-z])", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class Pair:
    """An image and its mask, both relative to the folder that they were found in."""

    image: Path
    mask: Path

    @property
    def stem(self) -> str:
        """The image's name without the folders and words that tell it from its mask."""
        return case_key(self.image)[-1]


def find_pairs(root: Path) -> list[Pair]:
    """Every image with its mask, in order of names: `images/` beside `masks/`, or names that differ by a word (a_mask).

    Raises:
        DataError: if there is no such folder, no pair in it, or a mask that could be of two images.
    """
    if not root.is_dir():
        raise DataError(f"{root}: no such folder")
    files = sorted(path.relative_to(root) for path in _files(root))
    if not files:
        raise DataError(f"{root}: holds no image ({', '.join(SUFFIXES[:5])}); give the folder of images and masks")
    masks = {path for path in files if _is_mask(path)}
    images = [path for path in files if path not in masks]
    by_key = _bycase_key(images, root, "images")
    of_masks = _bycase_key(sorted(masks), root, "masks")
    pairs = [Pair(image=image, mask=of_masks[key]) for key, image in by_key.items() if key in of_masks]
    for form in () if pairs else forms():
        pairs = pairs or [Pair(image=image, mask=mask) for image, mask in form.found(root, images)]
    if not pairs:
        raise DataError(
            f"{root}: none of its {len(files)} images has a mask of its name: put images into images/ and masks of the "
            "same names into masks/, or call them a.png and a_mask.png; masks of one class each lie in masks/CLASS/, "
            "annotations of Labelme beside images, and a file of COCO anywhere in the folder"
        )
    return pairs


def mask_files(root: Path) -> list[Path]:
    """Every image in a folder of masks, relative to the root."""
    return [path for path in sorted(each.relative_to(root) for each in _files(root)) if _is_mask(path)]


def without_mask(root: Path, pairs: Sequence[Pair]) -> list[Path]:
    """The images that have no mask, and the masks that have no image."""
    known = {path for pair in pairs for path in (pair.image, *files_of(pair.mask))}
    return sorted(path for path in (each.relative_to(root) for each in _files(root)) if path not in known)


def _files(root: Path) -> list[Path]:
    return [path for path in files_below(root) if path.suffix.lower() in SUFFIXES]


def _is_mask(path: Path) -> bool:
    """Whether a file's folder is one of masks, or its own name says so."""
    for part in reversed(path.parent.parts):
        if _MASK_FOLDER.fullmatch(part):
            return True
        if _IMAGE_FOLDER.fullmatch(part):
            return False
    return bool(_MASK_WORD.search(path.stem))


def case_key(path: Path) -> tuple[str, ...]:
    """What an image and its mask have in common: their folders and names without the words that tell them apart."""
    folders = [
        part for part in path.parent.parts if not _MASK_FOLDER.fullmatch(part) and not _IMAGE_FOLDER.fullmatch(part)
    ]
    stem = path.stem
    for word in (_MASK_WORD, _IMAGE_WORD):
        shorter = re.sub(r"[-_. ]{2,}", "_", word.sub("", stem)).strip("-_. ")
        stem = shorter or stem
    return (*folders, stem)


def _bycase_key(paths: Sequence[Path], root: Path, what: str) -> dict[tuple[str, ...], Path]:
    found: dict[tuple[str, ...], list[Path]] = defaultdict(list)
    for path in paths:
        found[case_key(path)].append(path)
    twice = next((same for same in found.values() if len(same) > 1), None)
    if twice is not None:
        raise DataError(
            f"{root}: {twice[0]} and {twice[1]} are {what} of one case, and which of them counts cannot be told; keep "
            "one, or name the pairs in a split.csv"
        )
    return {key: path for key, (path,) in found.items()}
