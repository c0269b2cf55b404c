"""Drop against speed-up: one recipe whose `compare` holds the points of a curve, as a table and a plot.

    python -m benchmarks.curve benchmarks/curve_nerve.yaml --data <folder of usgra_nerve>

All points are scored on the same test cases and timed in turns in one run of `compress run`. Writes a Markdown page and
an SVG, named after the recipe.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import matplotlib.style
import typer
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter
from rich.console import Console

from compress.commands.run import run
from compress.recipe import load
from export.files import write_bytes

HERE = Path(__file__).parent
COLORS = {"openvino": "#0072b2", "onnxruntime": "#e69f00"}
MARKERS = {"openvino": "o", "onnxruntime": "^"}
TOLD = ("ratio", "epochs", "at_least", "by", "refit")

Json = Mapping[str, Any]


def main(
    recipe: Path,
    data: Annotated[Path | None, typer.Option(help="Folder of the data set.")] = None,
    out: Annotated[Path | None, typer.Option(help="The run's folder: one that was stopped goes on.")] = None,
    to: Annotated[Path | None, typer.Option(help="The Markdown file to write.")] = None,
) -> None:
    """Run the recipe and write the page and the plot."""
    loaded = load(recipe, data)
    report = run(loaded, out or Path("runs") / loaded.name, say=typer.echo).as_dict()
    to = to or HERE / f"{recipe.stem}.md"
    page = page_of(report, f"python -m benchmarks.curve {recipe} --data <folder>", to.with_suffix(".svg").name)
    plot(report, to.with_suffix(".svg"))
    write_bytes(to, page.encode())
    Console(width=160).print(page, markup=False)


def ends(report: Json) -> list[str]:
    """The last step of each chain: the recipe's own first, then those it is compared with."""
    own = [step["step"] for step in report["steps"] if step["chain"] is None]
    return [own[-1], *dict.fromkeys(step["chain"] for step in report["steps"] if step["chain"])]


def page_of(report: Json, command: str, plot_name: str) -> str:
    """The table, with how it was measured."""
    rows = {(row["step"], row["backend"]): row for row in report["rows"]}
    torch = rows["baseline", "torch"]
    host, classes = report["host"], report["data"]["classes"][1:]
    lines = [
        f"# Drop against speed-up: {report['name']}",
        "",
        f"`{command}`: one run, all artifacts timed in turns, batch 1. Host: {host['cpu']}, {host['threads']} threads, "
        f"{', '.join(host['isa'])}; load {torch['latency_ms']['conditions']['load']}. "
        f"Versions: {', '.join(f'{name} {text}' for name, text in report['versions'].items())}.",
        "",
        f"{report['cases']['test']} test cases, {report['cases']['train']} to train on. Drop: of the built artifact "
        "from the float network in torch, paired case by case, with the upper limit of its one-sided 95 % interval. "
        f"Speed-up: p50 over torch fp32 eager ({torch['latency_ms']['p50']:.1f} ms). Smaller: the ONNX file over the "
        f"float one ({rows['baseline', 'onnxruntime']['size_mb']:.1f} MB).",
        "",
        f"![Drop against speed-up]({plot_name})",
        "",
        f"| chain | parameters | MACs | Dice | drop | {' | '.join(f'{name}: drop' for name in classes)} "
        "| OpenVINO ms | speed-up | ONNX Runtime ms | speed-up | smaller |",
        f"|{'---|' * (10 + len(classes))}",
    ]
    float_row = _cells("float, uncompressed", rows, "baseline", classes)
    lines += [float_row, *(_cells(_told(report, step), rows, step, classes) for step in ends(report))]
    lines += ["", "## Gates", ""]
    for gate in report["gates"]:
        place = " ".join(text for text in (gate["backend"], gate["class"]) if text)
        upper = "" if gate["upper"] is None else f", upper limit {gate['upper']:+.4f}"
        limit = f"{gate['bound'].replace('_', ' ')} {gate['limit']:g}"
        lines.append(
            f"- `{gate['name']}` {limit} ({place}): **{gate['verdict']}**, {gate['value']:.4g}{upper}. {gate['reason']}"
        )
    return "\n".join(lines) + "\n"


def _told(report: Json, end: str) -> str:
    """A chain in the words of its recipe."""
    chain = None if end not in {step["chain"] for step in report["steps"]} else end
    steps = [step for step in report["steps"] if step["chain"] == chain and step["step"] != "baseline"]
    return " → ".join(f"`{step['word']}{_short(step['options'])}`" for step in steps)


def _short(options: Json) -> str:
    """The options that tell points of a curve apart; what is only on or off is told where it is on."""
    shown = [key if value is True else f"{key} {value}" for key, value in options.items() if key in TOLD and value]
    return "".join(f" {text}" for text in shown)


def _cells(name: str, rows: Mapping[tuple[str, str], Json], step: str, classes: Sequence[str]) -> str:
    base, first = rows["baseline", "torch"], rows[step, "openvino"]
    files = rows["baseline", "onnxruntime"]["size_mb"], rows[step, "onnxruntime"]["size_mb"]
    drops = [_drop(first, name) for name in ("mean", *classes)]
    times = []
    for backend in ("openvino", "onnxruntime"):
        ms = rows[step, backend]["latency_ms"]["p50"]
        times += [f"{ms:.1f}", f"{base['latency_ms']['p50'] / ms:.1f}x"]
    cells = [name, f"{first['params']:,}", f"{first['macs'] / 1e9:.3f} G", f"{first['scores']['dice']:.4f}", *drops]
    return f"| {' | '.join([*cells, *times, f'{files[0] / files[1]:.0f}x'])} |"


def _drop(row: Json, name: str) -> str:
    drop = (row["dice_drop"] or {}).get(name)
    return "–" if drop is None else f"{drop['drop']:+.4f} (≤ {drop['upper']:+.4f})"


def plot(report: Json, path: Path) -> None:
    """Mean drop with its interval over the speed-up, one line for each runtime."""
    rows = {(row["step"], row["backend"]): row for row in report["rows"]}
    torch = rows["baseline", "torch"]["latency_ms"]["p50"]
    with matplotlib.style.context(["default", {"svg.fonttype": "none", "svg.hashsalt": "segpress"}]):
        figure = Figure(figsize=(8, 4.6), layout="constrained")
        axes = figure.subplots()
        for backend, color in COLORS.items():
            found = [(step, rows[step, backend]) for step in ends(report)]
            found.sort(key=lambda pair: -pair[1]["latency_ms"]["p50"])
            x = [torch / row["latency_ms"]["p50"] for _, row in found]
            drop = [row["dice_drop"]["mean"] for _, row in found]
            y = [each["drop"] for each in drop]
            reach = [[each["drop"] - each["lower"] for each in drop], [each["upper"] - each["drop"] for each in drop]]
            axes.errorbar(x, y, yerr=reach, color=color, marker=MARKERS[backend], capsize=3, lw=1.4, label=backend)
            if backend == "openvino":
                for (step, _), at, height in zip(found, x, y, strict=True):
                    axes.annotate(step, (at, height), (6, 6), textcoords="offset points", fontsize=8)
        axes.axhline(0, color="#999999", lw=0.8)
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}x"))
        axes.set_xlabel("speed-up over torch fp32 eager (p50)")
        axes.set_ylabel("Dice lost (mean, 95 % limits)")
        axes.grid(color="#dddddd", lw=0.6)
        axes.legend(frameon=False, loc="upper left")
        figure.savefig(path, metadata={"Date": None})


if __name__ == "__main__":
    typer.run(main)
