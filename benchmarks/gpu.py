"""Networks on a GPU of this host, or on another device: what each runtime takes, in float and in 8-bit integers.

    python -m benchmarks.gpu --device cuda

Untrained networks, since only times, sizes and the distance from torch are looked at: a row says how far an artifact is
from the same network in torch. Where the device is not here, the page says so. The result is written to
benchmarks/gpu.md.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
import yaml

from compress.commands.run import run
from compress.errors import NotHere
from compress.measure.latency import samples_for
from compress.pipeline.deployment import deployments
from compress.recipe import load
from compress.storage.description import Description, build_net
from compress.storage.weights import save_net
from export.backends.torch import OnGpu
from export.files import write_bytes
from export.host import host_facts

HERE = Path(__file__).parent
FLAT = {"classes": 3, "in_channels": 1}
NETWORKS: Mapping[str, Mapping[str, Any]] = {
    "U-Net, width 16": {"unet": {**FLAT, "width": 16}},
    "U-Net, width 32": {"unet": {**FLAT, "width": 32}},
    "U-Net, width 64": {"unet": {**FLAT, "width": 64}},
    "UNet++, width 32": {"unetpp": {**FLAT, "width": 32, "deep_supervision": False}},
    "SegNet, width 64": {"segnet": {**FLAT, "width": 64}},
}


def main(
    device: Annotated[str, typer.Option(help="A word of export/devices/, or word@host.")] = "cuda",
    networks: Annotated[str, typer.Option(help="Which, by their words; all by default.")] = "",
    size: int = 256,
    samples: int = samples_for(99),
    to: Annotated[Path, typer.Option(help="The Markdown file to write.")] = HERE / "gpu.md",
) -> None:
    """Run every network and write the table."""
    asked = [title for title in NETWORKS if networks in title]
    lines = [
        "# Networks on a GPU",
        "",
        f"`python -m benchmarks.gpu --device {device}`: {size}x{size}, batch 1, transfers to the device and back "
        f"included, {samples} timed runs of each artifact, of one network in turns. Host: {host_facts(1)['cpu']}.",
        "",
        "| network | step | runtime | p50 ms | p95 ms | over torch | MB | error of the logits | pixels flipped |",
        "|---|---|---|--:|--:|--:|--:|--:|--:|",
    ]
    alone: list[str] = []
    for title in asked:
        with tempfile.TemporaryDirectory() as folder:
            recipe = _recipe(NETWORKS[title], device, (size, samples), Path(folder))
            if away := _away(recipe):
                lines = [*lines[:2], f"not measured: {away}.", "", *lines[2:3]]
                break
            run(load(recipe), Path(folder) / "run", say=typer.echo)
            rows = json.loads((Path(folder) / "run" / "report.json").read_text())["rows"]
        lines += _lines(title, rows)
        alone += [_alone(title, size)] if "@" not in device else []
    lines += ["", *alone] if alone else []
    write_bytes(to, ("\n".join(lines) + "\n").encode())


def _recipe(network: Mapping[str, Any], device: str, counts: tuple[int, int], folder: Path) -> Path:
    """A recipe over this network with random weights; gates judge nothing of it."""
    size, samples = counts
    torch.manual_seed(7)
    ((word, options),) = network.items()
    weights = folder / "net.safetensors"
    save_net(build_net(network).eval(), Description(network=network), weights)
    plain, _, host = device.partition("@")
    recipe = {
        "name": "gpu",
        "network": {word: {**options, "weights": str(weights)}},
        "data": {"synthetic": {"train": 0, "val": 0, "calibration": 16, "test": 8, "size": [size, size]}},
        "passes": [{"int8": {"calibrate": 16, "method": "min_max"}}],
        "devices": [{plain: {"at": host}} if host else plain],
        "latency": {"samples": samples, "seconds": 60},
    }
    recipe["data"]["synthetic"]["normalization"] = {"mean": [0.58], "std": [0.17]}  # type: ignore[index]
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe, sort_keys=False))
    return path


def _away(recipe: Path) -> str | None:
    """Why nothing is measured there; None where something is."""
    try:
        for at in deployments(load(recipe).devices, None):
            at.target.check_here()
    except NotHere as error:
        return str(error)
    return None


def _lines(title: str, rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    torch_ms = next((row["latency_ms"]["p50"] for row in rows if row["backend"] == "torch" and row["latency_ms"]), None)
    for row in rows:
        head = f"| {title} | {row['step']} | {row['backend']} |"
        if row["latency_ms"] is None:
            yield f"{head} not measured: {row['reason']} | | | | | |"
            continue
        p50, apart = row["latency_ms"]["p50"], row["parity"]
        over = f"{torch_ms / p50:.2f}x" if torch_ms else ""
        yield (
            f"{head} {p50:.2f} | {row['latency_ms']['p95']:.2f} | {over} | {row['size_mb']:.2f} | "
            f"{apart['relative_error']:.1e} | {apart['flipped']:.4f} |"
        )


def _alone(title: str, size: int) -> str:
    """What the network takes on the GPU alone, by its events, and how torch ran it there; one sentence."""
    torch.manual_seed(7)
    infer = OnGpu(build_net(NETWORKS[title]))
    image = np.random.default_rng(7).normal(size=(1, FLAT["in_channels"], size, size)).astype(np.float32)
    median = float(np.median(infer.gpu_ms(image, 200)))
    return f"{title} in torch on the GPU alone, by its events: p50 {median:.2f} ms ({infer.flags()})."


if __name__ == "__main__":
    typer.run(main)
