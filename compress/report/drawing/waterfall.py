"""The waterfall: one panel for each quantity, the steps from left to right."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from compress.report.derived import compared, drops, numbers
from compress.report.derived.compared import Line, Step
from compress.report.derived.recorded import Json
from compress.report.drawing.look import BASELINE, FAINT, INK, MARKERS, OUTLINES, PAPER, STEPS, side_by_side, svg

_Value = Callable[[Step, Line], float | None]
_ROOM = 0.085
"""Height of a label, as a share of its panel's."""


def waterfall(report: Json) -> Markup | None:
    steps = _drawn(report)
    if len(steps) < 2:
        return None
    places = _places(steps)
    figures = [(Figure(figsize=(4.1, 3.1), layout="constrained")) for _ in range(6)]
    panels = [figure.subplots() for figure in figures]
    everywhere: list[tuple[str, _Value]] = [
        ("latency, p50 in ms", lambda _, line: line.p50_ms),
        ("size on disk, MB", lambda _, line: line.size_mb),
        ("MACs × bits", lambda _, line: line.bit_operations),
    ]
    alike: list[tuple[str, _Value]] = [
        ("parameters", lambda step, _: step.params),
        ("MACs", lambda step, _: step.macs),
    ]
    _lost(panels[0], steps, places)
    for axes, (title, value) in zip(panels[1:], [*everywhere[:2], *alike, everywhere[2]], strict=True):
        shown = places if (title, value) in everywhere else [None]
        _factors(axes, title, steps, [(place, _series(steps, place, value)) for place in shown])
    for axes in panels:
        _step_axis(axes, steps)
    return side_by_side([svg(figure) for figure in figures])


def _drawn(report: Json) -> list[Step]:
    return [step for step in compared.steps(report) if step.lines or not step.compared]


def _places(steps: Sequence[Step]) -> list[tuple[str, str]]:
    return list(dict.fromkeys((line.backend, line.device) for step in steps for line in step.lines))


def legend(report: Json) -> list[tuple[str, str, str]]:
    """What the lines of "steps" stand for: name, colour, and the outline of the mark in a square of 12 by 12."""
    places = _places(_drawn(report))
    looks = [(f"{backend} ({device})", _look(places, (backend, device))) for backend, device in places]
    return [(name, look["color"], OUTLINES[look["marker"]]) for name, look in looks]


def _series(steps: Sequence[Step], place: tuple[str, str] | None, value: _Value) -> list[float | None]:
    """A number at every step: on one backend and device, or what the step has whatever runs it."""
    found = []
    for step in steps:
        lines = [line for line in step.lines if place is None or (line.backend, line.device) == place]
        found.append(value(step, lines[0]) if lines else None)
    return found


def _look(places: Sequence[tuple[str, str]], place: tuple[str, str] | None) -> dict[str, Any]:
    others = [each for each in places if each[0] != "torch"]
    if place is None:
        color, marker = INK, "o"
    elif place[0] == "torch":
        color, marker = BASELINE, "o"
    else:
        number = others.index(place)
        color, marker = STEPS[number % len(STEPS)], MARKERS[(number + 1) % len(MARKERS)]
    return {"color": color, "marker": marker, "ms": 5.5, "lw": 1.6, "mec": PAPER, "mew": 0.6}


def _lost(axes: Axes, steps: Sequence[Step], places: Sequence[tuple[str, str]]) -> None:
    """Dice lost since the baseline, with its interval; backends side by side, since they hardly differ."""
    own = sum(not step.compared for step in steps)
    for number, place in enumerate(places):
        shift = (number - (len(places) - 1) / 2) * min(0.13, 0.5 / len(places))
        lines = [_at(step, place) for step in steps]
        marks = [
            (at + shift, line.lost or drops.Span(mean=line.drop, lower=None, upper=None))
            for at, line in enumerate(lines)
            if line is not None and line.drop is not None
        ]
        look = _look(places, place)
        joined = [(x, span.mean) for x, span in marks if x < own - 0.5]
        axes.plot(*_columns(joined), **{**look, "marker": ""}, alpha=0.5)
        axes.plot(*_columns([(x, span.mean) for x, span in marks]), **{**look, "lw": 0})
        for x, span in marks:
            if span.lower is not None and span.upper is not None:
                axes.plot([x, x], [span.lower, span.upper], color=look["color"], lw=1.3, solid_capstyle="butt")
    axes.axhline(0, color=FAINT, lw=1.2, zorder=0)
    axes.yaxis.set_major_locator(MaxNLocator(5))
    axes.margins(y=0.1)
    axes.set_title("Dice lost since the baseline (+ is worse)", loc="left", fontsize=10, weight="bold")


def _at(step: Step, place: tuple[str, str]) -> Line | None:
    return next((line for line in step.lines if (line.backend, line.device) == place), None)


def _columns(points: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    return [x for x, _ in points], [y for _, y in points]


def _factors(
    axes: Axes,
    title: str,
    steps: Sequence[Step],
    series: Sequence[tuple[tuple[str, str] | None, Sequence[float | None]]],
) -> None:
    """Lines on a logarithmic axis, each with how many times less it has become at its end."""
    own = sum(not step.compared for step in steps)
    places = [place for place, _ in series if place is not None]
    every = [value for _, values in series for value in values if value]
    axes.set_title(title, loc="left", fontsize=10, weight="bold")
    if not every:
        axes.text(0.5, 0.5, "not measured", transform=axes.transAxes, ha="center", va="center")
        axes.set_yticks([])
        return
    ends = []
    for place, values in series:
        look = _look(places, place)
        known = [(float(at), value) for at, value in enumerate(values) if value]
        inside = [point for point in known if point[0] < own]
        axes.plot(*_columns(inside), **look)
        axes.plot(*_columns(known[len(inside) :]), **{**look, "lw": 0, "mfc": PAPER, "mec": look["color"], "mew": 1.3})
        if len(inside) > 1 and inside[0][0] == 0:
            ends.append((*inside[-1], inside[0][1] / inside[-1][1], look["color"]))
    low, high = min(every) / 1.5, max(every) * 1.5
    axes.set_yscale("log")
    axes.set_ylim(low, high)
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 50 * low else (1, 3)))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: _tick(value)))
    _name_ends(axes, ends)


def _tick(value: float) -> str:
    """A round number as short as it can be: 0.5, 20, 500 M."""
    number, _, unit = (numbers.large(value) if value >= 1000 else f"{value:g}").partition(" ")
    return f"{float(number):g} {unit}".strip()


def _name_ends(axes: Axes, ends: Sequence[tuple[float, float, float, str]]) -> None:
    """Write each line's factor beside its end; where ends are close, the labels are moved apart."""
    low, high = np.log(axes.get_ylim())
    found: list[tuple[float, float, str, str]] = []
    for x, value, factor, color in sorted(ends, key=lambda end: end[1]):
        height = (float(np.log(value)) - low) / (high - low)
        text = f"{factor:.0f}×" if factor >= 10 else f"{factor:.1f}×"
        if found and (found[-1][0], found[-1][2]) == (x, text) and height - found[-1][1] < _ROOM:
            found[-1] = (*found[-1][:3], INK)
        else:
            found.append((x, height, text, color))
    heights = _apart([height for _, height, _, _ in found], _ROOM)
    for (x, _, text, color), height in zip(found, heights, strict=True):
        where: dict[str, Any] = {"xycoords": axes.get_xaxis_transform(), "textcoords": "offset points"}
        axes.annotate(text, (x, height), (7, 0), **where, va="center", color=color, fontsize=9)


def _apart(heights: Sequence[float], least: float) -> list[float]:
    """Rising heights, moved so that neighbours are at least `least` apart and all stay between 0 and 1."""
    moved: list[float] = []
    for height in heights:
        moved.append(max(height, moved[-1] + least) if moved else height)
    over = max(0.0, moved[-1] - (1 - least / 2)) if moved else 0.0
    return [height - over for height in moved]


def _step_axis(axes: Axes, steps: Sequence[Step]) -> None:
    own = sum(not step.compared for step in steps)
    names = [step.name for step in steps]
    tilt: dict[str, Any] = {"rotation": 30, "ha": "right", "rotation_mode": "anchor"} if len(names) > 3 else {}
    axes.set_xticks(range(len(names)), names, fontsize=8.5, **tilt)
    axes.set_xlim(-0.4, len(names) - 0.35)
    axes.tick_params(length=0)
    axes.grid(axis="y")
    axes.spines["left"].set_visible(False)
    if own < len(names):
        axes.axvline(own - 0.42, color=FAINT, lw=1.1, ls=(0, (3, 3)), zorder=0)
