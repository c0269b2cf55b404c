"""Each pass alone on the same trained network: what it costs before and after recovery, and on which runtime it pays.

    python -m benchmarks.passes

The network is the phantom's U-Net of width 16. Every chain is scored on the same test cases and timed in turns in
one run of `compress run` (recipe key `compare`). The result is written to benchmarks/passes.md.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml
from rich.console import Console

from compress.commands.run import run
from compress.errors import PassError
from compress.recipe import load
from export.files import make_folder, write_bytes

HERE = Path(__file__).parent
STEPS: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "prune": {"prune": {"ratio": 0.5}},
    "prune_fitted": {"prune": {"ratio": 0.5, "by": "interpolative", "refit": True}},
    "depthwise": {"depthwise": {}},
    "lowrank": {"lowrank": {}},
    "blocks": {"blocks": {"macs": 0.4, "steps": 60, "space": ["single", "depthwise_separable", "narrow"]}},
    "sparsify": {"sparsify": {"pattern": "2:4"}},
    "binary": {"binary": {"recover": {"epochs": 4, "views": 2, "augment": "flips"}}},
    "foldable_norm": {"foldable_norm": {}},
    "truncate": {"truncate": {"level": 2}},
    "half": {"half": {}},
    "bfloat16": {"half": {"type": "bfloat16"}},
    "int8_best": {"int8": {"effort": "best"}},
    "int8_trained": {"int8": {"train": {}}},
    "int4": {"low_bit": {"bits": 4}},
    "int2_trained": {"low_bit": {"bits": 2, "train": {"epochs": 4, "rate": 1e-3}}},
}
"""By the name of its chain, each step as a recipe has it."""
INTEGERS = ("int8_best", "int8_trained", "int4", "int2_trained")
"""Behind these nothing can be trained: what they need of that they do themselves."""
PAYS = 1.2
"""A speed-up below this is within what timing varies by: it does not pay."""


def main(
    epochs: int = 4,
    train: Annotated[int, typer.Option(help="Phantoms to recover on.")] = 240,
    test: int = 60,
    samples: int = 60,
    seconds: float = 20.0,
    out: Annotated[Path, typer.Option(help="Where runs are kept: one that was stopped goes on.")] = Path("runs"),
    to: Annotated[Path, typer.Option(help="The Markdown file to write.")] = HERE / "passes.md",
) -> None:
    """Run every chain and write the table."""
    recovery = {"distill": {"epochs": epochs, "views": 2, "augment": "flips"}}
    recipe: dict[str, Any] = {
        "name": "benchmark-passes",
        "seed": 7,
        "network": {
            "unet": {
                "classes": 3,
                "width": 16,
                "weights": str(HERE.parent / "recipes/weights/phantom_unet.safetensors"),
            }
        },
        "data": {"synthetic": {"train": train, "val": 20, "calibration": 32, "test": test, "batch": 4}},
        "devices": ["cpu"],
        "latency": {"samples": samples, "seconds": seconds, "warm_up": 1},
    }
    folder = make_folder(out / recipe["name"])
    refused = _refusals(recipe, folder)
    recipe["passes"] = ["int8"]
    recipe["compare"] = {}
    for title, step in STEPS.items():
        if title not in refused:
            recipe["compare"][title] = [step]
            # Nothing follows a network in 16 bits or in integers.
            if title not in INTEGERS and "half" not in step:
                recipe["compare"][f"{title}_recovered"] = [step, recovery]
    recipe["compare"]["distill"] = [recovery]
    report = run(load(_written(recipe, folder)), folder, say=typer.echo).as_dict()
    page = _page(report, refused, epochs, train)
    write_bytes(to, page.encode())
    Console(width=160).print(page, markup=False)


def _written(recipe: Mapping[str, Any], folder: Path) -> Path:
    path = folder / "recipe.yaml"
    # JSON is YAML, and has no aliases for steps that stand in two chains.
    write_bytes(path, json.dumps(recipe, indent=2).encode())
    return path


def _refusals(recipe: Mapping[str, Any], folder: Path) -> dict[str, str]:
    """The passes that this network gives nothing to do, with their own reason."""
    found = {}
    for title, step in STEPS.items():
        if title in INTEGERS or title == "blocks":
            # Of blocks every U-Net has some to replace, and training them twice takes long.
            continue
        loaded = load(_written({**recipe, "passes": [step]}, folder))
        task = loaded.task()
        try:
            loaded.passes[0][1](task.net, task)
        except PassError as error:
            found[title] = str(error)
    return found


def _page(report: Mapping[str, Any], refused: Mapping[str, str], epochs: int, train: int) -> str:
    rows = {(row["step"], row["backend"]): row for row in report["rows"]}
    # Of a chain, the first step is the pass alone.
    seconds = {step["chain"] or step["step"]: step["seconds"] for step in reversed(report["steps"])}
    backends = ("torch", "onnxruntime", "openvino")
    base = {backend: rows["baseline", backend] for backend in backends}
    host = report["host"]
    lines = [
        "# Each pass alone, on the same trained network",
        "",
        "`python -m benchmarks.passes`: one run, all artifacts timed in turns. "
        f"Host: {host['cpu']}, {host['threads']} threads, {', '.join(host['isa'])}. "
        f"Versions: {', '.join(f'{name} {text}' for name, text in report['versions'].items())}.",
        "",
        f"The phantom's U-Net of width 16 at 256x256, {report['cases']['test']} test cases; its Dice is "
        f"{base['torch']['scores']['dice']:.4f}. Recovery is `distill` over {epochs} epochs of {train} cases, "
        "the same for all: it shows what a pass leaves to recover from, not the best that can be reached. Drop: mean "
        "foreground Dice against the float network in torch (int8: of the ONNX Runtime artifact), upper limit of the "
        "one-sided 95 % interval in brackets. Times are p50 in ms; the factor is over the uncompressed network on the "
        f"same runtime; in bold where it is above {PAYS}, otherwise the pass does not pay there. The load of the "
        f"host was {base['torch']['latency_ms']['conditions']['load']} meanwhile. What `sparsify` leaves does the same "
        "work as the whole network on all three runtimes: how far its factors are from 1 is the noise.",
        "",
        "| pass | drop | drop after recovery | parameters | MACs | torch | ONNX Runtime | OpenVINO | MB (ONNX) "
        "| seconds |",
        "|---|---|---|---|---|---|---|---|---|---|",
        _row("none", "", "", base, base, None),
    ]
    for title in (*STEPS, "distill", "int8"):
        name = _code(title)
        if title in refused:
            lines.append(f"| {name} | refused: {refused[title]} ||||||||| ")
            continue
        step = "01-int8" if title == "int8" else title
        found = {backend: rows[step, backend] for backend in backends if (step, backend) in rows}
        after = rows.get((f"{title}_recovered", "torch"))
        # Of the first runtime that scored it.
        drop = _drop(next(row for row in found.values() if row["dice_drop"]))
        lines.append(_row(name, drop, _drop(after) if after else "", found, base, seconds.get(step)))
    lines += ["", *_notes(report["steps"])]
    return "\n".join(lines) + "\n"


def _code(title: str) -> str:
    """The step of a chain as a recipe has it."""
    ((word, options),) = STEPS.get(title, {title: {}}).items()
    told = yaml.safe_dump(dict(options), default_flow_style=True, sort_keys=False, width=1000).strip()
    return f"`{word}: {told}`" if options else f"`{word}`"


def _drop(row: Mapping[str, Any]) -> str:
    mean = row["dice_drop"]["mean"]
    return f"{mean['drop']:+.4f} ({mean['upper']:+.4f})"


def _row(
    name: str, drop: str, after: str, found: Mapping[str, Any], base: Mapping[str, Any], seconds: float | None
) -> str:
    first = next(iter(found.values()))
    times = []
    for backend, before in base.items():
        row = found.get(backend)
        if row is None:
            times.append("only simulated in torch" if backend == "torch" else "not built")
            continue
        if row["latency_ms"] is None:
            times.append("not built")
            continue
        ms, was = row["latency_ms"]["p50"], before["latency_ms"]["p50"]
        factor = f"{was / ms:.2f}x"
        times.append(f"{ms:.1f} ({f'**{factor}**' if was / ms > PAYS else factor})")
    size = found["onnxruntime"]["size_mb"] or found["openvino"]["size_mb"]
    took = "" if seconds is None else f"{seconds:.1f}"
    cells = [name, drop, after, f"{first['params']:,}", f"{first['macs'] / 1e9:.3f} G", *times, f"{size:.2f}", took]
    return f"| {' | '.join(cells)} |"


def _notes(steps: Sequence[Mapping[str, Any]]) -> list[str]:
    """What each pass said, once."""
    lines = ["## What the passes said", ""]
    told = [step for step in steps if step["chain"] in STEPS and step["notes"]]
    for step in told:
        lines.append(f"`{step['word']}`: " + json.dumps(step["options"]))
        lines += ["", *(f"- {note}" for note in step["notes"]), ""]
    return lines


if __name__ == "__main__":
    typer.run(main)
