"""What layers see and answer on real cases, streamed; and layers fitted to it by least squares.

Legend: B batch, C channels, R rows (one for each pixel of each case), I inputs, O outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from compress.errors import PassError
from compress.swap import Branches, Place, answer, watched
from compress.task import labels_from_logits

if TYPE_CHECKING:
    from compress.data.cases import Case
    from compress.task import Task

Pair = tuple[Tensor, Tensor]
Images = Callable[[], Iterable[Tensor]]
CHUNK = 65536
"""Rows that are turned to float64 at a time."""
PULL = 1e-4
"""How strongly a fit is held to where it began, relative to the mean square of its inputs."""


def calibration_cases(task: Task, most: int | None, word: str, otherwise: str = "") -> Sequence[Case]:
    """The calibration cases, `most` of them where given.

    Raises:
        PassError: if there are none, or fewer than asked for.
    """
    cases = task.data.cases["calibration"]
    if not cases:
        raise PassError(
            f"{word}: there are no calibration cases; set data calibration above 0 (train cases set aside) "
            f"or give cases the split 'calibration' in split.csv{otherwise}"
        )
    if most is not None and most > len(cases):
        raise PassError(
            f"{word}: calibrate is {most}, but the data sets only {len(cases)} cases aside; "
            "lower it or raise data calibration"
        )
    return cases[:most]


def images(task: Task, cases: Sequence[Case]) -> Iterator[Tensor]:
    """The network's inputs (1C..), one at a time."""
    return (torch.from_numpy(image) for image in task.data.images(cases))


class _Enough(Exception):
    """The layer has been called for the last time; the rest of the network need not run."""


def seen_by(net: nn.Module, place: Place, inputs: Iterable[Tensor]) -> Iterator[list[Pair]]:
    """For each input of the network, the (input, output) of every call of the module that is now at `place`."""
    module = net.get_submodule(place.name)
    for image in inputs:
        seen: list[Pair] = []

        def see(_: nn.Module, into: Tensor, out: Tensor, seen: list[Pair] = seen) -> None:
            # What comes after may work in place.
            seen.append((into.clone(), out.clone()))
            if len(seen) == len(place.inputs):
                raise _Enough

        with watched((module,), see), suppress(_Enough):
            answer(net, image)
        yield seen


def now_and_before(net: nn.Module, original: nn.Module, place: Place, inputs: Images) -> Iterator[Pair]:
    """What a layer sees in the changed network, and what it answered in the original one on the same case.

    A layer fitted to such pairs mends the errors of those before it (Zhang et al. 2016,
    arXiv 1505.06798, section 3.3).
    """
    for now, before in zip(seen_by(net, place, inputs()), seen_by(original, place, inputs()), strict=True):
        for (into, _), (_, out) in zip(now, before, strict=True):
            yield into, out


def agreement(net: nn.Module, original: nn.Module, inputs: Iterable[Tensor]) -> float:
    """Of the pixels that either network takes for more than background, the share to which both give the same class.

    Over all pixels, background would hide what is lost. 1 if neither ever marks anything.
    """
    same = marked = 0
    for image in inputs:
        ours, theirs = (labels_from_logits(answer(one, image).numpy()) for one in (net, original))
        either = (ours > 0) | (theirs > 0)
        same += int((either & (ours == theirs)).sum())
        marked += int(either.sum())
    return same / marked if marked else 1.0


@torch.no_grad()
def refit(net: nn.Module, place: Place, pairs: Iterable[Pair], word: str) -> None:
    """Fit the last of the layers that are now at `place` to (input of them all, wanted output).

    The last is a convolution in one group or a linear layer, with a bias. What it reads is scaled to
    channels of one size, since int8 has one range for all of them.

    Raises:
        PassError: if what was seen is not finite.
    """
    layers: Any = net.get_submodule(place.name)
    last = layers[-1]
    start_IO = last.weight.flatten(1).T
    fit, columns = LeastSquares(*start_IO.shape), _columns(last)
    for into, wanted in pairs:
        fit.add(columns(layers[:-1](into)), rows(wanted, last))
    if not fit.finite():
        raise PassError(f"{word}: what {place.name} sees is not finite on the calibration cases; check the weights")
    weight_IO, offset_O = fit.solved(start_IO)
    last.weight.copy_(weight_IO.T.reshape(last.weight.shape))
    last.bias.copy_(offset_O)
    _even_out(layers[-2], last, fit.sizes().reshape(last.weight.shape[1], -1).mean(1))


def _even_out(before: Any, last: Any, sizes_C: Tensor) -> None:
    """Divide what lies between two layers by its sizes; the product of the two stays."""
    sizes_C = torch.where(sizes_C > 1e-6 * sizes_C.max(), sizes_C, 1.0).to(last.weight.dtype)
    layers: list[Any] = list(before) if isinstance(before, Branches) else [before]
    for layer, part_C in zip(layers, sizes_C.chunk(len(layers)), strict=True):
        axis = 1 if isinstance(layer, nn.ConvTranspose2d | nn.ConvTranspose3d) else 0
        layer.weight.div_(part_C.reshape([-1 if place == axis else 1 for place in range(layer.weight.dim())]))
    last.weight.mul_(sizes_C.reshape(1, -1, *[1] * (last.weight.dim() - 2)))


def rows(tensor: Tensor, layer: nn.Module) -> Tensor:
    """What a layer answers, as one row for each pixel (RC): its channels are the second axis, a linear layer's last."""
    return tensor.flatten(0, -2) if isinstance(layer, nn.Linear) else tensor.movedim(1, -1).flatten(0, -2)


def _columns(layer: Any) -> Callable[[Tensor], Tensor]:
    """From what a layer takes to the rows that its flattened weight is multiplied with."""
    if isinstance(layer, nn.Linear) or _is_pointwise(layer):
        return lambda seen: rows(seen, layer)
    count = layer.weight[0].numel()
    options = {name: getattr(layer, name) for name in ("stride", "padding", "dilation", "padding_mode")}
    gather = type(layer)(layer.in_channels, count, layer.kernel_size, bias=False, **options)
    gather.to(layer.weight.dtype).weight.copy_(torch.eye(count).reshape(gather.weight.shape))
    return lambda seen: rows(gather(seen), layer)


def _is_pointwise(layer: Any) -> bool:
    padding = 0 if isinstance(layer.padding, str) else max(layer.padding)
    return bool(max(layer.kernel_size) == 1 and max(layer.stride) == 1 and padding == 0)


class LeastSquares:
    """Rows z to rows y, streamed: the matrix and offset with the least squared error of z @ matrix + offset to y.

    Only the normal equations are held (float64), so memory does not grow with the rows.
    """

    def __init__(self, inside: int, outside: int) -> None:
        self.zz = torch.zeros(inside + 1, inside + 1, dtype=torch.float64)
        self.zy = torch.zeros(inside + 1, outside, dtype=torch.float64)

    def add(self, z_RI: Tensor, y_RO: Tensor) -> None:
        for z, y in zip(z_RI.split(CHUNK), y_RO.split(CHUNK), strict=True):
            z_with_one = torch.cat([z, z.new_ones(len(z), 1)], 1).double()
            self.zz += z_with_one.T @ z_with_one
            self.zy += z_with_one.T @ y.double()

    def finite(self) -> bool:
        return bool(torch.isfinite(self.zz).all() and torch.isfinite(self.zy).all())

    def sizes(self) -> Tensor:
        """The root mean square of each input."""
        return (self.zz.diagonal()[:-1] / self.zz[-1, -1]).sqrt()

    def solved(self, start_IO: Tensor) -> tuple[Tensor, Tensor]:
        """matrix_IO and offset_O; where the rows say little about a direction, it stays as in `start_IO`."""
        inside = len(self.zz) - 1
        # Float64 rounds at 1e-16: the smallest pull that keeps rows of zeros solvable.
        pull = PULL * self.zz.diagonal()[:inside].mean() + 1e-12 * self.zz[inside, inside]
        weights = torch.cat([pull.expand(inside), self.zz.new_zeros(1)])
        start = torch.cat([start_IO.double(), self.zz.new_zeros(1, start_IO.shape[1])])
        solution = torch.linalg.solve(self.zz + weights.diag(), self.zy + weights[:, None] * start)
        return solution[:inside], solution[inside]
