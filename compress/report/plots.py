"""The report's plots, as SVG that follows the page's colours."""

from __future__ import annotations

import matplotlib.style
from markupsafe import Markup

from compress.report.derived.recorded import Json
from compress.report.drawing.agreement import sizes
from compress.report.drawing.bars import latency, size
from compress.report.drawing.look import STYLE
from compress.report.drawing.scatter import scatter
from compress.report.drawing.waterfall import waterfall


def plots(report: Json) -> dict[str, Markup | None]:
    """Every plot by name; None where nothing was measured that it could show.

    "steps", "scatter" and "sizes" are several drawings, each in a `div` of class "panel", which the page lays out.
    """
    with matplotlib.style.context(["default", STYLE]):
        return {
            "steps": waterfall(report),
            "latency": latency(report),
            "size": size(report),
            "scatter": scatter(report),
            "sizes": sizes(report),
        }
