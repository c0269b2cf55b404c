"""The one place where torchvision is imported, on builds of torch without its compiled operators too."""

from __future__ import annotations

import importlib
from types import ModuleType

import torch

from compress.errors import MissingExtra

# What torchvision describes to the compiler as it is imported; the other operators it only looks up when used.
_OPERATORS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
_defined: list[torch.library.Library] = []
"""Operators live as long as the library that defined them."""


def torchvision() -> ModuleType:
    """The package torchvision.

    Its wheels are compiled against one build of torch. Beside another (a CPU torch, say) its compiled
    operators do not load and its import fails; with the operators declared first it works, all but
    the detection operators themselves (non-maximum suppression, region pooling, deformable convolution).

    Raises:
        MissingExtra: if it is not installed.
    """
    try:
        return importlib.import_module("torchvision")
    except ModuleNotFoundError as error:
        if error.name != "torchvision":
            raise
        raise MissingExtra("torchvision", "torchvision") from None
    except RuntimeError as error:
        if _defined or "torchvision::nms does not exist" not in str(error):
            raise
    library = torch.library.Library("torchvision", "DEF")
    for operator in _OPERATORS:
        library.define(operator)
    _defined.append(library)
    return importlib.import_module("torchvision")
