"""A device over SSH against this host, where both are one machine: the same answers, the same times, the way there.

    python -m benchmarks.remote --at HOST --python PYTHON

HOST is this machine as `ssh` reaches it. The README's network, in float and in 8-bit integers, is run by every runtime
here and there: answers are compared to the bit, times are taken in turns in one run. The result is written to
benchmarks/remote.md.
"""

from __future__ import annotations

import contextlib
import json
import tempfile
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
import yaml

from compress.commands.run import run
from compress.measure.latency import Samples, Timing, in_turns
from compress.pipeline.deployment import Deployment, deployments
from compress.recipe import Recipe, load
from compress.task import Task
from export.artifact import Artifact
from export.files import write_bytes
from export.host import host_facts
from export.remote.target import RemoteTarget

HERE = Path(__file__).parent
RECIPE = HERE.parent / "recipes" / "unet_int8.yaml"
STEPS = ("baseline", "01-int8")


def main(
    at: Annotated[str, typer.Option(help="This machine, as ssh reaches it.")],
    python: Annotated[str, typer.Option(help="The Python there that has the runtimes.")] = "python3",
    samples: int = 200,
    to: Annotated[Path, typer.Option(help="The Markdown file to write.")] = HERE / "remote.md",
) -> None:
    """Run the recipe on both, time both in turns, and write the page."""
    recipe = yaml.safe_load(RECIPE.read_text())
    recipe["network"]["unet"]["weights"] = str(RECIPE.parent / "weights" / "phantom_unet.safetensors")
    recipe |= {"devices": ["cpu", {"cpu": {"at": at, "python": python}}]}
    recipe["gates"] = [gate for gate in recipe["gates"] if "dice_drop" in gate]
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "recipe.yaml"
        path.write_text(yaml.safe_dump(recipe, sort_keys=False))
        loaded, said = load(path), list[str]()
        begun = _first_word(loaded)
        run(loaded, Path(scratch) / "run", say=said.append)
        rows = json.loads((Path(scratch) / "run" / "report.json").read_text())["rows"]
        task = loaded.task()
        times = _times(loaded, task, rows, Path(scratch) / "run", Timing(samples=samples, seconds=120))
    write_bytes(to, _page(rows, times, begun, said, samples).encode())


def _first_word(recipe: Recipe) -> float:
    """Seconds from nothing to the first answer of the runner."""
    remote = next(at.target for at in deployments(recipe.devices, None) if not at.target.is_this_host)
    begun = time.perf_counter()
    remote.conditions()
    took = time.perf_counter() - begun
    remote.close()
    return took


def _times(
    recipe: Recipe, task: Task, rows: Sequence[Mapping[str, Any]], folder: Path, timing: Timing
) -> dict[str, Samples]:
    """Of each artifact here and there, all in turns."""
    places = {(at.backend, at.device.name): at for at in deployments(recipe.devices, None)}
    images = [task.data.image(case)[None] for case in task.data.cases["test"][:8]]
    with contextlib.ExitStack() as stack:
        clocks = {}
        for row in rows:
            at = places[row["backend"], row["device"]]
            if row["artifact"] is None or at.kind.runs_modules:
                continue
            infer = stack.enter_context(at.open().open(Artifact.read(folder / row["artifact"])))
            clocks[_name(row, at)] = partial(at.target.time, infer, images)
        times = in_turns(clocks, timing, recipe.seed)
    for at in places.values():
        at.target.close()
    return times


def _name(row: Mapping[str, Any], at: Deployment) -> str:
    return f"{row['step']} {row['backend']} {'there' if isinstance(at.target, RemoteTarget) else 'here'}"


def _page(
    rows: Sequence[Mapping[str, Any]], times: Mapping[str, Samples], begun: float, said: Sequence[str], samples: int
) -> str:
    cpu = host_facts(1)["cpu"]
    lines = [
        "# A device over SSH, where it is this machine",
        "",
        f"`python -m benchmarks.remote --at HOST --python PYTHON` on {cpu}: the README's recipe on `cpu` and on the "
        f"same CPU by way of an OpenSSH server on the loopback; {samples} timed runs of each artifact, in turns.",
        "",
        "| step | runtime | scores of 100 cases | p50 here | p50 there | there / here | p95 here | p95 there |",
        "|---|---|---|--:|--:|--:|--:|--:|",
    ]
    scores = {(row["step"], row["backend"], "@" in row["device"]): row["scores"] for row in rows}
    for step in STEPS:
        for backend in ("onnxruntime", "openvino"):
            same = scores[step, backend, True] == scores[step, backend, False]
            here, there = (
                np.percentile(times[f"{step} {backend} {at}"].times_ms, [50, 95]) for at in ("here", "there")
            )
            lines.append(
                f"| {step} | {backend} | {'equal, every digit' if same else 'DIFFERENT'} | {here[0]:.2f} ms | "
                f"{there[0]:.2f} ms | {there[0] / here[0]:.3f} | {here[1]:.2f} ms | {there[1]:.2f} ms |"
            )
    lines += ["", f"From nothing to the runner's first answer: {begun:.2f} s.", ""]
    sent = (f"- {line}." for line in said if "@" in line and "sent" in line)
    return "\n".join([*lines, *sent, ""])


if __name__ == "__main__":
    typer.run(main)
