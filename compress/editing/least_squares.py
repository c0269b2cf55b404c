"""Layers fitted by least squares to what they should answer on real cases.

Legend: B batch, C channels, R rows (one for each pixel of each case), I inputs, O outputs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from compress.editing.activations import Images, Pair, reconstruction_pairs
from compress.editing.layer_replacement import CONVS, TRANSPOSED, Site, SkippedSites, not_plain, sites
from compress.errors import PassError
from compress.networks.blocks.branches import Branches

CHUNK = 65536
"""Rows that are turned to float64 at a time."""
PULLS = (1e-4, 1e-3, 1e-2, 0.1, 1.0, 10.0, 100.0)
"""How strongly a fit may be held to where it began, relative to the mean square of its inputs."""
CHECKED = 4
"""Of so many cases one tells how strongly."""
PLENTY = 10
"""Rows for each unknown of an output after which more say little that is new."""
LEAST = 16384
"""Rows that a fit takes even for few unknowns: they cost little, and where most are zeros the others are few."""
PLAIN = (*CONVS, *TRANSPOSED, nn.Linear)
Lost = Mapping[tuple[str, int], Collection[int]]
"""By the name of a tensor and its axis, the channels that it no longer has."""
WIDEST = 6000
"""Unknowns of an output up to which the normal equations are small enough to hold and to solve."""


@torch.no_grad()
def refit(net: nn.Module, site: Site, pairs: Iterable[Pair], word: str, most: int | None = None) -> None:
    """Fit the last of the layers that are now at `site` to (input of them all, wanted output).

    The last is a convolution in one group or a linear layer, with a bias. What it reads is scaled to
    channels of one size, since int8 has one range for all of them.

    Args:
        most: rows taken from each pair; None takes all.

    Raises:
        PassError: if what was seen is not finite.
    """
    layers: Any = net.get_submodule(site.name)
    last = layers[-1]
    fit = fit_layer(last, ((layers[:-1](into), wanted) for into, wanted in pairs), site.name, word, most)
    _even_out(layers[-2], last, fit.sizes().reshape(last.weight.shape[1], -1).mean(1))


@torch.no_grad()
def refit_pruned(
    net: nn.Module,
    original: nn.Module,
    lost: Lost,
    inputs: Images,
    cases: int,
) -> tuple[list[str], SkippedSites]:
    """Fit each layer behind the first narrowed one to what it answered in the original network.

    Channels that are left then stand in for those that are gone as well as they can (He et al. 2017,
    arXiv 1707.06168, section 3.1), and each layer mends what those before it could not.

    Args:
        lost: by the name of a tensor and its axis, the channels that it no longer has.
        cases: how many `inputs` gives.

    Returns:
        The names of the fitted layers, and those that were not, with the reason.

    Raises:
        PassError: if what was seen is not finite.
    """
    fitted: list[str] = []
    kept = SkippedSites(word="prune: not refitted")
    for site in sites(net, next(iter(inputs())), PLAIN):
        layer: Any = site.module
        before: Any = original.get_submodule(site.name)
        if not fitted and not kept.reasons and inside(layer) == inside(before):
            # Everything up to here answers as it did.
            continue
        if (reason := refit_as_before(net, original, site, lost, inputs, cases, "prune")) is not None:
            kept.add(site.name, reason)
        else:
            fitted.append(site.name)
    return fitted, kept


@torch.no_grad()
def refit_as_before(
    net: nn.Module, original: nn.Module, site: Site, lost: Lost, inputs: Images, cases: int, word: str
) -> str | None:
    """Fit one layer of a changed network to what it answered in the original one; or why it cannot be.

    Args:
        cases: how many `inputs` gives.

    Raises:
        PassError: if what was seen is not finite.
    """
    layer: Any = site.module
    if (reason := not_plain(site, net, PLAIN) or _unfit(layer)) is not None:
        return reason
    axis, stay = -1 if isinstance(layer, nn.Linear) else 1, _left(site, original.get_submodule(site.name), lost)
    seen = reconstruction_pairs(net, original, site, inputs)
    pairs = ((into, wanted.index_select(axis, stay)) for into, wanted in seen)
    fit_layer(layer, pairs, site.name, word, rows_for(layer, cases))
    return None


def rows_for(layer: Any, cases: int) -> int:
    """How many rows of each case settle what a layer must be."""
    return math.ceil(max(LEAST, PLENTY * _unknowns(layer)) / cases)


def _left(site: Site, before: Any, lost: Lost) -> Tensor:
    """The numbers of the output channels that a layer still has of those that it had."""
    made = 1 if isinstance(before, TRANSPOSED) else 0
    gone = {channel for name in site.names for channel in lost.get((f"{name}.weight", made), ())}
    return torch.tensor([channel for channel in range(_outside(before)) if channel not in gone])


def inside(layer: Any) -> int:
    """The channels that a layer reads."""
    return int(layer.in_features if isinstance(layer, nn.Linear) else layer.in_channels)


def _outside(layer: Any) -> int:
    return int(layer.out_features if isinstance(layer, nn.Linear) else layer.out_channels)


def _unknowns(layer: Any) -> int:
    """Of one output, without the offset."""
    return int(layer.weight.shape[0] if isinstance(layer, TRANSPOSED) else layer.weight[0].numel())


def _unfit(layer: Any) -> str | None:
    if not isinstance(layer, nn.Linear) and layer.groups > 1:
        return "a convolution in groups is thin already"
    if isinstance(layer, TRANSPOSED) and not _tiles(layer):
        return "what its kernel writes overlaps"
    if _unknowns(layer) > WIDEST:
        return f"more than {WIDEST} weights for each output"
    return None


def _tiles(layer: Any) -> bool:
    """Whether each input pixel of a transposed convolution has a part of the output to itself, without gaps."""
    return bool(
        layer.kernel_size == layer.stride
        and not any((*layer.padding, *layer.output_padding))
        and set(layer.dilation) == {1}
    )


@torch.no_grad()
def fit_layer(layer: Any, pairs: Iterable[Pair], name: str, word: str, most: int | None = None) -> LeastSquares:
    """Fit a layer to (input, wanted output): its weight, and its bias where it has one.

    A layer with more unknowns than what it sees can settle would answer those cases exactly, and others at random:
    the fewer rows there are, the more it must be held to where it began. How much is tried out on every fourth case
    (`CHECKED`), left out of the fit; then all are fitted together.

    Args:
        layer: a convolution in one group, a linear layer, or a transposed convolution that tiles (`_tiles`).
        most: rows taken from each pair, drawn the same way each time; None takes all.

    Returns:
        The sums over all rows, those left out of the trial included.

    Raises:
        PassError: if what was seen is not finite.
    """
    transposed = isinstance(layer, TRANSPOSED)
    start_IO = layer.weight.flatten(1) if transposed else layer.weight.flatten(1).T
    # The offset of a transposed convolution is one for all the pixels that it writes: it stays.
    free = layer.bias is not None and not transposed
    fit, check = (LeastSquares(*start_IO.shape, offset=free) for _ in range(2))
    for case, (z_RI, y_RO) in enumerate(_rows_of(layer, pairs, most)):
        (check if case % CHECKED == 1 else fit).add(z_RI, y_RO)
    if not (fit.finite() and check.finite()):
        raise PassError(f"{word}: what {name} sees is not finite on the calibration cases; check the weights")
    pull = _best_pull(fit, check, start_IO)
    fit.join(check)
    weight_IO, offset_O = fit.solved(start_IO, pull)
    layer.weight.copy_((weight_IO if transposed else weight_IO.T).reshape(layer.weight.shape))
    if free:
        layer.bias.copy_(offset_O)
    return fit


def _rows_of(layer: Any, pairs: Iterable[Pair], most: int | None) -> Iterator[Pair]:
    """What the layer's flattened weight is multiplied with and should give (RI, RO), of each (input, wanted output)."""
    columns, draw = _columns(layer), torch.Generator().manual_seed(0)
    for into, wanted in pairs:
        y_RO = _untiled(wanted, layer) if isinstance(layer, TRANSPOSED) else rows(wanted, layer)
        some = torch.arange(len(y_RO))
        if most is not None and len(y_RO) > most:
            some = torch.randperm(len(y_RO), generator=draw)[:most]
        yield columns(into, some), y_RO[some]


def _best_pull(fit: LeastSquares, check: LeastSquares, start_IO: Tensor) -> float:
    """The pull whose fit answers best on rows that it has not seen: from the weakest on until it gets worse."""
    best, least = PULLS[0], math.inf
    if not check.rows:
        return best
    for pull in PULLS:
        error = check.error(*fit.solved(start_IO, pull))
        if error >= least:
            break
        best, least = pull, error
    return best


def _even_out(before: Any, last: Any, sizes_C: Tensor) -> None:
    """Divide what lies between two layers by its sizes; the product of the two stays."""
    sizes_C = torch.where(sizes_C > 1e-6 * sizes_C.max(), sizes_C, 1.0).to(last.weight.dtype)
    layers: list[Any] = list(before) if isinstance(before, Branches) else [before]
    for layer, part_C in zip(layers, sizes_C.chunk(len(layers)), strict=True):
        axis = 1 if isinstance(layer, TRANSPOSED) else 0
        layer.weight.div_(part_C.reshape([-1 if each == axis else 1 for each in range(layer.weight.dim())]))
    last.weight.mul_(sizes_C.reshape(1, -1, *[1] * (last.weight.dim() - 2)))


def rows(tensor: Tensor, layer: nn.Module) -> Tensor:
    """What a layer answers, as one row for each pixel (RC): its channels are the second axis, a linear layer's last."""
    return tensor.flatten(0, -2) if isinstance(layer, nn.Linear) else tensor.movedim(1, -1).flatten(0, -2)


def _columns(layer: Any) -> Callable[[Tensor, Tensor], Tensor]:
    """From what a layer takes, and the numbers of rows, to the rows that its flattened weight is multiplied with."""
    if isinstance(layer, (nn.Linear, *TRANSPOSED)) or _is_pointwise(layer):
        return lambda seen, some_R: rows(seen, layer)[some_R]
    axes = tuple(range(2, 2 + len(layer.kernel_size)))

    def columns(seen_BCS: Tensor, some_R: Tensor) -> Tensor:
        # A view of every patch: only those that are asked for are ever copied.
        patches = nn.functional.pad(
            seen_BCS, _padding(layer), "constant" if layer.padding_mode == "zeros" else layer.padding_mode
        )
        for axis, kernel, stride, step in zip(axes, layer.kernel_size, layer.stride, layer.dilation, strict=True):
            patches = patches.unfold(axis, (kernel - 1) * step + 1, stride)
        holes: Any = (..., *(slice(None, None, step) for step in layer.dilation))
        patches = patches[holes].movedim(1, len(axes) + 1)
        at = torch.unravel_index(some_R, patches.shape[: len(axes) + 1])
        return patches[at].flatten(1)

    return columns


def _padding(layer: Any) -> list[int]:
    """Before and behind each axis, the last axis first."""
    if isinstance(layer.padding, str):
        return list(layer._reversed_padding_repeated_twice)
    return [side for side in reversed(layer.padding) for _ in range(2)]


def _untiled(tensor: Tensor, layer: Any) -> Tensor:
    """What a transposed convolution that tiles should answer, less its bias, as one row for each input pixel."""
    bias_C = 0 if layer.bias is None else layer.bias.reshape(-1, *[1] * len(layer.kernel_size))
    sides = [
        part
        for side, kernel in zip(tensor.shape[2:], layer.kernel_size, strict=True)
        for part in (side // kernel, kernel)
    ]
    split = (tensor - bias_C).reshape(*tensor.shape[:2], *sides)
    pixels, parts = range(2, split.dim(), 2), range(3, split.dim(), 2)
    return split.permute(0, *pixels, 1, *parts).flatten(len(sides) // 2 + 1).flatten(0, -2)


def _is_pointwise(layer: Any) -> bool:
    padding = 0 if isinstance(layer.padding, str) else max(layer.padding)
    return bool(max(layer.kernel_size) == 1 and max(layer.stride) == 1 and padding == 0)


class LeastSquares:
    """Rows z to rows y, streamed: the matrix and offset with the least squared error of z @ matrix + offset to y.

    Only the normal equations are held (float64), so memory does not grow with the rows.
    """

    def __init__(self, inside: int, outside: int, *, offset: bool = True) -> None:
        self.offset = offset
        self.zz = torch.zeros(inside + 1, inside + 1, dtype=torch.float64)
        self.zy = torch.zeros(inside + 1, outside, dtype=torch.float64)
        self.yy = torch.zeros((), dtype=torch.float64)

    def add(self, z_RI: Tensor, y_RO: Tensor) -> None:
        for z, y in zip(z_RI.split(CHUNK), y_RO.split(CHUNK), strict=True):
            z_with_one, wanted = torch.cat([z, z.new_ones(len(z), 1)], 1).double(), y.double()
            self.zz += z_with_one.T @ z_with_one
            self.zy += z_with_one.T @ wanted
            self.yy += wanted.square().sum()

    def join(self, other: LeastSquares) -> None:
        """Take in what another has been given."""
        self.zz += other.zz
        self.zy += other.zy
        self.yy += other.yy

    @property
    def rows(self) -> int:
        return int(self.zz[-1, -1])

    def finite(self) -> bool:
        return bool(torch.isfinite(self.zz).all() and torch.isfinite(self.zy).all())

    def covariance(self) -> Tensor:
        """That of the inputs (II)."""
        mean_I = self.zz[-1, :-1] / self.rows
        return self.zz[:-1, :-1] / self.rows - torch.outer(mean_I, mean_I)

    def sizes(self) -> Tensor:
        """The root mean square of each input."""
        return (self.zz.diagonal()[:-1] / self.rows).sqrt()

    def error(self, matrix_IO: Tensor, offset_O: Tensor) -> float:
        """The summed squares of z @ matrix + offset - y over all rows."""
        whole = torch.cat([matrix_IO.double(), offset_O.double().expand(1, matrix_IO.shape[1])])
        return float((whole * (self.zz @ whole - 2 * self.zy)).sum() + self.yy)

    def solved(self, start_IO: Tensor, pull: float = PULLS[0]) -> tuple[Tensor, Tensor]:
        """matrix_IO and offset_O; where the rows say little about a direction, it stays as in `start_IO`.

        Args:
            pull: how strongly it is held there, relative to the mean square of the inputs.
        """
        inside = len(self.zz) - 1
        size = inside + self.offset
        # Float64 rounds at 1e-16: the smallest pull that keeps rows of zeros solvable.
        weight = pull * self.zz.diagonal()[:inside].mean() + 1e-12 * self.rows
        weights = torch.cat([weight.expand(inside), self.zz.new_zeros(1)])[:size]
        start = torch.cat([start_IO.double(), self.zz.new_zeros(1, start_IO.shape[1])])[:size]
        solution = torch.linalg.solve(self.zz[:size, :size] + weights.diag(), self.zy[:size] + weights[:, None] * start)
        return solution[:inside], solution[inside:].sum(0)
