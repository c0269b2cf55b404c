"""Whether an artifact computes the network it was made from; if not, which layer or operator the runtime has otherwise.

A float artifact is held to torch's logits, on every runtime. Of an integer artifact the logits say little, since
rounding grows from layer to layer: it is held to torch layer by layer, each given what the runtime computed before it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import fx, nn

from compress.errors import BackendError
from export.artifact import Artifact
from export.backend import Backend, Tap
from export.deviation import of_floats, of_integers
from export.modules import has_signs
from export.to_onnx import Parity

FAITHFUL = 1e-2
"""Relative error of the logits above which a float artifact does not compute the network it was made from."""
SAME = 1e-3
"""Share of pixels that may have another class in an artifact of 16 or 8 bits than in its simulation."""

Image = NDArray[np.float32]
Log = Callable[[str], None]


def is_faithful(apart: Parity, net: nn.Module) -> bool:
    """Whether logits so far from torch's are those of the network, computed in floating point.

    Where convolutions read signs, a value that lies at its threshold falls to either side by how a sum was rounded, and
    changes a few logits by much: there the mean over all logits is asked.
    """
    return (apart.mean_error if has_signs(net) else apart.relative_error) <= FAITHFUL


def fault_of_float(
    word: str, backend: Backend, artifact: Artifact, net: nn.Module, image_BCHW: Image, apart: Parity
) -> str | None:
    """Why a float artifact is not the network, in one sentence; None if it is.

    Args:
        word: the runtime.
        net: the network in torch.
        apart: how far its logits are from torch's.
    """
    if is_faithful(apart, net):
        return None
    operator = _operator(backend, artifact, image_BCHW)
    return (
        f"{word} computes another network: its logits {apart}"
        + (f", first behind {operator}" if operator else "")
        + "; write that operator another way in the network, or leave this runtime out"
    )


def _operator(backend: Backend, artifact: Artifact, image_BCHW: Image) -> str | None:
    """The first operator that this runtime computes otherwise than ONNX Runtime, which was held to torch."""
    from export.backends.onnxruntime import OnnxRuntime

    path = artifact.path.with_suffix(".onnx")
    if not isinstance(backend, Tap) or not path.is_file():
        return None
    ours = partial(OnnxRuntime().values, Artifact.read(path), image_BCHW)
    try:
        return of_floats(onnx.load(path), ours, partial(backend.values, artifact, image_BCHW), FAITHFUL)
    except BackendError:
        # With every tensor asked for a runtime may refuse what it takes otherwise: then nothing is named.
        return None


def fault_of_half(
    word: str, backend: Backend, artifact: Artifact, image_BCHW: Image, apart: Parity, log: Log
) -> str | None:
    """Why an artifact in 16 bits is not the network, in one sentence; None if it is.

    Runtimes round in other places than the simulation does, or nowhere: what counts is that the same pixels have the
    same class, or that the logits are as near as those of a float artifact.

    Args:
        log: told where more pixels change class than should, though the logits are near.
    """
    if apart.flipped <= SAME:
        return None
    if apart.relative_error <= FAITHFUL:
        log(f"{word}: its logits {apart}: pixels whose classes are all but equally likely")
        return None
    operator = _operator(backend, artifact, image_BCHW)
    return (
        f"{word} computes another network: its logits {apart}"
        + (f", first behind {operator}" if operator else "")
        + "; keep that layer in 32 bits (half: keep), or leave this runtime out"
    )


def fault_of_integers(
    word: str, backend: Backend, artifact: Artifact, net: fx.GraphModule, image_BCHW: Image, apart: Parity, log: Log
) -> str | None:
    """Why an integer artifact is not the network, in one sentence; None if nothing says so.

    Args:
        net: the network in torch, with its pairs where this runtime has them.
        log: told where layers cannot be looked at one by one, and where more pixels change class than should.
    """
    fault = _layer_otherwise(word, backend, artifact, net, image_BCHW, apart, log)
    if fault is None and apart.flipped > SAME:
        log(f"{word}: its logits {apart}: what was chosen in simulation, such as max_drop, may not hold here")
    return fault


def _layer_otherwise(
    word: str, backend: Backend, artifact: Artifact, net: fx.GraphModule, image_BCHW: Image, apart: Parity, log: Log
) -> str | None:
    if not isinstance(backend, Tap) or (apart.relative_error <= FAITHFUL and not backend.quick_to_tap):
        return None
    model = onnx.load(artifact.path.with_suffix(".onnx"))
    values = partial(backend.values, artifact, image_BCHW)
    try:
        layer = of_integers(net, model, torch.from_numpy(image_BCHW), values)
    except BackendError as error:
        log(f"{word}: its integer layers are not compared with torch's one by one: {error}")
        return None
    if layer is None:
        return None
    return (
        f"{word} computes another network: of {layer}; keep it in float ({net.meta['assigned_by']}: keep) or write it "
        "another way"
    )
