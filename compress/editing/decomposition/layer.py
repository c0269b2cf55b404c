"""A layer that may be decomposed: what it would cost, and the layers that would take its place."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from compress.editing.decomposition.cp import Unstable
from compress.editing.decomposition.ranks import Array, by_energy
from compress.editing.decomposition.thin_layers import Method, Ranks, matters, thin_layers, unfolded, weights_for
from compress.editing.layer_replacement import TRANSPOSED, Site, cost, finite, parameters
from compress.errors import PassError

Rule = Callable[[Array, tuple[int, int]], int]

FEWER_MACS = 1.3
"""A layer is replaced where this many times fewer multiply-accumulates come of it: more layers in a row move
more memory, so that a few per cent less to compute would not make it faster."""


@dataclass(frozen=True, kw_only=True)
class Size:
    """Of a network or a layer."""

    macs: int
    params: int


@dataclass(kw_only=True, eq=False)
class Decomposition:
    """What can become of the layer at a site by one method; what is asked of it twice is computed once."""

    site: Site
    method: Method

    @property
    def transposed(self) -> bool:
        return isinstance(self.site.module, TRANSPOSED)

    @cached_property
    def kernel(self) -> Array:
        """OIk, float64; of a linear layer OI."""
        module: Any = self.site.module
        weight = module.weight.detach().double()
        if self.transposed:
            weight = weight.transpose(0, 1)
        if self.method == "cp":
            # An axis that gets no layer has no factor.
            idle = [axis + 2 for axis in range(weight.dim() - 2) if not matters(module, axis)]
            weight = weight.squeeze(idle)
        return np.asarray(weight.numpy())

    @cached_property
    def spectra(self) -> list[tuple[Array, tuple[int, int]]]:
        """Of each matrix whose rank is a rank of the decomposition: its singular values, descending, and its shape."""
        matrices = unfolded(self.kernel, self.method, self.transposed)
        return [(np.linalg.svd(matrix, compute_uv=False), (matrix.shape[0], matrix.shape[1])) for matrix in matrices]

    @cached_property
    def _sizes(self) -> dict[Ranks | None, Size]:
        return {}

    def ranks(self, rule: Rule) -> Ranks:
        """One for each matrix, by a rule that is asked with its singular values and its shape."""
        ranks = tuple(rule(spectrum, shape) for spectrum, shape in self.spectra)
        # The unfoldings of a sum of R terms have rank R at most.
        return (max(ranks),) if self.method == "cp" else ranks

    def size(self, ranks: Ranks | None = None) -> Size:
        """Multiply-accumulates over all calls, and parameters: as it is, or decomposed."""
        if ranks not in self._sizes:
            module: Any = self.site.module
            if ranks is not None:
                with torch.device("meta"):
                    module = thin_layers(module, self.method, ranks, bias=module.bias is not None)
            self._sizes[ranks] = Size(macs=cost(module, self.site.inputs), params=parameters(module))
        return self._sizes[ranks]

    @torch.no_grad()
    def decomposed(self, ranks: Ranks, *, bias: bool, seed: int) -> nn.Sequential:
        """The layers in a row that take its place; those before the last have kernels of norm 1 for each output.

        Args:
            bias: whether the last has a bias even if the layer has none.

        Raises:
            Unstable: if the decomposition is not finite, or is a difference of large terms (CP).
        """
        module: Any = self.site.module
        new = thin_layers(module, self.method, ranks, bias=bias or module.bias is not None)
        weights = weights_for(self.kernel, self.method, ranks, self.transposed, seed)
        for layer, weight in zip(new, weights, strict=True):
            own: Any = layer.weight
            own.copy_(torch.from_numpy(np.ascontiguousarray(weight)).reshape(own.shape))
        last: Any = new[-1]
        if last.bias is not None:
            last.bias.copy_(torch.zeros_like(last.bias) if module.bias is None else module.bias)
        if not finite(new):
            raise Unstable(f"{self.method} finds no finite decomposition of its kernel")
        return new.to(module.weight.dtype).eval()


def too_costly(decomposition: Decomposition, ranks: Ranks) -> str | None:
    """Why these ranks are not worth it; None if they are."""
    if 0 in ranks:
        return "variational Bayes finds only noise in its kernel; give rank, energy, macs or params"
    if decomposition.size(ranks).macs * FEWER_MACS > decomposition.size().macs:
        return f"its ranks leave it with less than {FEWER_MACS:g} times fewer multiply-accumulates"
    return None


def ranks_for_target(
    decompositions: Sequence[Decomposition],
    what: Literal["macs", "params"],
    whole: int,
    share: float,
) -> list[Ranks]:
    """The ranks of the highest energy, the same in all layers, whose network is small enough.

    Args:
        whole: multiply-accumulates, or parameters, of the network.
        share: how much of that may be left.

    Raises:
        PassError: if rank 1 everywhere is not small enough.
    """

    def at(energy: float) -> list[Ranks]:
        return [each.ranks(lambda spectrum, _: by_energy(spectrum, energy)) for each in decompositions]

    def left(ranks: Sequence[Ranks]) -> float:
        saved = (
            getattr(each.size(), what) - getattr(each.size(wanted), what)
            for each, wanted in zip(decompositions, ranks, strict=True)
            if too_costly(each, wanted) is None
        )
        return 1 - sum(saved) / whole

    low, high = 0.0, 1.0
    if left(at(low)) > share:
        raise PassError(
            f"lowrank: {what} {share:g} cannot be reached: with rank 1 in every layer that may be replaced "
            f"{left(at(low)):.2g} would be left; raise {what}, or let more layers be replaced (where, at_least)"
        )
    for _ in range(24):
        middle = (low + high) / 2
        low, high = (middle, high) if left(at(middle)) <= share else (low, middle)
    return at(low)


@torch.inference_mode()
def difference(layer: nn.Module, new: nn.Module, shape: torch.Size) -> float:
    """How far another layer's answer to noise is from this one's, relative to this one's without its bias."""
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(next(layer.parameters()).dtype)
    wanted = layer(noise)
    return float((new(noise) - wanted).norm() / (wanted - layer(torch.zeros_like(noise))).norm())
