"""Learning from a teacher: the objective of the pass `distill`.

Legend: B batch, C channels, K classes, H height, W width.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from compress.errors import PassError
from compress.train.array_cache import ArrayCache
from compress.train.distillation import (
    Features,
    attention,
    channel_divergence,
    divergence,
    mimicry,
    pairs,
    pairwise,
    resized,
    two_or_more,
)
from compress.train.objective import Batch, Supervised, fitted
from compress.train.parallel import shared
from compress.train.range_test import BATCHES


@dataclass(frozen=True, kw_only=True)
class Terms:
    """How much each part of the loss weighs; 0 leaves it out."""

    truth: float
    logits: float
    channels: float
    pairwise: float
    attention: float
    features: float
    temperature: float

    @property
    def ask(self) -> bool:
        """Whether the teacher is needed at all."""
        return any((self.logits, self.channels, self.watch))

    @property
    def watch(self) -> bool:
        """Whether the teacher's inner layers are needed, and not its logits alone."""
        return any((self.pairwise, self.attention, self.features))


class Taught(nn.Module):
    """loss = truth * supervised + the teacher's terms; its own parameters are the adapters of features."""

    def __init__(
        self, net: nn.Module, teacher: Teacher | None, example_BCHW: Tensor, terms: Terms, supervised: Supervised
    ) -> None:
        super().__init__()
        self.terms, self.supervised, self.teacher = terms, supervised, teacher
        self.names: list[tuple[str, str]] = []
        adapters: list[nn.Module] = []
        if terms.watch:
            assert teacher is not None
            ours, theirs = Features(net, example_BCHW), Features(teacher.net, example_BCHW)
            for student_at, teacher_at in pairs(ours, theirs):
                (name, shape), (their_name, their_shape) = ours.stages[student_at], theirs.stages[teacher_at]
                self.names.append((name, their_name))
                adapters.append(_adapter(shape, their_shape) if terms.features else nn.Identity())
            if not self.names:
                raise PassError(
                    "distill: no layer of the network has the height and width of one of the teacher's, so features "
                    "cannot be compared: set pairwise, attention and features to 0"
                )
        self.adapters = nn.ModuleList(adapters)

    def forward(self, net: nn.Module, batch: Batch) -> Tensor:
        if self.teacher is None or not self.terms.ask:
            return self.terms.truth * self.supervised(net, batch)
        with Features.watching(net, [name for name, _ in self.names]) as ours:
            answer = net(batch.image_BCHW)
        logits, theirs = self.teacher(batch, [name for _, name in self.names])
        first = answer if isinstance(answer, Tensor) else answer[0]
        loss = self._of_logits(two_or_more(first), two_or_more(logits))
        if self.terms.truth:
            loss = loss + self.terms.truth * self.supervised.of(answer, batch.mask_BHW)
        return loss + self._of_features(ours, theirs)

    def _of_logits(self, student_BKHW: Tensor, teacher_BKHW: Tensor) -> Tensor:
        terms = self.terms
        teacher_BKHW = resized(fitted(teacher_BKHW, student_BKHW), student_BKHW)
        loss = student_BKHW.new_zeros(())
        if terms.logits:
            loss = loss + terms.logits * divergence(student_BKHW, teacher_BKHW, terms.temperature)
        if terms.channels:
            loss = loss + terms.channels * channel_divergence(student_BKHW, teacher_BKHW, terms.temperature)
        return loss

    def _of_features(self, ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor]) -> Tensor | float:
        loss: Tensor | float = 0.0
        for (name, their_name), adapter in zip(self.names, self.adapters, strict=True):
            student, teacher = ours[name], resized(theirs[their_name], ours[name])
            share = 1 / len(self.names)
            if self.terms.pairwise:
                loss = loss + share * self.terms.pairwise * pairwise(student, teacher)
            if self.terms.attention:
                loss = loss + share * self.terms.attention * attention(student, teacher)
            if self.terms.features:
                loss = loss + share * self.terms.features * mimicry(adapter(student), teacher)
        return loss


def _adapter(ours: tuple[int, ...], theirs: tuple[int, ...]) -> nn.Module:
    """A 1x1 convolution from the student's channels to the teacher's."""
    conv = nn.Conv3d if len(ours) == 4 else nn.Conv2d
    return conv(ours[0], theirs[0], 1)


class Teacher:
    """The uncompressed network's answers; its logits are cached, so that it is asked once for each view of a case.

    Not a module: neither its weights nor its mode are the objective's.
    """

    def __init__(self, net: nn.Module, cache: ArrayCache | None) -> None:
        self.net = net.eval()
        self.cache = cache
        self._last: dict[tuple[tuple[int, int], ...], Tensor] = {}

    def __deepcopy__(self, memo: object) -> Teacher:
        """Itself: a teacher does not change, and what it keeps lies on disk."""
        return self

    @torch.no_grad()
    def __call__(self, batch: Batch, names: list[str]) -> tuple[Tensor, Mapping[str, Tensor]]:
        """(logits_BKHW, the outputs of these layers)."""
        self.net.to(batch.image_BCHW.device)
        with shared(self.net):
            return self._answer(batch, names)

    def _answer(self, batch: Batch, names: list[str]) -> tuple[Tensor, Mapping[str, Tensor]]:
        if names:
            with Features.watching(self.net, names) as seen:
                return self.net(batch.image_BCHW), seen
        if self.cache is None:
            return self._again(batch), {}
        if self.cache.has(batch.names):
            found = self.cache.load(batch.names)
        else:
            logits_BKHW = self.net(batch.image_BCHW).float()
            # Beyond 16 bits' range a logit says no more than at its end. What was rounded is returned: the answer is
            # the same the first time as ever after.
            found = self.cache.store(batch.names, logits_BKHW.clamp(-6e4, 6e4).cpu().numpy())
        return torch.from_numpy(found).float().to(batch.image_BCHW.device), {}

    def _again(self, batch: Batch) -> Tensor:
        """The logits of a batch: those of the last few are kept, since the range test asks for them in turns."""
        if batch.names not in self._last:
            if len(self._last) == BATCHES:
                del self._last[next(iter(self._last))]
            self._last[batch.names] = self.net(batch.image_BCHW)
        return self._last[batch.names]
