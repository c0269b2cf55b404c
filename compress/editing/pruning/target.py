"""How much must go for a target: so few parameters or MACs, or so short a time of the built artifact."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import numpy as np
from torch import Tensor, nn

from compress.editing.budget import NEAR, Runtime
from compress.editing.pruning.plan import Plan
from compress.editing.pruning.remarks import frozen
from compress.editing.pruning.removal import without
from compress.editing.pruning.trial import Refused
from compress.editing.timed_form import timed_form
from compress.errors import PassError
from compress.measure.latency import Timing, in_turns
from compress.storage.description import Description, described
from compress.storage.weights import save_net
from export.artifact import Artifact, Port
from export.registry import find_backend
from export.to_onnx import to_onnx


def share_for_size(plan: Plan, unit: Literal["parameters", "MACs"], target: float) -> float:
    """The share of channels that must go so that at most `target` parameters, or MACs of one image, stay.

    Raises:
        Refused: if the network does not run with cuts that were to be measured.
        PassError: if it is met already, or cannot be met.
    """
    which, most = ("parameters", "MACs").index(unit), plan.choice.widths.most

    def left(share: float) -> int:
        return plan.trial.size(plan.cuts(share))[which]

    here = plan.trial.size()[which]
    if here <= target:
        return _already(plan, f"{here:,} {unit}, at most {target:,.0f} were asked for")
    if (least := left(most)) > target:
        raise PassError(
            f"prune: {target:,.0f} {unit} cannot be reached: with as much gone as may go (most: {most}; "
            f"widths: {plan.choice.widths}) there are {least:,}; {'; '.join(frozen(plan))}"
        )
    low, high = 0.0, most
    for _ in range(12):
        middle = (low + high) / 2
        low, high = (middle, high) if left(middle) > target else (low, middle)
    return high


def _already(plan: Plan, what: str) -> float:
    """The target is met: by the rounds before this one, or there was nothing to do."""
    if not plan.done:
        raise PassError(f"prune: nothing needs to be removed: the network has {what}")
    return plan.gone


def share_for_latency(
    plan: Plan, target: float, runtime: Runtime, example: Tensor, seed: int
) -> tuple[float, str | None]:
    """The share of channels that must go so that the artifact takes `target` ms, and a sentence about it.

    Raises:
        Refused: if the network does not run with cuts that were to be measured.
        PassError: if it is met already, or cannot be met within 10 %.
    """
    most, times = plan.choice.widths.most, dict[tuple[int, ...], float]()

    def at(share: float) -> float:
        cuts = plan.cuts(share)
        widths = tuple(plan.widths_after(cuts))
        if widths not in times:
            if plan.trial.fault(cuts) is not None:
                raise Refused(cuts)
            times[widths] = latency_ms(without(plan.net, cuts), example, runtime, seed)
        return times[widths]

    if (whole := at(0.0)) <= target * (1 + NEAR):
        met = f"a latency of {whole:.2f} ms {runtime}, and {target:.4g} ms were asked for"
        return _already(plan, met), None
    if (fastest := at(most)) > target * (1 + NEAR):
        raise PassError(
            f"prune: {target:.4g} ms {runtime} cannot be reached: the fastest, with as much gone as may go "
            f"(most: {most}; widths: {plan.choice.widths}), takes {fastest:.2f} ms"
        )
    found = {0.0: whole, most: fastest} | _bisected(at, target, most)
    share = min(found, key=lambda share: abs(found[share] - target))
    if abs(found[share] - target) > target * NEAR:
        slower, faster = (sorted(t for t in times.values() if (t > target) is above) for above in (True, False))
        raise PassError(
            f"prune: no width gives {target:.4g} ms {runtime}: the nearest are {faster[-1]:.2f} ms and {slower[0]:.2f} "
            f"ms (the fastest is {min(times.values()):.2f} ms); ask for one of them, or set a lower "
            f"multiple (widths: {plan.choice.widths})"
        )
    return share, f"{found[share]:.2f} ms {runtime} before any recovery; {whole:.2f} ms as it came"


def _bisected(at: Callable[[float], float], target: float, most: float) -> dict[float, float]:
    """Times in ms by the share that goes, ever nearer to the target."""
    found = dict[float, float]()
    low, high = 0.0, most
    for _ in range(8):
        middle = (low + high) / 2
        found[middle] = at(middle)
        low, high = (middle, high) if found[middle] > target else (low, middle)
        if abs(found[middle] - target) < target * NEAR / 4:
            break
    return found


def share_of_latency(net: nn.Module, share: float, runtime: Runtime, example: Tensor, seed: int) -> float:
    """The milliseconds that are a share of what the artifact of a network takes."""
    return share * latency_ms(net, example, runtime, seed)


def latency_ms(net: nn.Module, example: Tensor, runtime: Runtime, seed: int) -> float:
    """The median time of the artifact of a network, batch 1, warm."""
    target, word = runtime.target(), runtime.backend
    image = np.random.default_rng(seed).standard_normal(example.shape, dtype=np.float32)
    with TemporaryDirectory() as scratch:
        folder = Path(scratch)
        if find_backend(word).runs_modules:
            artifact = _as_weights(net, example, folder / "net.safetensors")
        else:
            form = timed_form(net, example, runtime)
            artifact = target.build(word, to_onnx(form, example, folder / "net.onnx"), folder)
        with target.open(word).open(artifact) as infer:
            timing = Timing(samples=100, seconds=4, warm_up=1)
            clocks = {"net": partial(target.time, infer, [image])}
            return in_turns(clocks, timing, seed)["net"].as_dict()["p50"]


def _as_weights(net: nn.Module, example: Tensor, path: Path) -> Artifact:
    """The network as the torch backend opens it."""
    described(net)
    save_net(net, Description(network=net.description), path)  # type: ignore[arg-type]
    image = Port(name="image", shape=tuple(example.shape), dtype="float")
    logits = Port(name="logits", shape=(1, -1, -1, -1), dtype="float")
    return Artifact(path=path, format="torch", input=image, output=logits)
