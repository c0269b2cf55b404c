"""C++17 and OpenVINO's C interface for a device without Python: sources, a CMake file and the model.

`segpress.hpp` needs the standard library alone and serves any runtime; `segpress_run.cpp` is the program around it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from PIL import Image

from compress.data.dataset.cases import MaskArray
from compress.data.dataset.normalization import BGR
from compress.errors import SegpressError
from compress.packing.contents import RUNNER, put_model
from compress.packing.source import Source
from export.errors import SurroundingsError
from export.files import write_json

SOURCES = ("segpress.hpp", "segpress_run.cpp", "CMakeLists.txt")
COMPILERS = ("c++", "g++", "clang++")


class Cpp:
    """The model, its C++ and what CMake builds it by."""

    backends: ClassVar[tuple[str, ...]] = ("openvino",)
    deep: ClassVar[bool] = False

    @staticmethod
    def write(source: Source, told: Mapping[str, Any], folder: Path) -> str:
        """Everything into an empty folder; how it is built, in a sentence."""
        put_model(source, folder)
        write_json(folder / "segpress.json", told)
        for name in SOURCES:
            shutil.copyfile(RUNNER / name, folder / name)
        (folder / "segpress_config.hpp").write_text(config(told))
        build = f"cmake -S {folder.name} -B build && cmake --build build"
        return f"{build}, then build/segpress_run {folder.name} masks IMAGE.ppm..."

    @staticmethod
    def masks(folder: Path, images: Sequence[Path], scratch: Path) -> list[MaskArray]:
        """What the program makes of images (HW each), compiled here with this Python's OpenVINO."""
        program, plain = scratch / "segpress_run", [scratch / f"{place}.ppm" for place in range(len(images))]
        _done([_compiler(), "-O2", "-std=c++17", str(folder / "segpress_run.cpp"), "-o", str(program), *_openvino()])
        for path, to in zip(images, plain, strict=True):
            with Image.open(path) as image:
                (image if image.mode == "L" else image.convert("RGB")).save(to, format="PPM")
        _done([str(program), str(folder), str(scratch / "masks"), *map(str, plain)])
        return [np.asarray(Image.open(scratch / "masks" / f"{to.stem}.pgm")) for to in plain]


def config(told: Mapping[str, Any]) -> str:
    """segpress.json as constants of C++."""
    before, after, names = told["preprocess"], told["postprocess"], [each["name"] for each in told["classes"]]
    logits, threshold = told["model"]["output"]["shape"][1], after["threshold"]
    one = isinstance(threshold, float)
    least = [threshold] if one else [(threshold or {}).get(name, 0.0) for name in names]
    steps = [_step(word, options, names) for step in after["steps"] for word, options in step.items()]
    return "\n".join(
        [
            "// Written by compress pack from segpress.json.",
            "#pragma once",
            "#include <vector>",
            "namespace segpress::config {",
            f'constexpr const char* model = "{told["model"]["file"]}";',
            f"constexpr int channels = {before['channels']}, logits = {logits};",
            f"constexpr int height = {before['size'][0]}, width = {before['size'][1]};",
            f"constexpr bool pad = {_truth(before['fit'] == 'pad')};",
            f"constexpr float mean[] = {{{_numbers(map(_float, before['mean']))}}};",
            f"constexpr float deviation[] = {{{_numbers(map(_float, before['std']))}}};",
            "// Whether the network's channels are blue, green, red; mean and deviation are in its order.",
            f"constexpr bool bgr = {_truth(before['order'] == BGR)};",
            "// Where images, or their channels, are normalized by numbers of their own.",
            "enum class Own { none, image, channel };",
            f"constexpr Own own = Own::{before['z_score'] or 'none'};",
            f"constexpr bool restore_labels = {_truth(after['restore'] == 'labels')};",
            "// Of one foreground class that above which it is taken; of several the least with which each wins.",
            f"constexpr bool one_threshold = {_truth(one)};",
            f"constexpr float least[] = {{{_numbers(map(_float, least))}}};",
            "enum class Word { largest_component, remove_small, fill_holes };",
            "struct Step { Word word; std::vector<int> classes; int least; };",
            "inline const std::vector<Step> steps = {",
            *steps,
            "};",
            "}  // namespace segpress::config",
            "",
        ]
    )


def _step(word: str, options: Mapping[str, Any], names: Sequence[str]) -> str:
    classes = _numbers(names.index(name) for name in options["classes"])
    return f"    {{Word::{word}, {{{classes}}}, {options.get('under_px') or 0}}},"


def _float(value: float) -> str:
    """The single-precision number, exactly."""
    return f"{float(np.float32(value)).hex()}f"


def _numbers(values: Any) -> str:
    return ", ".join(map(str, values))


def _truth(value: bool) -> str:
    return "true" if value else "false"


def _compiler() -> str:
    given = os.environ.get("CXX")
    found = next((path for name in ((given,) if given else COMPILERS) if (path := shutil.which(name))), None)
    if found is None:
        raise SurroundingsError(
            "a pack in C++ is proven by compiling it, and there is no C++ compiler here: install g++ or clang"
        )
    return found


def _openvino() -> list[str]:
    """Where OpenVINO's headers and its library are, for a compiler."""
    try:
        from export.sessions.openvino import to_compile_with
    except ImportError:
        raise SurroundingsError(
            "a pack in C++ is proven with OpenVINO, which is not installed: pip install 'segpress[openvino]'"
        ) from None
    headers, library = to_compile_with()
    return [f"-I{headers}", str(library), f"-Wl,-rpath,{library.parent}"]


def _done(command: Sequence[str]) -> None:
    told = subprocess.run(command, capture_output=True, text=True, check=False)
    if told.returncode:
        lines = told.stderr.strip().splitlines() or ["it said nothing"]
        reason = next((line for line in lines if "error" in line), lines[-1])
        raise SegpressError(f"{Path(command[0]).name} failed: {reason.strip()}")
