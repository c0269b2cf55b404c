"""What a run itself takes, beside another checkout's, and whether both say the same.

    python -m benchmarks.own_time --before ../segpress-before

Each recipe is run afresh by one checkout and then by the other, in turns, so that a noisy minute falls on both. CPU
time is counted beside the wall's, since it says the same on a host that is busy. The result is written to
benchmarks/own_time.md.
"""

from __future__ import annotations

import json
import os
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from compress.errors import SurroundingsError
from export.files import write_bytes
from export.host import host_facts, usable_cpus

HERE = Path(__file__).parent
TIMES = ("latency_ms", "peak_memory_mb", "seconds")
"""What differs from run to run."""
SHOWN = 4
"""Places in which reports differ that are named."""
TOY: Mapping[str, Any] = {
    "name": "toy",
    "seed": 7,
    "network": {
        "unet": {
            "classes": 3,
            "in_channels": 1,
            "width": 16,
            "weights": str(HERE.parent / "recipes/weights/phantom_unet.safetensors"),
        }
    },
    "data": {"synthetic": {"train": 64, "val": 8, "calibration": 8, "test": 30, "size": [64, 64]}},
    "passes": [{"prune": {"ratio": 0.3}}, {"distill": {"epochs": 3}}, {"int8": {"calibrate": 8}}],
    "devices": ["cpu", "rtx_30"],
    "latency": {"samples": 20, "seconds": 1, "warm_up": 0.2},
}
"""Little to compute, so that what is left is what the tool takes for itself."""


@dataclass(frozen=True, kw_only=True)
class Took:
    """One run."""

    wall_s: float
    cpu_s: float
    """Of the program and the processes it started."""
    report: Mapping[str, Any]


def main(
    before: Annotated[Path, typer.Option(help="A checkout of segpress to compare this one with.", exists=True)],
    pairs: int = 3,
    to: Annotated[Path, typer.Option(help="The Markdown file to write.")] = HERE / "own_time.md",
) -> None:
    """Run every recipe with both checkouts and write the table."""
    lines = [
        "# The tool's own time",
        "",
        f"`python -m benchmarks.own_time`, {pairs} pairs in turns on {host_facts(usable_cpus())['cpu']}, "
        f"{usable_cpus()} CPUs. Medians; CPU time is of all processes.",
        "",
        "| recipe | wall before | wall after | | CPU before | CPU after | | reports |",
        "|---|--:|--:|--:|--:|--:|--:|---|",
    ]
    with tempfile.TemporaryDirectory() as scratch:
        toy = Path(scratch) / "toy.yaml"
        toy.write_text(yaml.safe_dump(dict(TOY), sort_keys=False))
        for recipe in (HERE.parent / "recipes/unet_int8.yaml", toy):
            turns = [
                [_run(checkout, recipe, Path(scratch)) for checkout in (before, HERE.parent)] for _ in range(pairs)
            ]
            lines.append(_line(recipe.stem, turns))
            typer.echo(lines[-1])
    write_bytes(to, ("\n".join(lines) + "\n").encode())


def _run(checkout: Path, recipe: Path, scratch: Path) -> Took:
    with tempfile.TemporaryDirectory(dir=scratch) as out:
        command = [sys.executable, "-m", "compress", "run", str(recipe), "--out", out]
        spent, begun = _children_s(), time.perf_counter()
        # From the scratch folder both read the phantoms made once, and neither finds the other's packages.
        done = subprocess.run(
            command,
            cwd=scratch,
            env={**os.environ, "PYTHONPATH": str(checkout.resolve())},
            capture_output=True,
            text=True,
            check=False,
        )
        wall_s, cpu_s = time.perf_counter() - begun, _children_s() - spent
        reports = list(Path(out).glob("*/report.json"))
        if not reports:
            raise SurroundingsError(f"{checkout}: {recipe.name} did not end ({done.stderr.strip()[-300:]})")
        return Took(wall_s=wall_s, cpu_s=cpu_s, report=json.loads(reports[0].read_text()))


def _children_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _line(name: str, turns: Sequence[Sequence[Took]]) -> str:
    cells = [name]
    for what in ("wall_s", "cpu_s"):
        was, now = (statistics.median(getattr(turn[side], what) for turn in turns) for side in (0, 1))
        cells += [f"{was:.0f} s", f"{now:.0f} s", f"{now / was:.2f}"]
    differing = sorted({place for was, now in turns for place in differences(was.report, now.report)})
    more = f" and {len(differing) - SHOWN} more places" if len(differing) > SHOWN else ""
    told = f"{', '.join(differing[:SHOWN])}{more}" if differing else "equal but for times and memory"
    return f"| {' | '.join([*cells, told])} |"


def differences(was: Any, now: Any, place: str = "report") -> Iterator[str]:
    """Where two reports say something else, but for what differs from run to run."""
    if isinstance(was, dict) and isinstance(now, dict):
        # The value of a gate on speed is a time as well.
        for key in sorted({*was, *now} - {*TIMES, *(["value"] if was.get("name") in ("speedup", *TIMES) else [])}):
            yield from differences(was.get(key), now.get(key), f"{place}.{key}")
    elif isinstance(was, list) and isinstance(now, list) and len(was) == len(now):
        for number, (one, other) in enumerate(zip(was, now, strict=True)):
            yield from differences(one, other, f"{place}[{number}]")
    elif isinstance(was, str) and isinstance(now, str):
        # Notes tell times too.
        if re.sub(r"[\d.]+ s\b", "", was) != re.sub(r"[\d.]+ s\b", "", now):
            yield place
    elif was != now:
        yield place


if __name__ == "__main__":
    typer.run(main)
