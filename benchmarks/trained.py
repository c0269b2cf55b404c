"""Networks of different families, trained on real data, in 8-bit integers: what each loses on two runtimes.

    python -m benchmarks.trained --nuclei <folder of dsb2018_nuclei> --hippocampus <folder of msd_hippocampus>

Each is trained for a short while from random weights, then taken through `compress run` with `int8: {max_drop: ...}`,
which puts layers back to float where the validation cases show that integers hurt. What is reported is the drop of
the built artifacts on the test cases. The result is written to benchmarks/trained.md.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml
from rich.console import Console

from compress.commands.run import run
from compress.commands.train import train
from compress.recipe import load
from compress.storage.description import read_description
from export.files import make_folder, write_bytes

HERE = Path(__file__).parent
OWN = HERE.parent / "recipes" / "own" / "my_net.py"
LIMIT = 0.01
BACKENDS = ("onnxruntime", "openvino")


@dataclass(frozen=True, kw_only=True)
class Network:
    """One network, what it stands for, and how it is trained."""

    family: str
    network: Mapping[str, Any]
    data: str = "nuclei"
    epochs: int = 10
    rate: float = 2e-3
    weights: Path | None = None
    """Trained weights that are there already."""
    exported_from: str | None = None
    """It is the ONNX file of another network of this list, as somebody would be given it."""


FLAT = {"classes": 2, "in_channels": 1}
NETWORKS: Mapping[str, Network] = {
    "segnet": Network(family="pooling indices", network={"segnet": {**FLAT, "width": 8}}, epochs=20),
    "fc_densenet": Network(
        family="dense",
        network={"fc_densenet": {**FLAT, "width": 16, "growth": 6, "layers": [3, 4, 4], "bottleneck": 4}},
    ),
    "attention_unet": Network(family="attention", network={"attention_unet": {**FLAT, "width": 8, "depth": 3}}),
    "unet_v2": Network(
        family="transformer", network={"unet_v2": {**FLAT, "encoder": "pvt_v2_b0", "width": 16}}, epochs=14, rate=1e-3
    ),
    "unet3d": Network(
        family="3-D",
        network={"unet3d": {"classes": 3, "in_channels": 1, "width": 16, "depth": 3}},
        data="hippocampus",
        weights=HERE.parent / "recipes" / "weights" / "hippocampus_unet3d.safetensors",
    ),
    "smp": Network(family="door: smp", network={"smp": {**FLAT, "arch": "Unet", "encoder": "resnet18"}}),
    "torchvision": Network(
        family="door: torchvision", network={"torchvision": {**FLAT, "arch": "lraspp_mobilenet_v3_large"}}, epochs=16
    ),
    "monai": Network(
        family="door: MONAI",
        network={"monai": {**FLAT, "arch": "BasicUNet", "options": {"features": [8, 16, 32, 64, 128, 8]}}},
    ),
    "timm": Network(
        family="door: timm", network={"timm": {**FLAT, "encoder": "mobilenetv3_small_100", "width": 16}}, epochs=16
    ),
    "python": Network(
        family="door: own code",
        network={"python": {**FLAT, "path": str(OWN), "build": "MyNet", "args": {"width": 16, "classes": 2}}},
        epochs=16,
    ),
    "onnx": Network(family="door: ONNX", network={"onnx": {}}, exported_from="smp"),
}


def main(
    nuclei: Annotated[Path, typer.Option(help="The folder of dsb2018_nuclei.")] = Path("data/dsb2018_nuclei"),
    hippocampus: Annotated[Path, typer.Option(help="The folder of msd_hippocampus.")] = Path("data/msd_hippocampus"),
    only: Annotated[list[str] | None, typer.Option(help="Networks, by their name here.")] = None,
    max_drop: float = 0.004,
    out: Annotated[Path, typer.Option(help="Where runs are kept: one that was stopped goes on.")] = Path(
        "runs/trained"
    ),
    to: Annotated[Path, typer.Option(help="The Markdown file to write.")] = HERE / "trained.md",
) -> None:
    """Train every network, quantize it, write the table."""
    roots = {"nuclei": nuclei, "hippocampus": hippocampus}
    found = {}
    for name, network in NETWORKS.items():
        if not only or name in only:
            found[name] = _report(name, network, roots[network.data], out, max_drop)
    page = _page(found, max_drop)
    write_bytes(to, page.encode())
    Console(width=180).print(page, markup=False)
    worst = [_worst(report, backend) for report in found.values() for backend in BACKENDS]
    if any(each is None or each[1] > LIMIT for each in worst):
        raise typer.Exit(1)


def _report(name: str, network: Network, root: Path, out: Path, max_drop: float) -> dict[str, Any]:
    folder = make_folder(out / name)
    recipe: dict[str, Any] = {"name": name, "seed": 7, "network": dict(network.network), "data": _data(network, root)}
    ((word, options),) = network.network.items()
    if network.exported_from is None:
        weights = network.weights or _trained(recipe, network, folder)
        given = {**options, "weights": str(weights.absolute())}
    else:
        others = out / network.exported_from
        given = {"path": str((others / "run" / "artifacts" / "baseline" / "model.onnx").absolute())}
        # An ONNX file of somebody else's does not say how its images were normalized: they would be asked.
        described = read_description(others / "training" / "net.safetensors")
        assert described is not None
        assert described.normalization is not None
        stored = described.normalization
        recipe["data"]["folder"]["normalization"] = {"mean": list(stored.mean), "std": list(stored.std)}
    whole = {
        **recipe,
        "network": {word: given},
        "passes": [{"int8": {"max_drop": max_drop}}],
        "latency": {"samples": 30, "seconds": 5},
    }
    return run(load(_written(whole, folder / "recipe.yaml")), make_folder(folder / "run")).as_dict()


def _trained(recipe: Mapping[str, Any], network: Network, folder: Path) -> Path:
    weights = make_folder(folder / "training") / "net.safetensors"
    if not weights.is_file():
        training = {"epochs": network.epochs, "rate": network.rate, "augment": "flips"}
        train(load(_written({**recipe, "train": training}, folder / "train.yaml")), weights.parent)
    return weights


def _data(network: Network, root: Path) -> dict[str, Any]:
    if network.data == "nuclei":
        options = {"classes": ["background", "nucleus"], "size": [128, 128], "batch": 8, "calibration": 48}
        return {"folder": {"root": str(root.absolute()), **options}}
    options = {"classes": ["background", "anterior", "posterior"], "size": [40, 56, 40], "batch": 4}
    return {"nifti": {"root": str(root.absolute()), **options}}


def _written(recipe: Mapping[str, Any], path: Path) -> Path:
    write_bytes(path, yaml.safe_dump(recipe, sort_keys=False).encode())
    return path


def _page(found: Mapping[str, Mapping[str, Any]], max_drop: float) -> str:
    report = next(iter(found.values()))
    host = report["host"]
    lines = [
        "# Trained networks of different families in 8-bit integers",
        "",
        "`python -m benchmarks.trained`: each network is trained from random weights for a short while, then run with "
        f"`int8: {{max_drop: {max_drop}}}`. "
        f"Host: {host['cpu']}, {host['threads']} threads, {', '.join(host['isa'])}. "
        f"Versions: {', '.join(f'{name} {text}' for name, text in report['versions'].items())}.",
        "",
        "Dice is the mean over the foreground classes of the float network in torch on the test cases; the drop that "
        "of the built int8 artifact for the class that loses most, with the upper limit of the one-sided 95 % interval "
        "over cases. Layers in float: by the runtime's own rules, and those that the pass put back.",
        "",
        "| network | family | data | test cases | Dice | drop, ONNX Runtime | drop, OpenVINO | layers in float "
        "| parameters |",
        "|---|---|---|---|---|---|---|---|---|",
        *(_line(name, report) for name, report in found.items()),
        "",
        "## What the pass said",
        "",
        *(f"- {name}: {note}" for name, report in found.items() for step in report["steps"] for note in step["notes"]),
    ]
    return "\n".join(lines) + "\n"


def _line(name: str, report: Mapping[str, Any]) -> str:
    network = NETWORKS[name]
    rows: dict[tuple[str, str], Any] = {(row["step"], row["backend"]): row for row in report["rows"]}
    drops = [_drop(report, backend) for backend in BACKENDS]
    layers = rows["01-int8", "onnxruntime"]["layers"]
    kept = f"{layers['float']} of {layers['float'] + layers['integer']}"
    base = rows["baseline", "torch"]
    ((word, options),) = network.network.items()
    shown = {key: Path(value).name if key == "path" else value for key, value in options.items() if key not in FLAT}
    told = ", ".join(f"{key} {json.dumps(value)}" for key, value in shown.items()) or f"of {network.exported_from}"
    cases, dice = report["cases"]["test"], f"{base['scores']['dice']:.4f}"
    cells = [f"{word}: {told}", network.family, network.data, str(cases), dice, *drops, kept, f"{base['params']:,}"]
    return f"| {' | '.join(cells)} |"


def _drop(report: Mapping[str, Any], backend: str) -> str:
    if (worst := _worst(report, backend)) is None:
        return f"not measured: {_row(report, backend)['reason']}"
    name, drop, upper = worst
    return f"{drop:+.4f} ({upper:+.4f}) {name}"


def _row(report: Mapping[str, Any], backend: str) -> Mapping[str, Any]:
    (row,) = (row for row in report["rows"] if (row["step"], row["backend"]) == ("01-int8", backend))
    return dict(row)


def _worst(report: Mapping[str, Any], backend: str) -> tuple[str, float, float] | None:
    """The class that loses most: its name, its mean drop and the upper limit of it; None where none was measured."""
    row = _row(report, backend)
    if row["dice_drop"] is None:
        return None
    drops: Sequence[tuple[str, Mapping[str, float]]] = [
        (name, drop) for name, drop in row["dice_drop"].items() if name != "mean"
    ]
    name, worst = max(drops, key=lambda item: item[1]["drop"])
    return name, worst["drop"], worst["upper"]


if __name__ == "__main__":
    typer.run(main)
