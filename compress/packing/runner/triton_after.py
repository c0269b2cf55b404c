"""Triton's Python backend: from what the network said to the class of each pixel of the image."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import triton_python_backend_utils as triton

sys.path.insert(0, str(Path(__file__).parent))
from segpress_run import Segmenter


class TritonPythonModel:
    """LOGITS (1KHW float32) and SIZE, the image's height and width -> MASK (HW uint8)."""

    def initialize(self, args: dict[str, str]) -> None:
        """Read segpress.json beside this file."""
        self.segmenter = Segmenter(Path(__file__).parent, runtime=False)

    def execute(self, requests: list[Any]) -> list[Any]:
        """Label the image of each request."""
        return [self.labelled(each) for each in requests]

    def labelled(self, request: Any) -> Any:
        """The response of one."""
        logits, size = (triton.get_input_tensor_by_name(request, name).as_numpy() for name in ("LOGITS", "SIZE"))
        mask = self.segmenter.mask(logits[0], tuple(int(side) for side in size))
        return triton.InferenceResponse([triton.Tensor("MASK", mask)])
