"""What to do with one network, and the task that it becomes: its data and its trained network, checked together."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from compress.contracts import Pass
from compress.data.dataset.cases import Dataset, Normalization
from compress.data.dataset.tiles import by
from compress.errors import RecipeError, WeightsError
from compress.gates.judging.gate import Gate
from compress.measure.latency import Timing
from compress.measure.segmentation import Scoring
from compress.networks.foreign.checks import check_logits
from compress.networks.foreign.notes import note_on
from compress.networks.foreign.outputs import which_fits
from compress.postprocess.applying.chain import Postprocess, faults
from compress.postprocess.applying.step import Setting, Step
from compress.recipe.about import About
from compress.storage.description import build_net, read_description, shape_of
from compress.storage.weights import load_weights
from compress.task import Task
from compress.train.training import Training
from export.device import Device
from export.devices.cpu import CPU
from export.graph import Dynamic

OPSETS = range(18, 24)
SEED = 7
"""Of recipes that give none."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What to do with one network; nothing in it has been done yet."""

    name: str
    seed: int = SEED
    network: Mapping[str, Mapping[str, Any]]
    """One word and its options, without `weights`."""
    weights: Path | None = None
    data: Any
    """A configured file of compress/data/, called to give the `Dataset`."""
    postprocess: Sequence[tuple[str, Step]] = ()
    """What is done to the answers of the baseline and of every artifact alike, before they are scored."""
    passes: Sequence[tuple[str, Pass]] = ()
    compare: Mapping[str, Sequence[tuple[str, Pass]]] = field(default_factory=dict)
    """Other chains of passes from the same baseline, each with a title: built, scored and timed in the same
    run, judged by no gate, there for gates to say `over: int8_alone`."""
    opset: int = 20
    dynamic: tuple[Dynamic, ...] = ()
    devices: tuple[Device, ...] = (CPU,)
    gates: Sequence[tuple[str, Gate]] = ()
    scoring: Scoring = field(default_factory=Scoring)
    latency: Timing = field(default_factory=Timing)
    train: Training | None = None
    about: About = field(default_factory=About)
    text: Mapping[str, Any] = field(default_factory=dict)
    """The recipe as run, overrides included, for the report."""
    source: Path | None = None
    """The file it was read from."""

    def task(self) -> Task:
        """The data and the trained network, checked against each other.

        Raises:
            WeightsError: if the weights are missing, damaged, or of another network.
            DataError: if the data is not what the network needs.
            RecipeError: if the post-processing is for other data or another network.
        """
        net, data = self.trained(), self.named().dataset(stored=self.stored_normalization())
        wrong = self.postprocess_faults(data)
        if wrong:
            raise RecipeError(self.name, wrong)
        return self.task_of(net, data)

    def postprocess_faults(self, data: Dataset) -> list[str]:
        """What keeps the post-processing from being applied to the network's answers on this data."""
        setting = Setting(
            class_names=data.class_names,
            logits=shape_of(self.network).classes,
            # Of what is answered: a network of nnU-Net's may take slices of volumes.
            dims=3 if data.fit.how == "nnunet" else self.data.dims,
            spacing_known=data.reader.unit == "mm",
        )
        return faults(self.postprocess, setting)

    def trained(self) -> nn.Module:
        """The network with its weights, in evaluation mode.

        Raises:
            WeightsError: if the weights are missing, damaged, or of another network.
        """
        if self.weights is None:
            raise WeightsError(f"{self.name}: the network has no weights; train it (compress train), then give weights")
        described = read_description(self.weights)
        if described is not None:
            _check_described(self.network, described.network, self.weights)
        net = build_net(self.network)
        load_weights(net, self.weights)
        return net.eval()

    def stored_normalization(self) -> Normalization | None:
        """The one stored with the weights, if any."""
        described = None if self.weights is None else read_description(self.weights)
        return described.normalization if described else None

    def task_of(self, net: nn.Module, data: Dataset) -> Task:
        """The task of this trained network on this data.

        Raises:
            WeightsError: if what the network answers cannot be logits.
        """
        postprocess = Postprocess(steps=tuple(self.postprocess), class_names=data.class_names)
        task = Task(data=data, net=net, seed=self.seed, dynamic=self.dynamic, postprocess=postprocess)
        if self.weights is None or read_description(self.weights) is None:
            note_on(net, *self._untold())
            head = getattr(shape_of(self.network), "head", None)
            if head is not None:
                check_logits(net, task.probes(most=2), head)
        return task

    def _untold(self) -> tuple[str, ...]:
        """Whose classes and normalization are used where the weights tell none."""
        notes = getattr(self.data, "notes", None)
        if notes is not None:
            return tuple(notes(self.postprocess))
        return (f"the weights tell no classes and no normalization: that of {self.normalization_from()} is used",)

    def named(self) -> Recipe:
        """The recipe with the class names stored with the weights, where its data gives none."""
        described = None if self.weights is None else read_description(self.weights)
        if described is None or not described.classes or getattr(self.data, "classes", ()) is not None:
            return self
        return dataclasses.replace(self, data=dataclasses.replace(self.data, classes=tuple(described.classes)))

    def normalization_from(self) -> str:
        """Whose normalization the network gets: a wrong one costs more than any compression."""
        if self.data.normalization is not None:
            return str(getattr(self.data, "whose", "the recipe"))
        described = None if self.weights is None else read_description(self.weights)
        return "the weights" if described is not None and described.normalization else "the train cases, measured"

    def dataset(self, stored: Normalization | None = None) -> Dataset:
        """The data as this network needs it; its normalization is the recipe's, else the weights', else measured."""
        shape = shape_of(self.network)
        if shape.dims != self.data.dims:
            raise RecipeError(self.name, [other_dims(self.network, shape.dims)])
        data: Dataset = self.data(channels=shape.in_channels, classes=shape.classes)
        fault = shape.check_size(data.fit.size)
        if fault:
            raise RecipeError(self.name, [f"data: input is {by(data.fit.size)}; {fault}"])
        return self.normalized(data, stored)

    def normalized(self, data: Dataset, stored: Normalization | None) -> Dataset:
        """The data under the recipe's normalization, else the one stored with the weights, else the one measured."""
        if self.data.normalization is not None:
            return data
        if stored is None and not data.cases["train"]:
            raise RecipeError(
                self.name,
                ["data: no normalization: the weights store none and there are no train cases to measure; set it"],
            )
        return data.normalized_by(stored or data.measured_normalization())


def which_output(
    outputs: Sequence[str], network: Mapping[str, Mapping[str, Any]], weights: Path | None, data: Any
) -> str:
    """Which of several outputs is the final one, by its Dice, where weights and data are given."""
    if weights is None or data is None:
        return "with the weights and the data given too, each would be scored"
    ((word, options),) = network.items()

    def task_of(output: str) -> Task:
        head = {**options["head"], "output": output}
        return Recipe(name=word, network={word: {**options, "head": head}}, weights=weights, data=data).task()

    return which_fits(outputs, task_of)


def other_dims(network: Mapping[str, Any], dims: int) -> str:
    takes, gives = ("volumes", "images") if dims == 3 else ("images", "volumes")
    return f"data: gives {gives}, but the network ({next(iter(network))}) takes {takes}; set other data or network"


def _check_described(
    ours: Mapping[str, Mapping[str, Any]], theirs: Mapping[str, Mapping[str, Any]], path: Path
) -> None:
    """Whether a weights file's own description is the recipe's network."""
    ((word, options),), (their_word,) = ours.items(), theirs
    if word != their_word:
        raise WeightsError(f"{path}: the weights are of a {their_word}, but the recipe's network is a {word}")
    defaults = dataclasses.asdict(shape_of(theirs))
    # How an answer is read is no part of the weights.
    wrong = [key for key in options if key not in ("head", "input") and options[key] != defaults[key]]
    if wrong:
        key = wrong[0]
        raise WeightsError(
            f"{path}: weights of another {key}: they have {key} {defaults[key]}, the recipe's network has "
            f"{options[key]}; set {key}: {defaults[key]} or give other weights"
        )
