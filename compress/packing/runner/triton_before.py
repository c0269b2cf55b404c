"""Triton's Python backend: from the pixels of an image to what the network is given."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as triton

sys.path.insert(0, str(Path(__file__).parent))
from segpress_run import Segmenter


class TritonPythonModel:
    """IMAGE (HWC uint8) -> INPUT (1CHW float32), and SIZE, the image's height and width."""

    def initialize(self, args: dict[str, str]) -> None:
        """Read segpress.json beside this file."""
        self.segmenter = Segmenter(Path(__file__).parent, runtime=False)

    def execute(self, requests: list[Any]) -> list[Any]:
        """Prepare the image of each request."""
        return [self.prepared(triton.get_input_tensor_by_name(each, "IMAGE").as_numpy()) for each in requests]

    def prepared(self, pixels: Any) -> Any:
        """The response of one."""
        size = np.array(pixels.shape[:2], np.int64)
        inputs = self.segmenter.prepared(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
        return triton.InferenceResponse([triton.Tensor("INPUT", inputs), triton.Tensor("SIZE", size)])
