"""A recipe's losses: its words, each with its weight and options, and the sum of them that training minimises.

Legend: B batch, K classes, S one or more axes of pixels (2-D and 3-D alike).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from typing import Annotated, Any, Literal, Self, get_args

import torch
from pydantic import BeforeValidator, model_validator
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from compress.train.losses.combined import DiceCE, ExpLog
from compress.train.losses.comparison import OPTIONS, Loss, compared
from compress.train.losses.cross_entropy import CE, DistanceCE, Focal
from compress.train.losses.distance import Boundary, Hausdorff
from compress.train.losses.overlap import Dice, GeneralizedDice, Tversky

Word = Literal[
    "dice_ce",
    "ce",
    "distance_ce",
    "dice",
    "generalized_dice",
    "tversky",
    "focal",
    "boundary",
    "hausdorff",
    "exp_log",
]


@dataclass(frozen=True, kw_only=True, config=OPTIONS)
class Losses:
    """A sum of losses: the recipe's words, each with its options."""

    dice_ce: DiceCE | None = None
    ce: CE | None = None
    distance_ce: DistanceCE | None = None
    dice: Dice | None = None
    generalized_dice: GeneralizedDice | None = None
    tversky: Tversky | None = None
    focal: Focal | None = None
    boundary: Boundary | None = None
    hausdorff: Hausdorff | None = None
    exp_log: ExpLog | None = None

    @model_validator(mode="after")
    def _some_loss(self) -> Self:
        if not list(self.terms()):
            raise ValueError(f"names no loss; there are {', '.join(get_args(Word))}")
        return self

    def terms(self) -> Iterator[tuple[str, Loss]]:
        """The losses given, each with its word."""
        for word in fields(self):
            term = getattr(self, word.name)
            if term is not None:
                yield word.name, term

    @property
    def asks_shares(self) -> bool:
        """Whether the share of each class in the train masks must be known."""
        return any(isinstance(term, ExpLog) or getattr(term, "balance", "none") != "none" for _, term in self.terms())

    def fault(self, class_names: Sequence[str]) -> str | None:
        """What is wrong with these losses for these classes; None if nothing."""
        for word, term in self.terms():
            given = getattr(term, "class_weights", None)
            if given is not None and len(given) != len(class_names):
                names = f"{len(class_names)} classes ({', '.join(class_names)})"
                return f"loss.{word}.class_weights: {len(given)} numbers, but the network has {names}"
        return None


def in_full(given: Any) -> Any:
    """The short ways of writing losses: a word alone is that loss, a number after a word is its weight."""
    if isinstance(given, str):
        return {given: {}}
    if isinstance(given, Losses):
        return given
    if not isinstance(given, Mapping):
        raise ValueError("a loss is a word, such as tversky, or words, each with its weight or its options")
    return {word: _options(word, value) for word, value in given.items()}


def _options(word: str, value: Any) -> Any:
    if value is None:
        return {}
    if isinstance(value, int | float):
        return {"weight": value}
    if isinstance(value, str | Sequence):
        raise ValueError(f"{word} takes a weight, or names of options with values, not {value!r}")
    return value


OneOrMore = Annotated[
    Losses, BeforeValidator(in_full, json_schema_input_type=Word | Losses | dict[Word, float | dict[str, Any] | None])
]
"""`tversky`, `{tversky: {alpha: 0.3}}`, or a sum: `{dice: 1.0, boundary: {weight: 0.5}}`."""


class Sum(nn.Module):
    """The weighted sum of losses: `Sum(losses)(logits_BKS, mask_BS)`, computed in float32 whatever the logits are.

    One logit is read as a sigmoid's (background below 0), more as a softmax over classes.
    """

    share_K: Tensor | None

    def __init__(self, losses: Losses, ignore: int | None = None, share_K: Sequence[float] | None = None) -> None:
        """The losses, the mask index that counts nowhere, and each class's share of the train masks' pixels."""
        super().__init__()
        assert share_K is not None or not losses.asks_shares, "these losses need the classes' shares"
        self.losses = losses
        self.ignore = ignore
        self.register_buffer("share_K", None if share_K is None else torch.tensor(share_K), persistent=False)

    def forward(self, logits_BKS: Tensor, mask_BS: Tensor) -> Tensor:
        with torch.autocast(logits_BKS.device.type, enabled=False):
            comparison = compared(logits_BKS, mask_BS, self.ignore, self.share_K)
            return torch.stack([term.weight * term(comparison) for _, term in self.losses.terms()]).sum()


class DiceCrossEntropy(nn.Module):
    """The usual loss, ready made: `DiceCrossEntropy(ignore)(logits_BKS, mask_BS)`."""

    def __init__(self, ignore: int | None = None) -> None:
        super().__init__()
        self.sum = Sum(Losses(dice_ce=DiceCE()), ignore)

    def forward(self, logits_BKS: Tensor, mask_BS: Tensor) -> Tensor:
        return self.sum(logits_BKS, mask_BS)
