"""Rows as a run measures them, and what gates say of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compress.gates.judging.judge import judge
from compress.gates.judging.verdict import Verdict
from compress.measure.latency import Samples
from compress.measure.row import Row
from compress.measure.segmentation import METRICS, Scores
from export.registry import named

Values = NDArray[np.float64]
NERVE = ("nerve",)


def scores(
    dice_NK: Any, classes: Sequence[str] = NERVE, units: Sequence[str] | None = None, hd95: Any = None
) -> Scores:
    """Scores with this Dice for every case and class; where it is NaN, the class is absent."""
    dice_NK = np.asarray(dice_NK, float).reshape(-1, len(classes))
    values_NKM = np.repeat(dice_NK[:, :, None], len(METRICS), axis=2)
    values_NKM[:, :, METRICS.index("hd95")] = 20 * (1 - dice_NK) if hd95 is None else np.reshape(hd95, dice_NK.shape)
    names = tuple(f"case_{place:03d}" for place in range(len(dice_NK)))
    return Scores(
        cases=names,
        units=names if units is None else tuple(units),
        class_names=tuple(classes),
        values_NKM=values_NKM,
        false_alarms=(0,) * len(classes),
        absent=tuple(int(count) for count in np.isnan(dice_NK).sum(axis=0)),
        sizes_NK2=np.full((*dice_NK.shape, 2), np.nan),
        pixels_CC=np.zeros((len(classes) + 1, len(classes) + 1)),
    )


def row(step: str, backend: str = "onnxruntime", device: str = "cpu", **more: Any) -> Row:
    if isinstance(more.get("scores"), Scores):
        more["scores"] = more["scores"].as_dict()
    if "p50" in more:
        p50 = more.pop("p50")
        times = {f"p{p}": round(p50 * (1 + p / 1000), 3) for p in (50, 90, 95, 99)}
        more["latency_ms"] = {**times, "n": more.pop("n", 459)}
    return Row(
        **{"step": step, "backend": backend, "device": device, "status": "measured", "params": 1, "macs": 1, **more}
    )


def ruled(gate: tuple[Any, dict[str, Any]], *rows: Row) -> list[Verdict]:
    word, options = gate
    return judge([(word, named("compress.gates", word)(**options))], rows)


def verdict(gate: tuple[Any, dict[str, Any]], *rows: Row) -> Verdict:
    (only,) = ruled(gate, *rows)
    return only


def drop_gate(before: Any, after: Any, margin: float = 0.01, **more: Any) -> Verdict:
    """The verdict on a Dice drop of one class."""
    was, now = (one if isinstance(one, Scores) else scores(one) for one in (before, after))
    return verdict(
        ("dice_drop", {"at_most": margin, **more}), row("baseline", "torch", scores=was), row("01-int8", scores=now)
    )


def lost(n: int, mean: float, spread: float = 0.001) -> tuple[Values, Values]:
    """Dice before and after, with this mean drop exactly."""
    noise = np.random.default_rng(n).normal(0, spread, n)
    return np.full(n, 0.9), 0.9 - (noise - noise.mean() + mean)


def times(samples: Sequence[float]) -> dict[str, Any]:
    return Samples(times_ms=list(samples)).as_dict()
