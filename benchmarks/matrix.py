"""Every network by every way through the toolchain: done, or refused with the reason.

    python -m benchmarks.matrix                 # every network of tests/networks at toy width, doors as they are
    python -m benchmarks.matrix --whole         # at the width that was published
    python -m benchmarks.matrix --only segnet --only smp --ways half,low_bit

The networks are those of tests/networks/*.yaml, built with random weights and with batch norms that have seen data:
what is tried here is whether a network goes through, not how good it is. A cell is done when the file was written,
checked and (but for TensorRT, whose engines need a GPU to run) run, with an answer equal to torch's; of a pass that
leaves fewer bits, when the network was saved and loaded before, and its file has the bits that its report counts. It
is refused when our own error says why; anything else is a crash, and the command exits with 1. The result is written
to benchmarks/matrix.md.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console

from benchmarks.matrix_rows import Cell, Found, Network, networks
from benchmarks.matrix_same import CHAOTIC, NEAR, NEAR_INT8, SHAKEN, SHAKEN_INT8
from benchmarks.matrix_steps import BEST, WIDER, Steps
from benchmarks.matrix_ways import Ways
from compress import progress
from compress.cache import code_key
from compress.errors import SegpressError
from compress.storage.description import shape_of
from export.files import make_folder, sha256, write_bytes, write_json

HERE = Path(__file__).parent
COLUMNS: Mapping[str, str] = {
    "fp32": "fp32 export",
    "int8": "int8 export",
    "prune": "prune 50 %",
    "depthwise": "depthwise",
    "onnxruntime": "ONNX Runtime",
    "openvino": "OpenVINO",
    "tensorrt": "TensorRT-RTX",
    "half": "half float16",
    "bfloat16": "half bfloat16",
    "low_bit": "low_bit 4",
    "best": "int8 best",
    "binary": "binary",
    "signs": "binary signs",
}
"""The ways, by the words that choose them, and their titles."""
DEPLOYED = ("int8", "onnxruntime", "openvino", "tensorrt")
FEWER_BITS = ("half", "bfloat16", "low_bit", "best", "binary", "signs")


def main(
    only: Annotated[list[str] | None, typer.Option(help="Networks, by their word.")] = None,
    ways: Annotated[str, typer.Option(help="Columns, by their words, with commas between them.")] = ",".join(COLUMNS),
    whole: Annotated[bool, typer.Option(help="At the published width, rather than as a toy.")] = False,
    minutes: Annotated[float, typer.Option(help="How long one network may take.")] = 10.0,
    out: Annotated[Path, typer.Option(help="Where results are kept: what is there is not done again.")] = Path(
        "runs/matrix"
    ),
    to: Annotated[Path, typer.Option(help="The Markdown file to write.")] = HERE / "matrix.md",
) -> None:
    """Try every network on every way; print and write the table."""
    words = _known(ways.split(","))
    chosen = [network for network in networks(whole) if not only or network.word in only]
    found: list[tuple[Network, Found]] = []
    for network in progress.bar(chosen, "networks", len(chosen)):
        one = _kept(network, words, make_folder(out), minutes)
        found.append((network, one))
        print(f"{network}: {', '.join(f'{word} {cell.state}' for word, cell in one.cells.items())}", flush=True)
    page = as_page(found, words, whole)
    write_bytes(to, page.encode())
    Console(width=200).print(page, markup=False)
    if any(cell.state == "crash" for _, one in found for cell in one.cells.values()):
        raise typer.Exit(1)


def _known(ways: Sequence[str]) -> list[str]:
    unknown = [way for way in ways if way not in COLUMNS]
    if unknown:
        raise typer.BadParameter(f"there is no way '{unknown[0]}'; there are {', '.join(COLUMNS)}")
    return [word for word in COLUMNS if word in ways]


def tried(network: Network, words: Sequence[str] = tuple(COLUMNS)) -> Found:
    """The cells of one network in these columns, in this process."""
    torch.set_num_threads(1)
    begun = time.perf_counter()
    with tempfile.TemporaryDirectory() as scratch, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cells = dict.fromkeys(words, _cell(lambda: _check(network)))
        if all(cell.state == "done" for cell in cells.values()):
            cells = {word: _cell(way) for word, way in _ways(network, Path(scratch)).items() if word in words}
    return Found(cells=cells, seconds=time.perf_counter() - begun)


def _ways(network: Network, folder: Path) -> dict[str, Callable[[], str]]:
    """By its word, each way; what several of them need is made when the first asks for it."""
    plain = cache(lambda: Ways(network, folder).columns())
    steps = Steps(network=network, folder=folder).columns()
    return {word: steps[word] if word in steps else lambda word=word: plain()[word]() for word in COLUMNS}  # type: ignore[misc]


def _check(network: Network) -> str:
    """What a recipe asks of a network before anything is done with it."""
    check = getattr(shape_of({network.word: dict(network.options)}), "check", None)
    if check is not None:
        check()
    return ""


def _cell(way: Callable[[], str]) -> Cell:
    try:
        return Cell(state="done", said=way())
    except SegpressError as error:
        return Cell(state="refused", said=str(error))
    except Exception as error:  # noqa: BLE001 - whatever it is, it is what the table is to show
        return _crash(error)


def _crash(error: Exception) -> Cell:
    place = traceback.extract_tb(error.__traceback__)[-1]
    said = next(iter(str(error).strip().splitlines()), "")[:200]
    return Cell(state="crash", said=f"{type(error).__name__}: {said} ({Path(place.filename).name}:{place.lineno})")


def _kept(network: Network, words: Sequence[str], folder: Path, minutes: float) -> Found:
    """What was found before with the same code, and what is found now in a process of its own."""
    path = folder / f"{hashlib.sha256(str(network).encode()).hexdigest()[:16]}.json"
    key = f"{code_key()} {[sha256(each) for each in sorted(HERE.glob('matrix*.py'))]}"
    read = json.loads(path.read_text()) if path.is_file() else {}
    read = read if read.get("code") == key else {"cells": {}, "seconds": 0.0}
    known = {word: Cell(**cell) for word, cell in read["cells"].items()}
    lacking = [word for word in words if word not in known]
    now = _alone(network, lacking, minutes) if lacking else Found()
    known |= now.cells
    seconds = read["seconds"] + now.seconds
    write_json(path, {"code": key, "network": str(network), **asdict(Found(cells=known, seconds=seconds))})
    return Found(cells={word: known[word] for word in words}, seconds=seconds)


def _alone(network: Network, words: Sequence[str], minutes: float) -> Found:
    """In a process of its own: a crash of a runtime, or one that never ends, is one row and not the table."""
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    worker = context.Process(target=_answer, args=(network, words, queue), daemon=True)
    worker.start()
    until = time.monotonic() + 60 * minutes
    while time.monotonic() < until:
        if not queue.empty():
            found: Found = queue.get()
            worker.join()
            return found
        if not worker.is_alive() and queue.empty():
            break
        time.sleep(0.2)
    said = f"its process ended with {worker.exitcode}" if not worker.is_alive() else f"took over {minutes:g} minutes"
    worker.kill()
    return Found(cells=dict.fromkeys(words, Cell(state="crash", said=said)))


def _answer(network: Network, words: Sequence[str], queue: Any) -> None:
    queue.put(tried(network, words))


def as_page(found: Sequence[tuple[Network, Found]], words: Sequence[str] = tuple(COLUMNS), whole: bool = False) -> str:
    """The table, what share of it is done, and every reason."""
    lines = [f"| {network} | {' | '.join(_mark(one.cells[word]) for word in words)} |" for network, one in found]
    command = "python -m benchmarks.matrix" + (" --whole" if whole else "")
    command += f" --ways {','.join(words)}" if list(words) != list(COLUMNS) else ""
    return "\n".join(
        [
            "# Every network by every way",
            "",
            f"`{command}`",
            "",
            *_how(whole),
            *(_share(found, [word for word in group if word in words]) for group in (DEPLOYED, FEWER_BITS)),
            "",
            f"| network | {' | '.join(COLUMNS[word] for word in words)} |",
            "|---|" + "---|" * len(words),
            *lines,
            "",
            "## Why not",
            "",
            *_reasons(found),
            "",
            "## Done within what is chaotic, and not within the fixed tolerance",
            "",
            *(
                f"- {network}: {COLUMNS[word]}: {cell.said}"
                for network, one in found
                for word, cell in one.cells.items()
                if CHAOTIC in cell.said
            ),
            "",
        ]
    )


def _how(whole: bool) -> Iterator[str]:
    """What was done, a line of a list each."""
    widths = "published widths" if whole else "toy widths, other libraries as they are"
    yield f"- torch {torch.__version__}; random weights; {widths}"
    yield (
        f"- fp32 export, prune, depthwise: ONNX Runtime's answer equal to torch's within {NEAR:.1%} on average; "
        "changed networks saved and loaded before"
    )
    yield (
        "- ONNX Runtime, OpenVINO: the float and the int8 network built, run and compared (int8 with torch's "
        f"simulation, within {NEAR_INT8:.0%} on average)"
    )
    yield (
        "- some random weights are chaotic: there an answer may differ by twice what torch's own differs by when every "
        f"number in the network is changed by {SHAKEN:.0e} (int8: {SHAKEN_INT8:.0e})"
    )
    yield "- TensorRT-RTX: engines of both built for compute capability 8.9; not run: no NVIDIA driver"
    yield (
        "- half, low_bit, int8 best, binary: the pass as a run does it, saved and loaded to the last bit, its files "
        "built and run by ONNX Runtime and OpenVINO (bfloat16: OpenVINO alone) and compared with torch's simulation; "
        "the layers of a file have the bits that the network says; "
        f"int8 best: over {BEST:,} parameters `normal`"
    )
    yield (
        f"- binary: trained for one step, toys {WIDER} times as wide, since layers under 8 channels stay as they are; "
        "signs: with signs of activations and zeros among the weights"
    )


def _share(found: Sequence[tuple[Network, Found]], words: Sequence[str]) -> str:
    cells = [one.cells[word] for _, one in found for word in words]
    done = sum(cell.state == "done" for cell in cells)
    titles = ", ".join(COLUMNS[word] for word in words)
    return f"- **{done} of {len(cells)} cells ({done / max(1, len(cells)):.1%}) of network x ({titles}) are done**"


def _mark(cell: Cell) -> str:
    return {"done": "done", "refused": "refused", "crash": "**crash**"}[cell.state]


def _reasons(found: Sequence[tuple[Network, Found]]) -> Iterator[str]:
    for network, one in found:
        reasons: dict[str, list[str]] = {}
        for name, cell in one.cells.items():
            if cell.state != "done":
                reasons.setdefault(f"{cell.state}: {cell.said}", []).append(COLUMNS[name])
        for said, names in reasons.items():
            yield f"- {network}: {_listed(names)}: {said}"


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names)


if __name__ == "__main__":
    typer.run(main)
