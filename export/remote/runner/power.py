"""Power rails: what a board's sensors tell of watts, or of joules so far, and which of them are the whole.

INA3221: Jetson, by the kernel's hwmon (docs.kernel.org/hwmon/ina3221.html): mV and mA of each channel. RAPL: Intel and
AMD processors, a counter of microjoules that begins again at `max_energy_range_uj` (docs.kernel.org/power/powercap).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Callable, Dict, List, Sequence, Tuple

from export.remote.runner.card import card
from export.remote.runner.sysfs import ROOT, found, text, whole, why_not

MODULE = ("VDD_IN",)
"""The whole module of an Orin NX, Orin Nano, Xavier NX or TX2."""
AGX_ORIN = ("VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0")
"""What together is an AGX Orin, which has no rail for the whole; its other rails lie behind these."""
CARD = "card"
"""The graphics card, and the names of what it tells beside power."""
NOTHING = "no sensor of power (INA3221, hwmon, RAPL)"
Sample = Tuple[float, float]
"""Seconds, and watts; of a counter, joules."""


@dataclass(frozen=True)
class Rail:
    """One supply that is measured."""

    name: str
    read: Callable[[], float | None]
    """Watts now; of a counter, joules since some time; None where it does not say this time."""
    counts: bool = False
    wraps_at: float = math.inf
    """Joules at which a counter begins again."""

    def joules(self, samples: Sequence[Sample]) -> float:
        """The energy between the first sample and the last: the integral of the power, or what was counted."""
        return sum(joules for _, joules in self._intervals(samples))

    def watts(self, samples: Sequence[Sample]) -> list[float]:
        """The power (W) at each sample; of a counter, between each two."""
        if self.counts:
            return [joules / seconds for seconds, joules in self._intervals(samples)]
        return [watts for _, watts in samples]

    def mean(self, samples: Sequence[Sample]) -> float:
        """The mean power (W) over the time between the first sample and the last."""
        return self.joules(samples) / (samples[-1][0] - samples[0][0])

    def _intervals(self, samples: Sequence[Sample]) -> list[Sample]:
        """Seconds and joules between each two samples."""
        pairs = [(one, other) for one, other in zip(samples, samples[1:]) if other[0] > one[0]]
        if self.counts:
            return [(now[0] - was[0], self._risen(was[1], now[1])) for was, now in pairs]
        return [(now[0] - was[0], (now[0] - was[0]) * (was[1] + now[1]) / 2) for was, now in pairs]

    def _risen(self, was: float, now: float) -> float:
        if now >= was:
            return now - was
        # One that does not say where it begins again may as well have been reset.
        return now - was + self.wraps_at if math.isfinite(self.wraps_at) else 0.0

    def is_plausible(self, value: float) -> bool:
        """Whether a value can be what it is called: a sensor without a supply tells anything."""
        return self.counts or -1 <= value < 1e5


@dataclass(frozen=True)
class Rails:
    """Every rail that is read, and what the whole is."""

    rails: dict[str, Rail] = field(default_factory=dict)
    unread: dict[str, str] = field(default_factory=dict)
    """Why a rail that is there is not read."""
    total: tuple[str, ...] = ()
    """The rails whose sum is the whole; none where that is not known."""
    whole: str = ""
    """What they are the whole of; why there is no total, where there is none."""


def rails(root: Path = ROOT, kind: str = "cpu") -> Rails:
    """The rails of this machine: those of the board where it has sensors, else those of the processor.

    Args:
        kind: of what computes: RAPL does not count the power of a card, which counts its own.
    """
    board, processor = _ina3221(root), _rapl(root)
    others = _hwmon(root)
    known = {rail.name: rail for rail in (*board[0], *others[0], *processor[0], *_card(root, kind))}
    unread = {**board[1], **others[1], **processor[1]}
    total, whole_of = _total(known, unread)
    if kind != "cpu" and any(known[name].counts for name in total if name != CARD):
        total, whole_of = (), f"{' and '.join(total)}: the processor's power, without that of the GPU"
    return Rails(rails=known, unread=unread, total=total, whole=whole_of)


def _total(known: dict[str, Rail], unread: dict[str, str]) -> tuple[tuple[str, ...], str]:
    packages = tuple(name for name in known if name.startswith("package-"))
    memory = tuple(name for name in known if name.startswith("dram"))
    wholes = (
        (MODULE, "the whole module"),
        (AGX_ORIN, "the whole module, the sum of these rails"),
        ((CARD,), "the graphics card, without the machine around it"),
        (("psys",), "the whole platform, by the processor's own count"),
        (packages + memory, "the processor and its memory" if memory else "the processor, not the whole machine"),
    )
    found_whole = next(((names, what) for names, what in wholes if names and set(names) <= set(known)), None)
    return found_whole or ((), _why_none(known, unread))


def _why_none(known: dict[str, Rail], unread: dict[str, str]) -> str:
    if known:
        return f"none of its rails is known to be the whole: {', '.join(known)}"
    return next((f"{name}: {why}" for name, why in unread.items()), NOTHING)


def _card(root: Path, kind: str) -> list[Rail]:
    """The card that computes: by the energy that it counts, else by its power now."""
    known = card(kind, root)
    if known is None:
        return []
    if known.joules() is not None:
        return [Rail(CARD, known.joules, counts=True)]
    return [Rail(CARD, known.watts)] if known.watts() is not None else []


Read = Tuple[List[Rail], Dict[str, str]]


def _ina3221(root: Path) -> Read:
    """Channels 1 to 3 of each; 7 is the sum of the shunts' voltages, and no power."""
    read: list[Rail] = []
    unread: dict[str, str] = {}
    for label in found(root, "sys/bus/i2c/drivers/ina3221/*/hwmon/hwmon*/in[123]_label"):
        name, channel = text(label), label.name[2]
        if name is None or name == "NC" or name.startswith("sum of"):
            continue
        volts, amperes = label.with_name(f"in{channel}_input"), label.with_name(f"curr{channel}_input")
        why = why_not(volts) or why_not(amperes)
        if why is not None:
            unread[name] = why
        else:
            read.append(Rail(name, partial(_product, volts, amperes)))
    return read, unread


def _product(millivolts: Path, milliamperes: Path) -> float | None:
    volts, amperes = whole(millivolts), whole(milliamperes)
    return None if volts is None or amperes is None else volts * amperes / 1e6


def _hwmon(root: Path) -> Read:
    """Sensors that tell microwatts, such as those of a power supply or a graphics card."""
    read: list[Rail] = []
    unread: dict[str, str] = {}
    for path in found(root, "sys/class/hwmon/hwmon*/power*_input"):
        if text(path.with_name("name")) == "ina3221":
            continue
        label = text(path.with_name(path.name.replace("_input", "_label")))
        name = f"{text(path.with_name('name')) or path.parent.name} {label or path.name.partition('_')[0]}"
        why = why_not(path)
        if why is not None:
            unread[name] = why
        else:
            read.append(Rail(name, partial(_millionths, path)))
    return read, unread


def _rapl(root: Path) -> Read:
    """Packages, the platform and the memory; cores and graphics are parts of a package."""
    read: list[Rail] = []
    unread: dict[str, str] = {}
    for zone in found(root, "sys/class/powercap/intel-rapl:*"):
        name = text(zone / "name")
        if name is None or not name.startswith(("package-", "psys", "dram")):
            continue
        # Each package has a "dram" of its own.
        name = f"{name} {zone.name.split(':')[1]}" if name == "dram" else name
        why = why_not(zone / "energy_uj")
        if why is not None:
            unread[name] = why
            continue
        most = whole(zone / "max_energy_range_uj")
        wraps_at = math.inf if most is None else most / 1e6
        read.append(Rail(name, partial(_millionths, zone / "energy_uj"), counts=True, wraps_at=wraps_at))
    return read, unread


def _millionths(path: Path) -> float | None:
    found_there = whole(path)
    return None if found_there is None else found_there / 1e6
