"""What blocks were predicted to save against what they save: latency of chosen networks, added up and measured.

    python -m benchmarks.blocks_latency

Blocks of trained networks are priced one by one on each runtime and in each precision, and an integer program chooses
among them for two budgets, as `blocks: {latency_ms: ...}` does. The network of each choice is then timed whole, in
turns with the one it came from. Nothing is trained, which changes no time: what a block loses is drawn, so that choices
differ. The table is written to benchmarks/blocks_latency.md.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import torch
import typer
from torch import nn

from compress.cache import versions
from compress.editing.blocks.candidates import Candidate, candidates, kinds
from compress.editing.blocks.choice import Budget, Changed, Priced
from compress.editing.blocks.prices import Timed
from compress.editing.blocks.seen import seen_at
from compress.editing.blocks.stretches import Stretch, stretches
from compress.editing.budget import Precision, Runtime
from compress.editing.layer_replacement import SkippedSites
from compress.errors import PassError
from compress.storage.weights import load_net
from export.files import write_bytes
from export.host import host_facts, usable_cpus
from export.reach import PYTHON

HERE = Path(__file__).parent
WEIGHTS = HERE.parent / "recipes/weights"
NETWORKS = {
    "phantom, U-Net of width 16": ("phantom_unet", (1, 1, 256, 256)),
    "usgra_nerve, U-Net of width 32": ("nerve_unet", (1, 1, 256, 256)),
}
SPACE = ("narrow", "depthwise_separable", "lowrank")
SHARES = (0.75, 0.5)
PRECISIONS: tuple[Precision, ...] = ("float", "int8")


def main(
    threads: Annotated[int | None, typer.Option(help="Of the CPU; all without it.")] = None,
    seed: int = 7,
    to: Annotated[Path, typer.Option(help="The Markdown file to write.")] = HERE / "blocks_latency.md",
) -> None:
    """Choose for every budget, measure, write the table."""
    rows = []
    for title, (weights, shape) in NETWORKS.items():
        net, example = load_net(WEIGHTS / f"{weights}.safetensors").eval(), torch.zeros(shape)
        torch.manual_seed(seed)
        found = list(_blocks(net, example, seed))
        for backend in ("onnxruntime", "openvino"):
            for precision in PRECISIONS:
                runtime = Runtime(device="cpu", backend=backend, threads=threads, python=PYTHON, precision=precision)
                for row in _rows(net, example, found, runtime, seed):
                    rows.append(f"| {title} | {backend} | {precision} | {row} |")
                    typer.echo(rows[-1])
    write_bytes(to, _page(rows, threads).encode())


def _blocks(net: nn.Module, example: torch.Tensor, seed: int) -> Iterator[Candidate]:
    image = torch.randn(example.shape)
    for stretch in stretches(net, image, SkippedSites(word="blocks")):
        yield from candidates(stretch, kinds(SPACE), seed, partial(_into, net, stretch, image))


def _into(net: nn.Module, stretch: Stretch, image: torch.Tensor) -> Iterator[torch.Tensor]:
    yield seen_at(net, stretch, image).into


def _rows(
    net: nn.Module, example: torch.Tensor, found: Sequence[Candidate], runtime: Runtime, seed: int
) -> Iterator[str]:
    """Of each budget: what was allowed, added up from parts, and measured."""
    with TemporaryDirectory() as scratch:
        price = Timed(runtime=runtime, seed=seed, folder=Path(scratch))
        whole = price.of_networks([net], example)[0]
        saved = price.saved(found, net, example, whole)
        chance = random.Random(seed)
        priced = [
            # What saves more loses more, as it is with trained ones, and some lose more than others.
            Priced(candidate=each, error=0.0, loss=ms * chance.uniform(0.5, 1.5), saved=ms)
            for each, ms in zip(found, saved, strict=True)
            if ms >= 0.01 * whole
        ]
        for share in SHARES:
            budget = Budget(price=price, whole=whole, target=share * whole, example=example)
            told = f"{len(priced)} of {len(found)} | {whole:.2f} | {budget.target:.2f}"
            try:
                yield f"{told} | {_outcome(budget.choices(net, priced, 1)[0])}"
            except PassError as error:
                yield f"{told} | not reached: {str(error).removeprefix('blocks: ')} | | | "


def _outcome(choice: Changed) -> str:
    off = (choice.added_up - choice.cost) / choice.cost
    return f"{len(choice.chosen)} | {choice.added_up:.2f} | {choice.cost:.2f} | {off:+.1%}"


def _page(rows: Sequence[str], threads: int | None) -> str:
    host = host_facts(threads or usable_cpus())
    lines = [
        "# Blocks: latency predicted and measured",
        "",
        "`python -m benchmarks.blocks_latency`: blocks priced one by one in the form in which they will run, chosen by "
        "an integer program for a budget, and the network of each choice timed whole, in turns with the one it came "
        f"from; ms, medians, batch 1, {threads or usable_cpus()} threads. Host: {host['cpu']}, "
        f"{', '.join(host['isa'])}. Versions: {', '.join(f'{name} {text}' for name, text in versions().items())}.",
        "",
        "*Worth it* are blocks that save at least 1 % of what the network takes. A choice that is measured to take "
        "more than its budget, and a tenth, is made again for as much less: what is predicted is of the last.",
        "",
        "| network | runtime | precision | blocks worth it | as it came | budget | blocks chosen | predicted "
        "| measured | predicted is off by |",
        "|---|---|---|--:|--:|--:|--:|--:|--:|--:|",
        *rows,
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    typer.run(main)
