"""Mixed precision beside plain integers and float: trained networks, two runtimes, times taken in turns.

    python -m benchmarks.trained --out runs/trained    # trains them, once
    python -m benchmarks.mixed --trained runs/trained

Each network is run with `int8: {max_drop: ..., when: faster}`, and plain `int8` beside it. Reported are the drop of the
built artifacts on the test cases, the times of all of them taken in turns, and how near the time that the integer
program predicted was to that of the artifact it chose. The result is written to benchmarks/mixed.md.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml
from rich.console import Console

from compress.commands.run import run
from compress.recipe import load
from export.files import make_folder, write_bytes

HERE = Path(__file__).parent
NETWORKS = ("segnet", "timm", "monai")
BACKENDS = ("onnxruntime", "openvino")
NEAR = 0.10
"""How far the time of a choice may be from its prediction."""
_SAID = re.compile(r"the mixture takes ([\d.e+-]+) ms \(([\d.e+-]+) were predicted\)")
_COUNT = re.compile(r"(\d+) of (\d+) layers and operators in float")


def main(
    trained: Annotated[Path, typer.Option(help="The folder that benchmarks.trained left.")] = Path("runs/trained"),
    only: Annotated[list[str] | None, typer.Option(help="Networks, by their folders.")] = None,
    max_drop: float = 0.003,
    out: Annotated[Path, typer.Option(help="Where runs are kept: one that was stopped goes on.")] = Path("runs/mixed"),
    to: Annotated[Path, typer.Option(help="The Markdown file to write.")] = HERE / "mixed.md",
    busy: Annotated[bool, typer.Option(help="Whether the host does other work: the page says so.")] = False,
) -> None:
    """Run every network, write the page; exit with 1 where Dice does not hold or a runtime got slower."""
    found = {name: _report(trained / name / "recipe.yaml", max_drop, out / name) for name in only or NETWORKS}
    page = _page(found, max_drop, busy)
    write_bytes(to, page.encode())
    Console(width=200).print(page, markup=False)
    if not all(_good(report, backend, max_drop) for report in found.values() for backend in BACKENDS):
        raise typer.Exit(1)


def _report(path: Path, max_drop: float, folder: Path) -> dict[str, Any]:
    recipe = yaml.safe_load(path.read_text())
    recipe |= {
        "passes": [{"int8": {"max_drop": max_drop, "when": "faster"}}],
        "compare": {"int8_alone": ["int8"]},
        "latency": {"samples": 60, "seconds": 6},
    }
    written = make_folder(folder) / "recipe.yaml"
    write_bytes(written, yaml.safe_dump(recipe, sort_keys=False).encode())
    return run(load(written), make_folder(folder / "run")).as_dict()


def _page(found: Mapping[str, Mapping[str, Any]], max_drop: float, busy: bool) -> str:
    report = next(iter(found.values()))
    host = report["host"]
    lines = [
        "# Mixed precision",
        "",
        f"`python -m benchmarks.mixed`: `int8: {{max_drop: {max_drop}, when: faster}}` beside plain `int8` and the "
        f"float network. Host: {host['cpu']}, {host['threads']} threads, {', '.join(host['isa'])}"
        f"{', busy with other work: only ratios of times taken in turns mean something' if busy else ''}. Versions: "
        f"{', '.join(f'{name} {text}' for name, text in report['versions'].items())}.",
        "",
        "Drop: of the built artifact on the test cases, for the class that loses most, with the upper limit of the "
        "one-sided 95 % interval. Times: medians, all artifacts of a network in turns. Predicted over measured: the "
        "time that the integer program gave its choice, over that of the artifact, in turns with the other two.",
        "",
        "| network | runtime | float (ms) | int8 (ms) | mixed (ms) | mixed over float | mixed over int8 "
        "| drop, int8 | drop, mixed | in float | predicted over measured |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
        *(_line(name, report, backend) for name, report in found.items() for backend in BACKENDS),
        "",
        "## What the pass said",
        "",
        *(f"- {name}: {note}" for name, report in found.items() for note in _notes(report)),
    ]
    return "\n".join(lines) + "\n"


def _notes(report: Mapping[str, Any]) -> Iterator[str]:
    for step in report["steps"]:
        if step["step"] == "01-int8":
            yield from (note for note in step["notes"] if note.startswith("int8 for"))


def _line(name: str, report: Mapping[str, Any], backend: str) -> str:
    was, plain, mixed = (_ms(report, step, backend) for step in ("baseline", "int8_alone", "01-int8"))
    note = next((note for note in _notes(report) if note.startswith(f"int8 for {backend}")), "")
    said, count = _SAID.search(note), _COUNT.search(note)
    near = f"{float(said[2]) / float(said[1]):.2f}" if said else "-"
    drops = [_drop(report, step, backend) for step in ("int8_alone", "01-int8")]
    kept = f"{count[1]} of {count[2]}" if count else "none"
    cells = [
        name,
        backend,
        f"{was:.2f}",
        f"{plain:.2f}",
        f"{mixed:.2f}",
        f"{was / mixed:.2f}x",
        f"{plain / mixed:.2f}x",
    ]
    return f"| {' | '.join([*cells, *drops, kept, near])} |"


def _row(report: Mapping[str, Any], step: str, backend: str) -> Mapping[str, Any]:
    (row,) = (row for row in report["rows"] if (row["step"], row["backend"]) == (step, backend))
    return dict(row)


def _ms(report: Mapping[str, Any], step: str, backend: str) -> float:
    return float(_row(report, step, backend)["latency_ms"]["p50"])


def _worst(report: Mapping[str, Any], step: str, backend: str) -> Mapping[str, float]:
    drops = _row(report, step, backend)["dice_drop"]
    return max((drop for name, drop in drops.items() if name != "mean"), key=lambda drop: float(drop["drop"]))


def _drop(report: Mapping[str, Any], step: str, backend: str) -> str:
    worst = _worst(report, step, backend)
    return f"{worst['drop']:+.4f} ({worst['upper']:+.4f})"


def _good(report: Mapping[str, Any], backend: str, max_drop: float) -> bool:
    """Whether the test cases do not say that more is lost, and the artifact is no slower than float and int8."""
    was, plain, mixed = (_ms(report, step, backend) for step in ("baseline", "int8_alone", "01-int8"))
    held = _worst(report, "int8_alone", backend)["drop"] > max_drop or mixed <= plain / (1 - NEAR)
    return mixed <= was / (1 - NEAR) and held and _worst(report, "01-int8", backend)["drop"] <= 2 * max_drop


if __name__ == "__main__":
    typer.run(main)
