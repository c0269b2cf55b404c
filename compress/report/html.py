"""The report as one HTML file that needs nothing beside it: styles, plots and images are inside."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from contourpy import contour_generator
from numpy.typing import NDArray
from PIL import Image

from compress.gates.judging.paired_drop import COLLAPSE
from compress.report.derived import compared, headline, numbers, recorded, verdicts
from compress.report.drawing.palette import PALETTE
from compress.report.drawing.waterfall import legend as legend_of_steps
from compress.report.pages import page
from compress.report.plots import plots
from compress.report.report import Overlay
from compress.report.tables import tables

_LARGEST = 512
"""Longer sides of images are scaled down to this, or the file would grow by megabytes a case."""


def to_html(report: Mapping[str, Any], overlays: Sequence[Overlay]) -> str:
    """The whole report; `report` is `Report.as_dict()` or report.json read back, `overlays` the worst cases."""
    template = page(
        "report.html.j2",
        numbers=numbers,
        made=headline.made,
        about=headline.about,
        drop_text=headline.drop_text,
        collapse=COLLAPSE,
    )
    gates, steps, notes, devices, classes, *rest = tables(report)
    names = recorded.class_names(report)
    return template.render(
        report=report,
        verdict=verdicts.conclusion(report),
        summary=headline.summary(report),
        last=compared.last_step(report),
        many_measured=sum(line.measured for line in compared.last_step(report)) > 1,
        many=len(compared.steps(report)) > 3,
        compared=any(step.compared for step in compared.steps(report)),
        tables={"gates": gates, "steps": steps, "notes": notes, "devices": devices, "classes": classes, "rest": rest},
        plots=plots(report),
        places=legend_of_steps(report),
        legend=[(name, _color(index), _dash(index)) for index, name in enumerate(names)],
        cases=[_case(overlay, len(names)) for overlay in overlays],
        recipe=json.dumps(report["recipe"], indent=2, ensure_ascii=False),
    )


def _color(place: int) -> str:
    return PALETTE[place % len(PALETTE)]


def _dash(place: int) -> str:
    """Past the palette, colours come again with dashed outlines."""
    return "" if place < len(PALETTE) else f"{4 + 3 * (place // len(PALETTE))} 3"


def _case(overlay: Overlay, classes: int) -> dict[str, Any]:
    """One worst case as the template draws it."""
    masks = (("truth", overlay.truth_HW), ("before", overlay.before_HW), ("after", overlay.after_HW))
    height, width = overlay.truth_HW.shape
    before, after = numbers.number(overlay.dice_before), numbers.number(overlay.dice_after)
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
