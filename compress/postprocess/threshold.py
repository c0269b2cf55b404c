"""Another threshold than 0.5: the usual way to trade false alarms against misses, chosen on validation cases."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BeforeValidator, ConfigDict, Field
from pydantic.dataclasses import dataclass

from compress.postprocess.applying.step import Kind, Setting

Share = Annotated[float, Field(gt=0, lt=1)]


def _shares(given: Any) -> Any:
    """One or some probabilities, as given."""
    each = list(given.values()) if isinstance(given, dict) else [given]
    if not each or not all(isinstance(one, int | float) and 0 < one < 1 for one in each):
        raise ValueError("a probability above 0 and below 1, or one for each class that needs one: {polyp: 0.42}")
    return given


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class Threshold:
    """The probability that a class needs to be taken.

    With one foreground class (one logit, whose sigmoid it is, or two logits, of whose softmax it is the second) a
    pixel is foreground where the probability is above `at`, be it the larger one or not: `{at: 0.5}` changes nothing.
    With several foreground classes a pixel is of a class where the class's probability is the largest of all,
    background included, and at least `at`; where the largest is a class below its `at`, the pixel is background (and
    not of the class with the second largest probability). A class that `at` does not name needs to be the largest and
    no more.

    The probabilities are those of the image's own size where answers are restored by probabilities, and those of the
    network's size where they are restored by labels.
    """

    at: Annotated[Share | dict[str, Share], BeforeValidator(_shares)]
    """For every foreground class, or by the names of classes."""

    on: ClassVar[Kind] = "probabilities"
    gives: ClassVar[Kind] = "labels"

    def least(self, class_names: Sequence[str]) -> NDArray[np.float32]:
        """The probability that each class needs (K of all classes, background first); 0 for those that need none."""
        given = self.at if isinstance(self.at, dict) else dict.fromkeys(class_names[1:], self.at)
        return np.array([0.0, *(given.get(name, 0.0) for name in class_names[1:])], np.float32)

    def faults(self, setting: Setting) -> Iterator[str]:
        """Names of no class, and thresholds that the largest of several probabilities always reaches."""
        named = self.at if isinstance(self.at, dict) else {}
        for fault in setting.unknown(list(named)):
            yield f"at: {fault}"
        least = min(named.values()) if isinstance(self.at, dict) else self.at
        if len(setting.class_names) > 2 and least * setting.logits <= 1:
            yield (
                f"at: {least} changes nothing: of the {setting.logits} probabilities of a pixel, which sum to 1, the "
                f"largest is never below {1 / setting.logits:.3g}; give more"
            )
