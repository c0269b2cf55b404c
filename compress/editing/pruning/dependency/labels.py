"""Labels of channels, made one where channels can only be removed together (a union-find structure)."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import prod
from typing import Final

import torch
from torch import Tensor

NOBODY: Final = 0
"""The label of what is no channel of any layer: it has the same value, or none, for every channel."""


@dataclass
class Labels:
    """Labels that turned out to be one, and those that must stay, with the reason."""

    above: list[int] = field(default_factory=lambda: [NOBODY])
    stays: dict[int, str] = field(default_factory=dict)

    def fresh(self, *shape: int) -> Tensor:
        first, count = len(self.above), prod(shape)
        self.above.extend(range(first, first + count))
        return torch.arange(first, first + count).view(shape)

    def root(self, label: int) -> int:
        while self.above[label] != label:
            self.above[label] = self.above[self.above[label]]
            label = self.above[label]
        return label

    def roots(self, labels: Tensor) -> Tensor:
        values, inverse = labels.unique(return_inverse=True)
        return torch.tensor([self.root(value) for value in values.tolist()])[inverse]

    def unite(self, these: Tensor, those: Tensor) -> None:
        """Make one of each pair; where one side is nobody, the other stays what it is."""
        pairs = torch.stack(torch.broadcast_tensors(these, those)).flatten(1)
        for this, that in pairs[:, (pairs != NOBODY).all(0)].unique(dim=1).T.tolist():
            a, b = sorted((self.root(this), self.root(that)))
            if a != b:
                self.above[b] = a
                if b in self.stays:
                    self.stays.setdefault(a, self.stays[b])

    def keep(self, labels: Tensor, reason: str) -> None:
        for label in labels.unique().tolist():
            if label != NOBODY:
                self.stays.setdefault(self.root(label), reason)


def nobody(rank: int) -> Tensor:
    """The labels of a value of this rank in which there are no channels."""
    return torch.zeros([1] * rank, dtype=torch.int64)
