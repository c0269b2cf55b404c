"""Masks of images by a packed network: NumPy and its runtime, nothing else.

This file is copied into packs beside segpress_pixels.py and imports nothing of segpress. `Segmenter(folder)(pixels)`
takes the pixels of an image (HW gray or HWC red, green, blue; 8 or 16 bits, unsigned) and gives the class of each (HW
uint8). As a program, with Pillow to read files: `python segpress_run.py IMAGE... [--out FOLDER]`. SciPy is needed where
`postprocess` has steps.

Legend: H and W height and width of the image, h and w the network's, C channels, K classes.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any, Callable

import numpy as np
from numpy.typing import NDArray
from segpress_pixels import STEPS, enlarged, nearest, normalized, resized, shares_of

Array = NDArray[Any]


class Segmenter:
    """The network of a pack, with all that comes before and after it."""

    def __init__(self, folder: str | Path, runtime: bool = True) -> None:
        self.about: dict[str, Any] = json.loads((Path(folder) / "segpress.json").read_text(encoding="utf-8"))
        self.classes = [each["name"] for each in self.about["classes"]]
        model = Path(folder) / self.about["model"]["file"]
        self.infer = RUNTIMES[self.about["model"]["runtime"]](model) if runtime else None

    def __call__(self, pixels: Array) -> Array:
        """The class of each pixel (HW uint8)."""
        assert self.infer is not None, "made without a runtime"
        return self.mask(self.infer(self.prepared(pixels))[0], pixels.shape[:2])

    def prepared(self, pixels: Array) -> Array:
        """What the network is given (1Chw float32)."""
        before = self.about["preprocess"]
        if pixels.ndim == 3 and before["channels"] == 1:
            red, green, blue = (pixels[..., each].astype(np.int64) for each in range(3))
            pixels = ((red * 19595 + green * 38470 + blue * 7471 + 32768) >> 16).astype(pixels.dtype)
        largest = np.float32(np.iinfo(pixels.dtype).max)
        fitted = resized(pixels, *self.inner(pixels.shape[:2])).astype(np.float32) / largest
        fitted_Chw = fitted.transpose(2, 0, 1) if fitted.ndim == 3 else fitted[None]
        if len(fitted_Chw) != before["channels"]:
            fitted_Chw = np.repeat(fitted_Chw, before["channels"], axis=0)
        rest = [(0, side - has) for side, has in zip(before["size"], fitted_Chw.shape[1:])]
        fitted_Chw = np.pad(fitted_Chw, [(0, 0), *rest])
        return np.ascontiguousarray(normalized(fitted_Chw, before))[None]

    def mask(self, logits_Khw: Array, size: tuple[int, ...]) -> Array:
        """The class of each pixel of an image of this size (HW uint8), by what the network said of it."""
        after = self.about["postprocess"]
        height, width = self.inner(size)
        inner_Khw = np.asarray(logits_Khw)[:, :height, :width]
        by_labels = after["restore"] == "labels"
        shares = [enlarged(one, *((height, width) if by_labels else size)) for one in shares_of(inner_Khw)]
        least = after["threshold"]
        if isinstance(least, float):
            labels = (shares[-1] > np.float32(least)).astype(np.uint8)
        else:
            labels = np.argmax(shares, axis=0).astype(np.uint8)
            needed = np.array([(least or {}).get(name, 0.0) for name in self.classes], np.float32)
            labels[np.max(shares, axis=0) < needed[labels]] = 0
        if by_labels:
            labels = nearest(labels, *size)
        for step in after["steps"]:
            ((word, options),) = step.items()
            labels = STEPS[word](labels, [self.classes.index(name) for name in options["classes"]], options)
        return labels

    def inner(self, size: tuple[int, ...]) -> tuple[int, int]:
        """Height and width of an image of this size as the network sees it, without what is padded."""
        sides = self.about["preprocess"]["size"]
        if self.about["preprocess"]["fit"] == "resize":
            return sides[0], sides[1]
        scale = min(side / full for side, full in zip(sides, size))
        return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


Infer = Callable[[Array], Array]


def onnxruntime(model: Path) -> Infer:
    """What computes logits (1Khw) by ONNX Runtime, which tells nobody of it."""
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime as ort

    session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda image: session.run(None, {name: image})[0]


def openvino(model: Path) -> Infer:
    """What computes logits (1Khw) by OpenVINO, in the precision of the file."""
    import openvino as ov

    compiled = ov.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return lambda image: compiled(image)[0]


RUNTIMES = {"onnxruntime": onnxruntime, "openvino": openvino}


def main() -> None:
    """Write a mask beside, or into a folder, for each image."""
    from PIL import Image, ImageOps

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("images", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, default=Path("masks"), help="the folder that masks are written to")
    given = parser.parse_args()
    names = [path.stem for path in given.images]
    if len(set(names)) < len(names):
        parser.error("two images have one name, and would have one mask")
    segmenter = Segmenter(Path(__file__).parent)
    given.out.mkdir(parents=True, exist_ok=True)
    for path in given.images:
        try:
            image = ImageOps.exif_transpose(Image.open(path))
        except (OSError, ValueError) as error:
            parser.error(f"{path}: not an image that can be read ({error})")
        if image.mode in ("I", "F"):
            parser.error(f"{path}: pixels of {image.mode} have no known range; save it as 8-bit or unsigned 16-bit")
        sixteen = image.mode.startswith("I;16")
        pixels = np.asarray(image if sixteen or image.mode == "L" else image.convert("RGB"))
        Image.fromarray(segmenter(pixels.astype(np.uint16) if sixteen else pixels)).save(given.out / f"{path.stem}.png")


if __name__ == "__main__":
    main()
