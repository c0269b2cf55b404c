"""Sensitivity as a table on the terminal, and as a plot that is a file of its own."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib.style
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from rich.console import Console
from rich.table import Table
from rich.text import Text

from compress.report.derived.numbers import NOTHING, large, signed
from export.files import write_bytes

_STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "segpress",
    "font.size": 9.5,
    "text.parse_math": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.axisbelow": True,
    "grid.color": "#d9dee6",
    "legend.frameon": False,
}
_SHADES = ("#9ecae1", "#4292c6", "#08519c", "#08306b")
_MOST = 40
"""Layers in a plot; the rest, which cost least, are in the table and in sensitivity.json."""


def show(found: Mapping[str, Any], console: Console) -> None:
    """Print the tables, what costs most first."""
    console.print(
        f"{found['cases']} validation cases; uncompressed mean foreground Dice {found['dice']:.4f}. "
        f"Measured in {found['measured_in']}.",
        markup=False,
    )
    console.print()
    console.print(_pruning(found))
    if found["kept"]:
        console.print()
        for group in found["kept"]:
            console.print(Text(f"not prunable: {_name(group['layers'])}: {group['reason']}", "dim"))
    if found["int8"] is not None:
        console.print()
        console.print(_integers(found["int8"]))
        whole = found["int8"]["all"]
        console.print(Text(f"All layers in 8-bit integers: {_span(whole)}"))


def _pruning(found: Mapping[str, Any]) -> Table:
    table = _table("Pruning one group alone", ("layers",), ("channels", "gone", "drop [95 % limits]", "params", "MACs"))
    for one in found["prune"]:
        sizes = (large(one.get("params")), large(one.get("macs")))
        cells = (_name(one["layers"]), str(one["channels"]), f"{one['ratio']:.0%}", _span(one), *sizes)
        table.add_row(*map(Text, cells))
    return table


def _integers(found: Mapping[str, Any]) -> Table:
    heads = ("alone: drop [95 % limits]", "all but it: drop", "won back by float")
    table = _table("8-bit integers", ("layer",), heads)
    for one in found["layers"]:
        cells = (one["layer"], _span(one["alone"]), signed(one["all_but"]["drop"]), signed(one["won_back"]))
        table.add_row(*map(Text, cells))
    return table


def _table(title: str, words: Sequence[str], numbers: Sequence[str]) -> Table:
    table = Table(title=Text(title, "bold"), title_justify="left", header_style="bold", box=None, pad_edge=False)
    for head in words:
        table.add_column(head, overflow="fold")
    for head in numbers:
        table.add_column(Text(head), justify="right")
    return table


def _name(layers: Sequence[str]) -> str:
    return layers[0] if len(layers) == 1 else f"{layers[0]} and {len(layers) - 1} more"


def _span(one: Mapping[str, Any]) -> str:
    if one["drop"] is None:
        return one["reason"] or NOTHING
    limits = "" if one["lower"] is None or one["upper"] is None else f" [{one['lower']:.4f}, {one['upper']:.4f}]"
    return f"{signed(one['drop'])}{limits}"


def draw(found: Mapping[str, Any], folder: Path) -> None:
    """Write sensitivity.svg and sensitivity.png."""
    with matplotlib.style.context(["default", _STYLE]):
        figure = _figure(found)
        for kind in ("svg", "png"):
            page = io.BytesIO()
            metadata = dict.fromkeys(("Date", "Creator")) if kind == "svg" else {"Software": None}
            figure.savefig(page, format=kind, dpi=144, metadata=metadata, facecolor="white")
            write_bytes(folder / f"sensitivity.{kind}", page.getvalue())


def _figure(found: Mapping[str, Any]) -> Figure:
    pruned: dict[str, list[Mapping[str, Any]]] = {}
    for one in found["prune"]:
        pruned.setdefault(_name(one["layers"]), []).append(one)
    layers = [] if found["int8"] is None else found["int8"]["layers"]
    rows = max(3, min(_MOST, len(pruned)), min(_MOST, len(layers)))
    panels = 1 + (found["int8"] is not None)
    figure = Figure(figsize=(6.4 * panels, 1.6 + 0.24 * rows), layout="constrained")
    axes = figure.subplots(1, panels, squeeze=False)[0]
    ratios = sorted({one["ratio"] for one in found["prune"]})
    _dots(
        axes[0],
        "Dice lost by pruning one group alone",
        list(pruned),
        [
            (f"{ratio:.0%} of channels gone", _SHADES[min(index, 3)], [_of(pruned[name], ratio) for name in pruned])
            for index, ratio in enumerate(ratios)
        ],
    )
    if panels == 2:
        drops = [one["alone"]["drop"] for one in layers], [one["won_back"] for one in layers]
        series = [
            ("in 8-bit integers: lost", "#0072b2", drops[0]),
            ("in float, the rest in integers: won back", "#e69f00", drops[1]),
        ]
        _dots(axes[1], "Dice lost and won back, one layer alone", [one["layer"] for one in layers], series)
    return figure


def _of(group: Sequence[Mapping[str, Any]], ratio: float) -> float | None:
    return next((one["drop"] for one in group if one["ratio"] == ratio), None)


def _dots(
    axes: Axes, title: str, names: Sequence[str], series: Sequence[tuple[str, str, Sequence[float | None]]]
) -> None:
    shown = names[:_MOST]
    rest = f" (the {len(shown)} of {len(names)} that cost most)" if len(names) > len(shown) else ""
    axes.set_title(f"{title}{rest}", loc="left", fontsize=10, weight="bold")
    for label, color, values in series:
        marks = [(value, index) for index, value in enumerate(values[: len(shown)]) if value is not None]
        axes.plot(
            [x for x, _ in marks], [y for _, y in marks], "o", ms=6, color=color, label=label, mec="white", mew=0.6
        )
    axes.axvline(0, color="#8b95a5", lw=1)
    axes.set_yticks(range(len(shown)), shown)
    axes.set_ylim(max(len(shown), 1) - 0.4, -0.6)
    axes.tick_params(length=0)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.grid()
    axes.set_xlabel("Dice on validation cases")
    if series:
        axes.legend(
            loc="upper center", bbox_to_anchor=(0.5, -0.62 / (0.24 * max(len(shown), 3) + 0.5)), ncols=3, fontsize=8.5
        )
