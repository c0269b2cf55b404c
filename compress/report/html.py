"""The report as one HTML file that needs nothing beside it: styles, plots and images are inside."""

from __future__ import annotations

import base64
import io
import json
import re
from collections.abc import Callable, Mapping, Sequence
from itertools import takewhile
from typing import Any

import matplotlib.style
import numpy as np
from contourpy import contour_generator
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray
from PIL import Image

from compress.report import derived
from compress.report.derived import COLLAPSE, NOTHING, Json, Line, Pairs
from compress.report.markdown import tables
from compress.report.report import Overlay

PALETTE = ("#e69f00", "#56b4e9", "#009e73", "#cc79a7", "#f0e442", "#0072b2", "#d55e00")
"""Told apart with every common colour blindness (Okabe & Ito 2008), in the order that stands out on grey."""
_BASELINE, *_STEPS = ("#8b95a5", "#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00")
_MARKERS = "o^sDvP"
_LARGEST = 512
"""Longer sides of images are scaled down to this, or the file would grow by megabytes a case."""

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


def to_html(report: Mapping[str, Any], overlays: Sequence[Overlay]) -> str:
    """The whole report; `report` is `Report.as_dict()` or report.json read back, `overlays` the worst cases."""
    pages = Environment(
        loader=PackageLoader("compress", "report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    pages.globals.update(derived=derived, collapse=COLLAPSE, reach=reach)
    gates, stages, classes, *rest = tables(report)
    names = derived.class_names(report)
    with matplotlib.style.context(["default", _STYLE]):
        plots = {"latency": _latency(report), "size": _size(report), "scatter": _scatter(report)}
    return pages.get_template("report.html.j2").render(
        report=report,
        verdict=derived.conclusion(report),
        summary=[derived.baseline_sentence(report), *derived.drop_sentences(report), *derived.slower_sentences(report)],
        last=derived.last_step(report),
        tables={"gates": gates, "stages": stages, "classes": classes, "rest": rest},
        plots=plots,
        legend=[(name, _color(place), _dash(place)) for place, name in enumerate(names)],
        cases=[_case(overlay, len(names)) for overlay in overlays],
        recipe=json.dumps(report["recipe"], indent=2, ensure_ascii=False),
    )


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
    shown = [line for line in derived.lines(report) if value(line) is not None]
    if not shown:
        return None
    groups = dict.fromkeys((line.backend, line.device) for line in shown)
    height = 0.27 * (len(shown) + 1.25 * len(groups)) + 0.55
    figure = Figure(figsize=(6.1, height), layout="constrained")
    axes = figure.subplots()
    steps = list(dict.fromkeys(line.step for line in derived.lines(report)))
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
    axes.annotate(derived.amount(value), (end, place), (4, 0), textcoords="offset points", va="center")


def _scatter(report: Json) -> Markup | None:
    """Dice of every case before and after, one panel a class, one marker a backend."""
    after = [line for line in derived.last_step(report) if line.dice is not None and line.step != "baseline"]
    names = derived.class_names(report)
    if not after or not names:
        return None
    columns = min(3, len(names))
    rows = -(-len(names) // columns)
    figure = Figure(figsize=(4.7 * columns, 4.7 * rows), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False)
    for axes in panels.flat[len(names) :]:
        axes.set_visible(False)
    for axes, name in zip(panels.flat, names, strict=False):
        _panel(axes, name, [(line.title, derived.pairs_of(report, line.row, name)) for line in after])
    return _svg(figure)


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
        label = f"{title}: {derived.collapsed(pairs)} of {len(pairs)} below"
        color, marker = _step_color(place + 1), _MARKERS[place % len(_MARKERS)]
        axes.scatter(before, after, s=26, color=color, marker=marker, alpha=0.75, ec=_PAPER, lw=0.5, label=label)
    axes.set(xlim=span, ylim=span, aspect="equal", xlabel="Dice before", ylabel="Dice after")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    axes.set_title(name, weight="bold", loc="left", fontsize=10.5)
    axes.grid()
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.14), fontsize=8.5, handlelength=1.8)


def reach(row: Sequence[str], start: int) -> int:
    """How many columns a cell can take: its own, and the empty ones behind it."""
    return 1 + sum(1 for _ in takewhile(lambda cell: cell == NOTHING, row[start + 1 :]))


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


def _color(place: int) -> str:
    return PALETTE[place % len(PALETTE)]


def _dash(place: int) -> str:
    """Past the palette, colours come again with dashed outlines."""
    return "" if place < len(PALETTE) else f"{4 + 3 * (place // len(PALETTE))} 3"


def _case(overlay: Overlay, classes: int) -> dict[str, Any]:
    """One worst case as the template draws it."""
    masks = (("truth", overlay.truth_HW), ("before", overlay.before_HW), ("after", overlay.after_HW))
    height, width = overlay.truth_HW.shape
    before, after = derived.number(overlay.dice_before), derived.number(overlay.dice_after)
    return {
        "overlay": overlay,
        "before": before,
        "after": after,
        "drop": None if before is None or after is None else before - after,
        "width": width,
        "height": height,
        "image": _png(overlay.image_HWC),
        "panels": [(title, [_outline(mask_HW == place + 1) for place in range(classes)]) for title, mask_HW in masks],
        "truth": _outline((overlay.truth_HW > 0) & (overlay.truth_HW <= classes)),
    }


def _png(image_HWC: NDArray[np.uint8]) -> str:
    image = Image.fromarray(image_HWC[:, :, 0] if image_HWC.shape[2] == 1 else image_HWC)
    image.thumbnail((_LARGEST, _LARGEST))
    png = io.BytesIO()
    image.save(png, "png")
    return "data:image/png;base64," + base64.b64encode(png.getvalue()).decode()


def _outline(inside_HW: NDArray[np.bool_]) -> str:
    """An SVG path around everything inside; empty if nothing is."""
    # Padded, so that a shape at the image's edge is closed there.
    found: Any = contour_generator(z=np.pad(inside_HW, 1).astype(float), line_type="Separate").lines(0.5)
    return "".join(f"M{'L'.join(f'{x - 0.5:.1f} {y - 0.5:.1f}' for x, y in line[:-1])}Z" for line in found)
