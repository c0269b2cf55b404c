"""What train/fast_batch_norm.py saves on a CPU: a batch norm forwards and backwards, and a whole step of training.

    python -m benchmarks.batch_norm

torch's and ours take turns. The result is written to benchmarks/batch_norm.md.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

import torch
import typer
from torch import Tensor, nn

from compress.measure.latency import Timing, interleaved
from compress.networks.unet import UNet
from compress.train.fast_batch_norm import fast_batch_norms
from compress.train.losses.sum import DiceCrossEntropy
from export.files import write_bytes
from export.host import conditions, host_facts, usable_cpus

HERE = Path(__file__).parent
SHAPES = ((4, 8, 256, 256), (4, 12, 256, 256), (4, 20, 128, 128), (4, 40, 64, 64), (4, 76, 32, 32))
KINDS = (torch.bfloat16, torch.float32)
WIDTH, BATCH, SIDE = 10, 4, 256
"""Of the network whose steps are timed; no level of it has a multiple of 16 channels but the deepest."""


def main() -> None:
    """Time both, and write the table."""
    threads = usable_cpus()
    timing = Timing(threads=threads, samples=60, seconds=20)
    torch.set_num_threads(threads)
    rows = []
    for kind in KINDS:
        for shape in SHAPES:
            rows.append((f"batch norm, {' x '.join(map(str, shape))}", kind, _timed(_layer(shape, kind), timing)))
        rows.append((f"step of a U-Net of width {WIDTH}, {BATCH} x {SIDE}²", kind, _timed(_step(kind), timing)))
    lines = [
        f"| {name} | {str(kind).removeprefix('torch.')} | {theirs:.2f} | {ours:.2f} | {theirs / ours:.2f}x |"
        for name, kind, (theirs, ours) in rows
    ]
    host = host_facts(threads)
    page = [
        "# Batch norms over few channels",
        "",
        "`python -m benchmarks.batch_norm`: forwards and backwards, channels last, median of runs taken in turns.",
        "",
        f"- Host: {host['cpu']}, {timing.threads} threads, {', '.join(host['isa'])}; load {conditions()['load']}",
        f"- torch {torch.__version__}",
        "",
        "| | | torch, ms | ours, ms | |",
        "|---|---|---|---|---|",
        *lines,
        "",
    ]
    write_bytes(HERE / "batch_norm.md", "\n".join(page).encode())


def _timed(run: _Run, timing: Timing) -> tuple[float, float]:
    """Medians in ms: torch's, ours."""

    def fast(_: int) -> None:
        with fast_batch_norms(run.net):
            run()

    found = interleaved({"torch": lambda _: run(), "ours": fast}, timing, seed=0)
    return found["torch"].as_dict()["p50"], found["ours"].as_dict()["p50"]


class _Run:
    """A training step without an optimizer: forwards, backwards."""

    def __init__(self, net: nn.Module, image: Tensor, back: Callable[[Tensor], None], kind: torch.dtype) -> None:
        self.net, self.image, self.back, self.kind = net.train(), image, back, kind

    def __call__(self) -> None:
        mixed = torch.autocast("cpu", self.kind) if self.kind != torch.float32 else contextlib.nullcontext()
        with mixed:
            self.back(self.net(self.image))


def _layer(shape: tuple[int, ...], kind: torch.dtype) -> _Run:
    image, slope = (torch.randn(shape).to(kind).contiguous(memory_format=torch.channels_last) for _ in range(2))
    return _Run(
        nn.BatchNorm2d(shape[1]), image.requires_grad_(), lambda answer: torch.autograd.backward(answer, slope), kind
    )


def _step(kind: torch.dtype) -> _Run:
    net = UNet(classes=3, width=WIDTH)()
    net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    mask = torch.randint(0, 3, (BATCH, SIDE, SIDE))
    lose = DiceCrossEntropy()
    return _Run(
        net, torch.randn(BATCH, 1, SIDE, SIDE), lambda answer: torch.autograd.backward(lose(answer, mask)), kind
    )


if __name__ == "__main__":
    typer.run(main)
