"""Any trained `nn.Module` and arrays: passes, files and measurements from Python, without a recipe or a folder."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch import nn

from compress.contracts import Pass
from compress.data.dataset.arrays import Pairs, dataset_of
from compress.data.dataset.cases import MaskArray, Normalization, Role
from compress.data.dataset.on_disk import class_names
from compress.data.dataset.tiles import by
from compress.errors import DataError, PassError
from compress.measure.latency import Timing, in_turns
from compress.measure.segmentation import Scores
from compress.networks.foreign.answers import tensors_in
from compress.networks.foreign.asking import answer_of, reason
from compress.networks.foreign.in_memory import hold
from compress.pipeline.build import of_weights
from compress.pipeline.exporting import placed, written
from compress.storage.description import Description, build_net
from compress.storage.weights import load_net, save_net
from compress.task import Task
from export.artifact import Artifact
from export.backend import Backend
from export.files import make_folder
from export.modules import precision_of
from export.registry import find_backend, find_device, words
from export.target import LocalTarget
from export.to_onnx import Style


@dataclass(frozen=True, kw_only=True)
class Measured:
    """A network as a built artifact on this host's CPU."""

    backend: str
    scores: Scores | None
    """On the test cases; None where none were given."""
    latency_ms: Mapping[str, Any]
    """p50, p90, p95, p99 and n of the network alone, batch 1, warm."""
    size_mb: float

    @property
    def dice(self) -> float | None:
        """The mean over foreground classes and test cases."""
        return None if self.scores is None else self.scores.mean("dice")


@dataclass(frozen=True, kw_only=True)
class Wrapped:
    """A network on its way: each pass gives another one, and the first stays the teacher."""

    net: nn.Module
    task: Task
    notes: tuple[str, ...] = ()
    """What passes did, a sentence each."""
    held: nn.Module
    """The module that was wrapped, which descriptions speak of while it lives."""

    def apply(self, *passes: Pass) -> Wrapped:
        """The network after passes: `wrapped.apply(Prune(ratio=0.3), Int8(calibrate=8))`.

        Raises:
            PassError: if a pass cannot do this, or takes a network of another precision.
        """
        net, notes = self.net, list(self.notes)
        for each in passes:
            word = type(each).__name__
            if isinstance(each, type) or not hasattr(each, "requires"):
                raise PassError(f"apply takes passes, such as compress.Int8(calibrate=32), not {each!r}")
            if each.requires != precision_of(net):
                raise PassError(f"{word} takes a network in {each.requires}, and this one is in {precision_of(net)}")
            lacking = [role for role in each.uses if not self.task.data.cases[role]]
            if lacking:
                raise PassError(f"{word} looks at {lacking[0]} cases: give them to wrap({lacking[0]}=(images, masks))")
            net = each(net, replace(self.task, note=notes.append)).eval()
        return replace(self, net=net, notes=tuple(notes))

    def export(self, path: str | Path, backend: str = "onnxruntime", opset: int = 20) -> Artifact:
        """The file that a runtime runs, with its sidecar: ONNX at `path`, and beside it what the runtime builds."""
        to = Path(path)
        kind, folder = _backend(backend), make_folder(to.parent)
        if kind.runs_modules:
            weights = to.with_suffix(".safetensors")
            save_net(self.net, Description(network=self.net.description), weights)  # type: ignore[arg-type]
            return of_weights(weights, tuple(self.task.example.shape))
        rules = kind.rules if precision_of(self.net) == "integers" else None
        onnx = written(self.net, rules, self.task.example, to, Style(opset=opset), {}, placed(self.net, rules))
        return _host(None).build(backend, onnx.sealed(), folder)

    def measure(self, backend: str = "onnxruntime", *, threads: int | None = None, seconds: float = 2.0) -> Measured:
        """Build it for this host's CPU in a folder of its own, score it on the test cases, and time it."""
        with TemporaryDirectory() as place:
            artifact = self.export(Path(place) / "net.onnx", backend)
            target = _host(threads)
            image_1CHW = next(iter(self.task.probes(most=1)))
            with target.open(backend).open(artifact) as infer:
                scores = self.task.measure(infer) if self.task.data.cases["test"] else None
                clocks = {"net": partial(target.time, infer, [image_1CHW])}
                samples = in_turns(clocks, Timing(seconds=seconds, warm_up=seconds / 4), self.task.seed)
            return Measured(
                backend=backend, scores=scores, latency_ms=samples["net"].as_dict(), size_mb=artifact.size_mb
            )

    def predict(self, images_NCHW: np.ndarray) -> MaskArray:
        """The class of each pixel (NHW uint8), computed in torch, of images scaled as those that were wrapped."""
        images_NCHW, shape = np.asarray(images_NCHW), (self.task.data.channels, *self.task.data.fit.size)
        if images_NCHW.shape[1:] != shape or not len(images_NCHW):
            raise DataError(f"predict takes images as those that were wrapped, Nx{by(shape)}, not {images_NCHW.shape}")
        normalized = [self.task.data.normalization(np.asarray(image, np.float32)) for image in images_NCHW]
        with torch.inference_mode():
            logits = torch.cat([self.net(torch.from_numpy(each)[None]) for each in normalized])
        chosen = logits[:, 0] > 0 if logits.shape[1] == 1 else logits.argmax(1)
        return np.asarray(chosen.numpy(), np.uint8)


def wrap(
    net: nn.Module,
    images: np.ndarray,
    *,
    classes: Sequence[str],
    train: Pairs | None = None,
    val: Pairs | None = None,
    test: Pairs | None = None,
    mean: float | Sequence[float] = 0.0,
    std: float | Sequence[float] = 1.0,
    seed: int = 0,
) -> Wrapped:
    """A trained network, and arrays to compress and to measure it with.

    Args:
        net: any module that answers images with logits or probabilities; it is copied, never changed.
        images: typical ones (NCHW, before normalization, of the size that it will run at): ranges of integers are taken
            from them. No test cases.
        classes: names, background first; of a single sigmoid logit two.
        train: images and masks (NHW, class indices) for passes that train; `val` for those that choose by a score.
        test: cases for `measure` alone, which no pass sees.
        mean: what images are normalized by: (x - mean) / std, one number, or one a channel; `std` likewise.

    Raises:
        DataError: if arrays do not fit each other, or the network does not take them.
        RecipeError: if the network's answer cannot be read.
    """
    names = _checked(net, classes)
    blank = np.zeros((len(images), *np.shape(images)[2:]), np.uint8)
    roles: dict[Role, Pairs | None] = {
        "calibration": (np.asarray(images), blank),
        "train": train,
        "val": val,
        "test": test,
    }
    given = {role: (np.asarray(pairs[0]), np.asarray(pairs[1])) for role, pairs in roles.items() if pairs is not None}
    data = dataset_of(given, names, _normalization(mean, std))
    probe_1CHW = torch.from_numpy(next(data.images(data.cases["calibration"][:1])))
    description = {
        "wrapped": {
            "number": hold(net),
            "classes": _logits_of(net, probe_1CHW, len(classes)),
            "in_channels": data.channels,
            "dims": len(data.fit.size),
            "input": tuple(data.fit.size),
        }
    }
    made = build_net(description).eval()
    return Wrapped(net=made, task=Task(data=data, net=made, seed=seed), held=net)


def _checked(net: nn.Module, classes: Sequence[str]) -> tuple[str, ...]:
    """The names of the classes of what is a network."""
    if not isinstance(net, nn.Module):
        raise DataError(f"wrap takes a network (an nn.Module with its weights), not a {type(net).__name__}")
    if isinstance(classes, str) or len(classes) < 2:
        raise DataError("classes: give at least two names, background first, as a list")
    return class_names(tuple(classes), len(classes), "classes")


def _logits_of(net: nn.Module, probe_1CHW: torch.Tensor, classes: int) -> int:
    """How many channels the answer has: of two classes one, where nothing that it answers has two."""
    answer = _first_answer(net, probe_1CHW)
    if classes > 2:
        return classes
    return (
        2 if any(2 in (each.shape[1], each.shape[-1]) for each in tensors_in(answer).values() if each.ndim > 2) else 1
    )


def _first_answer(net: nn.Module, probe_1CHW: torch.Tensor) -> Any:
    """What a copy of the network says of one image: asking changes what is asked (its mode, its statistics)."""
    answer = answer_of(copy.deepcopy(net), probe_1CHW)
    if isinstance(answer, Exception):
        raise DataError(
            f"the network does not take images of {by(tuple(probe_1CHW.shape[1:]))} ({reason(answer)}); give images as "
            "NCHW: channels come before height and width"
        )
    return answer


def _normalization(mean: float | Sequence[float], std: float | Sequence[float]) -> Normalization:
    try:
        return Normalization(mean=_tuple(mean), std=_tuple(std))
    except (TypeError, ValueError):
        raise DataError(
            f"mean {mean!r} and std {std!r} are no normalization: give a number each, or one for each channel, std "
            "above 0"
        ) from None


def _tuple(numbers: float | Sequence[float]) -> tuple[float, ...]:
    return (float(numbers),) if isinstance(numbers, int | float) else tuple(map(float, numbers))


def _backend(word: str) -> type[Backend]:
    if word not in words("export.backends"):
        raise DataError(f"there is no backend '{word}'; there are {', '.join(words('export.backends'))}")
    return find_backend(word)


def _host(threads: int | None) -> LocalTarget:
    from export.host import usable_cpus

    return LocalTarget(device=find_device("cpu"), threads=threads or usable_cpus(), load=load_net)
