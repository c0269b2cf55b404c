"""Networks and their sizes, as data: tests/networks/<word>.yaml, published ones and toys."""

from __future__ import annotations

import dataclasses
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from compress.storage.description import shape_of
from export.registry import words

TABLES = Path(__file__).parent / "networks"
WORDS = words("compress.networks")
LIBRARIES = ("monai", "smp", "torchvision")
"""Their networks are as large as these libraries make them: one of each stands for our way of asking for it."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """One network as someone published it."""

    word: str
    options: dict[str, Any]
    input: tuple[int, ...]
    """Height and width, or depth, height and width."""
    params: int | None = None
    """None for a toy, which nobody published."""
    gmacs: float | None = None
    source: str = ""
    toy: bool = False
    """A small one, which tests run with values."""
    answer: tuple[int, ...] | None = None
    """The answer's size where it is not the input's."""
    dead: list[str] = dataclasses.field(default_factory=list)
    """Patterns of names of parameters that the reference has and never asks: no gradient reaches them."""

    def __str__(self) -> str:
        options = ", ".join(f"{key}={value}" for key, value in self.options.items())
        return f"{self.word} {options} {'x'.join(map(str, self.input))}"

    @property
    def network(self) -> dict[str, dict[str, Any]]:
        return {self.word: self.options}

    def example(self, batch: int = 1, device: str = "cpu") -> torch.Tensor:
        shape = batch, shape_of(self.network).in_channels, *self.input
        return (
            torch.randn(shape, generator=torch.Generator().manual_seed(0))
            if device == "cpu"
            else torch.empty(shape, device=device)
        )


def rows(toy: bool) -> list[Any]:
    found = []
    for path in sorted(TABLES.glob("*.yaml")):
        for entry in yaml.safe_load(path.read_text()):
            row = Row(word=path.stem, **{**entry, "input": tuple(entry["input"])})
            if row.toy == toy:
                missing = row.word == "nnunet" and find_spec("dynamic_network_architectures") is None
                skipped = pytest.mark.skipif(missing, reason="dynamic-network-architectures is not installed")
                more = not toy and row.word in LIBRARIES and any(row.word == each.values[0].word for each in found)
                found.append(pytest.param(row, id=str(row), marks=pytest.mark.slow if more else skipped))
    return found
