"""What tells that a machine was slowed down: counters that rise, and flags that are set.

Jetson: soctherm's over-current events (drivers/thermal/tegra/soctherm.c). x86: the counts of cores and packages that
were too hot (arch/x86/kernel/cpu/mce/therm_throt.c). Raspberry Pi: the bits of `get_throttled` (its documentation,
under vcgencmd). A graphics card: what NVML tells (card.py).
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Mapping

from export.remote.runner.card import card
from export.remote.runner.heat import slowing
from export.remote.runner.sysfs import ROOT, found, program, ran, text, whole

NOTHING = "nothing counts how often it is slowed down"
EVENTS = {"oc1": "under-voltage", "oc2": "average over-current", "oc3": "instantaneous over-current"}
BITS = ("under-voltage", "clock capped", "throttled", "soft temperature limit")
"""Of a Raspberry Pi, bits 0 to 3 now, and 16 to 19 since it was started."""
PI = "sys/devices/platform/soc/soc:firmware/get_throttled"


def state(root: Path = ROOT, kind: str = "cpu") -> dict[str, dict[str, int]]:
    """Counters, and flags (0 or 1, or the state of what cools), by name; both empty where nothing tells.

    Args:
        kind: of what computes: a card tells of itself.
    """
    computes = card(kind, root)
    counted = {} if computes is None else computes.slowed_so_far()
    return {"counters": {**_counters(root), **counted}, "flags": flags(root, kind, programs=True)}


def flags(root: Path = ROOT, kind: str = "cpu", *, programs: bool = False) -> dict[str, int]:
    """What is so now: more than 0 is slowed down.

    Args:
        kind: see `state`.
        programs: whether a program may be asked, which takes time from what is being measured.
    """
    voltage = {
        f"under-voltage ({text(path.with_name('name'))})": whole(path) or 0
        for path in found(root, "sys/class/hwmon/hwmon*/in0_lcrit_alarm")
    }
    computes = card(kind, root)
    own = {} if computes is None else computes.slowed()
    return {**slowing(root), **voltage, **_bits(root, programs=programs, of=0), **own}


def slowed_by(before: Mapping[str, Any], after: Mapping[str, Any], seen: Mapping[str, int]) -> list[str] | None:
    """By what a machine was slowed down between two states; None where it tells neither.

    Args:
        seen: the most that each flag was in between.
    """
    if not any((before["counters"], after["counters"], before["flags"], after["flags"])):
        return None
    risen = [name for name, count in after["counters"].items() if count > before["counters"].get(name, 0)]
    on = {**dict.fromkeys(after["flags"], 0), **seen}
    return risen + [name for name, most in on.items() if max(most, after["flags"].get(name, 0)) > 0]


def _counters(root: Path) -> dict[str, int]:
    return {**_soctherm(root), **_too_hot(root), **_bits(root, programs=True, of=16)}


def _soctherm(root: Path) -> dict[str, int]:
    read: dict[str, int] = {}
    for name in found(root, "sys/class/hwmon/hwmon*/name"):
        if text(name) == "soctherm_oc":
            for path in found(name.parent, "oc*_event_cnt"):
                event, count = path.name.partition("_")[0], whole(path)
                if count is not None:
                    read[f"{event} ({EVENTS.get(event, 'over-current')})"] = count
    return read


def _too_hot(root: Path) -> dict[str, int]:
    read: dict[str, int] = {}
    for what in ("core", "package"):
        every = found(root, f"sys/devices/system/cpu/cpu[0-9]*/thermal_throttle/{what}_throttle_count")
        counts = [count for count in map(whole, every) if count is not None]
        if counts:
            read[f"{what}_throttle_count"] = sum(counts)
    return read


def _bits(root: Path, *, programs: bool, of: int) -> dict[str, int]:
    """A Raspberry Pi's four bits from this one on; the program says "throttled=0x50005", and the file 50005."""
    said = text(root / PI)
    vcgencmd = program(root, "vcgencmd") if said is None and programs else None
    if vcgencmd is not None:
        said = ran([str(vcgencmd), "get_throttled"])[1]
    match = re.fullmatch(r"(?:throttled=)?(?:0x)?([0-9a-fA-F]{1,8})", said or "")
    if match is None:
        return {}
    value, since = int(match.group(1), 16), " since it was started" if of else ""
    return {f"{name}{since}": value >> (of + index) & 1 for index, name in enumerate(BITS)}
