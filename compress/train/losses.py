"""Training losses: the recipe's words, each a frozen dataclass of options that is called; MONAI's where it has them.

Legend: B batch, K classes, S one or more axes of pixels (2-D and 3-D alike).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass as plain_dataclass
from dataclasses import fields
from typing import Annotated, Any, Literal, Protocol, Self, get_args

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from pydantic import BeforeValidator, ConfigDict, Field, model_validator
from pydantic.dataclasses import dataclass
from scipy import ndimage
from torch import Tensor, nn

OPTIONS = ConfigDict(extra="forbid")

Weight = Annotated[float, Field(gt=0, allow_inf_nan=False)]
"""Of this loss in a sum."""


@plain_dataclass(frozen=True, kw_only=True)
class Seen:
    """What every loss compares, in float32; ignored pixels are 0 in `chance_BKS` and in `truth_BKS`."""

    logits_BKS: Tensor
    """At least two classes: one logit has become a softmax against a logit of zero."""
    chance_BKS: Tensor
    """The softmax of the logits."""
    truth_BKS: Tensor
    """The mask, one-hot."""
    index_BS: Tensor
    """The mask as class indices; ignored pixels hold -100."""
    counted_BS: Tensor
    """1 where a pixel counts, 0 where it is ignored."""
    share_K: Tensor | None
    """The share of each class in the train masks, where a loss asked for it."""

    def mean(self, value_BS: Tensor) -> Tensor:
        """Over the pixels that count; 0 where none does."""
        return (value_BS * self.counted_BS).sum() / self.counted_BS.sum().clamp(min=1)


class Loss(Protocol):
    """One term of the sum: loss(seen), smaller for a better answer."""

    @property
    def weight(self) -> float: ...
    def __call__(self, seen: Seen) -> Tensor: ...


@dataclass(frozen=True, kw_only=True, config=OPTIONS)
class Dice:
    """1 - soft Dice of the foreground classes (Milletari et al. 2016, arXiv 1606.04797)."""

    weight: Weight = 1.0
    over: Literal["batch", "case"] = "batch"
    """batch: one fraction over all of its cases, so that one without the class weighs nothing extra. case: one for
    each, as it is scored: small structures weigh as much as large ones, and where there is none, none is learnt."""

    def __call__(self, seen: Seen) -> Tensor:
        from monai.losses import DiceLoss

        lose = DiceLoss(include_background=False, batch=self.over == "batch", smooth_nr=1.0, smooth_dr=1.0)
        return lose(seen.chance_BKS, seen.truth_BKS)


@dataclass(frozen=True, kw_only=True, config=OPTIONS)
class CE:
    """Cross entropy, each class weighing the same or as told."""

    weight: Weight = 1.0
    balance: Literal["none", "frequency"] = "none"
    """frequency: a class weighs in inverse proportion to its share of the train masks' pixels."""
    class_weights: tuple[Annotated[float, Field(ge=0, allow_inf_nan=False)], ...] | None = None
    """One number for each class, background first."""

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if self.balance != "none" and self.class_weights is not None:
            raise ValueError("balance and class_weights are both given; give one")
        return self

    def __call__(self, seen: Seen) -> Tensor:
        if self.balance == "none" and self.class_weights is None:
            if not seen.counted_BS.any():
                # torch's mean over no pixels is 0 / 0.
                return seen.logits_BKS.sum() * 0
            return F.cross_entropy(seen.logits_BKS, seen.index_BS)
        weight_BS = _class_weights(self, seen) * seen.counted_BS
        return (_entropy(seen) * weight_BS).sum() / weight_BS.sum().clamp(min=torch.finfo().tiny)


@dataclass(frozen=True, kw_only=True, config=OPTIONS)
class DiceCE:
    """Dice plus cross entropy, the usual choice (Isensee et al. 2021, nnU-Net)."""

    weight: Weight = 1.0

    def __call__(self, seen: Seen) -> Tensor:
        return Dice()(seen) + CE()(seen)


@dataclass(frozen=True, kw_only=True, config=OPTIONS)
class DistanceCE:
    """U-Net's cross entropy, heavier in narrow gaps between objects (Ronneberger et al. 2015, eq. 2).

    w = w_class + border * exp(-(d1 + d2)^2 / (2 sigma^2)), the second term in the background only; d1
    and d2 are the distances to the nearest and the second nearest object, a connected part of a class.
    """

    weight: Weight = 1.0
    border: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 10.0
    """The paper's w_0."""
    sigma: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 5.0
    """In pixels."""
    balance: Literal["none", "frequency"] = "frequency"
    """frequency: a class weighs in inverse proportion to its share of the train masks' pixels."""

    def __call__(self, seen: Seen) -> Tensor:
        index_BS = torch.where(seen.counted_BS > 0, seen.index_BS, 0).cpu().numpy()
        gaps = np.stack([gap_weights(index_S, self.sigma) for index_S in index_BS])
        gap_BS = torch.from_numpy(gaps).to(seen.logits_BKS)
        return seen.mean(_entropy(seen) * (_class_weights(self, seen) + self.border * gap_BS))


@dataclass(frozen=True, kw_only=True, config=OPTIONS)
class GeneralizedDice:
    """Dice over all classes at once, each weighed by 1 / area^2 (Sudre et al. 2017, arXiv 1707.03237)."""

    weight: Weight = 1.0

    def __call__(self, seen: Seen) -> Tensor:
        from monai.losses import GeneralizedDiceLoss

        # Areas of 10^5 pixels make terms of 10^-5: MONAI's default smoothing would outweigh them.
        lose = GeneralizedDiceLoss(include_background=True, batch=True, smooth_nr=1e-12, smooth_dr=1e-12)
        return lose(seen.chance_BKS, seen.truth_BKS)


@dataclass(frozen=True, kw_only=True, config=OPTIONS)
class Tversky:
    """Dice with a price for each kind of error (Salehi et al. 2017, arXiv 1706.05721); alpha 0.5 is Dice."""

    weight: Weight = 1.0
    alpha: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.3
    """Price of a false positive."""
    beta: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    """Price of a false negative; None: 1 - alpha."""

    @model_validator(mode="after")
    def _some_price(self) -> Self:
        if self.beta is None and self.alpha > 1:
            raise ValueError(f"alpha {self.alpha:g} leaves 1 - alpha below 0 for beta; give beta, or alpha up to 1")
        if self.alpha == 0 and self.beta == 0:
            raise ValueError("alpha and beta are both 0: no error would cost anything")
        return self

    def __call__(self, seen: Seen) -> Tensor:
        from monai.losses import TverskyLoss

        beta = 1 - self.alpha if self.beta is None else self.beta
        lose = TverskyLoss(
            include_background=False, batch=True, alpha=self.alpha, beta=beta, smooth_nr=0.5, smooth_dr=0.5
        )
        return lose(seen.chance_BKS, seen.truth_BKS)


@dataclass(frozen=True, kw_only=True, config=OPTIONS)
class Focal:
    """Cross entropy in which pixels that are right already count less (Lin et al. 2017, arXiv 1708.02002)."""

    weight: Weight = 1.0
    # Below 1 the slope of (1 - p)^gamma has no bound at p = 1.
    gamma: Annotated[float, Field(ge=1, allow_inf_nan=False)] = 2.0
    alpha: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Weight of the foreground classes, the background's being 1 - alpha; None: 1 for all."""

    def __call__(self, seen: Seen) -> Tensor:
        from monai.losses import FocalLoss

        lose = FocalLoss(use_softmax=True, gamma=self.gamma, alpha=self.alpha, reduction="none")
        return seen.mean(lose(seen.logits_BKS, seen.truth_BKS).sum(1))


@dataclass(frozen=True, kw_only=True, config=OPTIONS)
class Boundary:
    """Foreground probability times the signed distance to the true border (Kervadec et al. 2019, arXiv 1812.07032).

    In pixels, negative inside; it says nothing where a class is absent, so it is added to another loss.
    """

    weight: Weight = 1.0

    def __call__(self, seen: Seen) -> Tensor:
        foreground = seen.truth_BKS[:, 1:].cpu().numpy() > 0.5
        distance_BKS = np.stack([[signed_distance(mask_S) for mask_S in masks] for masks in foreground])
        distance = torch.from_numpy(distance_BKS).to(seen.chance_BKS)
        return seen.mean((seen.chance_BKS[:, 1:] * distance).mean(1))


@dataclass(frozen=True, kw_only=True, config=OPTIONS)
class Hausdorff:
    """Squared errors times distance to the true and the predicted border (Karimi & Salcudean 2019, arXiv 1904.10030).

    In pixels^alpha: beside another loss, give it a small weight.
    """

    weight: Weight = 1.0
    alpha: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 2.0
    """Power of the distances."""

    def __call__(self, seen: Seen) -> Tensor:
        from monai.losses import HausdorffDTLoss

        return HausdorffDTLoss(alpha=self.alpha, include_background=False)(seen.chance_BKS, seen.truth_BKS)


@dataclass(frozen=True, kw_only=True, config=OPTIONS)
class ExpLog:
    """Powers of the logarithms of Dice and of the true class's probability (Wong et al. 2018, arXiv 1809.00076).

    A class weighs by the inverse square root of its share of the train masks' pixels.
    """

    weight: Weight = 1.0
    gamma: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 0.3
    dice: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.8
    """Share of the Dice term."""
    cross: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.2
    """Share of the cross entropy term."""

    @model_validator(mode="after")
    def _some_share(self) -> Self:
        if self.dice == self.cross == 0:
            raise ValueError("dice and cross are both 0: nothing is left of the loss")
        return self

    def __call__(self, seen: Seen) -> Tensor:
        assert seen.share_K is not None
        pixels = [axis for axis in range(seen.truth_BKS.dim()) if axis != 1]
        both_K = (seen.chance_BKS * seen.truth_BKS).sum(pixels)
        dice_K = (2 * both_K + 1) / ((seen.chance_BKS + seen.truth_BKS).sum(pixels) + 1)
        weight_K = torch.where(seen.share_K > 0, seen.share_K, math.inf).rsqrt()
        cross_BS = weight_K[seen.truth_BKS.argmax(1)] * self._power(_entropy(seen))
        return self.dice * self._power(-dice_K.log()).mean() + self.cross * seen.mean(cross_BS)

    def _power(self, value: Tensor) -> Tensor:
        # A power below 1 has no finite slope at 0.
        return value.clamp(min=1e-6).pow(self.gamma)


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
            seen = compared(logits_BKS, mask_BS, self.ignore, self.share_K)
            return torch.stack([term.weight * term(seen) for _, term in self.losses.terms()]).sum()


class DiceCrossEntropy(nn.Module):
    """The usual loss, ready made: `DiceCrossEntropy(ignore)(logits_BKS, mask_BS)`."""

    def __init__(self, ignore: int | None = None) -> None:
        super().__init__()
        self.sum = Sum(Losses(dice_ce=DiceCE()), ignore)

    def forward(self, logits_BKS: Tensor, mask_BS: Tensor) -> Tensor:
        return self.sum(logits_BKS, mask_BS)


def compared(logits_BKS: Tensor, mask_BS: Tensor, ignore: int | None, share_K: Tensor | None = None) -> Seen:
    """Logits and mask as every loss wants them."""
    logits_BKS = logits_BKS.float()
    if logits_BKS.shape[1] == 1:
        # A sigmoid is a softmax against a logit of zero.
        logits_BKS = torch.cat([torch.zeros_like(logits_BKS), logits_BKS], dim=1)
    counted_BS = torch.ones_like(mask_BS, dtype=torch.bool) if ignore is None else mask_BS != ignore
    truth_BKS = F.one_hot(torch.where(counted_BS, mask_BS, 0), logits_BKS.shape[1]).movedim(-1, 1)
    counted_B1S = counted_BS[:, None]
    return Seen(
        logits_BKS=logits_BKS,
        chance_BKS=logits_BKS.softmax(1) * counted_B1S,
        truth_BKS=(truth_BKS * counted_B1S).float(),
        index_BS=torch.where(counted_BS, mask_BS, -100),
        counted_BS=counted_BS.float(),
        share_K=share_K,
    )


def _entropy(seen: Seen) -> Tensor:
    """-log of the true class's probability at every pixel (BS); 0 where it is ignored."""
    return F.cross_entropy(seen.logits_BKS, seen.index_BS, reduction="none")


def _class_weights(loss: CE | DistanceCE, seen: Seen) -> Tensor:
    """The weight of every pixel's true class (BS); over the train masks it is 1 on average when balanced."""
    given = getattr(loss, "class_weights", None)
    if given is not None:
        weight_K = torch.tensor(given).to(seen.logits_BKS)
    elif loss.balance == "frequency":
        assert seen.share_K is not None
        share_K = torch.where(seen.share_K > 0, seen.share_K, math.inf)
        weight_K = 1 / (share_K * (seen.share_K > 0).sum())
    else:
        return torch.ones_like(seen.counted_BS)
    return weight_K[seen.truth_BKS.argmax(1)]


def signed_distance(mask_S: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Distance to the border in pixels, negative inside, 0 on the mask's own edge; 0 for an empty or full mask."""
    if not mask_S.any() or mask_S.all():
        return np.zeros(mask_S.shape, np.float32)
    inside, outside = ndimage.distance_transform_edt(mask_S), ndimage.distance_transform_edt(~mask_S)
    return np.where(mask_S, 1 - inside, outside).astype(np.float32)


def gap_weights(index_S: NDArray[np.integer[Any]], sigma: float) -> NDArray[np.float32]:
    """exp(-(d1 + d2)^2 / (2 sigma^2)) in the background, d1 and d2 being the distances to the two nearest objects."""
    # Farther than this a second object adds less than 1e-7.
    reach = math.ceil(6 * sigma)
    nearest, second = np.full((2, *index_S.shape), np.inf)
    for kind in np.unique(index_S[index_S > 0]):
        objects, _ = ndimage.label(index_S == kind)
        for number, box in enumerate(ndimage.find_objects(objects), start=1):
            near = tuple(slice(max(0, side.start - reach), side.stop + reach) for side in box)
            distance = ndimage.distance_transform_edt(objects[near] != number)
            second[near] = np.minimum(second[near], np.maximum(nearest[near], distance))
            nearest[near] = np.minimum(nearest[near], distance)
    weight = np.exp(-((nearest + second) ** 2) / (2 * sigma**2))
    return np.where(index_S == 0, weight, 0).astype(np.float32)
