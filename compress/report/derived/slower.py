"""What a report says of artifacts that are slower, hardly faster or larger than what they were made from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from compress.measure.row import NOISE
from compress.report.derived.compared import last_step, lines
from compress.report.derived.numbers import amount, large
from compress.report.derived.recorded import Json


def slower_sentences(report: Json) -> list[str]:
    """A warning for each artifact that is slower, hardly faster or larger than what it was made from."""
    found = list(_larger(report))
    last = {line.title for line in last_step(report)}
    for line in lines(report):
        slower: Json = line.row.get("slower") or {}
        if slower:
            layers = ", ".join(map(_changed, slower["layers"]))
            costs = f" (most of it in {layers})" if layers else ""
            how = "slower" if slower["speed_up"] < NOISE else "hardly faster"
            found.append(f"{line.title} is {how} than {slower['than']} there ({slower['speed_up']:.2f}x){costs}.")
        below = line.speed_up is not None and line.speed_up < 1
        if below and line.title in last and line.step != "baseline" and slower.get("than") != "baseline":
            found.append(f"{line.title} is slower than the baseline there ({line.speed_up:.2f}x).")
        if below and line.title in last and line.step != "baseline":
            mixed = (line.row.get("layers") or {}).get("integer")
            found[-1] += f" Use the baseline on this runtime{', or int8: {when: faster}' if mixed else ''}."
    return found


def _changed(layer: Sequence[Any]) -> str:
    """A layer and its time before and after; what it is, where that is said."""
    name, was, now, *kind = layer
    return f"{name} {amount(was)} to {amount(now)} ms" + (f", {kind[0]}" if any(kind) else "")


def _larger(report: Json) -> Iterator[str]:
    """A sentence for each integer file that is larger than the baseline's on its runtime."""
    for line in lines(report):
        if line.size_ratio is not None and line.size_ratio < 1 and (line.row.get("layers") or {}).get("integer"):
            yield (
                f"{line.title} is larger than the baseline's file there ({amount(line.size_mb)} MB, "
                f"{1 / line.size_ratio:.2f}x): with {large(line.row['params'])} parameters, scales, quantization nodes "
                "and a runtime's integer kernels take more room than 8-bit weights save."
            )
