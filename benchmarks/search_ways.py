"""Three ways of choosing blocks under one budget: by chance, by NNI's regularized evolution, by the integer program.

    pip install '.[nni]'
    python -m benchmarks.search_ways

The space is that of the pass `blocks` on the phantom's U-Net of width 16: each of its double convolutions stays, or
becomes one of its blocks. All blocks are trained apart once, and are the same for every way. An evaluation is the
network with a choice of them in it, not trained any further, and its Dice on validation cases. What is over the budget
is counted and not evaluated: evolution is told that it is worth nothing. The program needs what each block loses alone,
before its first evaluation; its further ones are its second best choice, its third best and so on.
benchmarks/search_ways.md is written.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
import yaml
from rich.console import Console

from benchmarks.blocks import SPACE
from compress.editing.blocks.candidates import kinds
from compress.editing.blocks.choice import UNLIKE, Budget, Priced, changed
from compress.editing.blocks.prices import Counted
from compress.editing.blocks.program import Replacement, best
from compress.editing.blocks.search import Search
from compress.editing.blocks.stretches import Stretch, stretches
from compress.editing.layer_replacement import SkippedSites
from compress.recipe import load
from compress.search.proposing import Proposing
from compress.search.space.space import space_of
from compress.search.strategies.nni_evolution import NniEvolution
from compress.search.strategies.random import Random
from compress.search.strategies.sampling.strategy import Start, Strategy
from compress.task import Task
from export.files import make_folder, write_bytes

HERE = Path(__file__).parent
SHOWN = (1, 2, 4, 8, 16, 32)
"""Evaluations, after each of which the best so far is shown."""
Plan = tuple[int, ...]
"""Of each site, the number of its block; 0 is the trained one."""


@dataclass(frozen=True, kw_only=True)
class Sites:
    """Where blocks may stand, and what is known of each."""

    search: Search
    tested: Search
    """The same, which takes test cases for validation cases."""
    priced: Sequence[Sequence[Priced]]
    """Of each site, its trained blocks."""

    def blocks(self, plan: Plan) -> list[Priced]:
        return [some[number - 1] for some, number in zip(self.priced, plan, strict=True) if number]

    def is_within(self, plan: Plan) -> bool:
        budget = self.search.budget
        return budget.whole - sum(each.saved for each in self.blocks(plan)) <= budget.target

    def dice(self, plan: Plan, *, test: bool = False) -> float:
        """Of the network with these blocks, on validation cases or test cases."""
        net, _ = changed(self.search.net, [each.candidate for each in self.blocks(plan)])
        return (self.tested if test else self.search).dice(net)


@dataclass(kw_only=True)
class Found:
    """What one way found with one seed."""

    plans: list[Plan] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    refused: int = 0
    """Proposals over the budget."""
    before: float = 0.0
    """CPU-seconds before the first evaluation."""
    spent: float = 0.0
    """CPU-seconds of all evaluations, and of choosing what is evaluated."""

    def at(self, evaluations: int) -> float:
        return max(self.scores[:evaluations])

    @property
    def best(self) -> Plan:
        return self.plans[int(np.argmax(self.scores))]


def main(
    share: Annotated[float, typer.Option("--macs", help="Of the multiply-accumulates that stay.")] = 0.3,
    steps: Annotated[int, typer.Option(help="Of each block's training.")] = 10,
    side: Annotated[int, typer.Option(help="Of the images.")] = 192,
    seeds: Annotated[int, typer.Option(help="Of the ways by chance.")] = 3,
    out: Annotated[Path, typer.Option(help="Where trained blocks are kept.")] = Path("runs/benchmark-search-ways"),
    to: Annotated[Path, typer.Option(help="The Markdown file to write.")] = HERE / "search_ways.md",
) -> None:
    """Go every way and write the table."""
    console, begun = Console(), time.process_time()
    sites, judged = _sites(_task(make_folder(out), side), share, steps)
    trained = time.process_time() - begun - judged
    ways: dict[str, list[Found]] = {
        "random": [_by_chance(sites, Random, seed) for seed in range(1, seeds + 1)],
        "nni_evolution": [_by_chance(sites, NniEvolution, seed) for seed in range(1, seeds + 1)],
        "integer program": [_by_program(sites, judged)],
    }
    lines = [*_table(ways, sites), "", *_told(ways, sites, trained)]
    command = f"`python -m benchmarks.search_ways --macs {share:g} --steps {steps} --side {side} --seeds {seeds}`"
    write_bytes(to, "\n".join(["# Three ways of choosing blocks", "", command, "", *lines, ""]).encode())
    for line in lines:
        console.print(line, markup=False)


def _task(folder: Path, side: int) -> Task:
    recipe = folder / "recipe.yaml"
    weights = str(HERE.parent / "recipes/weights/phantom_unet.safetensors")
    data = {"synthetic": {"train": 40, "val": 24, "calibration": 8, "test": 60, "size": [side, side], "batch": 4}}
    network = {"unet": {"classes": 3, "width": 16, "weights": weights}}
    whole = {"name": "benchmark-search-ways", "network": network, "data": data, "devices": ["cpu"]}
    write_bytes(recipe, yaml.safe_dump(whole).encode())
    return dataclasses.replace(load(recipe).task(), kept=make_folder(folder / "kept"))


def _sites(task: Task, share: float, steps: int) -> tuple[Sites, float]:
    """The sites with all of their blocks trained, and the CPU-seconds in which each block was judged alone."""
    import torch

    price, net, kept = Counted(what="macs"), task.net, SkippedSites(word="blocks")
    whole = price.of_networks([net], task.example)[0]
    budget = Budget(price=price, whole=whole, target=share * whole, example=task.example)
    search = Search(net=net, task=task, budget=budget, kinds=kinds(SPACE), steps=steps)
    places = _apart(stretches(net, torch.from_numpy(next(iter(task.probes(most=1)))), kept))
    worth = search.worth(places, kept)
    search.learned(worth)
    # Once more: they are trained, so that it takes what judging takes.
    begun = time.process_time()
    priced = search.learned(worth)
    judged = time.process_time() - begun
    of_places = [[each for each in priced if each.candidate.stretch is place] for place in places]
    cases = task.data.cases
    data = dataclasses.replace(task.data, cases={**cases, "val": cases["test"]})
    tested = dataclasses.replace(search, task=dataclasses.replace(task, data=data))
    return Sites(search=search, tested=tested, priced=[some for some in of_places if some]), judged


def _apart(found: Sequence[Stretch]) -> list[Stretch]:
    """The largest stretches that have no layer in common."""
    taken: list[Stretch] = []
    for each in sorted(found, key=lambda stretch: -len(stretch.convs)):
        if not any(each.convs & other.convs for other in taken):
            taken.append(each)
    return taken


def _by_chance(sites: Sites, kind: Callable[[Start], Strategy], seed: int) -> Found:
    found, begun = Found(), time.process_time()
    space, _ = space_of({"sites": [{"choices": list(range(len(some) + 1))} for some in sites.priced]})
    strategy = kind(Start(space=space, directions=["maximize"], seed=seed))
    proposing = Proposing(strategy=strategy, space=space, seed=seed)
    while len(found.scores) < SHOWN[-1] and (proposal := proposing.next()):
        plan = tuple(proposal.choice.text["sites"])
        if sites.is_within(plan):
            found.plans.append(plan)
            found.scores.append(sites.dice(plan))
        else:
            found.refused += 1
        proposing.learn(proposal, [found.scores[-1] if sites.is_within(plan) else 0.0])
    found.spent = time.process_time() - begun
    return found


def _by_program(sites: Sites, judged: float) -> Found:
    listed = [(place, each) for place, some in enumerate(sites.priced) for each in some]
    parts = [
        Replacement(layers=each.candidate.stretch.convs, loss=max(each.loss, 0.0), saved=each.saved)
        for _, each in listed
    ]
    budget, found = sites.search.budget, Found(before=judged)
    begun = time.process_time()
    for choice in best(parts, budget.whole - budget.target, SHOWN[-1], UNLIKE):
        plan = [0] * len(sites.priced)
        for number in choice:
            place, each = listed[number]
            plan[place] = 1 + list(sites.priced[place]).index(each)
        found.plans.append(tuple(plan))
        found.scores.append(sites.dice(tuple(plan)))
    found.spent = time.process_time() - begun
    return found


def _table(ways: dict[str, list[Found]], sites: Sites) -> Iterator[str]:
    """A row for each way: what it found after some evaluations, and what it took."""
    counts = [f"{count} evaluation{'s' if count > 1 else ''}" for count in SHOWN]
    yield _line("way", *counts, "test Dice of the best", "CPU s before", "CPU s an evaluation", "refused")
    yield "|" + "---|" * (len(SHOWN) + 5)
    for name, some in ways.items():
        tests = [sites.dice(each.best, test=True) for each in some]
        yield _line(
            name,
            *(_spread([each.at(count) for each in some]) for count in SHOWN),
            _spread(tests),
            f"{some[0].before:.0f}",
            f"{np.mean([each.spent / len(each.scores) for each in some]):.1f}",
            " ".join(str(each.refused) for each in some),
        )


def _told(ways: dict[str, list[Found]], sites: Sites, trained: float) -> Iterator[str]:
    """What holds for all ways."""
    nothing, blocks = tuple(0 for _ in sites.priced), sum(len(some) for some in sites.priced)
    recipes = np.prod([float(len(some) + 1) for some in sites.priced])
    yield (
        f"{len(sites.priced)} double convolutions, {blocks} blocks, {recipes:.1e} networks, of which those with at "
        f"most {sites.search.budget.target / sites.search.budget.whole:.2f} of the multiply-accumulates count. Training"
        f" the blocks apart took {trained:.0f} CPU-seconds, the same for every way. As it came the network has a Dice "
        f"of {sites.dice(nothing):.4f} on {len(sites.search.task.data.cases['val'])} validation cases and "
        f"{sites.dice(nothing, test=True):.4f} on {len(sites.search.task.data.cases['test'])} test cases. Best "
        "validation Dice so far, in brackets the least and the most of the seeds; one thread."
    )
    given = len(ways["integer program"][0].scores)
    if given < SHOWN[-1]:
        yield f"The program had {given} choices that differ in a quarter of their blocks: it makes no more evaluations."


def _spread(values: Sequence[float]) -> str:
    if len(values) == 1:
        return f"{values[0]:.4f}"
    return f"{np.mean(values):.4f} ({min(values):.4f} to {max(values):.4f})"


def _line(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    typer.run(main)
