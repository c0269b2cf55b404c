"""A network asked with an image of zeros: on the meta device, where that costs nothing, or on the CPU."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from compress.networks.foreign.head import ForeignNetwork, Layout, Reading
from compress.networks.foreign.named import line_of
from compress.networks.foreign.shapes import ShapesAlone
from export.errors import REFUSALS, first_line

_ON_META: dict[str, nn.Module] = {}
"""The network asked last, kept: it is asked again for every size."""
_RUNS: dict[str, bool] = {}
"""Whether a network answers on the meta device at all."""


def built(network: ForeignNetwork) -> nn.Module:
    """The network on the device that is set; one whose building needs values is built on the CPU, and moved."""
    if torch.get_default_device().type != "meta":
        return network.unwrapped()
    try:
        return network.unwrapped()
    except REFUSALS:
        # What is wrong on the CPU too is told from there.
        with torch.random.fork_rng(devices=[]), torch.device("cpu"):
            return network.unwrapped().to("meta")


def built_on(network: ForeignNetwork, device: str) -> nn.Module:
    """The network on this device; no random number is drawn for others."""
    with torch.random.fork_rng(devices=[]), torch.device(device):
        return built(network)


def built_on_meta(network: ForeignNetwork) -> nn.Module:
    """The network on the meta device, the same one while it is asked again."""
    key = repr(network)
    if key not in _ON_META:
        net = built_on(network, "meta")
        _ON_META.clear()
        _ON_META[key] = net
    return _ON_META[key]


def runs_on_meta(net: nn.Module, network: ForeignNetwork, reading: Reading) -> bool:
    """Whether the network, which is on the meta device, answers there at all."""
    key = repr(network)
    if key not in _RUNS:
        answer = answer_of(net, image_of(network, reading.example, reading.takes, "meta"))
        _RUNS[key] = not isinstance(answer, Exception)
    return _RUNS[key]


def image_of(network: ForeignNetwork, size: Sequence[int], layout: Layout, device: str) -> Tensor:
    """One image of zeros, of this size."""
    shape = (network.in_channels, *size) if layout == "channels_first" else (*size, network.in_channels)
    return torch.zeros(1, *shape, device=device)


def answer_of(net: nn.Module, image: Tensor, *, training: bool = False) -> Any:
    """What the network answers, or what it raises."""
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]), torch.device(image.device), _least(image.device):
            return net.train(training)(image)
    except (Exception, SystemExit) as error:  # noqa: BLE001  a stranger's network may raise anything; the caller tells
        ended = RuntimeError("it ends the program").with_traceback(error.__traceback__)
        return error if isinstance(error, Exception) else ended


def _least(device: torch.device) -> contextlib.AbstractContextManager[object]:
    """On the meta device shapes are all that is asked for."""
    return ShapesAlone() if device.type == "meta" else contextlib.nullcontext()


def reason(error: BaseException) -> str:
    """What an error says, in one line, and where in the user's own code it was raised, if there."""
    theirs = line_of(error)
    return first_line(error) if theirs is None else f"{theirs}: {type(error).__name__}: {first_line(error)}"
