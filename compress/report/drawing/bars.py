"""Bars of one number, grouped by backend and device: latency and size."""

from __future__ import annotations

from collections.abc import Callable

from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from compress.report.derived import compared, numbers
from compress.report.derived.compared import Line
from compress.report.derived.recorded import Json
from compress.report.drawing.look import INK, step_color, svg


def latency(report: Json) -> Markup | None:
    return _bars(
        report, "ms an image, network alone", lambda line: line.p50_ms, lambda line: line.part("latency_ms", "p95")
    )


def size(report: Json) -> Markup | None:
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
            _bar(axes, top, value(line) or 0.0, whisker(line), step_color(steps.index(line.step)))
        top += 1.25
    axes.set_yticks(list(places), list(places.values()))
    axes.tick_params(length=0)
    axes.set_ylim(top - 0.6, -0.6)
    axes.margins(x=0.16)
    axes.set_xlim(left=0)
    axes.set_xlabel(unit)
    axes.grid(axis="x")
    axes.spines["left"].set_visible(False)
    return svg(figure)


def _bar(axes: Axes, place: float, value: float, whisker: float | None, color: str) -> None:
    axes.barh(place, value, height=0.72, color=color)
    end = max(value, whisker or 0)
    if whisker is not None:
        axes.plot([value, whisker, whisker], [place, place, place], color=INK, lw=1.2)
        axes.plot([whisker, whisker], [place - 0.2, place + 0.2], color=INK, lw=1.2)
    axes.annotate(numbers.amount(value), (end, place), (4, 0), textcoords="offset points", va="center")
