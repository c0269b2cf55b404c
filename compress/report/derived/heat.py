"""Power, heat and throttling of each artifact that was watched, as people read them."""

from __future__ import annotations

from collections.abc import Sequence

from compress.report.derived.compared import Line, lines
from compress.report.derived.numbers import NOTHING, amount, number
from compress.report.derived.recorded import Json

HEAD = (
    *("artifact", "power (W)", "peak (W)", "idle (W)", "measured is", "energy (mJ)", "above idle (mJ)"),
    *("temperature (°C)", "clocks (MHz)", "throttled", "notes"),
)
ALIGN = "lrrrlrrllll"
IN_SHORT = ("artifact", "power (W)", "energy (mJ)", "temperature (°C)", "throttled")
"""What a terminal shows of them."""
NOTE = (
    "While an artifact runs alone for some seconds, after the timing. Power is the mean of what is named beside it, "
    "peak its largest sample; energy is that of one inference, idle power included, and above idle without it."
)


def rows(report: Json) -> list[tuple[str, ...]]:
    """A row for each artifact that was watched, and one for each device that tells nothing, with why."""
    asked = [(line, line.row["watch"]) for line in lines(report) if line.row.get("watch")]
    silent = dict.fromkeys((line.device, watch["why"]) for line, watch in asked if "why" in watch)
    return [
        *(_row(line, watch) for line, watch in asked if "why" not in watch),
        *((f"all on {device}", *[NOTHING] * (len(HEAD) - 2), f"not measured: {why}") for device, why in silent),
    ]


def sentences(report: Json) -> list[str]:
    """A sentence for each artifact whose device was slowed down while it was timed or watched."""
    found = []
    for line in lines(report):
        timed = (line.row.get("latency_ms") or {}).get("throttled") or []
        seen = (line.row.get("watch") or {}).get("throttled_by") or []
        if timed or seen:
            when = "timed" if timed else "watched, after the timing"
            found.append(
                f"{line.title} was throttled while it was {when} ({_listed(timed or seen)}): a device that is cooled "
                "or supplied better is faster."
            )
    return found


def _row(line: Line, watch: Json) -> tuple[str, ...]:
    total = watch["total"] or {}
    power = (amount(number(total.get(key))) for key in ("mean_w", "max_w", "idle_w"))
    energy = (amount(number(watch[key])) for key in ("energy_mj", "energy_above_idle_mj"))
    whole = f"{total['what']} ({', '.join(total['of'])})" if total else NOTHING
    return (line.title, *power, whole, *energy, _degrees(watch), _clocks(watch), _throttled(line, watch), _notes(watch))


def _degrees(watch: Json) -> str:
    known = watch["temperatures_c"].get(watch["hottest"])
    if known is None:
        return NOTHING
    return f"{watch['hottest']} {known['begin']:.0f} to {known['end']:.0f}, at most {known['max']:.0f}"


def _clocks(watch: Json) -> str:
    told = []
    for name, clock in watch["clocks_mhz"].items():
        most = "" if clock["most"] is None else f" of {clock['most']:.0f}"
        told.append(f"{name} {clock['mean']:.0f}{most}")
    return ", ".join(told) or NOTHING


def _throttled(line: Line, watch: Json) -> str:
    timed: Sequence[str] = (line.row.get("latency_ms") or {}).get("throttled") or []
    by = list(dict.fromkeys([*timed, *watch["throttled_by"]]))
    return _listed(by) if by else "not told" if watch["throttled"] is None else "no"


def _notes(watch: Json) -> str:
    mode = [f"power mode {watch['power_mode']}"] if watch["power_mode"] else []
    # What has no column of its own is not missed.
    unknown = [f"{what} not measured: {why}" for what, why in watch["unknown"].items() if what != "power_mode"]
    return "; ".join([*mode, *_soak(watch["soak"]), *unknown]) or NOTHING


def _soak(soak: Json | None) -> list[str]:
    if soak is None:
        return []
    settled = {True: "the temperature settled", False: "the temperature did not settle", None: "no temperature is told"}
    return [
        f"soaked {soak['minutes']:.0f} min ({settled[soak['settled']]}): p50 {amount(soak['cold_p50_ms'])} ms cold, "
        f"{amount(soak['warm_p50_ms'])} ms warm, p99 {amount(soak['warm_p99_ms'])} ms; slowest minute "
        f"{soak['slowest_minute']}, p50 {amount(soak['slowest_p50_ms'])} ms"
    ]


def _listed(words: Sequence[str]) -> str:
    return ", ".join(words)
