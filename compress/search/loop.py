"""One recipe after the other, or several at once: proposed, tried, kept, and told to the strategy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from compress import progress
from compress.cache import key_of
from compress.cluster import Processes
from compress.search.ahead import Order, made
from compress.search.bench import Bench
from compress.search.loading import Searchable
from compress.search.proposing import Proposing, told_to
from compress.search.record import line_of
from compress.search.strategies.sampling.strategy import Proposal, Start
from compress.search.trial import Trial
from export.registry import named

Log = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Turn:
    """A recipe whose turn it is."""

    number: int
    key: str
    """Of its record: it depends on all trials before it."""
    proposal: Proposal


@dataclass(kw_only=True)
class Loop:
    """The trials of a search."""

    found: Searchable
    bench: Bench
    reference: Trial
    processes: Processes
    proposing: Proposing
    log: Log
    trials: list[Trial] = field(default_factory=list)

    def run(self) -> str:
        """Try recipes until there is a reason to end, which is returned."""
        effort, key = self.found.settings.effort, self._first_key()
        with progress.steps("trials", effort.trials) as step:
            while len(self.trials) < effort.trials:
                if effort.minutes is not None and self.spent >= 60 * effort.minutes:
                    return f"{effort.minutes:g} minutes of trials are over"
                turns = self._turns(key)
                if not turns:
                    return "no recipe was left that had not been tried"
                key, ahead = turns[-1].key, self._ahead(turns)
                for turn in turns:
                    trial = self._tried(turn, ahead.get(turn.number))
                    self.trials.append(trial)
                    self.proposing.learn(turn.proposal, told_to(self.found.goals, trial, self.reference))
                    self.log(f"{line_of(trial, self.found)}{self._left()}")
                    step()
        return f"{effort.trials} trials are done"

    @property
    def spent(self) -> float:
        """Seconds that the trials took, those of trials that were made at once counted once."""
        return sum(trial.seconds for trial in self.trials) / self.processes.count

    def _first_key(self) -> str:
        """What every trial depends on besides its recipe and the trials before it."""
        found = self.found
        first = self.bench.task(found.first)[1]
        return key_of(first, found.settings.objectives, found.settings.effort.margin, found.first.latency)

    def _turns(self, key: str) -> list[Turn]:
        """The next recipes, as many as are tried at once."""
        turns: list[Turn] = []
        most = min(self.processes.count, self.found.settings.effort.trials - len(self.trials))
        while len(turns) < most and (proposal := self.proposing.next()):
            key = key_of(key, proposal.choice.text)
            turns.append(Turn(number=len(self.trials) + len(turns) + 1, key=key, proposal=proposal))
        return turns

    def _ahead(self, turns: Sequence[Turn]) -> dict[int, Trial]:
        """What other processes made of those that are not kept, all but their times, by the trial's number."""
        wanted = [turn for turn in turns if not self.bench.cache.holds(_name(turn.number), turn.key)]
        if self.processes.are_one or not wanted:
            return {}
        orders = [
            Order(
                recipe=self.found.path.absolute(),
                data=self.found.data_root,
                folder=self.bench.cache.folder.absolute(),
                number=turn.number,
                chosen=dict(turn.proposal.choice.chosen),
                before=[trial.as_dict() for trial in self.trials],
            )
            for turn in wanted
        ]
        with progress.at_work(f"trials {wanted[0].number} to {wanted[-1].number}"):
            records = list(self.processes.each(made, orders))
        return {turn.number: Trial.from_dict(each) for turn, each in zip(wanted, records, strict=True) if each}

    def _tried(self, turn: Turn, ahead: Trial | None) -> Trial:
        """What became of a recipe; one that was finished by an earlier command is not tried again."""
        choice = turn.proposal.choice

        def work() -> dict[str, Any]:
            self.bench.log(f"trial {turn.number}: {dict(choice.values)}")
            trial = self.bench.trial(turn.number, partial(self.found.recipe, choice), choice, self.trials)
            if ahead is not None:
                # What another process did is found here, and took its time there.
                trial = replace(trial, seconds=round(trial.seconds + ahead.seconds, 6), steps=ahead.steps)
            return trial.as_dict()

        return Trial.from_dict(self.bench.cache.value(_name(turn.number), turn.key, work))

    def _left(self) -> str:
        """About how long the other trials will take."""
        effort = self.found.settings.effort
        left = self.spent / len(self.trials) * (effort.trials - len(self.trials))
        if effort.minutes is not None:
            left = min(left, max(0.0, 60 * effort.minutes - self.spent))
        return f"; about {progress.lasted(left)} left" if left else ""


def proposing_of(found: Searchable) -> Proposing:
    """What proposes recipes, of the strategy that the recipe names.

    Raises:
        MissingExtra: if the strategy is a library's that is not installed.
    """
    space, effort = found.space, found.settings.effort
    directions = [each.direction for _, each in found.goals.objectives]
    start = Start(space=space, directions=directions, seed=effort.seed)
    strategy = named("compress.search.strategies", effort.strategy)(start)
    return Proposing(strategy=strategy, space=space, seed=effort.seed)


def _name(number: int) -> str:
    """Of a trial's record."""
    return f"trials/{number:04d}"
