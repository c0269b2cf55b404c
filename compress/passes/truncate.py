"""A nested network cut to one of its shallower levels, whose head was trained all along.

UNet++ under deep supervision answers at every level (Zhou et al. 2018, arXiv 1807.10165, and 2020, arXiv
1912.05074, "model pruning"): the nodes that a lower answer does not need are left out.
"""

from __future__ import annotations

import copy
import math
import warnings
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from pydantic import BeforeValidator, ConfigDict, Field, model_validator
from pydantic.dataclasses import dataclass
from torch import nn

from compress.data.dataset.cases import Role
from compress.editing.layer_replacement import copied
from compress.errors import PassError
from compress.networks.unetpp import UNetPPModule
from compress.storage.description import described
from export.modules import Precision

if TYPE_CHECKING:
    from compress.task import Task


def _known(level: Any) -> Any:
    if level == "auto" or (isinstance(level, int) and not isinstance(level, bool) and 1 <= level <= 8):
        return level
    raise ValueError("a level is a whole number from 1 to 8, or the word auto")


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class Truncate:
    """A UNet++ cut to L1, L2, ..., with the weights it has."""

    requires: ClassVar[Precision] = "float"
    ensures: ClassVar[Precision] = "float"

    level: Annotated[int | Literal["auto"], BeforeValidator(_known)]
    """What stays: all that the head of this level needs; auto: the lowest level that scores within `max_drop`."""
    max_drop: Annotated[float, Field(ge=0, lt=1)] | None = None
    """How much less validation Dice (mean over the foreground classes) the level that `auto` takes may have."""

    @model_validator(mode="after")
    def _fitting(self) -> Self:
        if self.level == "auto" and self.max_drop is None:
            raise ValueError("level: auto needs max_drop: how much validation Dice the cut may cost")
        if self.level != "auto" and self.max_drop is not None:
            raise ValueError("max_drop goes with level: auto; a level that is given is taken as it is")
        return self

    @property
    def uses(self) -> tuple[Role, ...]:
        return ("val",) if self.level == "auto" else ()

    def __call__(self, net: nn.Module, task: Task) -> nn.Module:
        """The network of that level: the same weights, fewer nodes.

        Raises:
            PassError: if the network is not nested, has no head at that level or is in integers already,
                or there is nothing to choose a level by.
        """
        nested = copied(net, "truncate")
        if not isinstance(nested, UNetPPModule):
            raise PassError(
                f"truncate: a {type(nested).__name__} is not nested: only a unetpp network has shallower levels in it"
            )
        whole = nested.level
        level = self._lowest(nested, task) if self.level == "auto" else self.level
        _check_head(nested, level)
        if level == whole:
            task.note(f"truncate: nothing was cut: the network stays L{whole}")
            return nested
        before = _parameters(nested)
        nested.cut(level)
        nested.description = _at_level(nested.description, level)  # type: ignore[arg-type, assignment]
        task.note(f"truncate: cut from L{whole} to L{level}: {before:,} -> {_parameters(nested):,} parameters")
        return described(nested)

    def _lowest(self, nested: UNetPPModule, task: Task) -> int:
        """The lowest level whose validation Dice is within `max_drop` of the whole network's."""
        if not task.data.cases["val"]:
            raise PassError("truncate: there are no validation cases to choose a level by; give some the split 'val'")
        _check_head(nested, 1)
        whole = _score(nested, nested.level, task)
        scores = {}
        for level in range(1, nested.level):
            scores[level] = _score(nested, level, task)
            if scores[level] >= whole - self._margin:
                break
        listed = ", ".join(f"L{level} {score:.4f}" for level, score in (*scores.items(), (nested.level, whole)))
        chosen = next((level for level, score in scores.items() if score >= whole - self._margin), nested.level)
        task.note(f"truncate: validation Dice {listed}: L{chosen} is the lowest level within {self.max_drop:g}")
        return chosen

    @property
    def _margin(self) -> float:
        assert self.max_drop is not None, "auto was given without max_drop"
        return self.max_drop


def _check_head(nested: UNetPPModule, level: int) -> None:
    if level > nested.level:
        raise PassError(f"truncate: level {level} is more than the network has: it is L{nested.level}")
    if str(level) not in nested.heads:
        raise PassError(
            f"truncate: there is no trained head at level {level}: "
            f"the network was built without deep_supervision, and answers only at L{nested.level}"
        )


def _score(nested: UNetPPModule, level: int, task: Task) -> float:
    from compress.train.fabric import fabric_for
    from compress.train.loop import validation_dice

    net = copy.deepcopy(nested)
    net.cut(level)
    fabric = fabric_for()
    with warnings.catch_warnings():
        # A mean over no case at all warns, and is told of below.
        warnings.simplefilter("ignore", RuntimeWarning)
        score = validation_dice(net.to(fabric.device), task.data, fabric)
    if not math.isfinite(score):
        raise PassError(f"truncate: L{level} has no validation Dice: no validation case has any foreground in it")
    return score


def _at_level(description: dict[str, Any], level: int) -> dict[str, Any]:
    """The description of the network that was begun with, at another level; what changed since is found again."""
    begun = description["changed"]["net"] if "changed" in description else description
    return {"unetpp": {**begun["unetpp"], "level": level}}


def _parameters(net: nn.Module) -> int:
    return sum(weight.numel() for weight in net.parameters())
