"""Convolutions and linear layers as products of thinner ones: Tucker-2, CP, and two singular value decompositions.

Legend: O output channels, I input channels, k kernel positions, R rank.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass as plain_dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import ConfigDict, Field, model_validator
from pydantic.dataclasses import dataclass
from scipy.optimize import minimize_scalar
from torch import nn

from compress.data.dataset.cases import Role
from compress.editing.activations import Images, agreement, calibration_cases, images, now_and_before
from compress.editing.layer_replacement import (
    CONVS,
    TRANSPOSED,
    Place,
    Skipped,
    chosen,
    copied,
    cost,
    finite,
    macs,
    not_plain,
    parameters,
    places,
    swap,
)
from compress.editing.least_squares import refit
from compress.errors import PassError
from compress.progress import bar
from compress.storage.description import described

if TYPE_CHECKING:
    from compress.task import Task

How = Literal["tucker", "cp", "svd", "spatial"]
Ranks = tuple[int, ...]
Rule = Callable[["Array", tuple[int, int]], int]
Array = NDArray[np.floating[Any]]
Share = Annotated[float, Field(gt=0, le=1)]

PLAIN = (*CONVS, *TRANSPOSED, nn.Linear)
CP_STEPS, CP_TRIAL = 60, 10
CP_BEGINNINGS = (True, False, False, False)
"""Whether to begin with singular vectors: good for a trained kernel, but a term may die there."""
MOST_TERMS = 30.0
"""The largest norm of CP's terms, relative to that of the kernel: beyond it they cancel each other."""


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class Lowrank:
    """Thin layers in a row for each layer; the fewer ranks, the fewer multiply-accumulates.

    Give at most one of `rank`, `energy`, `macs` and `params`. With none, each layer's ranks are what
    is not noise in its kernel: the analytic solution of variational Bayesian matrix factorization
    (Nakajima et al. 2013, JMLR 14), as Kim et al. propose for Tucker-2.
    """

    how: How = "tucker"
    """tucker: 1x1, k x k, 1x1 (Kim et al. 2016, arXiv 1511.06530). cp: 1x1, one depthwise convolution along each
    axis, 1x1 (Lebedev et al. 2015, arXiv 1412.6553). svd: k x k to R channels, then 1x1 (Zhang et al. 2016,
    arXiv 1505.06798). spatial: k x 1 to R channels, then 1 x k (Jaderberg et al. 2014, arXiv 1405.3866).
    A 1x1 or linear layer has one decomposition, the singular value one, whichever is asked for."""
    where: str | tuple[str, ...] = "*"
    """Which layers: names (`head`), modules (`decoder.3`) or patterns (`encoder.*.0`)."""
    rank: Annotated[int, Field(ge=1)] | Share | None = None
    """The ranks themselves: a whole number (no more than a layer has), or a share of its full ranks."""
    energy: Share | None = None
    """Share of the kernel's squared singular values that the ranks keep, in each unfolding."""
    macs: Annotated[float, Field(gt=0, lt=1)] | None = None
    """What share of the network's multiply-accumulates should be left; every layer keeps the same energy."""
    params: Annotated[float, Field(gt=0, lt=1)] | None = None
    """What share of the network's parameters should be left; every layer keeps the same energy."""
    at_least: Annotated[int, Field(ge=1)] = 16
    """Layers with fewer input or output channels stay: there is little to save, and first and last layers lose most."""
    fewer_macs: Annotated[float, Field(ge=1)] = 1.3
    """A layer is replaced where this many times fewer multiply-accumulates come of it: more layers in a row move
    more memory, so that a few per cent less to compute would not make it faster."""
    most_error: Annotated[float, Field(gt=0, le=1)] = 0.9
    """A layer stays whose answer to noise would change by more than this, relative to its size, before any fit."""
    refit: bool = True
    """Fit the last of the layers that take a layer's place to what it answered on calibration cases, inputs taken
    from the network as changed so far. Not done where svd decomposes a transposed convolution."""
    calibrate: Annotated[int, Field(ge=1)] | None = None
    """How many calibration cases to fit to; None uses all that the data sets aside."""

    @model_validator(mode="after")
    def _one_rule(self) -> Self:
        given = [name for name in ("rank", "energy", "macs", "params") if getattr(self, name) is not None]
        if len(given) > 1:
            raise ValueError(f"{' and '.join(given)} are rules for the same ranks; give one of them")
        return self

    @property
    def uses(self) -> tuple[Role, ...]:
        return ("calibration",) if self.refit else ()

    def __call__(self, net: nn.Module, task: Task) -> nn.Module:
        """The network with decomposed layers.

        Raises:
            PassError: if `where` names no layer, a target cannot be reached, no layer was replaced (with the
                reasons), or there are too few calibration cases.
        """
        original, net = copied(net, "lowrank"), copied(net, "lowrank")
        kept, replaced = Skipped(word="lowrank"), []
        inputs = self._inputs(task)
        whole = Size(macs=macs(net, [task.example.shape]), params=parameters(net))
        layers = self._layers(net, task, kept)
        plan = list(zip(layers, self._ranks(layers, whole), strict=True))
        for layer, ranks in bar(plan, "decomposing", len(plan)):
            place = layer.place
            reason = self._too_costly(layer, ranks) or self._replaced(net, layer, ranks, task)
            if reason is not None:
                kept.add(place.name, reason)
                continue
            replaced.append(f"{place.name} {'x'.join(map(str, ranks))}")
            if self.refit and not (layer.transposed and layer.how == "svd"):
                refit(net, place, now_and_before(net, original, place, inputs), "lowrank")
        if not replaced:
            raise kept.nothing_done("no layer was replaced")
        left = Size(macs=macs(net, [task.example.shape]), params=parameters(net))
        task.note(
            f"lowrank: {len(replaced)} layers decomposed by {self.how}, with their ranks: {', '.join(replaced)}; "
            f"{left.macs / whole.macs:.0%} of the multiply-accumulates and {left.params / whole.params:.0%} of the "
            "parameters are left"
        )
        if self.refit:
            same = agreement(net, original, inputs())
            task.note(f"lowrank: fitted to the calibration cases, where {same:.1%} of the foreground keeps its class")
        for line in kept.lines():
            task.note(line)
        return described(net)

    def _inputs(self, task: Task) -> Images:
        if not self.refit:
            return tuple
        cases = calibration_cases(task, self.calibrate, "lowrank", "; or set refit: false and train afterwards")
        return lambda: images(task, cases)

    def _layers(self, net: nn.Module, task: Task, kept: Skipped) -> list[Layer]:
        found = []
        kinds = (nn.modules.conv._ConvNd, nn.Linear)
        for place in chosen(places(net, task.example, kinds), self.where, "lowrank"):
            reason = not_plain(place, net, PLAIN) or self._unfit(place)
            if reason is None:
                found.append(Layer(place=place, how=_how(place.module, self.how)))
            else:
                kept.add(place.name, reason)
        return found

    def _unfit(self, place: Place) -> str | None:
        module: Any = place.module
        if getattr(module, "groups", 1) > 1:
            return "a convolution in groups is thin already"
        if min(_sides(module)) < self.at_least:
            return f"fewer than {self.at_least} input or output channels"
        if isinstance(module, TRANSPOSED) and _how(module, self.how) in ("cp", "spatial"):
            return f"{self.how} does not decompose a transposed convolution; tucker and svd do"
        if not finite(module) or not module.weight.any():
            return "its weights are zero or not finite"
        return None

    def _ranks(self, layers: Sequence[Layer], whole: Size) -> list[Ranks]:
        if self.macs is not None:
            return self._for_target(layers, "macs", whole.macs, self.macs)
        if self.params is not None:
            return self._for_target(layers, "params", whole.params, self.params)
        return [layer.ranks(self._rule) for layer in bar(layers, "choosing ranks", len(layers))]

    def _rule(self, spectrum: Array, shape: tuple[int, int]) -> int:
        if isinstance(self.rank, int):
            return min(self.rank, len(spectrum))
        if self.rank is not None:
            return max(1, round(self.rank * len(spectrum)))
        if self.energy is not None:
            return by_energy(spectrum, self.energy)
        return vbmf_rank(spectrum, shape)

    def _for_target(
        self, layers: Sequence[Layer], what: Literal["macs", "params"], whole: int, share: float
    ) -> list[Ranks]:
        """The ranks of the highest energy, the same in all layers, whose network is small enough."""

        def at(energy: float) -> list[Ranks]:
            return [layer.ranks(lambda spectrum, _: by_energy(spectrum, energy)) for layer in layers]

        def left(ranks: Sequence[Ranks]) -> float:
            saved = (
                getattr(layer.size(), what) - getattr(layer.size(wanted), what)
                for layer, wanted in zip(layers, ranks, strict=True)
                if self._too_costly(layer, wanted) is None
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

    def _too_costly(self, layer: Layer, ranks: Ranks) -> str | None:
        if 0 in ranks:
            return "variational Bayes finds only noise in its kernel; give rank, energy, macs or params"
        if layer.size(ranks).macs * self.fewer_macs > layer.size().macs:
            return f"its ranks leave it with less than {self.fewer_macs:g} times fewer multiply-accumulates"
        return None

    def _replaced(self, net: nn.Module, layer: Layer, ranks: Ranks, task: Task) -> str | None:
        try:
            new = layer.decomposed(ranks, bias=self.refit, seed=task.seed)
        except _Unstable as unstable:
            return str(unstable)
        if not difference(layer.place.module, new, layer.place.inputs[0]) <= self.most_error:
            return f"its answer to noise would change by more than {self.most_error:g} of its size (most_error)"
        return swap(net, layer.place, new, task.example)


class _Unstable(Exception):
    """A decomposition that went wrong, and how."""


@plain_dataclass(frozen=True, kw_only=True)
class Size:
    """Of a network or a layer."""

    macs: int
    params: int


@plain_dataclass(frozen=True, kw_only=True)
class Layer:
    """A layer that may be decomposed, and how."""

    place: Place
    how: How

    @property
    def transposed(self) -> bool:
        return isinstance(self.place.module, TRANSPOSED)

    @cached_property
    def kernel(self) -> Array:
        """OIk, float64; of a linear layer OI."""
        module: Any = self.place.module
        weight = module.weight.detach().double()
        if self.transposed:
            weight = weight.transpose(0, 1)
        if self.how == "cp":
            # An axis that gets no layer has no factor.
            idle = [axis + 2 for axis in range(weight.dim() - 2) if not _matters(module, axis)]
            weight = weight.squeeze(idle)
        return np.asarray(weight.numpy())

    @cached_property
    def spectra(self) -> list[tuple[Array, tuple[int, int]]]:
        """Of each matrix whose rank is a rank of the decomposition: its singular values, descending, and its shape."""
        matrices = _unfolded(self.kernel, self.how, self.transposed)
        return [(np.linalg.svd(matrix, compute_uv=False), (matrix.shape[0], matrix.shape[1])) for matrix in matrices]

    @cached_property
    def _sizes(self) -> dict[Ranks | None, Size]:
        return {}

    def ranks(self, rule: Rule) -> Ranks:
        ranks = tuple(rule(spectrum, shape) for spectrum, shape in self.spectra)
        # The unfoldings of a sum of R terms have rank R at most.
        return (max(ranks),) if self.how == "cp" else ranks

    def size(self, ranks: Ranks | None = None) -> Size:
        """Multiply-accumulates over all calls, and parameters: as it is, or decomposed."""
        if ranks not in self._sizes:
            module: Any = self.place.module
            if ranks is not None:
                with torch.device("meta"):
                    module = _layers_for(module, self.how, ranks, bias=module.bias is not None)
            self._sizes[ranks] = Size(macs=cost(module, self.place.inputs), params=parameters(module))
        return self._sizes[ranks]

    @torch.no_grad()
    def decomposed(self, ranks: Ranks, *, bias: bool, seed: int) -> nn.Sequential:
        """The layers in a row that take its place; those before the last have kernels of norm 1 for each output.

        Args:
            bias: whether the last has a bias even if the layer has none.

        Raises:
            _Unstable: if the decomposition is not finite, or is a difference of large terms (CP).
        """
        module: Any = self.place.module
        new = _layers_for(module, self.how, ranks, bias=bias or module.bias is not None)
        weights = _weights(self.kernel, self.how, ranks, self.transposed, seed)
        for layer, weight in zip(new, weights, strict=True):
            own: Any = layer.weight
            own.copy_(torch.from_numpy(np.ascontiguousarray(weight)).reshape(own.shape))
        last: Any = new[-1]
        if last.bias is not None:
            last.bias.copy_(torch.zeros_like(last.bias) if module.bias is None else module.bias)
        if not finite(new):
            raise _Unstable(f"{self.how} finds no finite decomposition of its kernel")
        return new.to(module.weight.dtype).eval()


def _sides(module: Any) -> tuple[int, int]:
    if isinstance(module, nn.Linear):
        return module.in_features, module.out_features
    return module.in_channels, module.out_channels


def _how(module: nn.Module, how: How) -> How:
    """A layer whose kernel has one position is a matrix."""
    return "svd" if max(getattr(module, "kernel_size", (1,))) == 1 else how


def _unfolded(kernel_OIk: Array, how: How, transposed: bool) -> list[Array]:
    outside, inside = kernel_OIk.shape[:2]
    by_output = kernel_OIk.reshape(outside, -1)
    by_input = np.moveaxis(kernel_OIk, 1, 0).reshape(inside, -1)
    if how == "svd":
        return [by_input if transposed else by_output]
    if how == "spatial":
        # Inputs and the first axis, by outputs and the other axes.
        return [np.moveaxis(kernel_OIk, 0, 2).reshape(inside * kernel_OIk.shape[2], -1)]
    return [by_output, by_input]


def _layers_for(module: Any, how: How, ranks: Ranks, *, bias: bool) -> nn.Sequential:
    """Layers of the right shapes, their weights still to come."""
    inside, outside = _sides(module)
    if isinstance(module, nn.Linear):
        return nn.Sequential(nn.Linear(inside, ranks[0], bias=False), nn.Linear(ranks[0], outside, bias=bias))
    axes = tuple(range(len(module.kernel_size)))
    point = CONVS[len(axes) - 1]
    if how == "tucker":
        core = _along(module, axes, ranks[1], ranks[0])
        return nn.Sequential(point(inside, ranks[1], 1, bias=False), core, point(ranks[0], outside, 1, bias=bias))
    (rank,) = ranks
    if how == "svd" and isinstance(module, TRANSPOSED):
        return nn.Sequential(point(inside, rank, 1, bias=False), _along(module, axes, rank, outside, bias=bias))
    if how == "svd":
        return nn.Sequential(_along(module, axes, inside, rank), point(rank, outside, 1, bias=bias))
    if how == "spatial":
        first = _along(module, axes[:1], inside, rank)
        return nn.Sequential(first, _along(module, axes[1:], rank, outside, bias=bias))
    along = [_along(module, (axis,), rank, rank, groups=rank) for axis in axes if _matters(module, axis)]
    return nn.Sequential(point(inside, rank, 1, bias=False), *along, point(rank, outside, 1, bias=bias))


def _matters(module: Any, axis: int) -> bool:
    """Whether a convolution does anything along an axis: one of one position may still have a stride."""
    padding = 0 if isinstance(module.padding, str) else module.padding[axis]
    return bool(module.kernel_size[axis] > 1 or module.stride[axis] > 1 or padding > 0)


def _along(
    module: Any, axes: Sequence[int], inside: int, outside: int, *, groups: int = 1, bias: bool = False
) -> nn.Module:
    """A convolution like this one along some of its axes, and of one position along the others."""

    def along(values: Any, otherwise: int) -> Any:
        if isinstance(values, str):
            return values
        return tuple(value if axis in axes else otherwise for axis, value in enumerate(values))

    options = {"output_padding": along(module.output_padding, 0)} if isinstance(module, TRANSPOSED) else {}
    made: nn.Module = type(module)(
        inside,
        outside,
        along(module.kernel_size, 1),
        stride=along(module.stride, 1),
        padding=along(module.padding, 0),
        dilation=along(module.dilation, 1),
        padding_mode=module.padding_mode,
        groups=groups,
        bias=bias,
        **options,
    )
    return made


def _weights(kernel_OIk: Array, how: How, ranks: Ranks, transposed: bool, seed: int) -> list[Array]:
    """The weight of each layer, in order; values in the layer's order, whatever their shape."""
    if how == "tucker":
        return _tucker(kernel_OIk, ranks, transposed)
    if how == "cp":
        return _cp(kernel_OIk, ranks[0], seed)
    (matrix,) = _unfolded(kernel_OIk, how, transposed)
    left, sizes, right = (part for part in np.linalg.svd(matrix, full_matrices=False))
    left, sizes, right = left[:, : ranks[0]], sizes[: ranks[0]], right[: ranks[0]]
    if how == "spatial":
        mixed = (sizes[:, None] * right).reshape(ranks[0], len(kernel_OIk), -1)
        return [left.T, np.moveaxis(mixed, 1, 0)]
    if transposed:
        return [left.T, sizes[:, None] * right]
    return [right, left * sizes]


def _tucker(kernel_OIk: Array, ranks: Ranks, transposed: bool) -> list[Array]:
    import tensorly.decomposition

    (core, (output, input_)), _ = tensorly.decomposition.partial_tucker(kernel_OIk, rank=list(ranks), modes=[0, 1])
    sizes = _or_one(np.linalg.norm(core.reshape(len(core), -1), axis=1))
    core = core / sizes.reshape(-1, *[1] * (core.ndim - 1))
    return [input_.T, np.moveaxis(core, 1, 0) if transposed else core, output * sizes]


def _cp(kernel_OIk: Array, rank: int, seed: int) -> list[Array]:
    """Alternating least squares, the best of some beginnings, with a ridge that fades away.

    Terms that grow against each other may have no best approximation at all; the ridge holds them
    while the fit is coarse. tensorly's own `parafac` takes minutes for one wide layer.
    """
    size = np.linalg.norm(kernel_OIk)
    kernel, random = kernel_OIk / size, np.random.default_rng(seed)
    ridges = np.geomspace(1e-2, 1e-8, CP_STEPS)
    try:
        begun = [_fitted(kernel, _begun(kernel, rank, random, vectors), ridges[:CP_TRIAL]) for vectors in CP_BEGINNINGS]
        best = min(begun, key=lambda factors: float(np.linalg.norm(kernel - _product(factors))))
        factors = _fitted(kernel, best, ridges[CP_TRIAL:])
    except np.linalg.LinAlgError:
        raise _Unstable("cp is not solvable for its kernel; lower the rank, or use tucker") from None
    sizes = [_or_one(np.linalg.norm(factor, axis=0)) for factor in factors]
    terms = np.prod(sizes, axis=0)
    if not np.linalg.norm(terms) <= MOST_TERMS:
        raise _Unstable(
            f"cp is ill conditioned for its kernel: its terms are over {MOST_TERMS:g} times what they sum to; "
            "lower the rank, or use tucker"
        )
    output, input_, *along = (factor / norm for factor, norm in zip(factors, sizes, strict=True))
    return [input_.T, *(factor.T for factor in along), output * terms * size]


def _begun(kernel: Array, rank: int, random: np.random.Generator, vectors: bool) -> list[Array]:
    """A factor for each axis: noise, or its singular vectors, with noise where they are fewer than the rank."""
    factors: list[Array] = []
    for axis, length in enumerate(kernel.shape):
        factor = random.normal(size=(length, rank)) / math.sqrt(length)
        if vectors:
            matrix = np.moveaxis(kernel, axis, 0).reshape(length, -1)
            first = np.linalg.eigh(matrix @ matrix.T)[1][:, ::-1][:, :rank]
            factor[:, : first.shape[1]] = first
        factors.append(factor)
    return factors


def _fitted(kernel: Array, factors: Sequence[Array], ridges: Array) -> list[Array]:
    factors = list(factors)
    for ridge in ridges:
        for mode in range(kernel.ndim):
            others = np.prod([one.T @ one for place, one in enumerate(factors) if place != mode], axis=0)
            others += ridge * np.trace(others) / len(others) * np.eye(len(others))
            factors[mode] = np.linalg.solve(others, _against(kernel, factors, mode).T).T
        sizes = [_or_one(np.linalg.norm(factor, axis=0)) for factor in factors]
        even = np.prod(sizes, axis=0) ** (1 / kernel.ndim)
        factors = [factor / norm * even for factor, norm in zip(factors, sizes, strict=True)]
    return factors


def _product(factors: Sequence[Array]) -> Array:
    """The sum of the factors' terms."""
    return np.reshape(factors[0] @ _rest(factors), [len(factor) for factor in factors])


def _rest(factors: Sequence[Array]) -> Array:
    """The terms without their first factor: (R, all other axes)."""
    rest: Array = factors[-1].T
    for factor in reversed(factors[1:-1]):
        rest = np.einsum("nr,r...->rn...", factor, rest)
    return rest.reshape(len(rest), -1)


def _against(kernel: Array, factors: Sequence[Array], mode: int) -> Array:
    """The kernel times every factor but that of `mode`, summed over their axes: (length of the mode, R)."""
    if mode == 0:
        return kernel.reshape(len(kernel), -1) @ _rest(factors).T
    left: Array = (factors[0].T @ kernel.reshape(len(kernel), -1)).reshape(-1, *kernel.shape[1:])
    for axis in reversed(range(1, kernel.ndim)):
        if axis != mode:
            left = np.einsum("rn...,nr->r...", np.moveaxis(left, axis, 1), factors[axis])
    return left.T


def _or_one(sizes: Array) -> Array:
    return np.where(sizes > 0, sizes, 1.0)


@torch.inference_mode()
def difference(layer: nn.Module, new: nn.Module, shape: torch.Size) -> float:
    """How far another layer's answer to noise is from this one's, relative to this one's without its bias."""
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(next(layer.parameters()).dtype)
    wanted = layer(noise)
    return float((new(noise) - wanted).norm() / (wanted - layer(torch.zeros_like(noise))).norm())


def by_energy(spectrum: Array, energy: float) -> int:
    """The smallest rank, 1 at least, whose squared singular values are this share of all."""
    shares = np.cumsum(spectrum**2) / np.sum(spectrum**2)
    # What rounding leaves of a whole is a whole.
    return min(int(np.searchsorted(shares, energy - 1e-12)) + 1, len(spectrum))


def vbmf_rank(spectrum: Array, shape: tuple[int, int]) -> int:
    """The rank of what is not noise in a matrix with these singular values; 0 if all may be noise.

    Empirical variational Bayesian matrix factorization has an analytic solution: the singular values
    over a threshold stay, and the noise variance minimizes a function of one variable (Nakajima,
    Sugiyama, Babacan and Tomioka 2013, "Global Analytic Solution of Fully-observed Variational
    Bayesian Matrix Factorization", JMLR 14; the constant 2.5129 is theirs).
    """
    small, large = min(shape), max(shape)
    alpha = small / large
    least = 2.5129 * math.sqrt(alpha)
    over = (1 + least) * (1 + alpha / least)
    squares = np.asarray(spectrum, np.float64) ** 2
    most = squares.sum() / (small * large)

    def energy(log_variance: float) -> float:
        """The free energy, but for what does not depend on the variance."""
        x = squares / (large * math.exp(log_variance))
        kept = x[x > over]
        tau = (kept - (1 + alpha) + np.sqrt((kept - (1 + alpha)) ** 2 - 4 * alpha)) / 2
        of_kept = np.sum(kept - tau + np.log(tau + 1) + alpha * np.log(tau / alpha + 1))
        # Each x is under a logarithm too, which is the variance's but for a constant: so zeros need no care.
        return float(x[x <= over].sum() + of_kept + small * log_variance)

    rest = squares[math.ceil(small / (1 + alpha)) - 1 :]
    lower = max(rest[0] / (large * over), rest.mean() / large, most * 1e-14)
    grid = np.linspace(math.log(lower), math.log(most), 65)
    best = int(np.argmin([energy(place) for place in grid]))
    around = (grid[max(best - 1, 0)], grid[min(best + 1, len(grid) - 1)])
    found = minimize_scalar(energy, bounds=around, method="bounded")
    log_variance = min((float(found.x), float(grid[best])), key=energy)
    return int(np.sum(squares > large * math.exp(log_variance) * over))
