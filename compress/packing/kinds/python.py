"""A folder for any computer with Python: NumPy, the runtime, and the program that runs it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from PIL import Image

from compress.data.dataset.cases import MaskArray
from compress.errors import SegpressError
from compress.packing.contents import put_model, put_program
from compress.packing.source import Source

NEEDS = {"onnxruntime": ("numpy", "pillow", "onnxruntime"), "openvino": ("numpy", "pillow", "openvino")}


class Python:
    """The model, segpress.json and segpress_run.py."""

    backends: ClassVar[tuple[str, ...]] = ("onnxruntime", "openvino")
    deep: ClassVar[bool] = True
    """Whether it takes images of 16 bits."""

    @staticmethod
    def write(source: Source, told: Mapping[str, Any], folder: Path) -> str:
        """Everything into an empty folder; how it is run, in a sentence."""
        put_model(source, folder)
        put_program(told, folder)
        packages = [*NEEDS[told["model"]["runtime"]], *(["scipy"] if told["postprocess"]["steps"] else [])]
        (folder / "requirements.txt").write_text("".join(f"{name}\n" for name in packages))
        return f"python {folder.name}/segpress_run.py IMAGE... --out masks (needs {', '.join(packages)})"

    @staticmethod
    def masks(folder: Path, images: Sequence[Path], scratch: Path) -> list[MaskArray]:
        """What the pack's own program makes of images (HW each), in a process of its own."""
        # What Python keeps of modules has no place in a pack.
        command = [sys.executable, "-B", "segpress_run.py", "--out", str(scratch.resolve())]
        files = [str(path.resolve()) for path in images]
        # Elsewhere, and without this process's ways to segpress: a pack stands alone.
        surroundings = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        done = subprocess.run(
            [*command, *files], cwd=folder, env=surroundings, capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
            raise SegpressError(f"the pack's own program failed: {last}")
        return [np.asarray(Image.open(scratch / f"{path.stem}.png")) for path in images]
