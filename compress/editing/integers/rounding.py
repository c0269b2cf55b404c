"""Weights rounded up or down so that what a block of layers answers changes least, not each weight itself.

AdaRound (Nagel et al. 2020, arXiv 2004.10568) over blocks (Li et al. 2021, BRECQ, arXiv 2102.05426): each weight lies
between two points of its grid, and which one it goes to is learnt by gradient descent, with the biases, from what the
block reads behind the blocks that were rounded before it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, fx

from compress import progress
from compress.editing.integers.regions import Region, regions
from compress.editing.integers.simulated import Simulated, Values
from compress.editing.integers.windows import windows
from export.graph import weight_of
from export.quantization.integer_weights import laid_out, per_weight
from export.quantization.learnt import Grid, weight_path
from export.quantization.saturation import LARGEST_CODE, LARGEST_SUM, largest_pairs

_LOW, _HIGH = -0.1, 1.1
"""Between them a sigmoid is stretched, so that it reaches 0 and 1 (AdaRound, equation 23)."""
_BETA = (20.0, 2.0)
"""How sharply the regularizer tells 0 and 1 from what lies between, at first and at last."""
_FREE = 0.2
"""Share of the steps before it sets in."""
_RATE = 0.04
_RATE_OF_BIASES = 1e-3
"""In standard deviations of what the block answers."""


@dataclass(frozen=True, kw_only=True)
class Rounding:
    """How long each block is fitted, and from which seed its cases are drawn."""

    steps: int
    seed: int


def rounded(
    simulated: Simulated,
    grids: Mapping[str, Grid],
    learn: Sequence[Tensor],
    held_back: Sequence[Tensor],
    how: Rounding,
) -> dict[str, Tensor]:
    """By their paths, weights that lie on their grids, and the biases that go with them.

    Of each block the nearest points stay where the learnt ones do not lower the error on the cases held back.

    Args:
        simulated: the network, its weights not rounded yet.
        grids: of every layer that is to be rounded.
        learn: images (1C..) to learn from.
    """
    fitted: dict[str, Tensor] = {}
    layers = [node for node in simulated.graph.graph.nodes if node in simulated.layers and weight_path(node) in grids]
    for node in layers:
        fitted[weight_path(node)] = _Choice(simulated.graph, node, grids[weight_path(node)]).nearest()
    random = torch.Generator().manual_seed(how.seed)
    images = [*learn, *held_back]
    (image_node,) = (node for node in simulated.graph.graph.nodes if node.op == "placeholder")
    floats: list[Values] = [{image_node: image} for image in images]
    integers: list[Values] = [{image_node: image} for image in images]
    plan = _plan(simulated.graph, regions(simulated.graph, layers))
    with progress.steps("rounding blocks of layers", len(plan)) as step:
        for nodes, region, dead in plan:
            with torch.no_grad():
                for values in floats:
                    simulated.run(nodes, values)
            if region is not None:
                pairs = [(ours[region.entry], exact[region.exit]) for ours, exact in zip(integers, floats, strict=True)]
                block = _Block(simulated, region, grids, fitted)
                fitted.update(block.fitted(pairs[: len(learn)], pairs[len(learn) :], how.steps, random))
            with torch.no_grad():
                for values in integers:
                    simulated.run(nodes, values, fitted)
            for values in (*floats, *integers):
                for node in dead:
                    values.pop(node, None)
            step()
    return fitted


def _plan(
    graph: fx.GraphModule, found: Sequence[Region]
) -> list[tuple[tuple[fx.Node, ...], Region | None, tuple[fx.Node, ...]]]:
    """What is run after what: nodes, the region that they are, and whose answers nobody reads any more."""
    ends = {region.exit: region for region in found}
    within = {node for region in found for node in region.nodes}
    parts: list[tuple[tuple[fx.Node, ...], Region | None]] = []
    for node in graph.graph.nodes:
        if node in ends:
            parts.append((ends[node].nodes, ends[node]))
        elif node not in within and node.op == "call_function":
            parts.append(((node,), None))
    last = {
        source: number for number, (nodes, _) in enumerate(parts) for node in nodes for source in node.all_input_nodes
    }
    return [
        (nodes, region, tuple(node for node, number in last.items() if number == place))
        for place, (nodes, region) in enumerate(parts)
    ]


class _Choice:
    """For every weight of a layer, whether it goes up or down."""

    def __init__(self, graph: fx.GraphModule, node: fx.Node, grid: Grid) -> None:
        self.node, self.last = node, grid.largest
        self.weight = weight_of(graph, node).detach()
        self.scale = per_weight(node, grid.scale_O, self.weight)
        self.floor = (self.weight / self.scale).floor()
        share = (self.weight / self.scale - self.floor).clamp(0.01, 0.99)
        self.up = torch.special.logit((share - _LOW) / (_HIGH - _LOW)).requires_grad_()

    def share(self) -> Tensor:
        """How far up each weight goes, 0 to 1."""
        return (torch.sigmoid(self.up) * (_HIGH - _LOW) + _LOW).clamp(0, 1)

    def soft(self) -> Tensor:
        return self._read(self.floor + self.share())

    def nearest(self) -> Tensor:
        return self._read((self.weight / self.scale).round())

    def hard(self) -> Tensor:
        """Each weight on its grid; an output channel whose pairs would leave 16 bits keeps its nearest points."""
        with torch.no_grad():
            chosen, nearest = self._read(self.floor + (self.share() > 0.5)), self.nearest()
            if self.last < 64:
                return chosen
            codes_OCT = laid_out(self.node, (chosen / self.scale).round())
            rows = largest_pairs(codes_OCT) > LARGEST_SUM // LARGEST_CODE
            return torch.where(per_weight(self.node, rows, chosen), nearest, chosen)

    def _read(self, codes: Tensor) -> Tensor:
        return codes.clamp(-self.last, self.last) * self.scale


class _Block:
    """A region whose layers are fitted together."""

    def __init__(
        self, simulated: Simulated, region: Region, grids: Mapping[str, Grid], fixed: Mapping[str, Tensor]
    ) -> None:
        self.simulated, self.region, self.fixed = simulated, region, fixed
        self.choices = {
            weight_path(node): _Choice(simulated.graph, node, grids[weight_path(node)]) for node in region.layers
        }
        self.biases: dict[str, Tensor] = {}
        for node in region.layers:
            source = node.args[2] if len(node.args) > 2 else None
            if isinstance(source, fx.Node) and source.op == "get_attr" and len(source.users) == 1:
                self.biases[str(source.target)] = simulated.graph.get_parameter(str(source.target)).detach()

    def fitted(
        self,
        learn: Sequence[tuple[Tensor, Tensor]],
        held_back: Sequence[tuple[Tensor, Tensor]],
        steps: int,
        random: torch.Generator,
    ) -> dict[str, Tensor]:
        """Weights and biases; the nearest points and the biases as they were where they are no worse."""
        unit = float(torch.stack([wanted.std() for _, wanted in learn]).mean()) or 1.0
        shifts = {path: torch.zeros_like(bias, requires_grad=True) for path, bias in self.biases.items()}
        before = {path: choice.nearest() for path, choice in self.choices.items()} | self.biases
        worst = max(self._error(before, learn), 1e-12)
        cuts = windows(self.region, learn[0][0], learn[0][1])
        ways = [choice.up for choice in self.choices.values()]
        groups = [{"params": ways, "lr": _RATE}, {"params": list(shifts.values()), "lr": _RATE_OF_BIASES}]
        optimizer = torch.optim.Adam([group for group in groups if group["params"]])
        for step in range(steps):
            read, wanted = cuts.drawn(learn, random)
            weights = {path: choice.soft() for path, choice in self.choices.items()}
            weights |= {path: bias + unit * shifts[path] for path, bias in self.biases.items()}
            loss = cuts.inner(self._answer(read, weights), wanted).square().mean() / worst
            loss = loss + self._undecided(step / steps)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        after = {path: choice.hard() for path, choice in self.choices.items()}
        after |= {path: bias + unit * shifts[path].detach() for path, bias in self.biases.items()}
        return after if self._error(after, held_back) < self._error(before, held_back) else before

    def _answer(self, read: Tensor, weights: Mapping[str, Tensor]) -> Tensor:
        values: Values = {self.region.entry: read}
        self.simulated.run(self.region.nodes, values, {**self.fixed, **weights})
        answer: Tensor = values[self.region.exit]
        return answer

    @torch.no_grad()
    def _error(self, weights: Mapping[str, Tensor], pairs: Sequence[tuple[Tensor, Tensor]]) -> float:
        return sum(float((self._answer(read, weights) - wanted).square().mean()) for read, wanted in pairs) / len(pairs)

    def _undecided(self, done: float) -> Tensor | float:
        """How far the choices are from up or down: 0 where all are made (AdaRound, equation 24)."""
        if done < _FREE:
            return 0.0
        first, last = _BETA
        beta = last + 0.5 * (first - last) * (1 + math.cos(math.pi * (done - _FREE) / (1 - _FREE)))
        shares = [choice.share() for choice in self.choices.values()]
        return sum((1 - (2 * share - 1).abs().pow(beta)).mean() for share in shares) / len(shares)
