"""Which units go back to float, runtime by runtime, so that Dice holds and no runtime gets slower by integers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np

from compress.editing.precisions.bench import Bench, Names, assigned, target_on, with_units
from compress.editing.precisions.program import Choice, Neighbours, Program, Unit
from compress.editing.precisions.sensitivity import Errors, dice_of, errors_of, feared, lost, percent
from compress.editing.precisions.table import Table, by_work, corrected, measured, us_of
from compress.editing.precisions.units import Units, units_of
from compress.errors import PassError
from compress.measure.row import NOISE
from export.errors import MissingExtra, NotHere, SurroundingsError
from export.quantization.assignment import ByRuntime, PrecisionName
from export.quantization.quantized import Quantized
from export.quantization.rules import Rules
from export.registry import find_backend, words

if TYPE_CHECKING:
    from compress.task import Task

ROUNDS = 7
"""Limits of error that are tried, by bisection, until the fastest choice that holds is known."""
NEAR = 0.10
"""How far a measured time may be from its prediction before conversions are priced anew, as a share of it."""
REBUILT = 3
"""Choices that are built, at most, until one takes the time and keeps the Dice that it was chosen for."""
NOWHERE: Names = frozenset()


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What is asked of a choice."""

    max_drop: float | None
    """The Dice that may fall on the validation cases; None: whatever it costs."""
    faster: bool
    """Whether a layer, or all of them, goes back to float also where it is faster there."""
    device: str
    """On which it is timed."""
    threads: int | None = None
    """Of each runtime there; None takes every CPU that may be used."""


def chosen(quantized: Quantized, task: Task, wanted: Wanted) -> Quantized:
    """The network with what goes back to float for each runtime.

    Raises:
        PassError: without validation cases, or if Dice holds on every runtime only in float.
    """
    if wanted.max_drop is not None and not task.data.cases["val"]:
        raise PassError(
            f"{quantized.assignment.word}: max_drop is measured on validation cases and there are none: give cases the "
            "split 'val', set data val above 0, or leave max_drop out"
        )
    before_NK = None if wanted.max_drop is None else dice_of(quantized.graph, task)
    with TemporaryDirectory() as scratch:
        searches = [
            Search(
                quantized=quantized,
                task=task,
                wanted=wanted,
                rules=rules,
                bench=_bench(quantized, task, rules, wanted, Path(scratch)),
                before_NK=before_NK,
            )
            for rules in _every_rules()
        ]
        found = {each.rules.runtime: each.found() for each in searches}
    _refuse_only_float(searches, found)
    kept: ByRuntime = {word: dict.fromkeys(sorted(names), "float32") for word, names in found.items() if names}
    return assigned(quantized, kept)


def _every_rules() -> list[Rules]:
    """How each runtime that takes integers wants them placed."""
    every = (find_backend(word).rules for word in words("export.backends"))
    # Another runtime may take what is written for ONNX Runtime.
    return list({rules.runtime: rules for rules in every if rules is not None}.values())


def _bench(quantized: Quantized, task: Task, rules: Rules, wanted: Wanted, scratch: Path) -> Bench | None:
    """Where choices for a runtime are timed; None where it is not on the device."""
    target = target_on(wanted.device, wanted.threads)
    try:
        find_backend(rules.runtime).check_installed()
        if rules.runtime not in target.backends:
            return None
        target.open(rules.runtime)
    except (NotHere, MissingExtra, SurroundingsError):
        return None
    return Bench(quantized=quantized, task=task, word=rules.runtime, rules=rules, target=target, folder=scratch)


def _refuse_only_float(searches: Sequence[Search], found: Mapping[str, Names]) -> None:
    """Raises PassError where no runtime keeps a layer in integers, and one of them because of Dice."""
    hurt = [each for each in searches if not each.holds(NOWHERE)]
    if hurt and all(found[each.rules.runtime] == each.every for each in searches):
        worst = max(hurt, key=lambda each: each.drop(NOWHERE))
        raise PassError(
            f"{worst.word}: Dice falls by {worst.drop(NOWHERE):.4f} on the validation cases, and with any layer "
            f"in integers by over max_drop ({worst.wanted.max_drop:g}); train the network further, or allow more"
        )


@dataclass(frozen=True, kw_only=True)
class Search:
    """The choice for one runtime."""

    quantized: Quantized
    task: Task
    wanted: Wanted
    rules: Rules
    bench: Bench | None
    before_NK: np.ndarray | None
    """The Dice of the float network; None where no drop is asked for."""

    def found(self) -> Names:
        """The units that go back to float."""
        if self.holds(NOWHERE) and not (self.wanted.faster and self.bench is not None):
            self.say(NOWHERE, "")
            return NOWHERE
        if self.bench is None:
            choice = self._fastest(by_work(self.units), 1.0)
            self.say(choice, f"{self.rules.runtime} is not measured here: layers are weighed by MACs times bits")
            return choice
        return self._built(self.bench)

    @cached_property
    def units(self) -> Units:
        return units_of(self.quantized, self.rules, self.task.example)

    @property
    def word(self) -> str:
        """Of the pass that asks, for what is told."""
        return self.quantized.assignment.word

    @property
    def every(self) -> Names:
        return frozenset(self.units.names)

    @cached_property
    def errors(self) -> Errors:
        return errors_of(self.quantized, self.units, self.rules, self.task)

    def drop(self, in_float: Names) -> float:
        """The Dice that is lost on the validation cases, integers simulated in torch as this runtime has them."""
        return 0.0 if self.before_NK is None else lost(self.before_NK, self._dice(in_float), self.word)

    def _dice(self, in_float: Names) -> np.ndarray:
        if in_float not in self._known:
            net = with_units(self.quantized, self.rules, in_float).simulated(self.rules)
            self._known[in_float] = dice_of(net, self.task)
        return self._known[in_float]

    @cached_property
    def _known(self) -> dict[Names, np.ndarray]:
        return {}

    def holds(self, in_float: Names, share: float = 1.0) -> bool:
        """Whether no more is lost than may be, or than a share of that; of a mixture not by luck either."""
        if self.wanted.max_drop is None or self.before_NK is None:
            return True
        if in_float == NOWHERE:
            return self.drop(in_float) <= share * self.wanted.max_drop
        return feared(self.before_NK, self._dice(in_float), self.word) <= share * self.wanted.max_drop

    def _built(self, bench: Bench) -> Names:
        """The fastest choice, built: predicted, timed, scored, and searched again where either was wrong."""
        table, share = measured(bench, self.units) or by_work(self.units), 1.0
        for _ in range(REBUILT):
            choice = self._fastest(table, share)
            trial = tried(bench, self, choice, table)
            if not trial.holds:
                share /= 2
            elif abs(trial.ms / trial.predicted_ms - 1) > NEAR:
                table = corrected(table, self.units, choice, 1000 * trial.ms / trial.scale)
            else:
                break
        return self._no_slower(trial)

    def _no_slower(self, trial: Trial) -> Names:
        """The choice; integers or float throughout where one of these is faster, if that was asked for."""
        choice, note = trial.choice if trial.holds else self.every, str(trial)
        if self.wanted.faster and trial.holds:
            times = {choice: trial.ms, self.every: trial.float_ms}
            if self.holds(NOWHERE):
                times[NOWHERE] = trial.integers_ms
            fastest = min(times, key=times.__getitem__)
            # Integers are smaller: float must be worth it.
            integers = times.get(NOWHERE, math.inf) * NOISE <= times[fastest]
            choice = NOWHERE if integers else choice if trial.ms * NOISE <= times[fastest] else fastest
        self.say(choice, note)
        return choice

    def _fastest(self, table: Table, share: float) -> Names:
        """The fastest choice by the table that holds."""
        if self.holds(NOWHERE, share):
            return _in_float(program_of(self.units, None, table).solved())
        assert self.wanted.max_drop is not None
        program = program_of(self.units, self.errors, table)
        high, low, best = program.error_of(dict.fromkeys(self.every, "int8")), 0.0, self.every
        limit = high * min(share * self.wanted.max_drop / self.drop(NOWHERE), 0.9)
        for _ in range(ROUNDS):
            choice = _in_float(program.solved(limit))
            if self.holds(choice, share):
                low, best = limit, choice
            else:
                high = limit
            limit = math.sqrt(low * high) if low else high / 8
            if high < 1.15 * low:
                break
        # Of a network so small that conversions outweigh its layers float is the fastest, which was not asked for.
        found = low and (self.wanted.faster or best != self.every)
        return best if found else self._by_rank(share)

    def _by_rank(self, share: float) -> Names:
        """The fewest layers in float with which Dice holds, those first that disturb most: where no limit was found."""
        ranked = sorted(self.units.layers, key=lambda layer: -self.errors.layers[layer])
        few, most = 0, len(ranked)
        while most - few > 1:
            middle = (most + few) // 2
            few, most = (few, middle) if self.holds(frozenset(ranked[:middle]), share) else (middle, most)
        return frozenset(ranked[:most]) if most < len(ranked) else self.every

    def say(self, in_float: Names, more: str) -> None:
        """Tell what became of the layers, in the step's notes."""
        known = (
            "" if self.before_NK is None else f"{percent(self.drop(NOWHERE))} of Dice lost on {len(self.before_NK)} "
        )
        known += "" if self.before_NK is None else "validation cases with all layers in integers"
        parts = [known]
        if in_float:
            left = "" if self.before_NK is None else f", {percent(self.drop(in_float))} lost"
            parts.append(
                f"{len(in_float)} of {len(self.every)} layers and operators in float{left}: {listed(in_float)}"
            )
        else:
            parts.append("all layers in integers" if self.before_NK is None else "")
        self.task.note(f"{self.word} for {self.rules.runtime}: " + "; ".join(part for part in (*parts, more) if part))


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A choice that was built, timed in turns with all in integers and all in float, and scored."""

    choice: Names
    ms: float
    predicted_ms: float
    integers_ms: float
    float_ms: float
    scale: float
    """How much slower everything was than when the table was made."""
    lost: float | None
    """The Dice that the artifact loses on the validation cases."""
    holds: bool

    def __str__(self) -> str:
        dice = "" if self.lost is None else f", {percent(self.lost)} of Dice lost as built"
        return (
            f"the mixture takes {self.ms:.3g} ms ({self.predicted_ms:.3g} were predicted){dice}; all in integers "
            f"{self.integers_ms:.3g} ms, all in float {self.float_ms:.3g} ms"
        )


def tried(bench: Bench, search: Search, choice: Names, table: Table) -> Trial:
    """A choice, built and measured."""
    integers_ms, float_ms, ms = bench.ms([NOWHERE, search.every, choice])
    at_ends = [us_of(table, search.units, names) / 1000 for names in (NOWHERE, search.every)]
    scale = (integers_ms + float_ms) / max(sum(at_ends), 1e-9)
    drop, holds = _lost_as_built(bench, search, choice)
    return Trial(
        choice=choice,
        ms=ms,
        predicted_ms=scale * us_of(table, search.units, choice) / 1000,
        integers_ms=integers_ms,
        float_ms=float_ms,
        scale=scale,
        lost=drop,
        holds=holds,
    )


def _lost_as_built(bench: Bench, search: Search, choice: Names) -> tuple[float | None, bool]:
    """What the artifact loses on the validation cases, and whether it may; None where it is not asked."""
    if search.before_NK is None or search.wanted.max_drop is None:
        return None, True
    with bench.opened(choice) as infer:
        after_NK = dice_of(infer, search.task)
    drop = lost(search.before_NK, after_NK, search.word)
    most = drop if choice == NOWHERE else feared(search.before_NK, after_NK, search.word)
    return drop, most <= search.wanted.max_drop


def program_of(units: Units, errors: Errors | None, table: Table) -> Program:
    """The integer program of one runtime; without errors only time counts."""
    added = dict.fromkeys(units.layers, 0.0) if errors is None else errors.layers
    taken = dict.fromkeys(units.operators, 0.0) if errors is None else errors.operators
    error: dict[str, dict[PrecisionName, float]] = {
        **{name: {"int8": added[name], "float32": 0.0} for name in units.layers},
        **{name: {"int8": 0.0, "float32": -taken[name]} for name in units.operators},
    }
    links = [Neighbours(before=each.before, behind=each.behind, us=table.link_us(each)) for each in units.links]
    every = [Unit(name=name, us=_times(table, name), error=error[name]) for name in units.names]
    return Program(units=every, neighbours=links, needs=units.needs)


def _times(table: Table, name: str) -> dict[PrecisionName, float]:
    return {"int8": table.integers_us[name], "float32": table.float_us[name]}


def _in_float(choice: Choice | None) -> Names:
    """The units of a choice that are not in integers; of none, which a limit below every error has, nothing."""
    return frozenset(name for name, precision in (choice or {}).items() if precision != "int8")


def listed(names: Names, most: int = 12) -> str:
    """Some of the names, and how many there are besides."""
    shown = [name.removeprefix("operator:") for name in sorted(names)]
    return ", ".join(shown[:most]) + (f" and {len(shown) - most} more" if len(shown) > most else "")
