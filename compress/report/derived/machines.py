"""The machines that devices elsewhere belong to, as each told of itself while it was timed."""

from __future__ import annotations

from typing import Any

from compress.report.derived.recorded import Json

OF_A_DEVICE = ("threads", "at")
"""Facts that are not the machine's own: what the device was given, and the name that it is reached by."""
STEADY = ("governor", "power_mode")
"""Conditions that hold while everything is timed."""


def elsewhere(report: Json) -> list[tuple[str, Json]]:
    """Each machine that was timed over SSH: the devices on it, and its facts; none where all were this host's."""
    found: dict[str, tuple[list[str], Json]] = {}
    for row in report["rows"]:
        times: Json = row.get("latency_ms") or {}
        if "host" in times:
            devices, _ = found.setdefault(str(times["host"].get("at")), ([], _facts(times)))
            devices += [row["device"]] * (row["device"] not in devices)
    return [(", ".join(devices), facts) for devices, facts in found.values()]


def _facts(times: Json) -> dict[str, Any]:
    told: Json = times["host"]
    own = {key: value for key, value in told.items() if key not in OF_A_DEVICE}
    conditions: Json = times.get("conditions") or {}
    steady = {key: conditions[key] for key in STEADY if conditions.get(key) is not None}
    timed = {"timed": times["when"]} if times.get("when") else {}
    return {**{key: told[key] for key in OF_A_DEVICE if key in told}, **own, **steady, **timed}
