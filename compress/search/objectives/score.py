"""How well the built artifact segments the validation cases."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass

from compress.search.objectives.judging.objective import OPTIONS, AtPlace, Direction, Measured

Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


@dataclass(frozen=True, kw_only=True, config=OPTIONS)
class Score(AtPlace):
    """The mean over validation cases, then over foreground classes; or over the cases of one class."""

    direction: ClassVar[Direction] = "maximize"

    metric: Literal["dice", "iou"] = "dice"
    # "class" is a keyword of Python.
    class_name: Annotated[
        str | None, Field(alias="class", description="The foreground class that counts; none: the mean of all.")
    ] = None
    at_least: Annotated[Share | None, Field(description="What is below is on no front.")] = None

    @property
    def title(self) -> str:
        name = "Dice" if self.metric == "dice" else "IoU"
        return name if self.class_name is None else f"{name} of {self.class_name}"

    def __call__(self, measured: Measured) -> float | None:
        """From 0 to 1."""
        if measured.scores is None:
            return None
        scores = measured.scores if self.class_name is None else measured.scores["per_class"][self.class_name]
        return None if scores[self.metric] is None else float(scores[self.metric])

    def within(self, value: float) -> bool:
        """Whether the limit holds."""
        # What finds nothing is no answer, however small.
        return value > 0 and (self.at_least is None or value >= self.at_least)
