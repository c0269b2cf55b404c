"""COCO: one JSON file with `images`, `annotations` and `categories`; a mask is `annotations.json#FILE_NAME`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compress.data.dataset.annotated import IndexOf
from compress.data.dataset.regions import BoolArray, counts_in, filled, json_files, of_runs, read_json
from compress.errors import DataError

MARK = ".json#"
SECTIONS = ("images", "annotations", "categories")


def takes(path: Path) -> bool:
    """Whether a mask's path is an annotation file with the name of an image in it."""
    return MARK in str(path)


def files(path: Path) -> tuple[Path, ...]:
    """The annotation file."""
    return (_split(path)[0],)


def labels(path: Path) -> tuple[str, ...]:
    """The categories of which anything is annotated, in the order of their numbers."""
    told = _sections(_split(path)[0])
    used = {each.get("category_id") for each in told["annotations"]}
    return tuple(name for number, name in sorted(_categories(told).items()) if number in used)


def drawn(path: Path, index_of: IndexOf) -> NDArray[np.uint8]:
    """Class indices (HW) of one image; without annotations all of it is background."""
    file, name = _split(path)
    images, categories = _by_image(file, file.stat().st_mtime_ns if file.is_file() else 0)
    if name not in images:
        raise DataError(f"{file}: has no image '{name}' among its images (file_name)")
    image, annotations = images[name]
    mask_HW = np.zeros((int(image["height"]), int(image["width"])), np.uint8)
    for each in annotations:
        where = f"{path}: annotation {each.get('id')}"
        if each.get("category_id") not in categories:
            raise DataError(f"{where} has the category {each.get('category_id')}, which is none of the file's")
        for region_HW in _regions(each, mask_HW.shape, where):
            mask_HW[region_HW] = index_of(categories[each["category_id"]])
    return mask_HW


@lru_cache(maxsize=8)
def _by_image(file: Path, changed: int) -> tuple[dict[str, tuple[Any, list[Any]]], dict[int, str]]:
    """Each image by its file's name, with its annotations; and the categories. Kept while the file is as it was."""
    told = _sections(file)
    of: dict[Any, list[Any]] = {}
    for each in told["annotations"]:
        of.setdefault(each.get("image_id"), []).append(each)
    images = {str(each.get("file_name")): (each, of.get(each.get("id"), [])) for each in told["images"]}
    return images, _categories(told)


def found(root: Path, images: Sequence[Path]) -> list[tuple[Path, Path]]:
    """Every image that an annotation file names, once: by its path, or by its name where one image alone has it."""
    by_name: dict[str, list[Path]] = {}
    for image in images:
        by_name.setdefault(image.name, []).append(image)
    pairs: dict[Path, Path] = {}
    for file in json_files(root):
        told = read_json(file)
        if not isinstance(told, dict) or not all(isinstance(told.get(section), list) for section in SECTIONS):
            continue
        for each in told["images"]:
            name = str(each.get("file_name", ""))
            exact = [image for image in images if image.as_posix() == name]
            near = exact or by_name.get(Path(name).name, [])
            if len(near) == 1:
                pairs.setdefault(near[0], Path(f"{file.relative_to(root)}#{name}"))
    return sorted(pairs.items())


def _split(path: Path) -> tuple[Path, str]:
    file, _, name = str(path).partition(MARK)
    return Path(f"{file}.json"), Path(name).as_posix()


def _sections(file: Path) -> Mapping[str, Any]:
    told: Mapping[str, Any] = read_json(file)
    lacking = [word for word in SECTIONS if not isinstance(told, dict) or not isinstance(told.get(word), list)]
    if lacking:
        raise DataError(f"{file}: no annotations of COCO: it lacks the list '{lacking[0]}'")
    return told


def _categories(told: Mapping[str, Any]) -> dict[int, str]:
    return {each["id"]: str(each["name"]) for each in told["categories"]}


def _regions(annotation: Mapping[str, Any], size: tuple[int, ...], where: str) -> Iterator[BoolArray]:
    given = annotation.get("segmentation")
    height, width = size
    try:
        if isinstance(given, dict):
            if list(given["size"]) != [height, width]:
                raise DataError(f"{where} is of {given['size']}, its image of {[height, width]}")
            counts = given["counts"]
            yield of_runs(counts_in(counts) if isinstance(counts, str) else counts, height, width)
        elif isinstance(given, list) and given:
            for polygon in given:
                yield filled(np.asarray(polygon, np.float64).reshape(-1, 2), height, width)
        else:
            raise DataError(f"{where} has no segmentation, only a box: a mask cannot be drawn of it")
    except (KeyError, TypeError, ValueError, IndexError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{where}: its segmentation is neither polygons nor RLE ({error})") from None
