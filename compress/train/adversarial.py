"""Adversarial training: a critic that tells the network's masks from true ones learns beside it, then is thrown away.

Legend: B batch, C image channels, K classes, H height, W width (of volumes, depth before them).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal, Protocol, Self

import torch
import torch.nn.functional as F
from pydantic import BeforeValidator, ConfigDict, Field, model_validator
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from compress.data.dataset.tiles import central
from compress.train.losses.comparison import compared
from compress.train.objective import Batch, Supervised, fitted, is_coarser

OPTIONS = ConfigDict(extra="forbid")
WIDTHS = (32, 64, 128, 256)
"""Channels of a critic after each of its halvings."""

Weight = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Rate = Annotated[float, Field(gt=0, lt=1)]


class Way(Protocol):
    """One way of adversarial training; masks are given as class probabilities (BKHW) and as one-hot truth (BKHW)."""

    @property
    def weight(self) -> float: ...
    @property
    def rate(self) -> float: ...

    def critic(self, channels: int, classes: int, dims: int = 2) -> nn.Module:
        """A new critic of images with so many channels and masks with so many classes, background included.

        Args:
            dims: 2 for images, 3 for volumes.
        """
        ...

    def critics_loss(self, critic: nn.Module, image: Tensor, chance: Tensor, truth: Tensor) -> Tensor:
        """What the critic minimises."""
        ...

    def networks_loss(self, critic: nn.Module, image: Tensor, chance: Tensor, truth: Tensor) -> Tensor:
        """What is added to the network's own loss."""
        ...

    def bound(self, critic: nn.Module) -> None:
        """Called after each of the critic's steps."""
        ...


@dataclass(frozen=True, kw_only=True, config=OPTIONS)
class Luc:
    """A critic that calls a mask true or made, seeing the image beside it (Luc et al. 2016, arXiv 1611.08408).

    The network is to have its masks called true (the paper's second form of its term, section 3.1).
    """

    weight: Weight = 0.1
    """Of the adversarial term, beside the loss."""
    rate: Rate = 1e-4
    """Learning rate of the critic (Adam)."""

    def critic(self, channels: int, classes: int, dims: int = 2) -> nn.Module:
        return Critic(channels + classes, judges=True, dims=dims)

    def critics_loss(self, critic: nn.Module, image: Tensor, chance: Tensor, truth: Tensor) -> Tensor:
        return self._called(critic, image, truth, 1.0) + self._called(critic, image, chance, 0.0)

    def networks_loss(self, critic: nn.Module, image: Tensor, chance: Tensor, truth: Tensor) -> Tensor:
        return self._called(critic, image, chance, 1.0)

    def bound(self, critic: nn.Module) -> None:
        """Its answers are bounded by themselves."""

    def _called(self, critic: nn.Module, image: Tensor, mask: Tensor, what: float) -> Tensor:
        answer_B1 = critic(torch.cat([image, mask], 1))[-1].float()
        return F.binary_cross_entropy_with_logits(answer_B1, torch.full_like(answer_B1, what))


@dataclass(frozen=True, kw_only=True, config=OPTIONS)
class SegAN:
    """A critic whose features differ most, at every scale, between true and made masks (Xue et al., arXiv 1706.01805).

    It sees the image cut out by the mask of each foreground class; the network minimises the mean
    absolute difference that the critic maximises.
    """

    weight: Weight = 1.0
    """Of the adversarial term, beside the loss."""
    rate: Rate = 1e-4
    """Learning rate of the critic (Adam)."""
    clip: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 0.05
    """Bound of each of the critic's weights: without one its features would differ without limit."""

    def critic(self, channels: int, classes: int, dims: int = 2) -> nn.Module:
        critic = Critic(channels * (classes - 1), judges=False, dims=dims)
        self.bound(critic)
        return critic

    def critics_loss(self, critic: nn.Module, image: Tensor, chance: Tensor, truth: Tensor) -> Tensor:
        return -self.networks_loss(critic, image, chance, truth)

    def networks_loss(self, critic: nn.Module, image: Tensor, chance: Tensor, truth: Tensor) -> Tensor:
        made, true = _cut_out(image, chance), _cut_out(image, truth)
        # The input itself is the finest scale.
        scales = zip([made, *critic(made)], [true, *critic(true)], strict=True)
        return torch.stack([(ours.float() - theirs.float()).abs().mean() for ours, theirs in scales]).mean()

    @torch.no_grad()
    def bound(self, critic: nn.Module) -> None:
        for parameter in critic.parameters():
            parameter.clamp_(-self.clip, self.clip)


def _cut_out(image_BCHW: Tensor, mask_BKHW: Tensor) -> Tensor:
    """The image times the mask of each foreground class (B(C x (K-1))HW)."""
    # Normalized images are 0 in their middle grays: only from the darkest pixel up does a mask hide everything.
    image_BCHW = image_BCHW - image_BCHW.amin(tuple(range(2, image_BCHW.dim())), keepdim=True)
    return (image_BCHW[:, None] * mask_BKHW[:, 1:, None]).flatten(1, 2)


class Critic(nn.Module):
    """Convolutions that halve their input; critic(x_BCHW) gives the features after each, and last a verdict B1."""

    def __init__(self, channels: int, *, judges: bool, dims: int = 2) -> None:
        super().__init__()
        conv = nn.Conv3d if dims == 3 else nn.Conv2d
        pairs = zip((channels, *WIDTHS), WIDTHS, strict=False)
        self.halvings = nn.ModuleList(conv(before, after, 5, stride=2, padding=2) for before, after in pairs)
        self.verdict = conv(WIDTHS[-1], 1, 1) if judges else None

    def forward(self, x_BCHW: Tensor) -> list[Tensor]:
        if x_BCHW.dim() == 4:
            return self._scales(x_BCHW)
        # Its last layers are larger than what is left of a volume (see precision.py).
        with torch.autocast(x_BCHW.device.type, enabled=False):
            return self._scales(x_BCHW.float())

    def _scales(self, x_BCHW: Tensor) -> list[Tensor]:
        found = []
        for conv in self.halvings:
            x_BCHW = F.leaky_relu(conv(x_BCHW), 0.2)
            found.append(x_BCHW)
        if self.verdict is not None:
            found.append(self.verdict(x_BCHW).flatten(2).mean(2))
        return found


@dataclass(frozen=True, kw_only=True, config=OPTIONS)
class Adversary:
    """The recipe's word for a way of adversarial training, with its options."""

    luc: Luc | None = None
    segan: SegAN | None = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.luc is None) == (self.segan is None):
            raise ValueError("one of luc and segan, with its options")
        return self

    @property
    def way(self) -> Way:
        way = self.luc or self.segan
        assert way is not None
        return way


def in_full(given: Any) -> Any:
    """The short ways of writing it: a word alone, or a word with nothing after it."""
    if isinstance(given, str):
        return {given: {}}
    if isinstance(given, Mapping):
        return {word: {} if value is None else value for word, value in given.items()}
    if given is None or isinstance(given, Adversary):
        return given
    raise ValueError("it is a word, luc or segan, or one of them with its options")


OneWay = Annotated[Adversary, BeforeValidator(in_full, json_schema_input_type=Literal["luc", "segan"] | Adversary)]
"""`luc`, or `{luc: {weight: 0.2}}`."""


class Adversarial(nn.Module):
    """A supervised objective plus the adversarial term; at each call the critic takes a step of its own first.

    The critic is in the state, so that an interrupted training goes on exactly, but not in the
    parameters: those are optimized with the network, towards the opposite.
    """

    def __init__(
        self,
        supervised: Supervised,
        way: Way,
        *,
        channels: int,
        classes: int,
        ignore: int | None,
        seed: int,
        dims: int = 2,
    ) -> None:
        """Of images (or with `dims` 3 volumes) with so many channels, and so many classes, background included."""
        super().__init__()
        self.supervised, self.way, self.ignore = supervised, way, ignore
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            critic = way.critic(channels, classes, dims)
        # In a tuple, where nn.Module does not look for parameters.
        self._apart = (critic,)
        self.optimizer = torch.optim.Adam(critic.parameters(), lr=way.rate, betas=(0.5, 0.999))

    @property
    def critic(self) -> nn.Module:
        return self._apart[0]

    def forward(self, net: nn.Module, batch: Batch) -> Tensor:
        answer: Tensor | Sequence[Tensor] = net(batch.image_BCHW)
        logits_BKHW = answer if isinstance(answer, Tensor) else answer[0]
        mask_BHW = fitted(batch.mask_BHW, logits_BKHW)
        comparison = compared(logits_BKHW, mask_BHW, self.ignore)
        image_BCHW = _fitted_image(batch.image_BCHW, logits_BKHW)
        self._criticise(image_BCHW, comparison.probability_BKS.detach(), comparison.truth_BKS)
        self.critic.requires_grad_(False)
        term = self.way.networks_loss(self.critic, image_BCHW, comparison.probability_BKS, comparison.truth_BKS)
        self.critic.requires_grad_(True)
        return self.supervised.of(answer, batch.mask_BHW) + self.way.weight * term

    def _criticise(self, image_BCHW: Tensor, probability_BKHW: Tensor, truth_BKHW: Tensor) -> None:
        """One step of the critic."""
        loss = self.way.critics_loss(self.critic, image_BCHW, probability_BKHW, truth_BKHW)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        self.way.bound(self.critic)

    def get_extra_state(self) -> dict[str, Any]:
        return {"critic": self.critic.state_dict(), "optimizer": self.optimizer.state_dict()}

    def set_extra_state(self, state: Any) -> None:
        self.critic.load_state_dict(state["critic"])
        self.optimizer.load_state_dict(state["optimizer"])

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """What nn.Module does to its tensors (to a device, above all) is done to the critic's and its optimizer's."""
        self.critic._apply(fn)
        for state in self.optimizer.state.values():
            # Adam keeps its count of steps on the CPU.
            state.update({name: fn(value) for name, value in state.items() if name != "step"})
        return super()._apply(fn, recurse)


def _fitted_image(image_BCHW: Tensor, logits_BKHW: Tensor) -> Tensor:
    """The part of the image that the logits answer for, at their size."""
    size, full = logits_BKHW.shape[2:], image_BCHW.shape[2:]
    if is_coarser(size, full):
        return F.interpolate(image_BCHW, size, mode="area")
    return image_BCHW[central(size, full)]
