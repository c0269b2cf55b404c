"""Blocks against pruning at as many multiply-accumulates: Dice as changed, and after the same recovery.

    python -m benchmarks.blocks --macs 0.4 --macs 0.2

The network is the phantom's U-Net of width 16, computed in torch. What trains is given as many epochs in every way; the
CPU time of each is in the table, so that what blocks are trained apart is seen. Rows are added to benchmarks/blocks.md.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml
from rich.console import Console
from torch import nn

from compress.editing.blocks.candidates import Space
from compress.editing.layer_replacement import macs
from compress.recipe import load
from compress.task import Task
from export.files import make_folder, write_bytes

HERE = Path(__file__).parent
SPACE: Space = ["narrow", "depthwise_separable", {"lowrank": {"rank": 0.3}}]
Chain = Sequence[Mapping[str, Mapping[str, Any]]]


def ways(share: float, epochs: int) -> Mapping[str, Chain]:
    """Each way to this share of the multiply-accumulates, by its name."""
    fitted, recovery = (
        {"by": "interpolative", "refit": True, "multiple": 8},
        {"distill": {"epochs": epochs, "augment": "flips"}},
    )
    half, rest = share**0.5, {"space": SPACE, "steps": 30, "tried": 2}
    again = {"distill": {"epochs": max(1, epochs // 2), "augment": "flips"}}
    return {
        "prune": [{"prune": {"macs": share, **fitted}}, recovery],
        "blocks": [{"blocks": {"macs": share, **rest}}, recovery],
        "prune, blocks": [{"prune": {"macs": half, **fitted}}, {"blocks": {"macs": half, **rest}}, recovery],
        "prune, depthwise": [{"prune": {"macs": min(0.9, 3 * share), **fitted}}, again, {"depthwise": {}}, again],
    }


def main(
    share: Annotated[list[float], typer.Option("--macs", help="Of the multiply-accumulates that stay.")],
    epochs: int = 2,
    train: Annotated[int, typer.Option(help="Phantoms to train on.")] = 80,
    test: int = 100,
    out: Annotated[Path, typer.Option(help="Where trained blocks are kept.")] = Path("runs/benchmark-blocks"),
    to: Annotated[Path, typer.Option(help="The Markdown file to write.")] = HERE / "blocks.md",
) -> None:
    """Take every way to every share and write the table."""
    folder = make_folder(out)
    lines = [
        _line("way", "multiply-accumulates left", "validation Dice", "test Dice", "CPU s"),
        "|---|---|---|---|---|",
    ]
    for name, chain in {f"{way} ({one:g})": chain for one in share for way, chain in ways(one, epochs).items()}.items():
        for line in _rows(name, chain, folder, (train, test)):
            lines.append(line)
            Console().print(line, markup=False)
        command = " ".join(f"--macs {each:g}" for each in share)
        head = f"`python -m benchmarks.blocks {command} --epochs {epochs} --train {train} --test {test}`"
        write_bytes(to, "\n".join(["# Blocks against pruning", "", head, "", *lines, ""]).encode())


def _rows(name: str, chain: Chain, folder: Path, cases: tuple[int, int]) -> Iterator[str]:
    recipe = make_folder(folder) / "recipe.yaml"
    weights = str(HERE.parent / "recipes/weights/phantom_unet.safetensors")
    data = {"synthetic": {"train": cases[0], "val": 20, "calibration": 16, "test": cases[1], "batch": 4}}
    network = {"unet": {"classes": 3, "width": 16, "weights": weights}}
    whole = {"name": "benchmark-blocks", "network": network, "data": data, "passes": list(chain), "devices": ["cpu"]}
    write_bytes(recipe, yaml.safe_dump(whole).encode())
    loaded = load(recipe)
    task = dataclasses.replace(loaded.task(), kept=make_folder(folder / "kept"))
    net, begun = task.net, time.process_time()
    for place, (word, step) in enumerate(loaded.passes):
        net, spent = step(net, task), time.process_time() - begun
        if word == "distill" or loaded.passes[place + 1][0] == "distill":
            words = ", ".join(each for each, _ in loaded.passes[: place + 1])
            yield _line(
                f"{name}: {words}",
                _share(net, task),
                *(_dice(net, task, role) for role in ("val", "test")),
                f"{spent:.0f}",
            )


def _line(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _share(net: nn.Module, task: Task) -> str:
    shape = [task.example.shape]
    return f"{macs(net, shape) / macs(task.net, shape):.3f}"


def _dice(net: nn.Module, task: Task, role: Any) -> str:
    import torch

    def infer(image: Any) -> Any:
        with torch.inference_mode():
            return net(torch.from_numpy(image)).numpy()

    return f"{task.measure(infer, cases=task.data.cases[role]).mean('dice'):.4f}"


if __name__ == "__main__":
    typer.run(main)
