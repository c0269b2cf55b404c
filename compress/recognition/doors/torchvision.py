"""torchvision: FCN, DeepLabV3 and LR-ASPP, with and without the auxiliary head."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from compress.recognition.tensors.state import State, first_convolution

HEADS = ("classifier.4.weight", "classifier.low_classifier.weight")
"""The last layers of FCN and DeepLabV3, and of LR-ASPP."""
ARCHS = (
    "deeplabv3_resnet50",
    "deeplabv3_resnet101",
    "deeplabv3_mobilenet_v3_large",
    "fcn_resnet50",
    "fcn_resnet101",
    "lraspp_mobilenet_v3_large",
)


def candidates(state: State) -> Iterator[dict[str, Any]]:
    """Networks of torchvision whose tensors these may be."""
    head = next((state[name] for name in HEADS if name in state), None)
    stem = first_convolution(state, "backbone.")
    if stem is None or not any(name.startswith("classifier.") for name in state):
        return
    aux = any(name.startswith("aux_classifier.") for name in state)
    aspp = any(name.startswith("classifier.0.convs.") for name in state)
    for arch in ARCHS:
        if arch.startswith("deeplab") != aspp or arch.startswith("lraspp") != ("classifier.cbr.0.weight" in state):
            continue
        classes = len(head) if head is not None else len(list(state.values())[-1])
        given = {"arch": arch, "classes": classes, "in_channels": int(stem.shape[1])}
        yield {"torchvision": {**given, **({"aux": True} if aux else {})}}
