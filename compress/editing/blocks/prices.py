"""What networks, stretches and blocks cost: multiply-accumulates, parameters, or time on a runtime."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from compress.cache import Cache, code_key, key_of, versions
from compress.editing.blocks.candidates import Candidate
from compress.editing.budget import NEAR, Runtime
from compress.editing.layer_replacement import CONVS, parameters
from compress.editing.timed_form import timed_form
from compress.measure.latency import Timing, in_turns
from compress.measure.macs import macs_of
from compress.progress import bar
from export.files import make_folder
from export.to_onnx import to_onnx

TIMING = Timing(samples=60, seconds=1.5, warm_up=0.2)
"""Enough for medians that are told apart by a few percent; there are many blocks."""


class Price(Protocol):
    """A unit of cost."""

    @property
    def tolerance(self) -> float:
        """By how large a share of it a target may be missed."""
        ...

    def of_networks(self, nets: Sequence[nn.Module], example: Tensor) -> list[float]:
        """What each of these networks costs, for one image."""
        ...

    def saved(self, found: Sequence[Candidate], net: nn.Module, example: Tensor, whole: float) -> list[float]:
        """What each block costs less than its stretch, where the network costs `whole`."""
        ...

    def told(self, cost: float) -> str:
        """A cost in words."""
        ...


@dataclass(frozen=True, kw_only=True)
class Counted:
    """What is counted, and the same everywhere."""

    what: Literal["macs", "params"]
    tolerance: float = 0.0

    def of_networks(self, nets: Sequence[nn.Module], example: Tensor) -> list[float]:
        return [float(macs_of(net, example) if self.what == "macs" else parameters(net)) for net in nets]

    def saved(self, found: Sequence[Candidate], net: nn.Module, example: Tensor, whole: float) -> list[float]:
        return [float(getattr(each.stretch, self.what) - getattr(each, self.what)) for each in found]

    def told(self, cost: float) -> str:
        return f"{cost:,.0f} {'multiply-accumulates' if self.what == 'macs' else 'parameters'}"


@dataclass(frozen=True, kw_only=True)
class Timed:
    """Median times of artifacts on one runtime of one device, in ms, batch 1, warm, taken in turns."""

    runtime: Runtime
    seed: int
    folder: Path | None = None
    """Where the times of blocks are kept, so that a run that was stopped does not measure them again."""
    tolerance: float = NEAR

    def of_networks(self, nets: Sequence[nn.Module], example: Tensor) -> list[float]:
        return self._ms([(net, example.shape) for net in nets])

    def saved(self, found: Sequence[Candidate], net: nn.Module, example: Tensor, whole: float) -> list[float]:
        """Each block against its stretch and the whole network, in turns; what is built alike is measured once.

        A host that is busier for a while is so for the network as well, and what is saved is a share of its time.
        """
        alike: dict[str, list[Candidate]] = {}
        for each in found:
            alike.setdefault(f"{each.stretch.alone} {tuple(each.stretch.into)}", []).append(each)
        times: dict[tuple[str, str], float] = {}
        for stretch, some in bar(alike.items(), "timing blocks", len(alike)):
            blocks = {str(each.block): each.block for each in some}
            pieces = [self._alone(piece, some[0].stretch.into) for piece in (some[0].stretch.alone, *blocks.values())]
            all_of_it = (net, example.shape)
            reference, own, *others = self._kept([all_of_it, *((piece, some[0].stretch.into) for piece in pieces)])
            shares = ((own - ms) / reference for ms in others)
            times |= {(stretch, block): whole * share for block, share in zip(blocks, shares, strict=True)}
        return [times[f"{each.stretch.alone} {tuple(each.stretch.into)}", str(each.block)] for each in found]

    def _alone(self, piece: nn.Module, into: torch.Size) -> nn.Module:
        """What is timed of a part: in integers with a layer behind it, as cheap as can be, that reads it so.

        Runtimes compute a convolution in integers only where integers come out of it as well.
        """
        if self.runtime.precision == "float":
            return piece
        with torch.no_grad():
            channels = piece(torch.zeros(into)).shape[1]
        axes = len(into) - 2
        return nn.Sequential(piece, CONVS[axes - 1](channels, 1, 1)).eval()

    def told(self, cost: float) -> str:
        return f"{cost:.2f} ms {self.runtime}"

    def _kept(self, pieces: Sequence[tuple[nn.Module, torch.Size]]) -> list[float]:
        """The times of pieces that were timed together before, or that are timed now."""
        if self.folder is None:
            return self._ms(pieces)
        key = key_of(versions(), code_key(), self.runtime, [(str(piece), shape) for piece, shape in pieces])
        found: list[float] = Cache(self.folder).value(f"times-{key[:24]}", key, lambda: self._ms(pieces))
        return found

    def _ms(self, pieces: Sequence[tuple[nn.Module, torch.Size]]) -> list[float]:
        target, draw = self.runtime.target(), np.random.default_rng(self.seed)
        with ExitStack() as stack:
            scratch = Path(stack.enter_context(TemporaryDirectory()))
            clocks: dict[str, Callable[..., list[float]]] = {}
            for place, (piece, shape) in enumerate(pieces):
                folder = make_folder(scratch / str(place))
                example = torch.zeros(shape)
                onnx = to_onnx(timed_form(piece, example, self.runtime), example, folder / "piece.onnx")
                artifact = target.build(self.runtime.backend, onnx, folder)
                infer = stack.enter_context(target.open(self.runtime.backend).open(artifact))
                image = draw.standard_normal(tuple(shape), dtype=np.float32)
                clocks[str(place)] = partial(target.time, infer, [image])
            times = in_turns(clocks, TIMING, self.seed)
        return [float(times[str(place)].as_dict()["p50"]) for place in range(len(pieces))]
