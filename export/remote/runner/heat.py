"""Temperatures and what cools: thermal zones and cooling devices (docs.kernel.org/driver-api/thermal)."""

from __future__ import annotations

from pathlib import Path
from typing import Iterable

from export.remote.runner.card import card
from export.remote.runner.sysfs import ROOT, found, text, whole

NOTHING = "no thermal zone tells a temperature"
FIRST = ("card", "tj", "x86_pkg_temp", "cpu", "soc", "gpu")
"""Which zone speaks for the machine: the card that computes, a Jetson's hottest junction, a
processor's package, else the first of these."""
SLOWING = ("throttle", "cpufreq", "devfreq", "processor", "thermal-cpu", "thermal-gpu", "-alert")
"""What the type of a cooling device has in it that takes speed away; a fan does not."""


def temperatures(root: Path = ROOT, kind: str = "cpu") -> dict[str, float]:
    """Degrees Celsius by zone; zones that are switched off, or say what no silicon has, are left out.

    Args:
        kind: of what computes: a card tells its own.
    """
    computes = card(kind, root)
    own = None if computes is None else computes.celsius()
    read: dict[str, float] = {} if own is None else {"card": own}
    for zone in found(root, "sys/class/thermal/thermal_zone*"):
        zoned, thousandths = text(zone / "type"), whole(zone / "temp")
        if zoned is None or thousandths is None or not -60_000 <= thousandths <= 200_000:
            continue
        name = zoned if zoned not in read else f"{zoned} {zone.name[len('thermal_zone') :]}"
        read[name] = thousandths / 1000
    return read


def leading(names: Iterable[str]) -> str | None:
    """The zone that speaks for the machine."""
    every = list(names)
    chosen = (name for first in FIRST for name in every if name.lower().startswith(first))
    return next(chosen, every[0] if every else None)


def slowing(root: Path = ROOT) -> dict[str, int]:
    """The state of each cooling device that takes speed away; above 0 it does."""
    read: dict[str, int] = {}
    for device in found(root, "sys/class/thermal/cooling_device*"):
        kind, state = (text(device / "type") or "").lower(), whole(device / "cur_state")
        if state is not None and any(word in kind for word in SLOWING):
            # Each core has a device of the same type.
            read[kind] = max(state, read.get(kind, 0))
    return read
