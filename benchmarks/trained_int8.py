"""What plain integers cost trained networks, what more effort and training bring back, and whether max_drop holds.

    python -m benchmarks.trained --out runs/trained    # trains them, once
    python -m benchmarks.trained_int8 --trained runs/trained

Each network is put into integers with `effort: fast` and `normal`; where either loses more than may be lost, with
`max_drop` as well, and the one that loses most with `train` too. All drops are of files that ran on their runtimes, on
test cases that nothing was calibrated, chosen or trained on. The result is written to benchmarks/trained_int8.md.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import torch
import typer
from rich.console import Console

from benchmarks.trained import BACKENDS, NETWORKS
from compress.cache import code_key, key_of
from compress.data.dataset.cases import Case
from compress.editing.integers.training import LearnSteps
from compress.editing.precisions.bench import target_on
from compress.gates.judging.paired_drop import paired_drop
from compress.measure.segmentation import Scores, scores_of
from compress.passes.int8 import Int8
from compress.recipe import load
from compress.task import Task
from export.artifact import Infer
from export.backends.torch import infer_from_module
from export.errors import ExportError
from export.files import make_folder, write_bytes, write_json
from export.host import host_facts, usable_cpus
from export.quantization.quantized import Quantized
from export.registry import find_backend
from export.to_onnx import Style, parity, to_onnx

HERE = Path(__file__).parent
TOLD = ("int8 for ", "int8: learned", "int8: training", "int8: channels b", "int8: biases", "int8: weights of")
"""How notes begin that say what was done."""
Measured = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Bench:
    """Where everything is kept, and what has to hold."""

    trained: Path
    out: Path
    max_drop: float
    cases: int
    train: Mapping[str, Any] = field(default_factory=dict)

    def measured(self, name: str, what: str) -> Measured:
        """One network with one way of putting it into integers; what was measured with the same code is not again."""
        options = self.options()[what]
        path = make_folder(self.out / name) / f"{what}.json"
        key = key_of(code_key(), options, self.cases, (self.trained / name / "recipe.yaml").read_text())
        if path.is_file() and (known := json.loads(path.read_text()))["key"] == key:
            return dict(known)
        notes: list[str] = []
        task = replace(load(self.trained / name / "recipe.yaml").task(), note=notes.append)
        test = task.data.cases["test"][: self.cases]
        found = {"key": key, "cases": len(test), **_scored(task, options, test), "notes": notes}
        write_json(path, found)
        return found

    def options(self) -> dict[str, dict[str, Any]]:
        """What `int8` is given, by the columns of the table."""
        plain: dict[str, dict[str, Any]] = {each: {"effort": each} for each in ("fast", "normal")}
        return {**plain, "max_drop": {"max_drop": self.max_drop}, "train": {"train": dict(self.train)}}


def main(
    trained: Annotated[Path, typer.Option(help="The folder that benchmarks.trained left.")] = Path("runs/trained"),
    only: Annotated[list[str] | None, typer.Option(help="Networks, by their folders.")] = None,
    max_drop: float = 0.003,
    cases: Annotated[int, typer.Option(help="Test cases that are scored, at most.")] = 60,
    epochs: Annotated[int, typer.Option(help="Of learned steps.")] = 2,
    rate: Annotated[float, typer.Option(help="Their peak learning rate.")] = 1e-4,
    out: Annotated[Path, typer.Option(help="Where results are kept.")] = Path("runs/trained_int8"),
    to: Annotated[Path, typer.Option(help="The Markdown file to write.")] = HERE / "trained_int8.md",
) -> None:
    """Measure every network, write the page; exit with 1 where max_drop fails or training brings back under a half."""
    train = {"epochs": epochs, "rate": rate, "augment": "flips"}
    bench = Bench(trained=trained, out=out, max_drop=max_drop, cases=cases, train=train)
    found = {name: {each: bench.measured(name, each) for each in ("fast", "normal")} for name in only or NETWORKS}
    for name, each in found.items():
        if max(_most(each["fast"]), _most(each["normal"])) > max_drop:
            each["max_drop"] = bench.measured(name, "max_drop")
    worst = max(found, key=lambda name: _most(found[name]["fast"]))
    found[worst]["train"] = bench.measured(worst, "train")
    page = _page(found, worst, bench)
    write_bytes(to, page.encode())
    Console(width=200).print(page, markup=False)
    held = all(_most(each["max_drop"]) <= max_drop for each in found.values() if "max_drop" in each)
    if not held or any(_share(found[worst], word) < 0.5 for word in BACKENDS):
        raise typer.Exit(1)


def _scored(task: Task, options: Mapping[str, Any], cases: Sequence[Case]) -> Measured:
    """The network in integers, its files built and run."""
    quantized = Int8(**_typed(options))(task.net, task)
    assert isinstance(quantized, Quantized)
    before = _scores(task, infer_from_module(task.net), cases)
    rows: dict[str, Any] = {}
    for word in BACKENDS:
        try:
            rows[word] = _row(task, quantized, word, before, cases)
        except ExportError as error:
            rows[word] = {"reason": str(error)}
    return {"dice": before.mean("dice"), "rows": rows}


def _typed(options: Mapping[str, Any]) -> dict[str, Any]:
    return {key: LearnSteps(**value) if key == "train" else value for key, value in options.items()}


def _row(task: Task, quantized: Quantized, word: str, before: Scores, cases: Sequence[Case]) -> dict[str, Any]:
    kind = find_backend(word)
    assert kind.rules is not None
    target = target_on("cpu", None)
    with TemporaryDirectory() as scratch, torch.inference_mode():
        file = to_onnx(quantized.placed(kind.rules), task.example, Path(scratch) / "net.onnx", Style())
        with target.open(word).open(target.build(word, file, Path(scratch))) as infer:
            simulated = infer_from_module(quantized.simulated(kind.rules))
            apart = parity(simulated, infer, task.data.images(cases))
            after = _scores(task, infer, cases)
    drops = {name: paired_drop(before, after, name, "dice") for name in after.class_names}
    worst = max(drops.values(), key=lambda drop: drop.mean)
    return {"drop": worst.mean, "upper": worst.upper, "flipped": apart.flipped, "layers": quantized.layers(kind.rules)}


def _scores(task: Task, infer: Infer, cases: Sequence[Case]) -> Scores:
    """Dice of every case."""
    names, scored = (
        [(case.name, case.unit) for case in cases],
        [task.score(infer, case, surfaces=False) for case in cases],
    )
    return scores_of(names, scored, task.data.class_names[1:])


def _page(found: Mapping[str, Mapping[str, Measured]], worst: str, bench: Bench) -> str:
    host = host_facts(usable_cpus())
    options = ", ".join(f"{key}: {value}" for key, value in bench.train.items())
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "onnxruntime", "openvino"))
    return (
        "\n".join(
            [
                "# Trained networks in 8-bit integers, with more and less effort",
                "",
                "`python -m benchmarks.trained_int8`, on networks that `python -m benchmarks.trained` trained. "
                f"Host: {host['cpu']}, {host['threads']} threads, {', '.join(host['isa'])}. Versions: {versions}.",
                "",
                "Drop of Dice of files that ran on their runtime, on the test cases, for the class that loses most, "
                "with the upper limit of the one-sided 95 % interval over cases. Flipped: pixels of all test cases "
                "with another class there than in the simulation in torch, the most of the row. `max_drop` is measured "
                f"where `fast` or `normal` loses over {bench.max_drop:g} on some runtime; in float are layers by the "
                "runtime's rules and those that it chose.",
                "",
                f"| network | runtime | test cases | Dice | `fast` | `normal` | `max_drop: {bench.max_drop:g}` "
                "| in float: `normal`, `max_drop` | flipped |",
                "|---|---|---|---|---|---|---|---|---|",
                *(_line(name, each, word) for name, each in found.items() for word in BACKENDS),
                *_left_out(found),
                "",
                f"## What {worst} loses, and what brings it back",
                "",
                f"`train: {{{options}}}`. The last column is the share of what `fast` loses that `train` does not; "
                "over 100 % where training improved the network itself, which learns from the masks, too.",
                "",
                "| runtime | `fast` | `normal` | `train` | brought back |",
                "|---|---|---|---|---|",
                *(_mended(found[worst], word) for word in BACKENDS),
                "",
                "## What the pass said",
                "",
                "Times are medians taken in turns, whatever else the host did: only their ratios mean something.",
                "",
                *(f"- {name}, {told}" for name, each in found.items() for told in _told(each)),
            ]
        )
        + "\n"
    )


def _left_out(found: Mapping[str, Any]) -> list[str]:
    """The networks of which nothing is said here."""
    missing = [name for name in NETWORKS if name not in found]
    return ["", f"Not measured on this page: {', '.join(missing)}."] if missing else []


def _told(each: Mapping[str, Measured]) -> list[str]:
    return [f"{what}: {note}" for what in each for note in each[what]["notes"] if note.startswith(TOLD)]


def _line(name: str, each: Mapping[str, Measured], word: str) -> str:
    columns = [each.get(what) for what in ("fast", "normal", "max_drop")]
    rows = [column["rows"][word] for column in columns if column is not None]
    flipped = [row["flipped"] for row in rows if "flipped" in row]
    cells = [
        name,
        word,
        str(each["fast"]["cases"]),
        f"{each['fast']['dice']:.4f}",
        *("not needed" if column is None else _drop(column, word) for column in columns),
        ", ".join(_in_float(row) for row in rows[1:]),
        f"{max(flipped):.3%}" if flipped else "-",
    ]
    return f"| {' | '.join(cells)} |"


def _in_float(row: Mapping[str, Any]) -> str:
    layers = row.get("layers")
    return f"{layers['float']} of {layers['float'] + layers['integer']}" if layers else "-"


def _mended(each: Mapping[str, Measured], word: str) -> str:
    drops = [_drop(each[what], word) for what in ("fast", "normal", "train")]
    lost = float(each["fast"]["rows"][word].get("drop", 0.0)) > 0
    return f"| {' | '.join([word, *drops, f'{_share(each, word):.0%}' if lost else 'nothing was lost'])} |"


def _share(each: Mapping[str, Measured], word: str) -> float:
    """How much of what plain integers lose the trained ones do not."""
    plain, learned = (float(each[what]["rows"][word].get("drop", 0.0)) for what in ("fast", "train"))
    return 1 - learned / plain if plain > 0 else 1.0


def _most(measured: Measured) -> float:
    """The drop on the runtime where it is largest."""
    return max(float(row.get("drop", 0.0)) for row in measured["rows"].values())


def _drop(measured: Measured, word: str) -> str:
    row = measured["rows"][word]
    return row["reason"] if "reason" in row else f"{row['drop']:+.4f} ({row['upper']:+.4f})"


if __name__ == "__main__":
    typer.run(main)
