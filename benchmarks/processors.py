"""The same answer on every processor: trained networks in 8-bit integers, with VNNI and without.

    python -m benchmarks.processors --data <folder of the data sets> --edge runs/unet-edge/steps/04-distill

Each network goes through `int8` once and is written twice: with weights of 8 bits whatever they add up to (before), and
with steps with which no sum of two products leaves 16 bits (after). Every file is answered as with VNNI, as without it
(both by emulation, to the bit: export/quantization/emulation.py), by ONNX Runtime on this host, and, where this host
can pretend it (benchmarks/lesser_cpu.py), by ONNX Runtime and OpenVINO as on a CPU with AVX2 alone. The result is
written to benchmarks/processors.md.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
import yaml
from numpy.typing import NDArray
from rich.console import Console

from benchmarks.lesser_cpu import environment
from compress.cache import versions
from compress.commands.train import train
from compress.measure.latency import Timing, interleaved
from compress.passes.int8 import Int8
from compress.recipe import load
from compress.task import Task
from export.artifact import Artifact, Infer
from export.backend import Emulator
from export.backends import onnxruntime, openvino
from export.backends.onnxruntime import OnnxRuntime
from export.backends.openvino import OpenVino
from export.backends.torch import infer_from_module
from export.errors import NotHere
from export.files import make_folder, write_bytes
from export.host import host_facts, usable_cpus
from export.quantization.quantized import Quantized
from export.to_onnx import to_onnx

HERE = Path(__file__).parent
WEIGHTS = HERE.parent / "recipes" / "weights"
RULES = {"onnxruntime": onnxruntime.RULES, "openvino": openvino.RULES}
BACKENDS: Mapping[str, type[OnnxRuntime] | type[OpenVino]] = {"onnxruntime": OnnxRuntime, "openvino": OpenVino}
MOST = 24
"""Test cases of each network: emulating one takes up to some seconds."""
Answers = list[NDArray[np.float32]]


@dataclass(frozen=True, kw_only=True)
class Network:
    """A trained network, or how it is trained, and the data it is for."""

    title: str
    network: Mapping[str, Any]
    data: Mapping[str, Any]
    epochs: int = 0
    rate: float = 2e-3


FLAT = {"classes": 2, "in_channels": 1}
PHANTOM = {"synthetic": {"train": 0, "val": 0, "calibration": 32, "test": MOST}}
NUCLEI = {
    "folder": {
        "root": "dsb2018_nuclei",
        "classes": ["background", "nucleus"],
        "size": [128, 128],
        "batch": 8,
        "calibration": 48,
    }
}
NERVE = {
    "folder": {
        "root": "usgra_nerve",
        "classes": ["background", "nerve", "vessel"],
        "size": [256, 256],
        "calibration": 24,
    }
}
HIPPOCAMPUS = {
    "nifti": {
        "root": "msd_hippocampus",
        "classes": ["background", "anterior", "posterior"],
        "size": [40, 56, 40],
        # Whole: each case is one input, whose answers are compared.
        "fit": "pad",
        "batch": 4,
    }
}
NETWORKS: Mapping[str, Network] = {
    "demo": Network(
        title="U-Net of width 16 (the demonstration), phantom",
        network={
            "unet": {"classes": 3, "in_channels": 1, "width": 16, "weights": str(WEIGHTS / "phantom_unet.safetensors")}
        },
        data=PHANTOM,
    ),
    "nerve": Network(
        title="U-Net of width 32, usgra_nerve",
        network={
            "unet": {"classes": 3, "in_channels": 1, "width": 32, "weights": str(WEIGHTS / "nerve_unet.safetensors")}
        },
        data=NERVE,
    ),
    "segnet": Network(title="SegNet, nuclei", network={"segnet": {**FLAT, "width": 8}}, data=NUCLEI, epochs=14),
    "unetpp": Network(
        title="UNet++, nuclei", network={"unetpp": {**FLAT, "width": 8, "level": 3}}, data=NUCLEI, epochs=8
    ),
    "deeplab": Network(
        title="DeepLabV3+ with MobileNetV2 (smp), nuclei",
        network={"smp": {**FLAT, "arch": "DeepLabV3Plus", "encoder": "mobilenet_v2"}},
        data=NUCLEI,
        epochs=10,
    ),
    "unet3d": Network(
        title="3-D U-Net, hippocampus",
        network={
            "unet3d": {
                "classes": 3,
                "in_channels": 1,
                "width": 16,
                "depth": 3,
                "weights": str(WEIGHTS / "hippocampus_unet3d.safetensors"),
            }
        },
        data=HIPPOCAMPUS,
    ),
}


def main(
    data: Annotated[
        Path, typer.Option(help="The folder that holds dsb2018_nuclei, usgra_nerve and msd_hippocampus.")
    ] = Path("data"),
    edge: Annotated[
        Path | None, typer.Option(help="The last float step of recipes/unet_edge.yaml: its folder.")
    ] = None,
    only: Annotated[list[str] | None, typer.Option(help="Networks, by their name here.")] = None,
    out: Annotated[Path, typer.Option(help="Where training and files are kept.")] = Path("runs/processors"),
    to: Annotated[Path, typer.Option(help="The Markdown file to write.")] = HERE / "processors.md",
) -> None:
    """Answer every test case in every way, compare, write the table."""
    networks = dict(NETWORKS)
    if edge is not None:
        description = json.loads((edge / "net.json").read_text())
        networks["edge"] = Network(
            title="recipes/unet_edge.yaml, last step, phantom", network={"saved": description}, data=PHANTOM
        )
    found = {}
    for name, network in networks.items():
        if not only or name in only:
            folder = make_folder(out / name)
            kept = folder / "found.json"
            if not kept.is_file():
                task = _task(name, network, data, folder, edge)
                write_bytes(kept, json.dumps(_found(network, task, folder)).encode())
            found[name] = json.loads(kept.read_text())
            Console(width=200).print(found[name])
    # Last, when nothing else runs any more: what the coarser steps do to the time, which should be nothing.
    speeds = {name: _speeds(out / name) for name in found}
    page = _page(found, speeds)
    write_bytes(to, page.encode())
    Console(width=200).print(page, markup=False)


def _task(name: str, network: Network, data: Path, folder: Path, edge: Path | None) -> Task:
    """The data, and the trained network; trained now where it is not."""
    ((word, options),) = network.data.items()
    rooted = (
        {word: {**options, "root": str((data / options["root"]).absolute())}} if "root" in options else network.data
    )
    recipe: dict[str, Any] = {"name": name, "seed": 7, "network": dict(network.network), "data": rooted}
    if word == "synthetic" and "saved" in network.network:
        from compress.storage.weights import load_net

        assert edge is not None
        task = _loaded({**recipe, "network": dict(NETWORKS["demo"].network)}, folder)
        return replace(task, net=load_net(edge / "net.safetensors"))
    if network.epochs:
        weights = make_folder(folder / "training") / "net.safetensors"
        if not weights.is_file():
            training = {"epochs": network.epochs, "rate": network.rate, "augment": "flips"}
            train(load(_written({**recipe, "train": training}, folder / "train.yaml")), weights.parent)
        ((word, options),) = network.network.items()
        recipe["network"] = {word: {**options, "weights": str(weights.absolute())}}
    return _loaded(recipe, folder)


def _loaded(recipe: Mapping[str, Any], folder: Path) -> Task:
    return load(_written({**recipe, "passes": ["int8"]}, folder / "recipe.yaml")).task()


def _written(recipe: Mapping[str, Any], path: Path) -> Path:
    write_bytes(path, yaml.safe_dump(dict(recipe), sort_keys=False).encode())
    return path


def _found(network: Network, task: Task, folder: Path) -> dict[str, Any]:
    """Everything the table says of one network."""
    notes: list[str] = []
    net = Int8()(task.net.eval(), replace(task, note=notes.append))
    assert isinstance(net, Quantized)
    cases = task.data.cases["test"][:MOST]
    images = list(task.data.images(cases))
    found: dict[str, Any] = {"title": network.title, "cases": len(cases), "notes": notes}
    found["float"] = _dice(task, images, _answered(infer_from_module(task.net), images))
    np.savez(folder / "images.npz", *images)
    for when in ("before", "after"):
        of_when: dict[str, Any] = {}
        for word, rules in RULES.items():
            placed = net.placed(replace(rules, pairs_in_16_bits=when == "after"))
            artifact = to_onnx(placed, task.example, folder / f"{word}_{when}.onnx")
            sums = artifact.made["pair_sums"]
            of_when[word] = {
                "unsafe": len(sums["unsafe"]),
                "channels": sum(sums["unsafe"].values()),
                "layers": sums["layers"],
            }
            of_when[word] |= _of_runtime(word, artifact, task, images, folder)
        found[when] = of_when
    coarser = net.coarser(RULES["onnxruntime"])
    return {**found, "changed": {"layers": len(coarser), "channels": sum(coarser.values())}}


def _of_runtime(word: str, artifact: Artifact, task: Task, images: Answers, folder: Path) -> dict[str, Any]:
    backend = BACKENDS[word]()
    built = backend.build(artifact, folder)
    answers: dict[str, Answers] = {}
    with backend.open(built) as infer:
        answers["here"] = _answered(infer, images)
    if isinstance(backend, Emulator):
        for title, narrow in (("exact", False), ("without", True)):
            with backend.open_as(built, pairs_in_16_bits=narrow) as infer:
                answers[title] = _answered(infer, images)
    try:
        answers["pretended"] = _pretended(word, built, folder)
    except NotHere as error:
        Console().print(f"not pretended: {error}", markup=False)
    told: dict[str, Any] = {title: _dice(task, images, given) for title, given in answers.items()}
    reference = answers.get("exact", answers["here"])
    told["differ"] = {title: _differ(reference, given) for title, given in answers.items()}
    return told


def _answered(infer: Infer, images: Answers) -> Answers:
    return [infer(image) for image in images]


def _pretended(word: str, artifact: Artifact, folder: Path) -> Answers:
    """What the runtime answers as on a CPU with AVX2 alone, in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.processors", "answer", word, str(artifact.path), str(folder)]
    subprocess.run(command, env=dict(environment("avx2")), check=True)
    with np.load(folder / "answers.npz") as stored:
        return [stored[name] for name in stored.files]


def _answer(word: str, path: str, folder: str) -> None:
    with np.load(Path(folder) / "images.npz") as stored:
        images = [stored[name] for name in stored.files]
    with BACKENDS[word]().open(Artifact.read(Path(path))) as infer:
        np.savez(Path(folder) / "answers.npz", *_answered(infer, images))


def _speeds(folder: Path) -> dict[str, tuple[float, float]]:
    """Median milliseconds before and after, on this host, for each runtime, all taken in turns."""
    with np.load(folder / "images.npz") as stored:
        images = [stored[name] for name in stored.files[:8]]
    with contextlib.ExitStack() as stack:
        runs = {}
        for word in RULES:
            suffix = "onnx" if word == "onnxruntime" else "xml"
            for when in ("before", "after"):
                artifact = Artifact.read(folder / f"{word}_{when}.{suffix}")
                infer = stack.enter_context(BACKENDS[word](threads=usable_cpus()).open(artifact))
                runs[word, when] = partial(_in_turn, infer, images)
        timing = Timing(samples=200, seconds=15, warm_up=1)
        times = interleaved({" ".join(key): run for key, run in runs.items()}, timing, 0)
    medians = {key: float(np.median(times[" ".join(key)].times_ms)) for key in runs}
    return {word: (medians[word, "before"], medians[word, "after"]) for word in RULES}


def _in_turn(infer: Infer, images: Answers, number: int) -> NDArray[np.float32]:
    return infer(images[number % len(images)])


def _dice(task: Task, images: Answers, answers: Answers) -> float:
    """The mean Dice of these answers, as a run scores them."""
    given = {image.tobytes(): answer for image, answer in zip(images, answers, strict=True)}
    cases = task.data.cases["test"][: len(images)]
    return round(float(task.measure(lambda image: given[image.tobytes()], cases=cases).mean("dice")), 4)


def _differ(ours: Answers, theirs: Answers) -> int:
    """How many cases have a logit that is not the same."""
    return sum(not np.array_equal(one, other) for one, other in zip(ours, theirs, strict=True))


def _page(found: Mapping[str, Mapping[str, Any]], speeds: Mapping[str, Mapping[str, tuple[float, float]]]) -> str:
    host = host_facts(usable_cpus())
    lines = [
        "# The same answer on every processor",
        "",
        "`python -m benchmarks.processors`: trained networks through `int8`, written with full 8-bit weights (before) "
        "and with steps that keep every sum of two products within 16 bits (after).",
        f"Host: {host['cpu']}, {', '.join(host['isa'])}. "
        f"Versions: {', '.join(f'{name} {text}' for name, text in versions().items())}.",
        "",
        "## ONNX Runtime",
        "",
        "Mean Dice on the test cases. *With VNNI* and *without* are emulated to the bit; *here* is this host, *AVX2* "
        "this host pretending to have nothing more (benchmarks/lesser_cpu.py). In brackets: on how many test cases any "
        "logit differs from the exact sums: in a last bit of a float layer, where Dice is the same.",
        "",
        "| network | cases | float | before: with VNNI | before: without | before: here | before: AVX2 "
        "| after: with VNNI | after: without | after: here | after: AVX2 |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
        *(_line(each, "onnxruntime", ("exact", "without", "here", "pretended")) for each in found.values()),
        "",
        "## OpenVINO",
        "",
        "In brackets: on how many test cases any logit differs from this host's.",
        "",
        "| network | cases | float | before: here | before: AVX2 | after: here | after: AVX2 |",
        "|---|---|---|---|---|---|---|",
        *(_line(each, "openvino", ("here", "pretended")) for each in found.values()),
        "",
        "## What was changed",
        "",
        "| network | integer layers | of these unsafe before | unsafe channels before | layers with coarser steps "
        "| channels | unsafe after |",
        "|---|---|---|---|---|---|---|",
        *map(_changes, found.values()),
        "",
        "## What it does to the time",
        "",
        f"Medians of 200 runs in ms on this host, {host['threads']} threads, files before and after taken in turns.",
        "",
        "| network | ONNX Runtime: before | after | | OpenVINO: before | after | |",
        "|---|--:|--:|--:|--:|--:|--:|",
        *(_times(found[name]["title"], speeds[name]) for name in found),
        "",
        *(f"- {each['title']}: {note}" for each in found.values() for note in each["notes"]),
    ]
    return "\n".join(lines) + "\n"


def _line(each: Mapping[str, Any], word: str, ways: Sequence[str]) -> str:
    cells = [each["title"], str(each["cases"]), f"{each['float']:.4f}"]
    for when in ("before", "after"):
        told = each[when][word]
        cells += [f"{told[way]:.4f} ({told['differ'][way]})" if way in told else "not measured" for way in ways]
    return f"| {' | '.join(cells)} |"


def _times(title: str, speeds: Mapping[str, tuple[float, float]]) -> str:
    cells = [cell for was, now in speeds.values() for cell in (f"{was:.2f}", f"{now:.2f}", f"{now / was:.3f}")]
    return f"| {title} | {' | '.join(cells)} |"


def _changes(each: Mapping[str, Any]) -> str:
    before, after = each["before"]["onnxruntime"], each["after"]["onnxruntime"]
    changed = each["changed"]
    cells = [
        before["layers"],
        before["unsafe"],
        before["channels"],
        changed["layers"],
        changed["channels"],
        after["unsafe"],
    ]
    return f"| {each['title']} | {' | '.join(map(str, cells))} |"


if __name__ == "__main__":
    if sys.argv[1:2] == ["answer"]:
        _answer(*sys.argv[2:])
    else:
        typer.run(main)
