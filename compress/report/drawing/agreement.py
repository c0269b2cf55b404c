"""How large things are in answers and in truth: difference against mean (Bland & Altman 1986), one panel a class."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from compress.measure.segmentation import FEWEST
from compress.report.derived import agreement, recorded
from compress.report.derived.agreement import Sizes
from compress.report.derived.recorded import Json
from compress.report.drawing.look import FAINT, INK, MARKERS, PAPER, side_by_side, step_color, svg


def sizes(report: Json) -> Markup | None:
    """Of classes that enough test cases have for limits to say something."""
    panels = []
    for name in recorded.class_names(report):
        found = agreement.sizes(report, name)
        if not found or len(found[0].pairs) < FEWEST:
            continue
        figure = Figure(figsize=(4.7, 3.4 + 0.2 * len(found)), layout="constrained")
        _panel(figure.subplots(), name, found, agreement.unit_of(report))
        panels.append(svg(figure))
    return side_by_side(panels) if panels else None


def _panel(axes: Axes, name: str, found: Sequence[Sizes], unit: str) -> None:
    axes.axhline(0, color=INK, lw=0.9)
    for index, each in enumerate(found):
        color, marker = step_color(index), MARKERS[index % len(MARKERS)]
        means = [(true + answered) / 2 for true, answered in each.pairs]
        differences = [answered - true for true, answered in each.pairs]
        label = f"{each.title}: bias {each.bias:+.3g}"
        axes.scatter(means, differences, s=20, color=color, marker=marker, alpha=0.65, ec=PAPER, lw=0.4, label=label)
        axes.axhline(each.bias, color=color, lw=1.2)
        for limit in each.limits or ():
            axes.axhline(limit, color=color, lw=1, ls=(0, (5, 3)))
    axes.set(xlabel=f"mean of true and answered size ({unit})", ylabel=f"answered less true ({unit})")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    axes.set_title(name, weight="bold", loc="left", fontsize=10.5)
    axes.grid(color=FAINT)
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.18), fontsize=8.5, handlelength=1.8)
