"""Labelme: a JSON file for each image, with `shapes` of points; a mask is that file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compress.data.dataset.annotated import BACKGROUND, IndexOf
from compress.data.dataset.regions import BoolArray, filled, json_files, read_json
from compress.errors import DataError


def takes(path: Path) -> bool:
    """Whether a mask's path is a JSON file."""
    return path.suffix.lower() == ".json"


def files(path: Path) -> tuple[Path, ...]:
    """The file itself."""
    return (path,)


def labels(path: Path) -> tuple[str, ...]:
    """Those of its shapes, by the alphabet."""
    found = {str(shape.get("label")) for shape in _told(path)["shapes"]}
    return tuple(sorted(found - {*BACKGROUND}))


def drawn(path: Path, index_of: IndexOf) -> NDArray[np.uint8]:
    """Class indices (HW), shapes in the order of the file."""
    told = _told(path)
    mask_HW = np.zeros((int(told["imageHeight"]), int(told["imageWidth"])), np.uint8)
    for shape in told["shapes"]:
        mask_HW[_region(shape, mask_HW.shape, path)] = index_of(str(shape.get("label")))
    return mask_HW


def found(root: Path, images: Sequence[Path]) -> list[tuple[Path, Path]]:
    """Every image with the JSON file of its name: beside it, or the only one of that name in the folder."""
    by_name: dict[str, list[Path]] = {}
    for file in json_files(root):
        if _is_labelme(read_json(file)):
            by_name.setdefault(file.stem, []).append(file.relative_to(root))
    pairs = []
    for image in images:
        same = by_name.get(image.stem, [])
        beside = [file for file in same if file.parent == image.parent] or same
        if len(beside) == 1:
            pairs.append((image, beside[0]))
    return pairs


def _is_labelme(told: Any) -> bool:
    return isinstance(told, dict) and isinstance(told.get("shapes"), list) and "imageHeight" in told


def _told(path: Path) -> Mapping[str, Any]:
    told: Mapping[str, Any] = read_json(path)
    if not _is_labelme(told):
        raise DataError(f"{path}: no annotation of Labelme: it has no shapes, or no imageHeight")
    return told


def _region(shape: Mapping[str, Any], size: tuple[int, ...], path: Path) -> BoolArray:
    kind, where = shape.get("shape_type") or "polygon", f"{path}: the shape '{shape.get('label')}'"
    try:
        points_N2 = np.asarray(shape["points"], np.float64).reshape(-1, 2)
        if kind == "polygon" and len(points_N2) > 2:
            return filled(points_N2, size[0], size[1])
        if kind in ("rectangle", "circle"):
            return filled(_outline(kind, points_N2), size[0], size[1])
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{where} has no points that can be read ({error})") from None
    raise DataError(
        f"{where} is a {kind} of {len(points_N2)} points; a mask is drawn of polygons, rectangles and circles"
    )


def _outline(kind: str, points_22: NDArray[np.float64]) -> NDArray[np.float64]:
    """A polygon of two points: opposite corners, or a middle and a point of its circle."""
    (x0, y0), (x1, y1) = points_22
    if kind == "rectangle":
        return np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]])
    angle, radius = np.linspace(0, 2 * np.pi, 360, endpoint=False), np.hypot(x1 - x0, y1 - y0)
    return np.stack([x0 + radius * np.cos(angle), y0 + radius * np.sin(angle)], axis=1)
