"""How much each channel is worth: torch-pruning's criteria, or what it adds to the others (interpolative.py).

torch-pruning (Fang et al. 2023, DepGraph, arXiv 2301.12900) weighs a group over every tensor that its channels are in.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from compress.editing.activations import calibration_cases, images
from compress.editing.named_layers import tensor_of
from compress.editing.pruning.dependency.groups import Bundle
from compress.editing.pruning.interpolative import interpolative_scores
from compress.errors import PassError
from compress.progress import bar

if TYPE_CHECKING:
    from compress.task import Task

Criterion = Literal["l1", "l2", "bn", "taylor", "fpgm", "lamp", "hessian", "interpolative", "random"]

TRAIN_CASES = 64
"""Train cases that the criteria which need gradients look at."""
CALIBRATION_CASES = 16
"""Calibration cases that channels are compared on, and layers fitted to."""
GRADIENTS: tuple[Criterion, ...] = ("taylor", "hessian")
"""The criteria that need gradients of the training loss."""
_SCALES = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm)


def importance(net: nn.Module, bundles: Sequence[Bundle], by: Criterion, task: Task) -> list[Tensor | None]:
    """The importance of every unit of every prunable bundle; None where the criterion has nothing to go by.

    Raises:
        PassError: without the cases that a criterion looks at, or if scores are not finite.
    """
    if by == "interpolative":
        cases = calibration_cases(task, None, "prune: by: interpolative", "; or use by: l2")[:CALIBRATION_CASES]
        added = interpolative_scores(net, bundles, images(task, cases))
        pairs = zip(added, bundles, strict=True)
        return [None if score is None else _evened(score, by, bundle) for score, bundle in pairs]
    if by in GRADIENTS:
        return _by_gradients(net, bundles, by, task)
    scorer = _scorer(by)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(task.seed)
        return [_score(scorer, by, net, bundle, {}) for bundle in bundles]


def _by_gradients(net: nn.Module, bundles: Sequence[Bundle], by: Criterion, task: Task) -> list[Tensor | None]:
    """Scores added up over batches of train cases."""
    scorer, totals = _scorer(by), list[Tensor | None]([None] * len(bundles))
    for gradients in _gradients(net, task, squared=by == "hessian"):
        for index, bundle in enumerate(bundles):
            score, total = _score(scorer, by, net, bundle, gradients), totals[index]
            totals[index] = score if total is None or score is None else total + score
    return totals


def _scorer(by: Criterion) -> Any:
    """torch-pruning's criterion; scores of one group are set against those of others here, not there."""
    from torch_pruning import importance as criteria

    if by in ("l1", "l2"):
        return criteria.GroupMagnitudeImportance(p=int(by[1]), normalizer=None)
    if by == "lamp":
        return criteria.LAMPImportance()
    kinds = {
        "bn": criteria.BNScaleImportance,
        "fpgm": criteria.FPGMImportance,
        "taylor": partial(criteria.GroupTaylorImportance, multivariable=True),
        "hessian": criteria.GroupHessianImportance,
    }
    return criteria.RandomImportance() if by == "random" else kinds[by](normalizer=None)


def _score(
    scorer: Any, by: Criterion, net: nn.Module, bundle: Bundle, gradients: Mapping[int, Tensor]
) -> Tensor | None:
    if not bundle.group.prunable:
        return None
    found = scorer(_group(net, bundle, gradients))
    return None if found is None else _evened(found[: len(bundle.units)].float(), by, bundle)


def _evened(score: Tensor, by: Criterion, bundle: Bundle) -> Tensor:
    """Scores that can be set against those of other layers."""
    if not torch.isfinite(score).all():
        raise PassError(f"prune: by: {by} gives {bundle.group.layers[0]} scores that are not finite; check the weights")
    # Sums of weights say little across layers of different size; losses and LAMP's shares do.
    return score / score.mean().clamp_min(1e-12) if by in ("l1", "l2", "bn", "fpgm", "interpolative") else score


def _group(net: nn.Module, bundle: Bundle, gradients: Mapping[int, Tensor]) -> Any:
    """The bundle as a group of torch-pruning's: every tensor it is in, as a layer with one row for each position.

    Each tensor is shown as a linear layer's weight (a norm's scale as a batch norm's), so that its criteria
    see grouped and transposed convolutions, and parameters without a layer, alike.
    """
    import torch_pruning

    owners = dict(net.named_modules())
    group = torch_pruning.Group()
    for name, axis in bundle.units[0]:
        tensor = tensor_of(net, name)
        owner, _, last = name.rpartition(".")
        if tensor.dim() == 1 and not (isinstance(owners[owner], _SCALES) and last == "weight"):
            continue
        rows = [(index, number) for number, unit in enumerate(bundle.units) for index in unit[name, axis]]
        layer, act = nn.Module(), torch_pruning.prune_linear_out_channels
        if tensor.dim() > 1:
            layer = nn.Linear(1, 1, device="meta")
        else:
            layer, act = nn.BatchNorm1d(1, device="meta"), torch_pruning.prune_batchnorm_out_channels
        indices = torch.tensor([index for index, _ in rows])
        layer.weight = nn.Parameter(_rows(tensor.detach(), axis, indices))
        if gradients:
            gradient = gradients.get(id(tensor))
            layer.weight.grad = torch.zeros_like(layer.weight) if gradient is None else _rows(gradient, axis, indices)
        node = torch_pruning.Node(layer, None, name)
        group.add_dep(torch_pruning.Dependency(act, act, node, node), list(range(len(rows))))
        group[-1].root_idxs = [number for _, number in rows]
    return group


def _rows(tensor: Tensor, axis: int, indices: Tensor) -> Tensor:
    rows = tensor.movedim(axis, 0)[indices.to(tensor.device)]
    return rows.flatten(1) if rows.dim() > 1 else rows


def _gradients(net: nn.Module, task: Task, *, squared: bool) -> Iterator[dict[int, Tensor]]:
    """The gradient of the training loss on each batch of train cases, or the mean square of that on each case."""
    from compress.train.losses.sum import DiceCrossEntropy
    from compress.train.objective import Supervised

    cases = task.data.cases["train"]
    if not cases:
        raise PassError("prune: by: taylor and hessian look at train cases, and there are none; use by: l2")
    chosen = sorted(np.random.default_rng(task.seed).permutation(len(cases))[:TRAIN_CASES].tolist())
    loss = Supervised(DiceCrossEntropy(task.data.ignore))
    batch = 1 if squared else task.data.batch
    squares: dict[int, Tensor] = {}
    for first in bar(range(0, len(chosen), batch), "weighing channels", math.ceil(len(chosen) / batch)):
        picked = [cases[index] for index in chosen[first : first + batch]]
        image_BCHW = torch.from_numpy(np.stack([task.data.image(case) for case in picked]))
        mask_BHW = torch.from_numpy(np.stack([task.data.fitted_mask(case) for case in picked])).long()
        parameters = [parameter.requires_grad_(True) for parameter in net.parameters()]
        with torch.enable_grad():
            value = loss.of(net(image_BCHW), mask_BHW)
            found = torch.autograd.grad(value, parameters, allow_unused=True)
        known = {id(p): g for p, g in zip(parameters, found, strict=True) if g is not None}
        if not squared:
            yield known
        for key, gradient in known.items():
            squares[key] = squares.get(key, torch.zeros(())) + gradient.square() / len(chosen)
    if squared:
        yield squares
