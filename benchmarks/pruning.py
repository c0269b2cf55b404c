"""What half of the channels is worth: networks pruned by us, and by torch-pruning alone; what a width costs.

    python -m benchmarks.pruning

Networks as they are built, without training: what is counted here is parameters and MACs, not accuracy. Both
take half of the channels by the norm of their weights, rounded to multiples of 8. Ours is then saved, loaded,
exported and compared with ONNX Runtime; a row without a number says why there is none. The result is written
to benchmarks/pruning.md. Below it, how long convolutions of each width take on this host, in turns.
"""

from __future__ import annotations

import contextlib
import copy
import tempfile
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import monai.networks.nets as monai
import numpy as np
import torch
import torch_pruning as tp
import typer
from rich.console import Console
from torch import Tensor, nn

from compress import progress
from compress.editing.pruning.trial import trial_of
from compress.errors import SegpressError
from compress.measure.latency import Timing, interleaved
from compress.passes.prune import Prune
from compress.storage.description import build_net
from export.backends.onnxruntime import OnnxRuntime
from export.backends.openvino import OpenVino
from export.files import write_bytes
from export.to_onnx import to_onnx

HERE = Path(__file__).parent
FLAT, SOLID = (1, 1, 96, 96), (1, 1, 64, 64, 64)
WIDTHS, ROUNDS = (8, 12, 16, 20, 24, 28, 32, 40, 48), 100
RUNTIMES: Mapping[str, Any] = {"ONNX Runtime": OnnxRuntime, "OpenVINO": OpenVino}
_FAULTS = (RuntimeError, ValueError, TypeError, AttributeError, LookupError, AssertionError, ZeroDivisionError)
Shape = tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Task:
    """As much of a task as pruning by weights needs."""

    net: nn.Module
    example: Tensor
    seed: int = 0
    folder: None = None
    note: Callable[[str], None] = print


def ours(word: str, **options: Any) -> Callable[[], nn.Module]:
    """A network of compress/networks."""
    return lambda: build_net({word: {"classes": 2, **options}})


def theirs(kind: Any, **options: Any) -> Callable[[], nn.Module]:
    """A network of MONAI, two classes."""
    return lambda: kind(in_channels=1, out_channels=2, **options)


LEVELS: dict[str, Any] = {"channels": (16, 32, 64, 128), "strides": (2, 2, 2)}
DYN: dict[str, Any] = {
    "kernel_size": [3, 3, 3, 3],
    "strides": [1, 2, 2, 2],
    "upsample_kernel_size": [2, 2, 2],
    "filters": [16, 32, 64, 128],
}
NETWORKS: Mapping[str, tuple[Callable[[], nn.Module], Shape]] = {
    "U-Net": (ours("unet", width=32), FLAT),
    "U-Net, group norm": (ours("unet", width=32, norm="group"), FLAT),
    "U-Net, instance norm": (ours("unet", width=32, norm="instance"), FLAT),
    "U-Net, nearest up-sampling": (ours("unet", width=32, up="nearest"), FLAT),
    "UNet++": (ours("unetpp"), FLAT),
    "MONAI UNet": (theirs(monai.UNet, spatial_dims=2, num_res_units=2, **LEVELS), FLAT),
    "MONAI UNet, 3-D": (theirs(monai.UNet, spatial_dims=3, num_res_units=2, **LEVELS), SOLID),
    "MONAI BasicUNet": (theirs(monai.BasicUNet, spatial_dims=2), FLAT),
    "MONAI DynUNet": (theirs(monai.DynUNet, spatial_dims=2, **DYN), FLAT),
    "MONAI AttentionUnet": (theirs(monai.AttentionUnet, spatial_dims=2, **LEVELS), FLAT),
    "MONAI SegResNet (group norm)": (theirs(monai.SegResNet, spatial_dims=2, init_filters=16), FLAT),
    "MONAI VNet, 3-D": (theirs(monai.VNet, spatial_dims=3), SOLID),
    "MONAI HighResNet, 3-D": (theirs(monai.HighResNet, spatial_dims=3), (1, 1, 32, 32, 32)),
    "MONAI FlexibleUNet (EfficientNet-B0)": (theirs(monai.FlexibleUNet, backbone="efficientnet-b0"), FLAT),
    "MONAI UNETR": (
        theirs(monai.UNETR, spatial_dims=2, img_size=96, hidden_size=192, mlp_dim=768, num_heads=6),
        FLAT,
    ),
    "MONAI SwinUNETR": (theirs(monai.SwinUNETR, spatial_dims=2, feature_size=24), FLAT),
}


@dataclass(frozen=True, kw_only=True)
class Row:
    """What became of one network."""

    name: str
    before: tuple[int, int]
    after: tuple[int, int] | None
    said: str
    """Why it could not be pruned; of a pruned one, the layers that stayed whole."""
    alone: str
    """What torch-pruning made of it."""


def main(to: Annotated[Path, typer.Option(help="The Markdown file to write.")] = HERE / "pruning.md") -> None:
    """Prune every network twice; print and write the table."""
    rows = [_row(name, *NETWORKS[name]) for name in progress.bar(NETWORKS, "pruning", len(NETWORKS))]
    page = _page(rows, _times())
    write_bytes(to, page.encode())
    Console(width=200).print(page, markup=False)


def _row(name: str, build: Callable[[], nn.Module], shape: Shape) -> Row:
    torch.manual_seed(0)
    net, example = build().eval(), torch.zeros(shape)
    before = trial_of(net, example).size()
    notes: list[str] = []
    alone = _alone(net, example)
    try:
        task: Any = Task(net=net, example=example, note=notes.append)
        small = Prune(ratio=0.5, multiple=8).smaller(net, task)
        _check(small, torch.randn(shape, generator=torch.Generator().manual_seed(1)))
    except SegpressError as error:
        return Row(name=name, before=before, after=None, said=str(error), alone=alone)
    kept = "; ".join(note.removeprefix("kept ") for note in notes if note.startswith("kept "))
    return Row(name=name, before=before, after=trial_of(small, example).size(), said=kept, alone=alone)


def _check(net: nn.Module, image: Tensor) -> None:
    """ONNX Runtime gives what torch gives."""
    with tempfile.TemporaryDirectory() as scratch:
        artifact = to_onnx(net, torch.zeros_like(image), Path(scratch) / "net.onnx")
        with OnnxRuntime(threads=1).open(artifact) as infer, torch.no_grad():
            wanted = net(image).numpy()
            worst = float(np.abs(infer(image.numpy()) - wanted).max() / max(1e-6, np.abs(wanted).max()))
    assert worst < 1e-3, worst


def _alone(net: nn.Module, example: Tensor) -> str:
    """torch-pruning with its own graph, the layers of the logits set aside as its documentation says."""
    small = copy.deepcopy(net)
    before = trial_of(net, example).size()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            importance = tp.importance.GroupMagnitudeImportance(p=2)
            pruner = tp.pruner.BasePruner(
                small, example, importance, pruning_ratio=0.5, round_to=8, ignored_layers=_heads(small)
            )
            pruner.step()
        with torch.no_grad():
            answer, wanted = small(example), net(example)
    except _FAULTS as error:
        said = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
        return f"fails: {type(error).__name__}: {said[:80]}"
    if answer.shape != wanted.shape:
        return f"wrong: the answer is {tuple(answer.shape)}"
    after = trial_of(small, example).size()
    if after == before:
        return "nothing removed, and nothing said"
    return f"{before[0] / after[0]:.2f}x, {before[1] / after[1]:.2f}x"


def _times() -> dict[int, list[float]]:
    """The least time of each width, in ms, on every runtime."""
    runs: dict[str, Callable[[int], object]] = {}
    with tempfile.TemporaryDirectory() as scratch, contextlib.ExitStack() as stack:
        for width in WIDTHS:
            layers = (m for _ in range(4) for m in (nn.Conv2d(width, width, 3, padding=1), nn.ReLU()))
            net = nn.Sequential(*layers, nn.Conv2d(width, 2, 1))
            image = torch.randn(1, width, 64, 64)
            onnx = to_onnx(net, image, Path(scratch) / f"{width}.onnx")
            for name, kind in RUNTIMES.items():
                backend = kind(threads=1)
                infer = stack.enter_context(backend.open(backend.build(onnx, Path(scratch))))
                runs[f"{width} {name}"] = partial(lambda infer, image, _: infer(image), infer, image.numpy())
        found = interleaved(runs, Timing(threads=1, samples=ROUNDS, seconds=20), seed=0)
    return {width: [min(found[f"{width} {name}"].times_ms) for name in RUNTIMES] for width in WIDTHS}


def _cpu() -> set[str]:
    """What the CPU says it can do with wide vectors."""
    try:
        said = Path("/proc/cpuinfo").read_text().split()
    except OSError:
        return {"the CPU does not say what it can do"}
    return {"avx2", "avx512f", "avx512_vnni", "amx_tile", "asimd"} & set(said)


def _heads(net: nn.Module) -> list[nn.Module]:
    """The layers with as many outputs as there are classes."""
    kinds = nn.modules.conv._ConvNd
    return [layer for layer in net.modules() if isinstance(layer, kinds) and layer.out_channels == 2]


def _page(rows: list[Row], times: Mapping[int, list[float]]) -> str:
    lines = [_line(row) for row in rows]
    kept = [f"- {row.name}: {row.said}" for row in rows if row.after is not None]
    return "\n".join(
        [
            "# Half of the channels, network by network",
            "",
            "`python -m benchmarks.pruning`",
            "",
            f"- torch {torch.__version__}, torch-pruning {version('torch-pruning')}, MONAI {version('monai')}",
            "- Untrained networks, one input channel, two classes; 96x96, 3-D 64x64x64 (HighResNet 32x32x32)",
            "- `prune: {ratio: 0.5, multiple: 8}`: half of every layer's channels by the norm of their weights;",
            "  exported, and ONNX Runtime's answer compared with torch's",
            "- torch-pruning alone: BasePruner with its own dependency graph, the same criterion, ratio and rounding",
            "  (parameters, MACs); that its network runs does not show that its channels are the right ones",
            "",
            "| network | parameters | MACs | fewer parameters | fewer MACs | torch-pruning alone |",
            "|---|---|---|---|---|---|",
            *lines,
            "",
            "What stayed whole, and why:",
            "",
            *kept,
            "",
            "## What a width costs",
            "",
            "Four 3x3 convolutions with ReLU at 64x64, as many channels in as out, one thread, batch 1, the least of",
            f"{ROUNDS} runs taken in turns; {' '.join(sorted(_cpu()))}.",
            "",
            f"| channels | {' | '.join(RUNTIMES)} |",
            "|---|" + "---|" * len(RUNTIMES),
            *(f"| {width} | {' | '.join(f'{time:.2f} ms' for time in found)} |" for width, found in times.items()),
            "",
        ]
    )


def _line(row: Row) -> str:
    if row.after is None:
        return f"| {row.name} | {row.before[0]:,} | {row.before[1]:,} | {row.said} | | {row.alone} |"
    (params, macs), (fewer, less) = row.before, row.after
    return (
        f"| {row.name} | {params:,} -> {fewer:,} | {macs:,} -> {less:,} "
        f"| {params / fewer:.2f}x | {macs / less:.2f}x | {row.alone} |"
    )


if __name__ == "__main__":
    typer.run(main)
