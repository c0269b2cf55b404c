"""The recipe's `postprocess`: steps in turn, from probabilities to the labels that are scored.

Legend: C channels, K classes (or the one of a sigmoid), H and W height and width of the image, h and w those of the
network's answer (of volumes, depth before them).
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from compress.data.dataset.cases import FloatArray, MaskArray, Spacing
from compress.data.dataset.restore import labels_of, probabilities
from compress.data.dataset.tiles import Size
from compress.postprocess.applying.step import Chooses, OnLabels, OnProbabilities, Setting, Step

Json = dict[str, dict[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Postprocess:
    """What is done to every network's answers alike before they are scored, in whatever form the network runs."""

    steps: tuple[tuple[str, Any], ...] = ()
    """Words, each with its configured step, in an order that `out_of_order` has nothing against."""
    class_names: tuple[str, ...] = ()

    @property
    def changes_choice(self) -> bool:
        """Whether a step comes before the labels are chosen, or chooses them."""
        return any(step.on == "probabilities" for _, step in self.steps)

    def chosen(self, logits_Khw: FloatArray, image_Chw: FloatArray, size: Size) -> MaskArray:
        """The labels at this size (HW), before the steps on labels.

        Steps on probabilities are taken at the answer's own size; then probabilities are interpolated to `size`, where
        labels are chosen.

        Args:
            image_Chw: what the network answered for, scaled to 0..1.
        """
        found_Khw = probabilities(logits_Khw).numpy()
        least_K = None
        for _, step in self.steps:
            if step.gives == "probabilities":
                changes: OnProbabilities = step
                found_Khw = changes(found_Khw, image_Chw)
            elif step.on == "probabilities":
                chooses: Chooses = step
                least_K = chooses.least(self.class_names)
        return labels_of(torch.from_numpy(np.ascontiguousarray(found_Khw, np.float32)), size, least_K)

    def cleaned(self, labels_HW: MaskArray, spacing: Spacing | None) -> MaskArray:
        """The labels after the steps on labels.

        Args:
            spacing: length of these pixels along each axis, in mm; None where it is not known.
        """
        for _, step in self.steps:
            if step.on == "labels":
                cleans: OnLabels = step
                labels_HW = cleans(labels_HW, self.class_names, spacing)
        return labels_HW

    def as_list(self) -> list[Json]:
        """Each word with all of its options, those not given included: for reports and for devices."""
        made: list[Json] = json.loads(json.dumps([{word: dataclasses.asdict(step)} for word, step in self.steps]))
        return made

    def threshold(self, logits: int) -> float | dict[str, float] | None:
        """What a device must know to choose labels.

        Returns:
            The probability above which the one foreground class is taken; of several classes the least of each that
            needs one; None where the largest wins.
        """
        step: Chooses | None = next((step for _, step in self.steps if (step.on, step.gives) == _CHOICE), None)
        if step is None:
            return 0.5 if logits == 1 else None
        least = [round(float(each), 6) for each in step.least(self.class_names)]
        if len(least) == 2:
            return least[1]
        return {name: each for name, each in zip(self.class_names, least, strict=True) if each}

    def metadata(self, logits: int) -> dict[str, str]:
        """What an ONNX file says of it; "segpress.postprocess" is not there where there is none."""
        steps = {"segpress.postprocess": json.dumps(self.as_list())} if self.steps else {}
        return {"segpress.threshold": json.dumps(self.threshold(logits)), **steps}


_CHOICE = ("probabilities", "labels")


def out_of_order(steps: Mapping[int, tuple[str, Step]]) -> Iterator[str]:
    """A sentence for each step that needs the probabilities which a step before it has made labels of.

    Args:
        steps: word and step by their places in the recipe's list.
    """
    labelled = None
    for place, (word, step) in sorted(steps.items()):
        here = f"postprocess[{place}] ({word})"
        if step.on == "probabilities" and labelled is not None:
            yield f"{here}: works on probabilities, but {labelled} leaves labels; put it before that"
        elif step.gives == "labels" and labelled is None:
            labelled = here


def faults(steps: Sequence[tuple[str, Step]], setting: Setting) -> list[str]:
    """What keeps steps from being applied to this network's answers on this data, each with its place."""
    return [
        f"postprocess[{index}] ({word}): {fault}"
        for index, (word, step) in enumerate(steps)
        for fault in step.faults(setting)
    ]
