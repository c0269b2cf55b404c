"""segpress.json: what a device must know of a packed network, in one file."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from compress.packing.source import Source
from export.files import sha256

FORMAT = "segpress-pack/2"
"""Changes where a reader of an older one would go wrong."""
COLOURS = (
    (0, 0, 0),
    (230, 159, 0),
    (86, 180, 233),
    (0, 158, 115),
    (204, 121, 167),
    (240, 228, 66),
    (0, 114, 178),
    (213, 94, 0),
)
"""Of classes, background first: those of the report (Okabe and Ito 2008, told apart by the colour-blind)."""


def about(source: Source, runtime: str, licence: str) -> dict[str, Any]:
    """The content of segpress.json.

    Args:
        runtime: the word under which runner/segpress_run.py opens the model.
        licence: of the weights.
    """
    classes: Sequence[str] = source.json("classes")
    return {
        "format": FORMAT,
        "name": source.run.name,
        "licence": licence,
        "about": dict(source.run.record["recipe"].get("about") or {}),
        "model": _model(source, runtime),
        "preprocess": _preprocess(source),
        "postprocess": {
            "activation": source.told["segpress.activation"],
            "threshold": source.json("threshold"),
            "restore": source.told["segpress.restore"],
            "steps": list(_steps(source, classes)),
        },
        "classes": [
            {"index": index, "name": name, "colour": list(_colour(index))} for index, name in enumerate(classes)
        ],
        "made": {
            "step": source.row.step,
            "weights_sha256": source.told["segpress.weights_sha256"],
            "report_sha256": sha256(source.run.path),
            "versions": source.json("versions"),
        },
        "measured": _measured(source),
    }


def _model(source: Source, runtime: str) -> dict[str, Any]:
    artifact = source.artifact
    return {
        "file": artifact.path.name,
        "runtime": runtime,
        "beside": list(artifact.beside),
        "sha256": {file.name: sha256(file) for file in artifact.files},
        **{
            word: {"name": port.name, "shape": list(port.shape), "layout": "NCHW", "type": "float32"}
            for word, port in (("input", artifact.input), ("output", artifact.output))
        },
    }


def _preprocess(source: Source) -> dict[str, Any]:
    normalization = source.normalization
    return {
        "pixels": "unsigned, 8 or 16 bits, HW or HWC (red, green, blue), upright",
        "channels": source.artifact.input.shape[1],
        "order": source.told["segpress.channels"],
        "fit": source.told["segpress.fit"],
        "size": source.json("size"),
        "resize": source.told["segpress.resize"],
        "padding": source.json("padding"),
        "scale": normalization.scale,
        "mean": list(normalization.mean),
        "std": list(normalization.std),
        "z_score": normalization.z_score,
    }


def _steps(source: Source, classes: Sequence[str]) -> list[Mapping[str, Any]]:
    """Steps on labels, each with its classes by name."""
    return [
        {word: {**options, "classes": list(options.get("classes") or classes[1:])}}
        for step in source.steps
        for word, options in step.items()
        if word != "threshold"
    ]


def _colour(index: int) -> tuple[int, int, int]:
    """The report's, and beyond those one of the class's own."""
    if index < len(COLOURS):
        return COLOURS[index]
    red, green, blue = hashlib.sha256(str(index).encode()).digest()[:3]
    return red, green, blue


def _measured(source: Source) -> dict[str, Any]:
    """What the report says of this artifact on the host that measured it."""
    row, host = source.row, source.run.record["host"]
    latency = row.latency_ms or {}
    dice = (row.scores or {}).get("dice")
    drop = (row.dice_drop or {}).get("mean", {})
    return {
        "status": row.status,
        "why_not": row.reason,
        "device": row.device,
        "host": host.get("cpu", host),
        "dice": dice,
        "dice_drop": drop.get("drop"),
        "dice_drop_upper_limit": drop.get("upper"),
        "latency_ms_p50": latency.get("p50"),
        "latency_ms_p95": latency.get("p95"),
    }
