"""A program that writes networks as ONNX files, one for each line that it reads, beside a run that does something else.

    python -m compress.pipeline.exporting

A line is an `Order`; the answer to it is a line as well, true where the file is there.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self

import torch
from torch import Tensor, nn

from compress.storage.weights import load_net
from export.artifact import Artifact
from export.files import make_folder
from export.graph import Dynamic
from export.half.network import Half
from export.quantization.quantized import Quantized
from export.quantization.rules import Rules
from export.to_onnx import Style, to_onnx

NICENESS = 10
"""Where it cannot give way altogether (compress/pipeline/beside.py), it takes a tenth of a CPU from the run beside."""


@dataclass(frozen=True, kw_only=True)
class Order:
    """A network that was saved, and how its file is to be written."""

    net: Path
    to: Path
    shape: tuple[int, ...]
    """Of the input."""
    rules: Rules | None
    """Of the runtime that a quantized network is written for."""
    opset: int
    dynamic: tuple[Dynamic, ...]
    metadata: Mapping[str, str]

    def line(self) -> str:
        """As one line of JSON."""
        rules = None if self.rules is None else {**asdict(self.rules), "carriers": sorted(self.rules.carriers)}
        return json.dumps(
            {**asdict(replace(self, rules=None)), "net": str(self.net), "to": str(self.to), "rules": rules}
        )

    @classmethod
    def of(cls, line: str) -> Self:
        """The order of a line."""
        given: dict[str, Any] = json.loads(line)
        rules = given["rules"]
        return cls(
            **{
                **given,
                "net": Path(given["net"]),
                "to": Path(given["to"]),
                "shape": tuple(given["shape"]),
                "dynamic": tuple(given["dynamic"]),
                "rules": None if rules is None else Rules(**{**rules, "carriers": frozenset(rules["carriers"])}),
            }
        )


def main() -> None:
    """Write a file for each order until there are no more."""
    os.nice(NICENESS)
    # What libraries print must not be taken for an answer.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    _read_exporter()
    for line in sys.stdin:
        print(json.dumps(_done(Order.of(line))), file=answers, flush=True)


def _read_exporter() -> None:
    """Have torch read what it reads at its first export, which takes longer than most networks."""
    with TemporaryDirectory() as folder:
        to_onnx(nn.Conv2d(1, 1, 1), torch.zeros(1, 1, 8, 8), Path(folder) / "net.onnx")


def _done(order: Order) -> bool:
    # The run writes the file itself where this did not, and says what is wrong.
    with contextlib.suppress(Exception):
        make_folder(order.to.parent)
        style = Style(opset=order.opset, dynamic=order.dynamic)
        net = load_net(order.net)
        written(net, order.rules, torch.zeros(order.shape), order.to, style, order.metadata)
        return True
    return False


def placed(net: nn.Module, rules: Rules | None) -> nn.Module:
    """The module to export for a runtime: itself, quantized as its rules say, or with the types of 16 bits."""
    if isinstance(net, Quantized):
        assert rules is not None
        return net.placed(rules)
    return net.typed() if isinstance(net, Half) else net


def written(
    net: nn.Module,
    rules: Rules | None,
    example: Tensor,
    to: Path,
    style: Style,
    metadata: Mapping[str, str],
    as_placed: nn.Module | None = None,
) -> Artifact:
    """The network's file, with its sidecar.

    Args:
        as_placed: what `placed` gives, where it is known already.
    """
    as_placed = placed(net, rules) if as_placed is None else as_placed
    if not isinstance(net, Half):
        return to_onnx(as_placed, example, to, style, metadata)
    style = replace(style, opset=max(style.opset, net.format.least_opset))
    artifact = to_onnx(as_placed, example, to, style, metadata)
    reasons = {"type": net.format.word, "float32": net.reasons()}
    return replace(artifact, made={**artifact.made, "half": reasons}).sealed()


if __name__ == "__main__":
    main()
