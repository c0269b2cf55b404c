"""Structural pruning: whole channels go, and an ordinary, smaller network stays.

Which channels go together is editing/pruning/dependency's matter; how much each is worth is torch-pruning's
(Fang et al. 2023, DepGraph, arXiv 2301.12900), whose criteria are weighed over every tensor that a channel is
in, or editing/pruning/interpolative.py's. torch-pruning's dependency graph is not used: it freezes what a one-channel
gate multiplies, fails on norms without weights, and moves channels across a shuffle without saying so
(benchmarks/pruning.md).
"""

from __future__ import annotations

import dataclasses
import difflib
import math
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

import numpy as np
import torch
from pydantic import ConfigDict, Field, ValidationError, model_validator
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from compress.data.dataset.cases import Role
from compress.editing.activations import Images, agreement, calibration_cases, images
from compress.editing.layer_replacement import copied
from compress.editing.least_squares import refit_pruned
from compress.editing.pruning.dependency.groups import Bundle, Flow, Group
from compress.editing.pruning.dependency.trace import TensorAxis
from compress.editing.pruning.interpolative import what_each_adds
from compress.editing.pruning.removal import (
    Cut,
    Trial,
    groups,
    keeping,
    kept,
    positions,
    prunable,
    refusals,
    tensor_of,
    trial_of,
    without,
)
from compress.errors import PassError
from compress.measure.latency import Timing, interleaved
from compress.progress import bar
from compress.storage.backends import backend_for
from compress.storage.description import Description, described
from compress.storage.weights import save_net
from export.artifact import Artifact, Port
from export.device import usable_cpus
from export.modules import copy_of
from export.quantization.placement import matches
from export.registry import find_device, words
from export.to_onnx import to_onnx

if TYPE_CHECKING:
    from compress.task import Task

__all__ = ["Group", "Prune", "groups"]

Share = Annotated[float, Field(gt=0, lt=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]

TRAIN_CASES = 64
"""Train cases that the criteria which need gradients look at."""
CALIBRATION_CASES = 16
"""Calibration cases that layers are fitted to, and channels compared on."""
ROUNDED = 0.05
"""A share of channels that lies further from the ratio asked for is told."""
NEAR = 0.1
"""How far from the target a latency may land."""
_SCALES = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm)


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class Prune:
    """Remove the least important channels: a share of them, or as many as a target asks for."""

    ratio: Share | None = None
    """Share of the channels that goes; half of the channels is about a quarter of the MACs."""
    macs: Positive | None = None
    """Instead: multiply-accumulates of one image that stay at most; up to 1 it is a share of what there was."""
    params: Positive | None = None
    """Instead: parameters that stay at most; up to 1 it is a share of what there was."""
    latency_ms: Positive | None = None
    """Instead: the time of one image (median, warm) that the artifact of `backend` on `device` should
    take; met within 10 %."""
    device: str = "cpu"
    """Where `latency_ms` is measured."""
    backend: str = "onnxruntime"
    threads: Annotated[int, Field(ge=1)] | None = None
    """CPU threads under which `latency_ms` is measured; None takes every CPU this process may use."""
    by: Literal["l1", "l2", "bn", "taylor", "fpgm", "lamp", "hessian", "interpolative", "random"] = "l2"
    """What makes a channel important: the norm of its weights (Li et al. 2017, arXiv 1608.08710); the scale
    of its norm (Liu et al. 2017, arXiv 1708.06519); the loss it changes, to first order (Molchanov et al.
    2019, arXiv 1906.10771) or to second (LeCun et al. 1990), on train cases; its distance from the other
    filters (He et al. 2019, arXiv 1811.00250); its norm against those of the larger ones (Lee et al. 2021,
    arXiv 2010.07611); what it adds to the channels before it, on calibration cases (Chee et al. 2022,
    arXiv 2108.00065; with `refit` it is their method); chance, to compare with."""
    scope: Literal["local", "global"] = "local"
    """local takes the same share from every layer; global the least important channels of them all."""
    multiple: Annotated[int, Field(ge=1)] | None = None
    """Widths that are cut are rounded to multiples of this. None: to multiples of 16, and to 8. CPUs with AVX-512
    work in blocks of 16 channels, those with AVX2 of 8: 24 channels take the time of 32, and 40 more than 48
    (benchmarks/pruning.md); tensor cores take 8-bit integers in sixteens, 16-bit floats in eights."""
    most: Share = 0.9
    """The largest share of any one layer's channels that may go."""
    rounds: Annotated[int, Field(ge=1, le=100)] = 1
    """In so many rounds of equal size, importance measured anew in each."""
    recover: Mapping[str, Any] | None = None
    """Options of `distill`, done between two rounds: `{epochs: 1}`."""
    keep: tuple[str, ...] = ()
    """Layers that keep all their output channels: names (`head`), modules (`decoder.3`) or patterns."""
    refit: bool = False
    """Whether the layers behind the cut ones are fitted to what they answered before, on calibration cases."""

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        given = [name for name in ("ratio", "macs", "params", "latency_ms") if getattr(self, name) is not None]
        if len(given) != 1:
            said = f"{' and '.join(given)} are given" if given else "nothing is given"
            raise ValueError(f"{said}; give one of ratio, macs, params or latency_ms")
        if self.ratio is not None and self.scope == "local" and self.ratio > self.most:
            raise ValueError(f"ratio {self.ratio} is more than most, {self.most}, allows; lower ratio or raise most")
        if self.device not in words("export.devices"):
            raise ValueError(f"there is no device '{self.device}'; there are {', '.join(words('export.devices'))}")
        backends = find_device(self.device).backends
        if self.latency_ms is not None and self.backend not in backends:
            raise ValueError(f"backend '{self.backend}' does not run on {self.device}; {', '.join(backends)} do")
        if self.recover is not None and self.rounds == 1:
            raise ValueError("recover is done between rounds: raise rounds, or give a distill step after prune")
        self._recovery()
        return self

    def _recovery(self) -> Any:
        """The nested distill pass; None if there is none."""
        if self.recover is None:
            return None
        from compress.passes.distill import Distill

        try:
            return Distill(**self.recover)
        except ValidationError as error:
            fault = error.errors()[0]
            where = "".join(f".{part}" for part in fault["loc"])
            raise ValueError(f"recover{where}: {fault['msg'].removeprefix('Value error, ')}") from None

    @property
    def uses(self) -> tuple[Role, ...]:
        found: list[Role] = ["calibration"] if self.refit or self.by == "interpolative" else []
        if self.recover is not None:
            return (*found, "train", "val")
        return (*found, "train") if self.by in ("taylor", "hessian") else tuple(found)

    def __call__(self, net: nn.Module, task: Task) -> nn.Module:
        """A network with fewer channels; its input and output are as wide as before.

        Raises:
            PassError: if nothing can be removed, a target cannot be met, or `keep` names no layer.
        """
        return described(self.smaller(net, task))

    def smaller(self, net: nn.Module, task: Task) -> nn.Module:
        """The same, not yet described: for a network that was not made from a description."""
        changed = copied(net, "prune")
        if self.latency_ms is not None:
            find_device(self.device).check_here()
        before = trial_of(changed, task.example).size()
        began: dict[frozenset[TensorAxis], int] = {}
        share = self.ratio or 0.0
        for number in range(1, self.rounds + 1):
            look = _Look.at(changed, self, task, began, before)
            if self.ratio is None and number in (1, self.rounds):
                share = look.share()
            look, cuts = look.settled(share, number)
            whole = copy_of(changed) if self.refit else None
            changed = without(changed, cuts)
            if whole is not None and cuts:
                self._refit(changed, whole, cuts, task)
            if number < self.rounds:
                changed = self._recovered(changed, task, number)
        look.tell(cuts)
        return changed

    def _refit(self, net: nn.Module, whole: nn.Module, cuts: Sequence[Cut], task: Task) -> None:
        """Fit what is left of each layer to what it answered before."""
        cases = calibration_cases(task, None, "prune", "; or set refit: false and train afterwards")[:CALIBRATION_CASES]
        inputs: Images = partial(images, task, cases)
        fitted, others = refit_pruned(net, whole, positions(cuts), inputs, len(cases))
        same = agreement(net, whole, inputs())
        task.note(
            f"{len(fitted)} layers fitted to {len(cases)} calibration cases, where {same:.1%} of the foreground keeps "
            "its class"
        )
        for line in others.lines():
            task.note(line)

    def _recovered(self, net: nn.Module, task: Task, number: int) -> nn.Module:
        recovery = self._recovery()
        if recovery is None:
            return net
        folder = None if task.folder is None else task.folder / f"round-{number}"
        recovered: nn.Module = recovery(described(net), dataclasses.replace(task, folder=folder))
        return recovered.eval()

    def fits(self, width: int) -> bool:
        """Whether a layer may be cut to so many channels."""
        return width % self.multiple == 0 if self.multiple else width % 16 == 0 or width == 8

    @property
    def widths(self) -> str:
        """The widths that fit, in words."""
        return f"multiples of {self.multiple}" if self.multiple else "multiples of 16, and 8"


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Look:
    """A look at the network: its groups, what each channel of them is worth, and what could be cut."""

    options: Prune
    net: nn.Module
    task: Task
    bundles: list[Bundle]
    flow: Flow
    scores: list[Tensor]
    """For each bundle, the importance of each unit; empty where the bundle is not to be pruned."""
    began: Mapping[frozenset[TensorAxis], int]
    """Each prunable bundle's channels before the first round."""
    trial: Trial
    before: tuple[int, int]
    """Parameters and MACs before the first round."""

    @staticmethod
    def at(
        net: nn.Module, options: Prune, task: Task, began: dict[frozenset[TensorAxis], int], before: tuple[int, int]
    ) -> _Look:
        bundles, flow = prunable(net, task.example)
        bundles = _keeping(bundles, options.keep)
        found = _scores(options, net, task, bundles)
        for place, (bundle, score) in enumerate(zip(bundles, found, strict=True)):
            if bundle.group.prunable and score is None:
                bundles[place] = kept(bundle, f"by: {options.by} has nothing to go by there")
            elif bundle.group.prunable:
                began.setdefault(bundle.key, bundle.group.channels)
        scores = [torch.empty(0) if score is None else score for score in found]
        return _Look(
            options=options,
            net=net,
            task=task,
            bundles=bundles,
            flow=flow,
            scores=scores,
            began=began,
            trial=trial_of(net, task.example),
            before=before,
        )

    def settled(self, share: float, number: int) -> tuple[_Look, list[Cut]]:
        """The cuts of this round, all of them tried together; what refuses is kept, and the rest settled again."""
        cuts = self.cuts(share * number / self.options.rounds)
        refused = refusals(self.net, self.task.example, self.flow, cuts)
        if refused:
            bundles = keeping(self.bundles, refused)
            again = dataclasses.replace(self, bundles=bundles)
            ends = number in (1, self.options.rounds)
            return again.settled(again.share() if self.options.ratio is None and ends else share, number)
        if number == self.options.rounds and not cuts and not self._done():
            way_out = "" if self.options.multiple == 1 else "; a lower multiple leaves more widths to choose from"
            kept = "; ".join(self._kept_whole(cuts)) or "it has no layers"
            raise PassError(f"prune: nothing was removed: {kept}{way_out}")
        return self, cuts

    def cuts(self, share: float) -> list[Cut]:
        """What goes if this share of the channels that there were before the first round is to go."""
        wanted = self._wanted_globally(share) if self.options.scope == "global" else self._wanted_locally(share)
        found = (self._cut(place, width) for place, width in wanted.items())
        return [cut for cut in found if cut is not None]

    def _wanted_locally(self, share: float) -> dict[int, float]:
        return {place: self.began[self.bundles[place].key] * (1 - share) for place in self._open()}

    def _wanted_globally(self, share: float) -> dict[int, float]:
        """The width of each bundle once the least important units of all are gone."""
        widths: dict[int, float] = {place: self.bundles[place].group.channels for place in self._open()}
        least = {place: self._least(place) for place in widths}
        ranked = sorted(
            (score, place, len(self.bundles[place].units[unit][self.bundles[place].made_in]))
            for place in widths
            for unit, score in enumerate(self.scores[place].tolist())
        )
        stay = sum(self.began[self.bundles[place].key] for place in widths) * (1 - share)
        total = sum(widths.values())
        for _, place, size in ranked:
            if total - size < stay:
                break
            if widths[place] - size >= least[place]:
                widths[place] -= size
                total -= size
        return widths

    def _open(self) -> list[int]:
        return [place for place, bundle in enumerate(self.bundles) if bundle.group.prunable]

    def _least(self, place: int) -> int:
        return max(1, math.ceil(self.began[self.bundles[place].key] * (1 - self.options.most) - 1e-9))

    def _cut(self, place: int, wanted: float) -> Cut | None:
        """The least important units, so many that the width is the multiple nearest to the one wanted."""
        bundle = self.bundles[place]
        order = self.scores[place].argsort(stable=True).tolist()
        width, goes = bundle.group.channels, 0
        distance = abs(width - wanted)
        for count, unit in enumerate(order[:-1], 1):
            width -= len(bundle.units[unit][bundle.made_in])
            if width < self._least(place):
                break
            if self.options.fits(width) and abs(width - wanted) < distance:
                goes, distance = count, abs(width - wanted)
        return Cut(bundle=bundle, units=tuple(sorted(order[:goes]))) if goes else None

    # How much must go for a target.

    def share(self) -> float:
        """The share of channels with which the target is met.

        Raises:
            PassError: if it is met already, or cannot be met.
        """
        options = self.options
        if options.latency_ms is not None:
            return self._share_for_latency(options.latency_ms)
        which, target, unit = (0, options.params, "parameters") if options.params else (1, options.macs, "MACs")
        assert target is not None
        target = target * self.before[which] if target <= 1 else target
        here = self.trial.size()[which]
        if here <= target:
            return self._already(f"{here:,} {unit}, at most {target:,.0f} were asked for")
        if (least := self.trial.size(self.cuts(options.most))[which]) > target:
            raise PassError(
                f"prune: {target:,.0f} {unit} cannot be reached: with as much gone as may go (most: {options.most}; "
                f"widths: {options.widths}) there are {least:,}; {'; '.join(self._frozen())}"
            )
        low, high = 0.0, options.most
        for _ in range(12):
            middle = (low + high) / 2
            over = self.trial.size(self.cuts(middle))[which] > target
            low, high = (middle, high) if over else (low, middle)
        return high

    def _already(self, what: str) -> float:
        """The target is met: by the rounds before this one, or there was nothing to do."""
        if not self._done():
            raise PassError(f"prune: nothing needs to be removed: the network has {what}")
        here = sum(self.bundles[place].group.channels for place in self._open())
        return 1 - here / sum(self.began[self.bundles[place].key] for place in self._open())

    def _done(self) -> bool:
        """Whether an earlier round has removed something."""
        return any(one.group.channels < self.began.get(one.key, 0) for one in self.bundles)

    def _share_for_latency(self, target: float) -> float:
        times: dict[tuple[int, ...], float] = {}

        def at(share: float) -> float:
            cuts = self.cuts(share)
            widths = tuple(self._widths(cuts))
            if widths not in times:
                times[widths] = self._latency_ms(cuts)
            return times[widths]

        where = f"on {self.options.backend}, {self.options.device}"
        if (whole := at(0.0)) <= target * (1 + NEAR):
            return self._already(f"a latency of {whole:.2f} ms {where}, and {target:g} ms were asked for")
        if (fastest := at(self.options.most)) > target * (1 + NEAR):
            raise PassError(
                f"prune: {target:g} ms {where} cannot be reached: the fastest, with as much gone as may go "
                f"(most: {self.options.most}; widths: {self.options.widths}), takes {fastest:.2f} ms"
            )
        found = {0.0: whole, self.options.most: fastest}
        low, high = 0.0, self.options.most
        for _ in range(8):
            middle = (low + high) / 2
            found[middle] = at(middle)
            low, high = (middle, high) if found[middle] > target else (low, middle)
            if abs(found[middle] - target) < target * NEAR / 4:
                break
        share = min(found, key=lambda share: abs(found[share] - target))
        if abs(found[share] - target) > target * NEAR:
            slower, faster = (sorted(t for t in times.values() if (t > target) is above) for above in (True, False))
            raise PassError(
                f"prune: no width gives {target:g} ms {where}: the nearest are {faster[-1]:.2f} ms and {slower[0]:.2f} "
                f"ms (the fastest is {min(times.values()):.2f} ms); ask for one of them, or set a lower "
                f"multiple (widths: {self.options.widths})"
            )
        self.task.note(f"{found[share]:.2f} ms {where} before any recovery; {whole:.2f} ms as it came")
        return share

    def _latency_ms(self, cuts: Sequence[Cut]) -> float:
        """The median time of the artifact of the network that is cut so, batch 1, warm."""
        net = without(copy_of(self.net), cuts)
        device, threads = find_device(self.options.device), self.options.threads or usable_cpus()
        backend = backend_for(self.options.backend, device, threads)
        image = np.random.default_rng(self.task.seed).standard_normal(self.task.example.shape, dtype=np.float32)
        with TemporaryDirectory() as scratch:
            folder = Path(scratch)
            if self.options.backend == "torch":
                artifact = _as_weights(net, self.task.example, folder / "net.safetensors")
            else:
                artifact = backend.build(to_onnx(net, self.task.example, folder / "net.onnx"), folder)
            with backend.open(artifact) as infer:
                timing = Timing(samples=100, seconds=4, warm_up=1)
                return interleaved({"net": lambda _: infer(image)}, timing, self.task.seed)["net"].as_dict()["p50"]

    # What is told.

    def tell(self, cuts: Sequence[Cut]) -> None:
        """Note what became of the network, and every layer that stayed whole with its reason."""
        before, after = self.before, self.trial.size(cuts)
        parts = (f"{b:,} -> {a:,} {what}" for b, a, what in zip(before, after, ("parameters", "MACs"), strict=True))
        self.task.note(
            f"{', '.join(parts)} ({before[0] / after[0]:.2f}x and {before[1] / max(1, after[1]):.2f}x fewer)"
        )
        widths = self._widths(cuts)
        if narrow := [place for place in self._open() if widths[place] < self.began[self.bundles[place].key]]:
            place = min(narrow, key=lambda place: widths[place])
            layers, began = self.bundles[place].group.layers, self.began[self.bundles[place].key]
            self.task.note(f"narrowest layer: {layers[0]}, {widths[place]} of {began} channels")
        self._about_rounding(widths)
        for line in self._kept_whole(cuts):
            self.task.note(line)

    def _about_rounding(self, widths: Sequence[int]) -> None:
        """What became of the ratio, where widths that fit are another share of the channels."""
        began = sum(self.began[self.bundles[place].key] for place in self._open())
        gone = began - sum(widths[place] for place in self._open())
        if self.options.ratio is not None and began and abs(gone / began - self.options.ratio) > ROUNDED:
            self.task.note(
                f"ratio {self.options.ratio:g} became {gone / began:.2f}: {gone} of {began} channels go, since widths "
                f"are rounded to {self.options.widths}; multiple: 1 takes the ratio as it is"
            )

    def _widths(self, cuts: Sequence[Cut]) -> list[int]:
        gone = {
            cut.bundle.key: sum(len(cut.bundle.units[unit][cut.bundle.made_in]) for unit in cut.units) for cut in cuts
        }
        return [one.group.channels - (gone.get(one.key, 0) if one.group.prunable else 0) for one in self.bundles]

    def _kept_whole(self, cuts: Sequence[Cut]) -> list[str]:
        """One sentence for each reason for which layers stayed as they were."""
        widths = self._widths(cuts)
        stayed = [place for place in self._open() if widths[place] == self.began[self.bundles[place].key]]
        layers = [layer for place in stayed for layer in self.bundles[place].group.layers]
        reason = f"none of the narrower widths ({self.options.widths}) is nearer to what was asked for"
        return [*self._frozen(), *([f"kept {_listed(layers)}: {reason}"] if layers else [])]

    def _frozen(self) -> list[str]:
        """The same, for the layers of which nothing can go."""
        layers: dict[str, list[str]] = {}
        for bundle in self.bundles:
            if bundle.group.reason is not None:
                layers.setdefault(bundle.group.reason, []).extend(bundle.group.layers)
        return [f"kept {_listed(names)}: {reason}" for reason, names in layers.items()]


def _listed(names: Sequence[str], most: int = 6) -> str:
    names = list(dict.fromkeys(names))
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _as_weights(net: nn.Module, example: Tensor, path: Path) -> Artifact:
    """The network as the torch backend opens it."""
    described(net)
    save_net(net, Description(network=net.description), path)  # type: ignore[arg-type]
    image = Port(name="image", shape=tuple(example.shape), dtype="float")
    logits = Port(name="logits", shape=(1, -1, -1, -1), dtype="float")
    return Artifact(path=path, format="torch", input=image, output=logits)


def _keeping(bundles: Sequence[Bundle], keep: Sequence[str]) -> list[Bundle]:
    layers = [layer for bundle in bundles for layer in bundle.group.layers]
    for pattern in keep:
        if not any(matches(layer, pattern) for layer in layers):
            near = difflib.get_close_matches(pattern, layers, n=1, cutoff=0.3)
            hint = f"did you mean '{near[0]}'?" if near else f"there are {', '.join(layers[:8])}, ..."
            raise PassError(f"prune: keep '{pattern}' names no layer; {hint}")
    return [
        kept(one, "the recipe keeps it")
        if one.group.prunable and any(matches(layer, pattern) for layer in one.group.layers for pattern in keep)
        else one
        for one in bundles
    ]


# What a channel is worth.


def _scores(options: Prune, net: nn.Module, task: Task, bundles: Sequence[Bundle]) -> list[Tensor | None]:
    """The importance of every unit of every prunable bundle; None where the criterion has nothing to go by."""
    if options.by == "interpolative":
        cases = calibration_cases(task, None, "prune: by: interpolative", "; or use by: l2")[:CALIBRATION_CASES]
        added = what_each_adds(net, bundles, images(task, cases))
        pairs = zip(added, bundles, strict=True)
        return [None if score is None else _evened(score, options.by, bundle) for score, bundle in pairs]
    scorer = _scorer(options.by)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(task.seed)
        if options.by not in ("taylor", "hessian"):
            return [_score(scorer, options.by, net, bundle, {}) for bundle in bundles]
    totals: list[Tensor | None] = [None] * len(bundles)
    for gradients in _gradients(net, task, squared=options.by == "hessian"):
        for place, bundle in enumerate(bundles):
            score = _score(scorer, options.by, net, bundle, gradients)
            total = totals[place]
            totals[place] = score if total is None or score is None else total + score
    return totals


def _scorer(by: str) -> Any:
    """torch-pruning's criterion; scores of one group are set against those of others here, not there."""
    from torch_pruning import importance

    if by in ("l1", "l2"):
        return importance.GroupMagnitudeImportance(p=int(by[1]), normalizer=None)
    if by == "lamp":
        return importance.LAMPImportance()
    kinds = {
        "bn": importance.BNScaleImportance,
        "fpgm": importance.FPGMImportance,
        "taylor": partial(importance.GroupTaylorImportance, multivariable=True),
        "hessian": importance.GroupHessianImportance,
    }
    return importance.RandomImportance() if by == "random" else kinds[by](normalizer=None)


def _score(scorer: Any, by: str, net: nn.Module, bundle: Bundle, gradients: Mapping[int, Tensor]) -> Tensor | None:
    if not bundle.group.prunable:
        return None
    found = scorer(_items(net, bundle, gradients))
    return None if found is None else _evened(found[: len(bundle.units)].float(), by, bundle)


def _evened(score: Tensor, by: str, bundle: Bundle) -> Tensor:
    """Scores that can be set against those of other layers."""
    if not torch.isfinite(score).all():
        raise PassError(f"prune: by: {by} gives {bundle.group.layers[0]} scores that are not finite; check the weights")
    # Sums of weights say little across layers of different size; losses and LAMP's shares do.
    return score / score.mean().clamp_min(1e-12) if by in ("l1", "l2", "bn", "fpgm", "interpolative") else score


def _items(net: nn.Module, bundle: Bundle, gradients: Mapping[int, Tensor]) -> list[Any]:
    """The bundle as torch-pruning weighs a group: every tensor it is in, as a layer with one row for each position.

    Each tensor is shown as a linear layer's weight (a norm's scale as a batch norm's), so that its criteria
    see grouped and transposed convolutions, and parameters without a layer, alike.
    """
    from torch_pruning._helpers import GroupItem
    from torch_pruning.dependency import Dependency, Node
    from torch_pruning.pruner import function

    owners = dict(net.named_modules())
    items = []
    for name, axis in bundle.units[0]:
        tensor = tensor_of(net, name)
        owner, _, last = name.rpartition(".")
        if tensor.dim() == 1 and not (isinstance(owners[owner], _SCALES) and last == "weight"):
            continue
        rows = [(index, number) for number, unit in enumerate(bundle.units) for index in unit[name, axis]]
        indices = torch.tensor([index for index, _ in rows])
        layer, act = nn.Module(), function.prune_linear_out_channels
        if tensor.dim() > 1:
            layer = nn.Linear(1, 1, device="meta")
        else:
            layer, act = nn.BatchNorm1d(1, device="meta"), function.prune_batchnorm_out_channels
        layer.weight = nn.Parameter(_rows(tensor.detach(), axis, indices))
        if gradients:
            gradient = gradients.get(id(tensor))
            layer.weight.grad = torch.zeros_like(layer.weight) if gradient is None else _rows(gradient, axis, indices)
        node = Node(layer, None, name)
        item = GroupItem(Dependency(act, act, node, node), list(range(len(rows))))
        item.root_idxs = [number for _, number in rows]
        items.append(item)
    return items


def _rows(tensor: Tensor, axis: int, indices: Tensor) -> Tensor:
    rows = tensor.movedim(axis, 0)[indices.to(tensor.device)]
    return rows.flatten(1) if rows.dim() > 1 else rows


def _gradients(net: nn.Module, task: Task, *, squared: bool) -> Iterator[dict[int, Tensor]]:
    """The gradient of the training loss on each batch of train cases, or the mean square of that on each case."""
    from compress.train.losses import DiceCrossEntropy
    from compress.train.objective import Supervised

    cases = task.data.cases["train"]
    if not cases:
        raise PassError("prune: by: taylor and hessian look at train cases, and there are none; use by: l2")
    chosen = sorted(np.random.default_rng(task.seed).permutation(len(cases))[:TRAIN_CASES].tolist())
    loss = Supervised(DiceCrossEntropy(task.data.ignore))
    batch = 1 if squared else task.data.batch
    squares: dict[int, Tensor] = {}
    for first in bar(range(0, len(chosen), batch), "weighing channels", math.ceil(len(chosen) / batch)):
        picked = [cases[place] for place in chosen[first : first + batch]]
        image_BCHW = torch.from_numpy(np.stack([task.data.image(case) for case in picked]))
        mask_BHW = torch.from_numpy(np.stack([task.data.fitted_mask(case) for case in picked])).long()
        parameters = [parameter.requires_grad_(True) for parameter in net.parameters()]
        with torch.enable_grad():
            value = loss.of(net(image_BCHW), mask_BHW)
            found = torch.autograd.grad(value, parameters, allow_unused=True)
        known = {id(p): g for p, g in zip(parameters, found, strict=True) if g is not None}
        if not squared:
            yield known
        for key, gradient in known.items():
            squares[key] = squares.get(key, torch.zeros(())) + gradient.square() / len(chosen)
    if squared:
        yield squares
