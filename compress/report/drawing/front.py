"""The trials of a search: the first objective over each of the others, a panel each, with the front in colour."""

from __future__ import annotations

from typing import Any

import matplotlib.style
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from compress.report.derived import numbers
from compress.report.derived.recorded import Json
from compress.report.drawing.look import BASELINE, PAPER, STEPS, STYLE, side_by_side, svg


def front_plot(record: Json) -> Markup | None:
    """One panel for each objective but the first; None where there is no other, or nothing was measured."""
    measured = [trial for trial in record["trials"] if trial["objectives"] is not None]
    if not measured or len(record["objectives"]) == 1:
        return None
    drawn = []
    with matplotlib.style.context(["default", STYLE]):
        for place in range(1, len(record["objectives"])):
            figure = Figure(figsize=(4.7, 4.4), layout="constrained")
            _panel(figure.subplots(), record, place)
            drawn.append(svg(figure))
    return side_by_side(drawn)


def _panel(axes: Axes, record: Json, place: int) -> None:
    on_front = {point["trial"] for point in record["front"]}
    others = [each["objectives"] for each in record["trials"] if each["objectives"] and each["number"] not in on_front]
    points = [point["objectives"] for point in record["front"]]
    marks: tuple[tuple[str, list[list[float]], dict[str, Any]], ...] = (
        ("other trials", others, {"marker": "o", "s": 22, "color": "none", "ec": BASELINE, "lw": 1.1}),
        ("uncompressed", [record["reference"]["objectives"]], {"marker": "D", "s": 46, "color": BASELINE, "ec": PAPER}),
        ("the front", points, {"marker": "o", "s": 46, "color": STEPS[0], "ec": PAPER}),
    )
    for label, values, look in marks:
        axes.scatter([each[place] for each in values], [each[0] for each in values], label=label, **look)
    for number, each in enumerate(points, start=1):
        axes.annotate(f"{number:02d}", (each[place], each[0]), xytext=(5, 5), textcoords="offset points", fontsize=8.5)
    axes.set_xscale("log")
    axes.set(xlabel=record["objectives"][place]["title"], ylabel=record["objectives"][0]["title"])
    axes.margins(0.09)
    axes.minorticks_off()
    axes.xaxis.set_major_locator(LogLocator(subs=_marked(*axes.get_xlim())))
    axes.xaxis.set_major_formatter(lambda value, _: numbers.large(value) if value >= 1000 else f"{value:g}")
    axes.grid()
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=3, fontsize=8.5, handletextpad=0.2)


def _marked(low: float, high: float) -> tuple[float, ...]:
    """Where a logarithmic axis has marks, in each decade: the fewer the longer it is."""
    if high / low < 3:
        return tuple(1 + tenth / 5 for tenth in range(45))
    return (1, 1.5, 2, 3, 5, 7) if high / low < 12 else (1, 2, 5) if high / low < 60 else (1,)
