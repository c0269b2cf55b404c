"""Convolutions of signs by our kernel, beside ONNX Runtime's own of the same shapes in float and in integers.

    python -m benchmarks.binary

Each 3x3 convolution is timed alone, the three in turns, so that whatever else the host does falls on all of them. The
table is written to benchmarks/binary.md, between the two lines that mark it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import numpy as np
import onnx
import torch
import typer
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from compress.networks.blocks.signed_conv import SignedConv
from export.files import write_bytes
from export.host import host_facts
from export.kernels.library import library
from export.kernels.signed_nodes import with_signed_convs
from export.sessions import onnxruntime as sessions
from export.to_onnx import to_onnx

HERE = Path(__file__).parent
BEGIN, END = "<!-- layers -->", "<!-- end of layers -->"
CHANNELS, SIDES = (32, 64, 128, 256), (16, 32, 64, 128, 256)
MOST_MACS = 6e9
Times = dict[str, list[float]]


class Signs(nn.Module):
    """A convolution of signs with its scale and bias, and nothing around it."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        conv = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        conv.weight.data.sign_()
        self.layer = SignedConv(conv)
        # Without it the layer is the convolution alone, as the two that it is compared with are.
        self.layer.shortcut = False

    def forward(self, x: Tensor) -> Tensor:
        return self.layer.linear(x)


def main(
    threads: int = 1,
    seconds: Annotated[float, typer.Option(help="For each shape.")] = 4.0,
    to: Annotated[Path, typer.Option(help="The Markdown file with the table.")] = HERE / "binary.md",
) -> None:
    """Time every shape and write the table."""
    rows = []
    for channels, side in shapes():
        with TemporaryDirectory() as scratch:
            # Of one thread its own time is taken, which does not run while others have the processor.
            clock = time.thread_time if threads == 1 else time.perf_counter
            times = timed(runs(channels, side, threads, Path(scratch)), seconds, clock)
        rows.append(row(channels, side, times))
        typer.echo(rows[-1])
    host = host_facts(threads)
    title = f"{host['cpu']} ({', '.join(host['isa'])}), {threads} thread"
    header = "| channels | side | 1-bit | float | int8 | over float | over int8 |\n|---|---|---|---|---|---|---|"
    write_bytes(to, with_table(to.read_text(), title, "\n".join([header, *rows])).encode())


def with_table(page: str, title: str, table: str) -> str:
    """The page with this processor's table in the place of its last one; those of others stay."""
    before, _, rest = page.partition(BEGIN)
    inside, _, after = rest.partition(END)
    tables = dict(part.strip().split("\n\n", 1) for part in inside.split("### ")[1:])
    tables[title] = table
    told = "\n\n".join(f"### {name}\n\n{each}" for name, each in tables.items())
    return f"{before}{BEGIN}\n\n{told}\n\n{END}{after}"


def shapes() -> Iterator[tuple[int, int]]:
    """Channels and sides that are worth the time."""
    for channels in CHANNELS:
        yield from ((channels, side) for side in SIDES if 9 * (channels * side) ** 2 <= MOST_MACS)


def runs(channels: int, side: int, threads: int, scratch: Path) -> Mapping[str, Any]:
    """By name, what runs each convolution once."""
    torch.manual_seed(0)
    net = Signs(channels).eval()
    with torch.no_grad():
        for parameter in (net.layer.threshold, net.layer.scale, net.layer.bias):
            parameter.normal_()
    x = np.random.default_rng(0).normal(size=(1, channels, side, side)).astype(np.float32)
    model = onnx.load(to_onnx(net, torch.from_numpy(x), scratch / "signs.onnx").path)
    assert with_signed_convs(model, threads) == 1
    weight = net.layer.conv.weight.detach().numpy()
    given = {
        "bits": (model, x),
        "float": (_float(weight), x),
        "int8": (_int8(weight), (x * 20 + 128).clip(0, 255).astype(np.uint8)),
    }
    found = {}
    for name, (file, image) in given.items():
        onnx.save(file, scratch / f"{name}.onnx")
        kernels = library().path if name == "bits" else None
        session = sessions.session(scratch / f"{name}.onnx", threads, kernels=kernels)
        found[name] = lambda session=session, image=image: session.run(None, {session.get_inputs()[0].name: image})
    return found


def timed(given: Mapping[str, Any], seconds: float, clock: Callable[[], float]) -> Times:
    """Milliseconds of each, run in turns."""
    times: Times = {name: [] for name in given}
    for run in given.values():
        run()
    until = time.perf_counter() + seconds
    while time.perf_counter() < until or len(times["bits"]) < 5:
        for name, run in given.items():
            begun = clock()
            run()
            times[name].append(1e3 * (clock() - begun))
    return times


def row(channels: int, side: int, times: Times) -> str:
    """One line of the table."""
    middle = {name: float(np.median(each)) for name, each in times.items()}
    cells = [f"{middle[name]:.3f} ({min(times[name]):.3f})" for name in ("bits", "float", "int8")]
    pairs = {name: np.asarray(times[name]) / np.asarray(times["bits"]) for name in ("float", "int8")}
    factors = [f"{np.median(pair):.2f}" for pair in pairs.values()]
    return f"| {channels} | {side} | {' | '.join([*cells, *factors])} |"


def _float(weight: NDArray[np.float32]) -> onnx.ModelProto:
    node = helper.make_node("Conv", ["image", "weight"], ["y"], pads=[1] * 4)
    return _model(node, TensorProto.FLOAT, {"weight": weight})


def _int8(weight: NDArray[np.float32]) -> onnx.ModelProto:
    inputs = ["image", "step", "zero", "weight", "steps", "zeros", "out_step", "zero"]
    outputs = len(weight)
    return _model(
        helper.make_node("QLinearConv", inputs, ["y"], pads=[1] * 4),
        TensorProto.UINT8,
        {
            "weight": (100 * weight).astype(np.int8),
            "step": np.float32(0.02),
            "zero": np.uint8(128),
            "steps": np.full(outputs, 0.01, np.float32),
            "zeros": np.zeros(outputs, np.int8),
            "out_step": np.float32(0.5),
        },
    )


def _model(node: Any, kind: int, stored: Mapping[str, Any]) -> onnx.ModelProto:
    channels = len(stored["weight"])
    graph = helper.make_graph(
        [node],
        "one",
        [helper.make_tensor_value_info("image", kind, [1, channels, "height", "width"])],
        [helper.make_tensor_value_info("y", kind, None)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in stored.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


if __name__ == "__main__":
    typer.run(main)
