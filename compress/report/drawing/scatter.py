"""Dice of every case before and after, one panel a class, one marker an artifact."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from compress.gates.judging.paired_drop import COLLAPSE
from compress.report.derived import compared, drops, recorded
from compress.report.derived.drops import Pairs
from compress.report.derived.recorded import Json
from compress.report.drawing.look import INK, MARKERS, PAPER, side_by_side, step_color, svg


def scatter(report: Json) -> Markup | None:
    """Dice of every case before and after, one panel a class, one marker a backend."""
    after = [line for line in compared.last_step(report) if line.dice is not None and line.step != "baseline"]
    names = recorded.class_names(report)
    if not after or not names:
        return None
    return _panels({name: [(line.title, drops.pairs_of(report, line.row, name)) for line in after] for name in names})


def of_pairs(names: Sequence[str], scored: Sequence[tuple[str, Json, Json]]) -> Markup:
    """The same of artifacts of two runs, each with its title and its scores before and after."""
    return _panels(
        {name: [(title, drops.pairs_between(was, now, name)) for title, was, now in scored] for name in names}
    )


def _panels(by_class: Mapping[str, Sequence[tuple[str, Pairs]]]) -> Markup:
    drawn = []
    for name, found in by_class.items():
        figure = Figure(figsize=(4.7, 4.7 + 0.2 * len(found)), layout="constrained")
        _panel(figure.subplots(), name, found)
        drawn.append(svg(figure))
    return side_by_side(drawn)


def _panel(axes: Axes, name: str, found: Sequence[tuple[str, Pairs]]) -> None:
    every = [value for _, pairs in found for pair in pairs for value in pair]
    low = max(0.0, min(every, default=0.5) - 0.06)
    span = (low, 1.0 + 0.02 * (1 - low))
    axes.plot(span, span, color=INK, lw=0.9, label="no change")
    lost = [value - COLLAPSE for value in span]
    axes.plot(span, lost, color="#d55e00", lw=1.1, ls=(0, (5, 3)), label=f"{COLLAPSE:.2f} lost")
    axes.fill_between(span, lost, low, color="#d55e00", alpha=0.07, lw=0)
    for index, (title, pairs) in enumerate(found):
        before, after = zip(*pairs, strict=True) if pairs else ((), ())
        label = f"{title}: {drops.collapsed_pairs(pairs)} of {len(pairs)} below"
        color, marker = step_color(index + 1), MARKERS[index % len(MARKERS)]
        axes.scatter(before, after, s=26, color=color, marker=marker, alpha=0.75, ec=PAPER, lw=0.5, label=label)
    axes.set(xlim=span, ylim=span, aspect="equal", xlabel="Dice before", ylabel="Dice after")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    axes.set_title(name, weight="bold", loc="left", fontsize=10.5)
    axes.grid()
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.14), fontsize=8.5, handlelength=1.8)
