"""The report's plots, as SVG that follows the page's colours."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from typing import Any

import matplotlib.style
import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from compress.gates.judging.paired_drop import COLLAPSE
from compress.report.derived import compared, drops, numbers, recorded
from compress.report.derived.compared import Line, Step
from compress.report.derived.drops import Pairs
from compress.report.derived.recorded import Json

_BASELINE, *_STEPS = ("#8b95a5", "#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00")
_MARKERS = "o^sDvP"
_OUTLINES = {
    "o": "M6 2a4 4 0 1 1 0 8a4 4 0 1 1 0-8Z",
    "^": "M6 1.5L10.5 10.5H1.5Z",
    "s": "M2.5 2.5H9.5V9.5H2.5Z",
    "D": "M6 1L11 6L6 11L1 6Z",
    "v": "M6 10.5L10.5 1.5H1.5Z",
    "P": "M4.5 1.5H7.5V4.5H10.5V7.5H7.5V10.5H4.5V7.5H1.5V4.5H4.5Z",
}
"""Matplotlib's markers as SVG paths in a square of 12 by 12."""

# Matplotlib knows no CSS variables: these stand in for them, so that plots follow light and dark.
_INK, _FAINT, _PAPER = "#010203", "#040506", "#070809"
_VARIABLES = {_INK: "var(--ink)", _FAINT: "var(--line)", _PAPER: "var(--paper)"}
_STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "segpress",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9.5,
    # A class named $x$ is a name, not a formula.
    "text.parse_math": False,
    "text.color": _INK,
    "axes.edgecolor": _FAINT,
    "axes.labelcolor": _INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": _FAINT,
    "grid.linewidth": 0.7,
    "xtick.color": _FAINT,
    "ytick.color": _FAINT,
    "xtick.labelcolor": _INK,
    "ytick.labelcolor": _INK,
    "legend.frameon": False,
}


def plots(report: Json) -> dict[str, Markup | None]:
    """Every plot by name; None where nothing was measured that it could show.

    "steps" and "scatter" are several drawings, each in a `div` of class "panel": the page lays them out as it has room.
    """
    with matplotlib.style.context(["default", _STYLE]):
        return {
            "steps": _waterfall(report),
            "latency": _latency(report),
            "size": _size(report),
            "scatter": _scatter(report),
        }


def _panels(drawings: Sequence[Markup]) -> Markup:
    return Markup("\n").join(Markup('<div class="panel">{}</div>').format(each) for each in drawings)


# The waterfall: one panel for each quantity, the steps from left to right.

_Value = Callable[[Step, Line], float | None]
_ROOM = 0.085
"""Height of a label, as a share of its panel's."""


def _waterfall(report: Json) -> Markup | None:
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
    return _panels([_svg(figure) for figure in figures])


def _drawn(report: Json) -> list[Step]:
    return [step for step in compared.steps(report) if step.lines or not step.compared]


def _places(steps: Sequence[Step]) -> list[tuple[str, str]]:
    return list(dict.fromkeys((line.backend, line.device) for step in steps for line in step.lines))


def legend(report: Json) -> list[tuple[str, str, str]]:
    """What the lines of "steps" stand for: name, colour, and the outline of the mark in a square of 12 by 12."""
    places = _places(_drawn(report))
    looks = [(f"{backend} ({device})", _look(places, (backend, device))) for backend, device in places]
    return [(name, look["color"], _OUTLINES[look["marker"]]) for name, look in looks]


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
        color, marker = _INK, "o"
    elif place[0] == "torch":
        color, marker = _BASELINE, "o"
    else:
        number = others.index(place)
        color, marker = _STEPS[number % len(_STEPS)], _MARKERS[(number + 1) % len(_MARKERS)]
    return {"color": color, "marker": marker, "ms": 5.5, "lw": 1.6, "mec": _PAPER, "mew": 0.6}


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
    axes.axhline(0, color=_FAINT, lw=1.2, zorder=0)
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
        axes.plot(*_columns(known[len(inside) :]), **{**look, "lw": 0, "mfc": _PAPER, "mec": look["color"], "mew": 1.3})
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
            found[-1] = (*found[-1][:3], _INK)
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
        axes.axvline(own - 0.42, color=_FAINT, lw=1.1, ls=(0, (3, 3)), zorder=0)


def _latency(report: Json) -> Markup | None:
    return _bars(
        report, "ms an image, network alone", lambda line: line.p50_ms, lambda line: line.part("latency_ms", "p95")
    )


def _size(report: Json) -> Markup | None:
    return _bars(report, "MB", lambda line: line.size_mb, lambda line: None)


def _bars(
    report: Json, unit: str, value: Callable[[Line], float | None], whisker: Callable[[Line], float | None]
) -> Markup | None:
    """Bars of one number, grouped by backend and device; None if there is none."""
    shown = [line for line in compared.lines(report) if value(line) is not None]
    if not shown:
        return None
    groups = dict.fromkeys((line.backend, line.device) for line in shown)
    height = 0.27 * (len(shown) + 1.25 * len(groups)) + 0.55
    figure = Figure(figsize=(6.1, height), layout="constrained")
    axes = figure.subplots()
    steps = list(dict.fromkeys(line.step for line in compared.lines(report)))
    places: dict[float, str] = {}
    top = 0.0
    for backend, device in groups:
        axes.text(0, top, f"{backend} ({device})", transform=axes.get_yaxis_transform(), va="center", weight="bold")
        for line in (line for line in shown if (line.backend, line.device) == (backend, device)):
            top += 1
            places[top] = line.step
            _bar(axes, top, value(line) or 0.0, whisker(line), _step_color(steps.index(line.step)))
        top += 1.25
    axes.set_yticks(list(places), list(places.values()))
    axes.tick_params(length=0)
    axes.set_ylim(top - 0.6, -0.6)
    axes.margins(x=0.16)
    axes.set_xlim(left=0)
    axes.set_xlabel(unit)
    axes.grid(axis="x")
    axes.spines["left"].set_visible(False)
    return _svg(figure)


def _bar(axes: Axes, place: float, value: float, whisker: float | None, color: str) -> None:
    axes.barh(place, value, height=0.72, color=color)
    end = max(value, whisker or 0)
    if whisker is not None:
        axes.plot([value, whisker, whisker], [place, place, place], color=_INK, lw=1.2)
        axes.plot([whisker, whisker], [place - 0.2, place + 0.2], color=_INK, lw=1.2)
    axes.annotate(numbers.amount(value), (end, place), (4, 0), textcoords="offset points", va="center")


def _scatter(report: Json) -> Markup | None:
    """Dice of every case before and after, one panel a class, one marker a backend."""
    after = [line for line in compared.last_step(report) if line.dice is not None and line.step != "baseline"]
    names = recorded.class_names(report)
    if not after or not names:
        return None
    found = []
    for name in names:
        figure = Figure(figsize=(4.7, 4.7 + 0.2 * len(after)), layout="constrained")
        _panel(figure.subplots(), name, [(line.title, drops.pairs_of(report, line.row, name)) for line in after])
        found.append(_svg(figure))
    return _panels(found)


def _panel(axes: Axes, name: str, found: Sequence[tuple[str, Pairs]]) -> None:
    every = [value for _, pairs in found for pair in pairs for value in pair]
    low = max(0.0, min(every, default=0.5) - 0.06)
    span = (low, 1.0 + 0.02 * (1 - low))
    axes.plot(span, span, color=_INK, lw=0.9, label="no change")
    lost = [value - COLLAPSE for value in span]
    axes.plot(span, lost, color="#d55e00", lw=1.1, ls=(0, (5, 3)), label=f"{COLLAPSE:.2f} lost")
    axes.fill_between(span, lost, low, color="#d55e00", alpha=0.07, lw=0)
    for place, (title, pairs) in enumerate(found):
        before, after = zip(*pairs, strict=True) if pairs else ((), ())
        label = f"{title}: {drops.collapsed_pairs(pairs)} of {len(pairs)} below"
        color, marker = _step_color(place + 1), _MARKERS[place % len(_MARKERS)]
        axes.scatter(before, after, s=26, color=color, marker=marker, alpha=0.75, ec=_PAPER, lw=0.5, label=label)
    axes.set(xlim=span, ylim=span, aspect="equal", xlabel="Dice before", ylabel="Dice after")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    axes.set_title(name, weight="bold", loc="left", fontsize=10.5)
    axes.grid()
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.14), fontsize=8.5, handlelength=1.8)


def _svg(figure: Figure) -> Markup:
    text = io.StringIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    figure.savefig(text, format="svg", transparent=True, metadata=nothing)
    drawing = text.getvalue()
    drawing = drawing[drawing.index("<svg") :]
    for color, variable in _VARIABLES.items():
        drawing = drawing.replace(color, variable)
    # Ids of groups repeat from plot to plot, and nothing refers to them.
    return Markup(re.sub(r'<g id="[^"]*">', "<g>", drawing))


def _step_color(place: int) -> str:
    return _BASELINE if place == 0 else _STEPS[(place - 1) % len(_STEPS)]
