"""Someone else's network made to answer with logits, whatever it answers with itself.

A network that answers with one tensor of logits, BKHW and as large as its input, is left as it is. Any other is
wrapped in a `LogitsAdapter`, whose `net` it becomes: its own names follow after `net.`.

Legend: B batch, C channels, K classes, H height, W width; volumes have a depth before the height.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compress.networks.foreign.answers import of_keys, tensors_in
from compress.networks.foreign.asking import built
from compress.networks.foreign.computed import folded
from compress.networks.foreign.head import ForeignNetwork, Reading
from compress.networks.foreign.notes import note_on
from compress.networks.foreign.probe import reading_of
from export.modules import put

_CERTAIN = 1e-6
"""A probability is kept so far from 0 and 1 before it becomes a logit."""


class LogitsAdapter(nn.Module):
    """A network that answers with logits_BKHW; in training with a tuple of them where `net` has several."""

    def __init__(self, net: nn.Module, reading: Reading) -> None:
        super().__init__()
        self.net, self.reading = net, reading

    def forward(self, image: Tensor) -> Tensor | tuple[Tensor, ...]:
        answer = self.net(image if self.reading.takes == "channels_first" else image.movedim(1, -1))
        found = tensors_in(answer)
        if not self.training:
            return self._logits(found[self.reading.output], image, resized=self.reading.resized)
        first, *others = of_keys(found, self.reading.training)
        # The others are often coarser, and are compared with the same truth.
        whole = self.reading.size == "input"
        several = (
            self._logits(first, image, resized=self.reading.resized),
            *(self._logits(tensor, image, resized=whole) for tensor in others),
        )
        return several if len(several) > 1 else several[0]

    def _logits(self, tensor: Tensor, image: Tensor, *, resized: bool) -> Tensor:
        reading = self.reading
        logits = tensor if reading.channels else tensor.unsqueeze(1)
        if reading.layout == "channels_last":
            logits = logits.movedim(-1, 1)
        if reading.activation == "sigmoid":
            certain = logits.clamp(_CERTAIN, 1 - _CERTAIN)
            logits = certain.log() - (1 - certain).log()
        elif reading.activation == "softmax":
            logits = logits.clamp_min(_CERTAIN).log()
        if resized and logits.shape[2:] != image.shape[2:]:
            mode = "bilinear" if image.dim() == 4 else "trilinear"
            logits = F.interpolate(logits, size=image.shape[2:], mode=mode, align_corners=False)
        return logits


def adapted(network: ForeignNetwork) -> nn.Module:
    """The network, answering with logits; what was found out about it is in `notes_of`.

    Raises:
        RecipeError: if it cannot be asked, or no part of its answer can be told to be the logits.
    """
    reading = reading_of(network)
    net = built(network)
    computed = folded(net)
    # Their names in a checkpoint are others: where its names do not fit, it is loaded into the network as built.
    vars(net)["_as_built"] = network if computed else None
    for name in reading.removed:
        put(net, [name], nn.Identity())
    if not reading.plain:
        net = LogitsAdapter(net, reading)
    note_on(net, *reading.notes, *_note_on_computed(computed))
    return net


def as_built(net: nn.Module) -> nn.Module | None:
    """For a network whose computed weights are folded, one in which they are not; None for any other."""
    network = vars(net).get("_as_built")
    if network is None:
        return None
    with torch.random.fork_rng(devices=[]):
        return built(network)


def _note_on_computed(computed: Sequence[str]) -> list[str]:
    if not computed:
        return []
    some = ", ".join(computed[:3]) + (f" and {len(computed) - 3} more" if len(computed) > 3 else "")
    return [f"weights that the network computes before each call are folded into plain ones: {some}"]
