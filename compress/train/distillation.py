"""Distillation losses, from a teacher's logits and features.

Legend: B batch, C channels, K classes, H height, W width.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from compress.train.parallel import gathered


def two_or_more(logits_BKHW: Tensor) -> Tensor:
    """Logits of at least two classes, in float32: a sigmoid's one logit is a softmax's against a logit of zero."""
    logits_BKHW = logits_BKHW.float()
    if logits_BKHW.shape[1] == 1:
        return torch.cat([torch.zeros_like(logits_BKHW), logits_BKHW], dim=1)
    return logits_BKHW


def divergence(student_BKHW: Tensor, teacher_BKHW: Tensor, temperature: float) -> Tensor:
    """Kullback-Leibler divergence of the class probabilities of a pixel, mean over pixels.

    Hinton et al. 2015 (arXiv 1503.02531); times the square of the temperature, so that gradients keep their size.
    """
    ours, theirs = (F.log_softmax(logits / temperature, dim=1) for logits in (student_BKHW, teacher_BKHW))
    each_BHW = (theirs.exp() * (theirs - ours)).sum(1)
    return temperature**2 * each_BHW.sum() / each_BHW.numel()


def channel_divergence(student_BKHW: Tensor, teacher_BKHW: Tensor, temperature: float) -> Tensor:
    """Divergence of each class's map over the pixels (CWD, Shu et al. 2021, arXiv 2011.13256, eq. 3)."""
    ours, theirs = (F.log_softmax(logits.flatten(2) / temperature, dim=2) for logits in (student_BKHW, teacher_BKHW))
    return temperature**2 * (theirs.exp() * (theirs - ours)).sum(2).mean()


def pairwise(student_BCHW: Tensor, teacher_BCHW: Tensor, nodes: int = 8) -> Tensor:
    """Squared difference of the similarities between regions (SKD, Liu et al. 2019, arXiv 1903.04197, eq. 2).

    The maps are pooled to nodes x nodes regions first, as there.
    """
    ours, theirs = (_similarities(maps, nodes) for maps in (student_BCHW, teacher_BCHW))
    return F.mse_loss(ours, theirs)


def _similarities(maps_BCHW: Tensor, nodes: int) -> Tensor:
    pool = nn.AdaptiveAvgPool3d if maps_BCHW.dim() == 5 else nn.AdaptiveAvgPool2d
    size = tuple(min(nodes, side) for side in maps_BCHW.shape[2:])
    regions = F.normalize(pool(size)(maps_BCHW.float()).flatten(2), dim=1, eps=1e-6)
    return regions.transpose(1, 2) @ regions


def attention(student_BCHW: Tensor, teacher_BCHW: Tensor) -> Tensor:
    """Squared distance of the normalized maps of activity (Zagoruyko and Komodakis 2017, arXiv 1612.03928, eq. 2)."""
    ours, theirs = (
        F.normalize(maps.float().square().mean(1).flatten(1), dim=1) for maps in (student_BCHW, teacher_BCHW)
    )
    return (ours - theirs).square().sum(1).mean()


def mimicry(student_BCHW: Tensor, teacher_BCHW: Tensor) -> Tensor:
    """Squared difference of adapted features, each of the teacher's channels scaled to deviation 1.

    Romero et al. 2015 (FitNets, arXiv 1412.6550, eq. 3).
    """
    teacher = teacher_BCHW.float()
    axes = [0, *range(2, teacher.dim())]
    scale = teacher.std(dim=axes, keepdim=True).clamp_min(1e-3)
    return F.mse_loss(student_BCHW.float() / scale, teacher / scale)


def resized(maps_BCHW: Tensor, like_BCHW: Tensor) -> Tensor:
    """The maps at another's height and width."""
    if maps_BCHW.shape[2:] == like_BCHW.shape[2:]:
        return maps_BCHW
    mode = "trilinear" if maps_BCHW.dim() == 5 else "bilinear"
    return F.interpolate(maps_BCHW.float(), like_BCHW.shape[2:], mode=mode, align_corners=False)


class Features:
    """The last activation of a network at each of its resolutions, as it runs: encoder and decoder apart.

    A stage is a run of layers with outputs of one size. Its feature is the output of its last layer;
    of the last stage, that of the layer before the logits.
    """

    def __init__(self, net: nn.Module, example_BCHW: Tensor) -> None:
        self.stages = _stages(_trace(net, example_BCHW))
        """For each stage: name of the layer, and the shape of its output without the batch."""

    @staticmethod
    def watching(net: nn.Module, names: Sequence[str]) -> _Watch:
        """Keeps what these layers put out while the context lasts: `with Features.watching(...) as seen`."""
        return _Watch(net, names)


def pairs(student: Features, teacher: Features) -> list[tuple[int, int]]:
    """Stages that belong together: equal heights and widths, in the same order (longest common subsequence)."""
    ours, theirs = ([shape[1:] for _, shape in features.stages] for features in (student, teacher))
    longest = [[0] * (len(theirs) + 1) for _ in range(len(ours) + 1)]
    for i in reversed(range(len(ours))):
        for j in reversed(range(len(theirs))):
            longest[i][j] = (
                longest[i + 1][j + 1] + 1 if ours[i] == theirs[j] else max(longest[i + 1][j], longest[i][j + 1])
            )
    found, i, j = [], 0, 0
    while i < len(ours) and j < len(theirs):
        if ours[i] == theirs[j]:
            found.append((i, j))
            i, j = i + 1, j + 1
        elif longest[i + 1][j] >= longest[i][j + 1]:
            i += 1
        else:
            j += 1
    return found


class _Watch:
    def __init__(self, net: nn.Module, names: Sequence[str]) -> None:
        self.modules = {name: net.get_submodule(name) for name in names}
        self.seen: dict[str, Tensor] = {}

    def __enter__(self) -> dict[str, Tensor]:
        self.handles = [
            module.register_forward_hook(lambda _, __, out, name=name: self.seen.__setitem__(name, gathered(out)))
            for name, module in self.modules.items()
        ]
        return self.seen

    def __exit__(self, *_: object) -> None:
        for handle in self.handles:
            handle.remove()


@torch.no_grad()
def _trace(net: nn.Module, example_BCHW: Tensor) -> list[tuple[str, tuple[int, ...]]]:
    """(layer, shape of its output without the batch) in the order in which the leaves run, each once."""
    order: list[tuple[str, tuple[int, ...]]] = []
    handles = []
    for name, module in net.named_modules():
        if not any(True for _ in module.children()):

            def see(_: nn.Module, __: object, out: object, name: str = name) -> None:
                if isinstance(out, Tensor) and out.dim() == example_BCHW.dim():
                    order.append((name, tuple(out.shape[1:])))

            handles.append(module.register_forward_hook(see))
    was_training = net.training
    net.eval()(example_BCHW)
    net.train(was_training)
    for handle in handles:
        handle.remove()
    counts = {name: sum(name == other for other, _ in order) for name, _ in order}
    # A layer that runs twice would be seen with its last output alone.
    return [(name, shape) for name, shape in order if counts[name] == 1]


def _stages(trace: Sequence[tuple[str, tuple[int, ...]]]) -> list[tuple[str, tuple[int, ...]]]:
    ends = [
        index
        for index, (_, shape) in enumerate(trace)
        if index + 1 == len(trace) or trace[index + 1][1][1:] != shape[1:]
    ]
    if len(trace) > 1 and ends and ends[-1] == len(trace) - 1 and trace[-2][1][1:] == trace[-1][1][1:]:
        ends[-1] -= 1
    return [trace[index] for index in ends]
