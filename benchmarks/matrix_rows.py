"""The rows of the matrix: every network of tests/networks, as it is tried, and what became of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
import yaml
from torch import Tensor, nn

from compress.storage.description import build_net, shape_of

TABLES = Path(__file__).parent.parent / "tests" / "networks"
DOORS = ("smp", "torchvision", "monai", "timm")
"""Networks of other libraries: their sizes are their own, so that there is no toy of them."""
SIDES = {2: range(64, 257), 3: range(32, 129)}
"""Where the smallest side that a network takes is looked for."""
WIDTHS = ("width", "widths", "growth", "hidden", "features", "last_width", "stem", "channels", "filters")
"""Options that say how many channels there are."""
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


def networks(whole: bool) -> list[Network]:
    """Every network of tests/networks, once: the toys, or with `whole` those that were published."""
    listed = []
    for path in sorted(TABLES.glob("*.yaml")):
        entries = yaml.safe_load(path.read_text())
        wanted = whole or path.stem in DOORS
        published = [entry for entry in entries if bool(entry.get("toy")) is not wanted] or entries
        listed += [Network(word=path.stem, options=entry["options"]) for entry in published]
    return list({str(network): network for network in listed}.values())


def built(network: Network) -> nn.Module:
    """The network with the same random weights each time, as if it had seen data, in evaluation mode."""
    torch.manual_seed(0)
    return _lived(build_net({network.word: dict(network.options)}), network.shape)


def _lived(net: nn.Module, shape: Shape) -> nn.Module:
    """The network in evaluation mode, its batch norms as if they had seen data: fresh ones hide what folding does."""
    draw = torch.Generator().manual_seed(1)
    for module in net.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is not None:
            module.running_mean.normal_(0, 0.1, generator=draw)
            assert module.running_var is not None
            module.running_var.uniform_(0.5, 1.5, generator=draw)
    return net.eval()


def image_of(shape: Shape, seed: int) -> Tensor:
    """A random input."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))
