"""Every network by every way through the toolchain: done, or refused with the reason.

    python -m benchmarks.matrix                 # every network of tests/networks at toy width, doors as they are
    python -m benchmarks.matrix --whole         # at the width that was published
    python -m benchmarks.matrix --only segnet --only smp

The networks are those of tests/networks/*.yaml, built with random weights and with batch norms that have seen data:
what is tried here is whether a network goes through, not how good it is. A cell is done when the file was written,
checked and (but for TensorRT, whose engines need a GPU to run) run, with an answer equal to torch's. It is refused
when our own error says why; anything else is a crash, and the command exits with 1. The result is written to
benchmarks/matrix.md.
"""

from __future__ import annotations

import copy
import json
import multiprocessing
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Annotated, Any, Literal

import numpy as np
import torch
import typer
import yaml
from rich.console import Console
from torch import Tensor, nn

from compress import progress
from compress.errors import SegpressError
from compress.passes.depthwise import Depthwise
from compress.passes.int8 import Int8
from compress.passes.prune import Prune
from compress.pipeline.deployment import target_on
from compress.storage.description import Description, build_net, shape_of
from compress.storage.weights import load_net, save_net
from export.artifact import Artifact
from export.backends import onnxruntime, openvino, tensorrt
from export.files import make_folder, sha256, write_bytes, write_json
from export.quantization.quantized import Quantized
from export.registry import find_device
from export.to_onnx import to_onnx

HERE = Path(__file__).parent
TABLES = HERE.parent / "tests" / "networks"
DOORS = ("smp", "torchvision", "monai", "timm")
"""Networks of other libraries: their sizes are their own, so that there is no toy of them."""
SIDES = {2: range(64, 257), 3: range(32, 129)}
"""Where the smallest side that a network takes is looked for."""
NEAR = 1e-3
"""How far an artifact's float logits may be from torch's, of the largest."""
NEAR_INT8 = 0.1
"""The same in integers, where a rounding that falls the other way moves what follows by a whole step: on average, and
at least. Some deep networks with random weights are chaotic; they may differ by what they differ from themselves."""
SHAKEN, SHAKEN_INT8 = 1e-6, 1e-5
"""By how much, relatively, all numbers of a network are changed to see how far it then is from itself: by a few of a
float's last digits, and by what makes some roundings to integers fall the other way."""
CHAOTIC = "shaken, it differs from itself"
GPU = "rtx_40"
Shape = tuple[int, ...]
State = Literal["done", "refused", "crash"]


@dataclass(frozen=True, kw_only=True)
class Network:
    """One row of the matrix."""

    word: str
    options: Mapping[str, Any]

    def __str__(self) -> str:
        # The graph of an ONNX file is the file itself, as text.
        hidden = ("classes", "graph")
        options = ", ".join(f"{key} {value}" for key, value in self.options.items() if key not in hidden)
        return f"{self.word}: {options}" if options else self.word

    @property
    def shape(self) -> Shape:
        """The smallest square input, BCHW or BCDHW, that the network takes."""
        shape = shape_of({self.word: dict(self.options)})
        sides = (side for side in SIDES[shape.dims] if shape.check_size((side,) * shape.dims) is None)
        return (1, shape.in_channels, *[next(sides)] * shape.dims)


@dataclass(frozen=True, kw_only=True)
class Cell:
    """What became of one network on one way."""

    state: State
    said: str = ""
    """Why not; of a finished one, what it came to."""


@dataclass(frozen=True, kw_only=True)
class Found:
    """All cells of one network."""

    cells: Mapping[str, Cell] = field(default_factory=dict)
    seconds: float = 0.0


class Ways:
    """The columns, each a way that one network is taken."""

    def __init__(self, network: Network, folder: Path) -> None:
        self.folder = folder
        torch.manual_seed(0)
        self.net = _lived(build_net({network.word: dict(network.options)}), network.shape)
        self.images = [_image(network.shape, seed) for seed in range(4)]
        self.task: Any = SimpleNamespace(
            net=self.net,
            example=torch.zeros(network.shape),
            seed=0,
            folder=None,
            dynamic=(),
            note=lambda _: None,
            data=SimpleNamespace(
                cases={"calibration": self.images}, images=lambda cases: (case.numpy() for case in cases)
            ),
        )
        self._int8: Quantized | SegpressError | None = None
        self._files: dict[str, Artifact] = {}

    def columns(self) -> dict[str, Callable[[], str]]:
        return {
            "fp32 export": lambda: self._same(self._whole(), "onnxruntime", self.net, NEAR),
            "int8 export": lambda: self._exported(onnxruntime.RULES).path.name,
            "prune 50 %": self._pruned,
            "depthwise": self._separable,
            "ONNX Runtime": lambda: self._runs("onnxruntime", onnxruntime.RULES),
            "OpenVINO": lambda: self._runs("openvino", openvino.RULES),
            "TensorRT-RTX": self._engine,
        }

    @property
    def int8(self) -> Quantized:
        """The network in integers, made once; that it cannot be made is said as often as it is asked for."""
        if self._int8 is None:
            try:
                made = Int8()(self.net, self.task)
                assert isinstance(made, Quantized)
                self._int8 = made
            except SegpressError as error:
                self._int8 = error
        if isinstance(self._int8, SegpressError):
            raise self._int8
        return self._int8

    def _file(self, name: str, net: Callable[[], nn.Module]) -> Artifact:
        """An ONNX file, written once: several columns ask for the same."""
        if name not in self._files:
            self._files[name] = to_onnx(net(), self.task.example, self.folder / f"{name}.onnx")
        return self._files[name]

    def _whole(self) -> Artifact:
        return self._file("fp32", lambda: self.net)

    def _pruned(self) -> str:
        return self._changed(Prune(ratio=0.5, multiple=1)(self.net, self.task), "pruned")

    def _separable(self) -> str:
        return self._changed(Depthwise(at_least=1)(self.net, self.task), "depthwise")

    def _changed(self, net: nn.Module, name: str) -> str:
        """Saved, loaded and exported, it still answers as it did; and there is less of it."""
        before, after = (sum(tensor.numel() for tensor in each.parameters()) for each in (self.net, net))
        assert after < before, f"{before:,} -> {after:,} parameters"
        path = self.folder / f"{name}.safetensors"
        save_net(net, Description(network=net.description), path)  # type: ignore[arg-type]
        again = load_net(path)
        with torch.no_grad():
            assert torch.allclose(again(self.images[0]), net(self.images[0]), atol=1e-4, rtol=1e-4), (
                "loaded, it differs"
            )
        said = self._same(self._file(name, lambda: again), "onnxruntime", again, NEAR)
        return f"{before / after:.2f}x fewer parameters; {said}"

    def _exported(self, rules: Any) -> Artifact:
        name = next(word for word, one in RULES.items() if one is rules)
        return self._file(f"int8-{name}", lambda: self.int8.placed(rules))

    def _runs(self, word: str, rules: Any) -> str:
        """The float and the integer network, built for a runtime and run there."""
        self._same(self._whole(), word, self.net, NEAR)
        net = self.int8.placed(rules)
        return self._same(self._exported(rules), word, net, NEAR_INT8, SHAKEN_INT8)

    @torch.no_grad()
    def _from_itself(self, net: nn.Module, by: float) -> float:
        """How far the answer goes when every number in the network is changed a little, as a runtime that adds in
        another order does: the most of four times.
        """
        image = self.images[0]
        wanted, found = net(image), []
        for seed in range(4):
            draw = torch.Generator().manual_seed(seed)
            shaken = copy.deepcopy(net)
            for tensor in (*shaken.parameters(), *shaken.buffers()):
                if tensor.is_floating_point():
                    tensor.data.mul_(1 + by * torch.randn(tensor.shape, generator=draw))
            found.append(_apart(shaken(image).numpy(), wanted.numpy()))
        return max(found)

    def _same(self, onnx: Artifact, word: str, net: nn.Module, near: float, shaken: float = SHAKEN) -> str:
        target = target_on(find_device("cpu"), 1)
        built = target.build(word, onnx, make_folder(self.folder / word))
        image = self.images[0]
        with target.open(word).open(built) as infer, torch.no_grad():
            answer, wanted = infer(image.numpy()), net(image).numpy()
        assert answer.shape == wanted.shape, f"the answer is {answer.shape}, not {wanted.shape}"
        apart = _apart(answer, wanted)
        if apart <= near:
            return f"differs by {apart:.0e}"
        itself = self._from_itself(net, shaken)
        assert apart <= 2 * itself, f"its logits differ from torch's by {apart:.1%}, more than {near:.1%}"
        return f"{CHAOTIC} by {itself:.1%}, from torch's by {apart:.1%}"

    def _engine(self) -> str:
        target = target_on(find_device(GPU), 1)
        sizes = [
            target.build("tensorrt", onnx, make_folder(self.folder / f"engine{number}")).path.stat().st_size / 1e6
            for number, onnx in enumerate((self._whole(), self._exported(tensorrt.RULES)))
        ]
        return f"{sizes[0]:.1f} MB, in integers {sizes[1]:.1f} MB"


RULES = {"onnxruntime": onnxruntime.RULES, "openvino": openvino.RULES, "tensorrt": tensorrt.RULES}
COLUMNS = ("fp32 export", "int8 export", "prune 50 %", "depthwise", "ONNX Runtime", "OpenVINO", "TensorRT-RTX")
DEPLOYED = ("int8 export", "ONNX Runtime", "OpenVINO", "TensorRT-RTX")


def main(
    only: Annotated[list[str] | None, typer.Option(help="Networks, by their word.")] = None,
    whole: Annotated[bool, typer.Option(help="At the published width, rather than as a toy.")] = False,
    minutes: Annotated[float, typer.Option(help="How long one network may take.")] = 10.0,
    out: Annotated[Path, typer.Option(help="Where results are kept: what is there is not done again.")] = Path(
        "runs/matrix"
    ),
    to: Annotated[Path, typer.Option(help="The Markdown file to write.")] = HERE / "matrix.md",
) -> None:
    """Try every network on every way; print and write the table."""
    chosen = [network for network in networks(whole) if not only or network.word in only]
    found: list[tuple[Network, Found]] = []
    for network in progress.bar(chosen, "networks", len(chosen)):
        one = _kept(network, make_folder(out), minutes)
        found.append((network, one))
        print(f"{network}: {', '.join(f'{name} {cell.state}' for name, cell in one.cells.items())}", flush=True)
    page = as_page(found, whole)
    write_bytes(to, page.encode())
    Console(width=200).print(page, markup=False)
    if any(cell.state == "crash" for _, one in found for cell in one.cells.values()):
        raise typer.Exit(1)


def networks(whole: bool) -> list[Network]:
    """Every network of tests/networks, once: the toys, or with `whole` those that were published."""
    listed = []
    for path in sorted(TABLES.glob("*.yaml")):
        entries = yaml.safe_load(path.read_text())
        wanted = whole or path.stem in DOORS
        published = [entry for entry in entries if bool(entry.get("toy")) is not wanted] or entries
        listed += [Network(word=path.stem, options=entry["options"]) for entry in published]
    return list({str(network): network for network in listed}.values())


def tried(network: Network) -> Found:
    """All cells of one network, in this process."""
    torch.set_num_threads(1)
    begun = time.perf_counter()
    with tempfile.TemporaryDirectory() as scratch, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            _check(network)
            ways = Ways(network, Path(scratch)).columns()
        except SegpressError as error:
            refused = Cell(state="refused", said=str(error))
            return Found(cells=dict.fromkeys(COLUMNS, refused), seconds=time.perf_counter() - begun)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is what the table is to show
            return Found(cells=dict.fromkeys(COLUMNS, _crash(error)), seconds=time.perf_counter() - begun)
        cells = {name: _cell(way) for name, way in ways.items()}
    return Found(cells=cells, seconds=time.perf_counter() - begun)


def _check(network: Network) -> None:
    """What a recipe asks of a network before anything is done with it."""
    check = getattr(shape_of({network.word: dict(network.options)}), "check", None)
    if check is not None:
        check()


def _apart(answer: np.ndarray, wanted: np.ndarray) -> float:
    """How far two answers are from each other, on average: in integers, single pixels of one network may go far."""
    return float(np.abs(answer - wanted).mean() / max(1e-6, float(np.abs(wanted).mean())))


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


def _kept(network: Network, folder: Path, minutes: float) -> Found:
    """What was found before with the same code, or is found now in a process of its own."""
    path = folder / f"{sha256_of(str(network))}.json"
    key = _code_key()
    if path.is_file() and (read := json.loads(path.read_text()))["code"] == key:
        return Found(cells={name: Cell(**cell) for name, cell in read["cells"].items()}, seconds=read["seconds"])
    found = _alone(network, minutes)
    write_json(path, {"code": key, "network": str(network), **asdict(found)})
    return found


def _alone(network: Network, minutes: float) -> Found:
    """In a process of its own: a crash of a runtime, or one that never ends, is one row and not the table."""
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    worker = context.Process(target=_answer, args=(network, queue), daemon=True)
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
    return Found(cells=dict.fromkeys(COLUMNS, Cell(state="crash", said=said)))


def _answer(network: Network, queue: Any) -> None:
    queue.put(tried(network))


def _lived(net: nn.Module, shape: Shape) -> nn.Module:
    """The network in evaluation mode, its batch norms as if they had seen data: fresh ones hide what folding does."""
    draw = torch.Generator().manual_seed(1)
    for module in net.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is not None:
            module.running_mean.normal_(0, 0.1, generator=draw)
            assert module.running_var is not None
            module.running_var.uniform_(0.5, 1.5, generator=draw)
    return net.eval()


def _image(shape: Shape, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def sha256_of(text: str) -> str:
    """A short name for a network's results."""
    import hashlib

    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _code_key() -> str:
    from compress.cache import code_key

    return f"{code_key()} {sha256(Path(__file__))}"


def as_page(found: Sequence[tuple[Network, Found]], whole: bool) -> str:
    """The table, what share of it is done, and every reason."""
    cells = [one.cells[name] for _, one in found for name in DEPLOYED]
    done = sum(cell.state == "done" for cell in cells)
    lines = [f"| {network} | {' | '.join(_mark(one.cells[name]) for name in COLUMNS)} |" for network, one in found]
    return "\n".join(
        [
            "# Every network by every way",
            "",
            f"`python -m benchmarks.matrix{' --whole' if whole else ''}`",
            "",
            f"- torch {torch.__version__}; random weights; "
            f"{'published widths' if whole else 'toy widths, other libraries as they are'}",
            "- fp32 export, prune, depthwise: ONNX Runtime's answer equal to torch's within "
            f"{NEAR:.1%} on average; changed networks saved and loaded before",
            "- ONNX Runtime, OpenVINO: the float and the int8 network built, run and compared (int8 with torch's "
            f"simulation, within {NEAR_INT8:.0%} on average)",
            "- some random weights are chaotic: there an answer may differ by twice what torch's own differs by when "
            f"every number in the network is changed by {SHAKEN:.0e} (int8: {SHAKEN_INT8:.0e})",
            "- TensorRT-RTX: engines of both built for compute capability 8.9; not run: no NVIDIA driver",
            f"- **{done} of {len(cells)} cells ({done / max(1, len(cells)):.1%}) of network x ({', '.join(DEPLOYED)})"
            " are done**",
            "",
            f"| network | {' | '.join(COLUMNS)} |",
            "|---|" + "---|" * len(COLUMNS),
            *lines,
            "",
            "## Why not",
            "",
            *_reasons(found),
            "",
            "## Done within what is chaotic, and not within the fixed tolerance",
            "",
            *(
                f"- {network}: {name}: {cell.said}"
                for network, one in found
                for name, cell in one.cells.items()
                if CHAOTIC in cell.said
            ),
            "",
        ]
    )


def _mark(cell: Cell) -> str:
    return {"done": "done", "refused": "refused", "crash": "**crash**"}[cell.state]


def _reasons(found: Sequence[tuple[Network, Found]]) -> Iterator[str]:
    for network, one in found:
        reasons: dict[str, list[str]] = {}
        for name, cell in one.cells.items():
            if cell.state != "done":
                reasons.setdefault(f"{cell.state}: {cell.said}", []).append(name)
        for said, names in reasons.items():
            yield f"- {network}: {_listed(names)}: {said}"


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names)


if __name__ == "__main__":
    typer.run(main)
