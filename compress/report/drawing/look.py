"""What the report's plots look like: colours that follow the page, marks, and SVG."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence

from markupsafe import Markup
from matplotlib.figure import Figure

BASELINE, *STEPS = ("#8b95a5", "#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00")
MARKERS = "o^sDvP"
OUTLINES = {
    "o": "M6 2a4 4 0 1 1 0 8a4 4 0 1 1 0-8Z",
    "^": "M6 1.5L10.5 10.5H1.5Z",
    "s": "M2.5 2.5H9.5V9.5H2.5Z",
    "D": "M6 1L11 6L6 11L1 6Z",
    "v": "M6 10.5L10.5 1.5H1.5Z",
    "P": "M4.5 1.5H7.5V4.5H10.5V7.5H7.5V10.5H4.5V7.5H1.5V4.5H4.5Z",
}
"""Matplotlib's markers as SVG paths in a square of 12 by 12."""

# Matplotlib knows no CSS variables: these stand in for them, so that plots follow light and dark.
INK, FAINT, PAPER = "#010203", "#040506", "#070809"
_VARIABLES = {INK: "var(--ink)", FAINT: "var(--line)", PAPER: "var(--paper)"}
STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "segpress",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9.5,
    # A class named $x$ is a name, not a formula.
    "text.parse_math": False,
    "text.color": INK,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": FAINT,
    "grid.linewidth": 0.7,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "legend.frameon": False,
}


def svg(figure: Figure) -> Markup:
    """A figure as SVG whose colours are the page's."""
    text = io.StringIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    figure.savefig(text, format="svg", transparent=True, metadata=nothing)
    drawing = text.getvalue()
    drawing = drawing[drawing.index("<svg") :]
    for color, variable in _VARIABLES.items():
        drawing = drawing.replace(color, variable)
    # Ids of groups repeat from plot to plot, and nothing refers to them.
    return Markup(re.sub(r'<g id="[^"]*">', "<g>", drawing))


def side_by_side(drawings: Sequence[Markup]) -> Markup:
    """Several drawings, which the page lays out as it has room."""
    return Markup("\n").join(Markup('<div class="panel">{}</div>').format(each) for each in drawings)


def step_color(index: int) -> str:
    """The colour of a step by its number; 0 is the baseline."""
    return BASELINE if index == 0 else STEPS[(index - 1) % len(STEPS)]
