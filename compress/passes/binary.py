"""Convolutions in one bit: weights of one sign and one size a channel, and, if asked for, signs of activations too.

Weights alone keep every activation a real number; with both, a convolution's sums are counts of bits (Bi-Real Net,
ReActNet: compress/networks/blocks/signed_conv.py), and there are two trainings, activations first (Martinez et al.
2020, arXiv 2003.11535), both with the uncompressed network as teacher. With `zero`, weights have a third value: a
network of signs alone loses most where it segments (Masked Binary U-Net 2026, arXiv 2601.11660).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass as plain_dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from pydantic import ConfigDict
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from compress.data.dataset.cases import Role
from compress.editing.activations import images
from compress.editing.binarization.latent import learn_signs, mean_size, settle
from compress.editing.binarization.places import Places, why_real, why_wide
from compress.editing.binarization.start import put_signs
from compress.editing.layer_replacement import Site, SkippedSites, copied, parameters, sites
from compress.editing.named_layers import check_keep
from compress.errors import PassError
from compress.networks.blocks.signed_conv import SignedConv
from compress.passes.distill import Distill
from compress.progress import bar
from compress.storage.description import described
from compress.train import bits
from export.modules import Precision

if TYPE_CHECKING:
    from compress.task import Task

_CASES = 8
"""Train cases that thresholds and scales begin from: a few numbers for each channel."""


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class Binary:
    """1-bit convolutions, learned from the uncompressed network."""

    requires: ClassVar[Precision] = "float"
    ensures: ClassVar[Precision] = "float"

    weights: Literal[1] = 1
    """Bits of a weight."""
    activations: Literal[32, 1] = 32
    """32 keeps them real numbers; 1 makes signs of what convolutions read, but for those that read a concatenation."""
    zero: bool = False
    """A third value of weights, zero: 1.6 bits a weight, and nearer to what was trained."""
    keep: tuple[str, ...] = ()
    """Layers that stay as they are: names (`head`), modules (`decoder.3`) or patterns (`encoder.*.0`)."""
    recover: Distill = Distill()
    """Each of the trainings: the options of `distill`."""

    @property
    def makes_signs(self) -> bool:
        """Whether convolutions read signs afterwards, for which there is a runtime of their own."""
        return self.activations == 1

    @property
    def uses(self) -> tuple[Role, ...]:
        return self.recover.uses

    def __call__(self, net: nn.Module, task: Task) -> nn.Module:
        """The network with its convolutions in bits, trained.

        Raises:
            PassError: if no layer can take bits, `keep` names none, there are no train or validation cases, or the
                network is in integers already.
            ExportError: if the network's Python cannot be captured.
        """
        net = copied(net, "binary")
        found = sites(net, task.example, (nn.modules.conv._ConvNd,))
        check_keep(self.keep, [name for site in found for name in site.names], "binary")
        chosen = _Chosen.of(net, task, found, self)
        if chosen.signed:
            _put_signs(net, chosen, task)
            if chosen.signed:
                task.note("binary: first training, activations as signs and weights as real numbers")
                net = self.recover(net, task)
        self._learn(net, chosen.names)
        net = self.recover(net, task)
        for conv in _convs(net, chosen.names).values():
            settle(conv)
            bits.mark(conv, 2 if self.zero else 1)
        _tell(net, chosen, self, task)
        return described(net)

    def _learn(self, net: nn.Module, names: Iterable[str]) -> None:
        """Put signs in the place of weights; the size of a channel is in its scale where the layer has one."""
        for name, conv in _convs(net, names).items():
            layer = net.get_submodule(name)
            if isinstance(layer, SignedConv):
                with torch.no_grad():
                    layer.scale.mul_(mean_size(conv.weight, zero=self.zero).reshape(layer.scale.shape))
            learn_signs(conv, zero=self.zero, sized=not isinstance(layer, SignedConv))


@plain_dataclass(frozen=True, kw_only=True)
class _Chosen:
    """The layers that take bits, and what is told of the others."""

    every: list[Site]
    signed: list[Site]
    """Of these, those whose activations become signs too."""
    wide: SkippedSites
    real: SkippedSites

    @property
    def names(self) -> list[str]:
        return [site.name for site in self.every]

    @staticmethod
    def of(net: nn.Module, task: Task, found: Iterable[Site], how: Binary) -> _Chosen:
        places = Places.of(net, task)
        wide, real = SkippedSites(word="binary"), SkippedSites(word="binary, activations")
        every, signed = [], []
        for site in found:
            reason = why_wide(site, net, places, how.keep)
            if reason is not None:
                wide.add(site.name, reason)
                continue
            every.append(site)
            if how.activations == 1:
                reason = why_real(site, places, open_size="size" in task.dynamic)
                signed += [site] if reason is None else []
                if reason is not None:
                    real.add(site.name, reason)
        if not every:
            raise wide.nothing_done("no layer can take bits")
        return _Chosen(every=every, signed=signed, wide=wide, real=real)


def _put_signs(net: nn.Module, chosen: _Chosen, task: Task) -> None:
    """Make layers of signs of those chosen; one that the network refuses stays with real activations."""
    original = copied(net, "binary")
    cases = task.data.cases["train"][:_CASES]
    if not cases:
        raise PassError("binary: there are no train cases; give some the split 'train'")

    def inputs() -> Iterable[Tensor]:
        return images(task, cases)

    for site in bar(list(chosen.signed), "making signs", len(chosen.signed)):
        reason = put_signs(net, original, site, task.example, inputs)
        if reason is not None:
            chosen.signed.remove(site)
            chosen.real.add(site.name, reason)


def _convs(net: nn.Module, names: Iterable[str]) -> Mapping[str, Any]:
    """The convolutions with weights in bits, by the names of the layers that they are or are in."""
    layers = {name: net.get_submodule(name) for name in names}
    return {name: layer.conv if isinstance(layer, SignedConv) else layer for name, layer in layers.items()}


def _tell(net: nn.Module, chosen: _Chosen, how: Binary, task: Task) -> None:
    """What is in bits, what is not and why."""
    in_bits = sum(conv.weight.numel() for conv in _convs(net, chosen.names).values())
    each = "1.6 bits (-1, 0, +1)" if how.zero else "one bit"
    task.note(
        f"binary: {len(chosen.every)} convolutions store a weight in {each}, {in_bits / parameters(net):.0%} of all "
        f"parameters: {', '.join(chosen.names)}"
    )
    if how.activations == 1:
        bare = [site.name for site in chosen.signed if not net.get_submodule(site.name).shortcut]
        task.note(f"binary: {len(chosen.signed)} of them read signs: {', '.join(s.name for s in chosen.signed)}")
        if bare:
            task.note(f"binary: no shortcut around {', '.join(bare)}: sizes or channels do not fit")
    for line in (*chosen.wide.lines(), *chosen.real.lines()):
        task.note(line)
    task.note("binary: runtimes unpack the bits when they open a file: it is small on disk, in memory as before")
