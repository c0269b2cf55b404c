"""A deployment: a runtime on a target, which each step's network is built for and measured on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from compress.errors import NotHere, SurroundingsError
from compress.storage.weights import load_net
from export.artifact import Artifact
from export.backend import Backend
from export.device import Device
from export.quantization.rules import Rules
from export.registry import find_backend
from export.target import Peak, Target, target_of


@dataclass(frozen=True, kw_only=True)
class Deployment:
    """A runtime on a target."""

    backend: str
    """The runtime's word."""
    target: Target

    @property
    def device(self) -> Device:
        return self.target.device

    @property
    def title(self) -> str:
        """What it is called in messages: the runtime, and where it is not on this host's CPU the device too."""
        return self.backend if self.device.name == "cpu" else f"{self.backend} ({self.device.name})"

    @property
    def kind(self) -> type[Backend]:
        """What the runtime says of itself on every device."""
        return find_backend(self.backend)

    @property
    def rules(self) -> Rules | None:
        """How this runtime wants a quantized network written for this device; None if it takes none."""
        rules = self.kind.rules
        return replace(rules, pairs_in_16_bits=False) if rules and self.device.exact_sums else rules

    @property
    def stem(self) -> str:
        """The name of a quantized network's file: one for each way of writing it."""
        return f"{self.backend}_8bit" if self.device.exact_sums else self.backend

    def build(self, onnx: Artifact, folder: Path) -> Artifact:
        """See `Target.build`."""
        return self.target.build(self.backend, onnx, folder)

    def open(self) -> Backend:
        """The runtime on the device.

        Raises:
            NotHere: if the device is not reached.
        """
        return self.target.open(self.backend)

    def not_here(self) -> str | None:
        """Why it is not opened; None where it is.

        Raises:
            SurroundingsError: if the device is elsewhere, and is not reached.
        """
        try:
            self.open()
        except NotHere as error:
            return str(error)
        return None

    def peak_memory(self, artifact: Artifact) -> Peak:
        """See `Target.peak_memory`."""
        return self.target.peak_memory(self.backend, artifact)


def deployments(devices: Sequence[Device], threads: int | None) -> list[Deployment]:
    """Every runtime of every device of the recipe."""
    targets = [target_on(device, threads) for device in devices]
    return [Deployment(backend=backend, target=target) for target in targets for backend in target.backends]


def without_power_modes(target: Target) -> str | None:
    """Why the power mode that a recipe names cannot be set; None where nothing speaks against it yet.

    Raises:
        SurroundingsError: if the device is elsewhere, and is not reached.
    """
    name = target.device.reach.power_mode
    if name is None:
        return None
    try:
        target.check_here()
    except NotHere:
        # It is built for, and not measured: nothing is set.
        return None
    if target.watcher.power_mode() is not None:
        known = target.watcher.power_modes()
        # Where nothing lists them, setting it tells.
        is_wrong = bool(known) and name not in known
        return f"power_mode: there is no mode '{name}'; there are {', '.join(known)}" if is_wrong else None
    return f"power_mode: {name}: no nvpmodel, which Jetsons have, tells a mode there; leave it out"


@contextmanager
def reached(deployed: Sequence[Deployment], log: Callable[[str], None]) -> Iterator[None]:
    """Reach every device that is elsewhere, before hours are spent on what would be measured there; and leave them all.

    Raises:
        SurroundingsError: if one is not reached, or has no power modes though the recipe names one.
    """
    for at in {each.device.name: each for each in deployed if each.target.is_this_host}.values():
        _check_power_mode(at.target)
    elsewhere = {at.device.name: at.target for at in deployed if not at.target.is_this_host}
    try:
        for name, target in elsewhere.items():
            told = target.facts()
            log(f"{name}: {told['board'] or told['cpu']}, {told['cpus']} CPUs, {told['os']}, Python {told['python']}")
            _check_power_mode(target)
            # Others may measure there while passes train here.
            target.close()
        yield
        for name, target in elsewhere.items():
            log(
                f"{name}: {target.sent_bytes / 1e6:.2f} MB were sent there, each file and each input once; "
                f"{target.answered_bytes / 1e6:.2f} MB came back"
            )
    finally:
        if elsewhere:
            from export.remote.conversation import close_all

            close_all()


def _check_power_mode(target: Target) -> None:
    if why := without_power_modes(target):
        raise SurroundingsError(f"{target.device.name}: {why}")


def target_on(device: Device, threads: int | None) -> Target:
    """The device, where networks that were saved as a description and weights are loaded as ours are."""
    return target_of(device, threads, load_net)
