"""Zero weights, the smallest first; the shapes stay.

2:4 is what NVIDIA's sparse Tensor Cores run (Mishra et al. 2021, arXiv 2104.08378); by share, zeros go
in gradually (Zhu & Gupta 2017, arXiv 1710.01878). Zeroed weights stay zero in every later training.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, Self

import torch
from pydantic import ConfigDict, Field, model_validator
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from compress.data.dataset.cases import Role
from compress.editing.layer_replacement import copied
from compress.editing.named_layers import check_keep, named
from compress.errors import PassError
from compress.passes.distill import Distill
from compress.storage.description import described
from compress.train import sparsity
from export.capture import capture
from export.graph import convolutions, layer_name, weight_of
from export.modules import Precision

if TYPE_CHECKING:
    from compress.task import Task

_CONVS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
Layer = nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d | nn.Linear


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class Sparsify:
    """Zeros in the weights of convolutions and linear layers."""

    requires: ClassVar[Precision] = "float"
    ensures: ClassVar[Precision] = "float"

    pattern: Literal["2:4", "unstructured"] = "2:4"
    """2:4: two of every four input channels at each kernel position, which TensorRT can run faster;
    unstructured: any share, anywhere, for a smaller file. Passes that take channels out belong before 2:4:
    after it they would break up the fours."""
    ratio: Annotated[float, Field(gt=0, lt=1)] | None = None
    """The share of weights that an unstructured pattern zeroes."""
    across: Literal["layer", "network"] = "layer"
    """Whether each layer loses that share, or the network does, wherever its weights are smallest."""
    keep: tuple[str, ...] = ()
    """Layers that stay as they are: names (`head`), modules (`decoder.3`) or patterns (`encoder.*.0`)."""
    recover: Distill | None = None
    """Training after the zeros, in which they stay: the options of `distill`."""
    rounds: Annotated[int, Field(ge=1)] = 1
    """Unstructured only: zeros go in so many times, most of them first, with all of `recover` after each."""

    @model_validator(mode="after")
    def _fitting(self) -> Self:
        if self.pattern == "unstructured" and self.ratio is None:
            raise ValueError("an unstructured pattern needs a ratio: the share of weights to zero")
        if self.pattern == "2:4" and (self.ratio is not None or self.across != "layer" or self.rounds > 1):
            raise ValueError("2:4 is half of each layer at once: ratio, across and rounds go with unstructured")
        if self.rounds > 1 and self.recover is None:
            raise ValueError("rounds without recovery between them end where one round does: set recover")
        return self

    @property
    def uses(self) -> tuple[Role, ...]:
        return () if self.recover is None else self.recover.uses

    def __call__(self, net: nn.Module, task: Task) -> nn.Module:
        """The network with zeros, recovered if that is asked for.

        Raises:
            PassError: if no layer can take the pattern, `keep` names none, a layer would be all
                zeros, or the network is in integers already.
        """
        sparse = copied(net, "sparsify")
        check_keep(self.keep, [name for name, _ in _layers(sparse)], "sparsify")
        dense = _Sizes.of(sparse)
        names = self._chosen(sparse, task)
        for share in self._shares():
            layers = {name: layer for name, layer in _layers(sparse) if name in names}
            self._zero(layers, share)
            for layer in layers.values():
                sparsity.mark(layer, self.pattern)
            if self.recover is not None:
                before = sparsity.masks(sparse)
                sparse = self.recover(sparse, task)
                after = sparsity.masks(sparse)
                assert all(bool(after[name][zero].all()) for name, zero in before.items()), "training lost zeros"
        self._tell(sparse, names, dense, task)
        return described(sparse)

    def _shares(self) -> Iterator[float]:
        """The share of zeros after each round: cubic, as the more there are the more the next ones cost."""
        for number in range(1, self.rounds + 1):
            yield (self.ratio or 0.5) * (1 - (1 - number / self.rounds) ** 3)

    def _chosen(self, net: nn.Module, task: Task) -> list[str]:
        """The layers that take the pattern; of the others it is told why not."""
        chosen: dict[Tensor, str] = {}
        kept: dict[str, list[str]] = {}
        computed = _computed(net, task)
        for name, layer in _layers(net):
            reason = (
                "the weight that runs is computed from others" if name in computed else self._why_dense(name, layer)
            )
            if reason is None and layer.weight in chosen:
                task.note(f"sparsify: {name} has the weight of {chosen[layer.weight]}, and its zeros")
            elif reason is None:
                chosen[layer.weight] = name
            else:
                kept.setdefault(reason, []).append(name)
        if not chosen:
            reasons = "; ".join(f"{names[0]}: {reason}" for reason, names in kept.items())
            raise PassError(
                f"sparsify: no layer can take the pattern {self.pattern} "
                f"({reasons or 'there are no convolutions or linear layers'})"
            )
        for reason, names in kept.items():
            task.note(f"sparsify: kept dense {', '.join(names)}: {reason}")
        return list(chosen.values())

    def _why_dense(self, name: str, layer: Layer) -> str | None:
        if named(name, self.keep):
            return "named in keep"
        if self.pattern == "unstructured":
            return None
        if getattr(layer, "groups", 1) > 1:
            return "TensorRT has no sparse kernels for convolutions in groups"
        inside, outside = _channels(layer)
        if inside % 16 or outside % 8:
            # The rule of NVIDIA's own tool for this (apex, contrib/sparsity/asp.py).
            return "sparse Tensor Cores take multiples of 16 channels in and 8 out"
        return None

    def _zero(self, layers: Mapping[str, Layer], share: float) -> None:
        weights = {name: layer.weight for name, layer in layers.items()}
        if self.pattern == "2:4":
            chosen = {name: _two_of_four(layer) for name, layer in layers.items()}
        elif self.across == "layer":
            chosen = {name: _smallest([weight], share)[0] for name, weight in weights.items()}
        else:
            chosen = dict(zip(weights, _smallest(list(weights.values()), share), strict=True))
        for name, zero in chosen.items():
            if zero.all():
                raise PassError(
                    f"sparsify: {name} would be all zeros; lower the ratio, set across: layer, or name it in keep"
                )
        with torch.no_grad():
            for name, zero in chosen.items():
                weights[name].masked_fill_(zero, 0.0)

    def _tell(self, net: nn.Module, names: Sequence[str], dense: _Sizes, task: Task) -> None:
        shares: dict[str, list[str]] = {}
        layers = {name: layer for name, layer in _layers(net) if name in names}
        for name, layer in layers.items():
            shares.setdefault(f"{layer.weight.eq(0).float().mean().item():.1%}", []).append(name)
        listed = "; ".join(f"{share} of {', '.join(layers)}" for share, layers in shares.items())
        every = list(net.parameters())
        total = sum(int(weight.eq(0).sum()) for weight in every) / sum(weight.numel() for weight in every)
        task.note(f"sparsify: {total:.1%} of all parameters are zero: {listed}")
        now = _Sizes.of(net)
        task.note(
            f"sparsify: weights in 16 bits {now.half:.2f} MB, deflated {now.half_deflated:.2f} MB "
            f"(before: {dense.half_deflated:.2f}); in 8 bits {now.int8:.2f} MB, deflated {now.int8_deflated:.2f} MB "
            f"(before: {dense.int8_deflated:.2f})"
        )
        if self.pattern == "2:4":
            task.note(
                "sparsify: TensorRT may run these layers faster on GPUs from Ampere on, in 16 or 8 bits; it keeps "
                "its dense kernel wherever that is faster, as it often is below some 256 channels"
            )
        transposed = [name for name, layer in layers.items() if isinstance(layer, _TRANSPOSED)]
        if self.pattern == "2:4" and transposed:
            task.note(f"sparsify: {', '.join(transposed)}: only where int8 writes them for TensorRT as convolutions")
        # OpenVINO unpacks sparse weights faster than it reads dense ones only for matrix multiplications in int8
        # with AMX, and only if asked to (CPU_SPARSE_WEIGHTS_DECOMPRESSION_RATE); convolutions stay dense.
        task.note(
            f"sparsify: {'elsewhere' if self.pattern == '2:4' else 'on every runtime here'} zeros take as long as "
            "other weights: the network is smaller, and only once compressed (zip, deflate)"
        )


def _layers(net: nn.Module) -> Iterator[tuple[str, Layer]]:
    """Every convolution, transposed convolution and linear layer, by name."""
    for name, layer in net.named_modules():
        if isinstance(layer, (*_CONVS, *_TRANSPOSED, nn.Linear)):
            yield name, layer


def _computed(net: nn.Module, task: Task) -> set[str]:
    """Layers whose stored weight is not the one that runs (weight norm, standardization): its zeros would not last."""
    layers = dict(_layers(net))
    computed = {name for name, layer in layers.items() if "weight" not in layer._parameters}
    unsure = {name: layer for name, layer in layers.items() if name not in computed and _has_its_own_way(layer)}
    if unsure:
        graph = capture(net, task.example, task.dynamic)
        runs = {layer_name(node): weight_of(graph, node) for node in convolutions(graph)}
        computed |= {name for name, layer in unsure.items() if not _same(runs.get(name), layer.weight)}
    return computed


def _has_its_own_way(layer: Layer) -> bool:
    """Whether somebody has rewritten how torch's layer computes."""
    kind = next(kind for kind in (*_CONVS, *_TRANSPOSED, nn.Linear) if isinstance(layer, kind))
    return any(getattr(type(layer), way, None) is not getattr(kind, way, None) for way in ("forward", "_conv_forward"))


def _same(runs: Tensor | None, stored: Tensor) -> bool:
    return runs is not None and torch.equal(runs, stored)


def _channels(layer: Layer) -> tuple[int, int]:
    """Input and output channels."""
    if isinstance(layer, nn.Linear):
        return layer.in_features, layer.out_features
    return layer.in_channels, layer.out_channels


def _two_of_four(layer: Layer) -> Tensor:
    """Where the two smallest of every four input channels are, at each kernel position of each output channel."""
    inside = 0 if isinstance(layer, _TRANSPOSED) else 1
    fours = layer.weight.detach().abs().movedim(inside, -1).unflatten(-1, (-1, 4))
    smallest = fours.topk(2, dim=-1, largest=False).indices
    zero = torch.zeros_like(fours, dtype=torch.bool).scatter(-1, smallest, value=True)
    return zero.flatten(-2).movedim(-1, inside)


def _smallest(weights: Sequence[Tensor], share: float) -> list[Tensor]:
    """Where the smallest weights of all of these together are; zeros come first, so those of an earlier round stay."""
    sizes = torch.cat([weight.detach().abs().float().flatten() for weight in weights])
    smallest = sizes.topk(int(share * sizes.numel()), largest=False, sorted=False).indices
    zero = torch.zeros_like(sizes, dtype=torch.bool)
    zero[smallest] = True
    parts = zero.split([weight.numel() for weight in weights])
    return [part.view(weight.shape) for part, weight in zip(parts, weights, strict=True)]


@dataclass(frozen=True, kw_only=True)
class _Sizes:
    """The weights of a network in MB (10^6 bytes), plain and deflated as in a zip."""

    half: float
    half_deflated: float
    int8: float
    int8_deflated: float

    @staticmethod
    def of(net: nn.Module) -> _Sizes:
        weights = [weight.detach().cpu() for weight in net.parameters()]
        half = b"".join(weight.half().numpy().tobytes() for weight in weights)
        # As int8 stores it: kernels as integers, one scale an output channel; biases and norms in float.
        int8 = b"".join((_integers(w) if w.dim() > 1 else w.float()).numpy().tobytes() for w in weights)
        return _Sizes(
            half=len(half) / 1e6,
            half_deflated=len(zlib.compress(half)) / 1e6,
            int8=len(int8) / 1e6,
            int8_deflated=len(zlib.compress(int8)) / 1e6,
        )


def _integers(weight: Tensor) -> Tensor:
    scale = weight.float().abs().flatten(1).amax(1).clamp(min=1e-12) / 127
    return (weight.float() / scale.view(-1, *[1] * (weight.dim() - 1))).round().to(torch.int8)
