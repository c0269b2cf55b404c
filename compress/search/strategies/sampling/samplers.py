"""Optuna's samplers, which learn from the trials told to them; of Optuna 4.5 or newer, and 5.

Both versions get the same arguments, each that a default of 5.0 changed among them: the search is the same on both.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from compress.errors import MissingExtra
from compress.search.space.domain import OneOf
from compress.search.space.space import Decision
from compress.search.strategies.sampling.strategy import Proposal, Start

if TYPE_CHECKING:
    import optuna

STARTUP = 8
"""Trials by chance before TPE begins to learn."""
POPULATION = 10
"""Trials in a generation of NSGA-II."""
OF_TPE = {"n_startup_trials": STARTUP, "multivariate": True, "group": True, "constant_liar": True}
"""Decisions are drawn together, those that always stand together in one group: the only way of TPE for passes that
are chosen, whose options stand nowhere else. What is being tried is taken for bad, so that others are proposed."""


def sampler_of(word: str, seed: int) -> optuna.samplers.BaseSampler:
    """The sampler of this word.

    Raises:
        MissingExtra: if Optuna is not installed.
    """
    optuna = imported()
    with _quietly():
        if word == "tpe":
            return optuna.samplers.TPESampler(seed=seed, **OF_TPE)
        return optuna.samplers.NSGAIISampler(seed=seed, population_size=POPULATION)


def imported() -> Any:
    """Optuna, which says nothing on the terminal.

    Raises:
        MissingExtra: if it is not installed.
    """
    try:
        import optuna
    except ImportError:
        raise MissingExtra("optuna", "search") from None
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna


class Sampled:
    """A strategy that is one of Optuna's samplers, on a study in memory: what is kept is kept by the search."""

    def __init__(self, start: Start, word: str) -> None:
        optuna = imported()
        self.space = start.space
        self._study = optuna.create_study(directions=list(start.directions), sampler=sampler_of(word, start.seed))

    def propose(self) -> Proposal:
        with _quietly():
            trial = self._study.ask()
            return Proposal(choice=self.space.choice(_asking(trial)), token=trial)

    def learn(self, proposal: Proposal, values: Sequence[float]) -> None:
        with _quietly():
            trial = proposal.token
            if trial is None:
                # Not proposed by it.
                self._study.enqueue_trial(_params(proposal))
                trial = self._study.ask()
                self.space.choice(_asking(trial))
            self._study.tell(trial, list(values))


def _asking(trial: optuna.Trial) -> Callable[[Decision], int | float]:
    def choose(decision: Decision) -> int | float:
        domain, name = decision.domain, decision.name
        if isinstance(domain, OneOf):
            return int(trial.suggest_categorical(name, list(domain.listed())))
        if domain.whole:
            return trial.suggest_int(
                name, int(domain.low), int(domain.high), step=int(domain.step or 1), log=domain.log
            )
        drawn = trial.suggest_float(name, domain.low, domain.high, step=domain.step, log=domain.log)
        # In steps, the very number that it is written as.
        return drawn if domain.size is None else min(domain.listed(), key=lambda each: abs(each - drawn))

    return choose


def _params(proposal: Proposal) -> dict[str, Any]:
    return dict(proposal.choice.chosen)


@contextmanager
def _quietly() -> Iterator[None]:
    """Without what Optuna 4 warns of, which is no experiment any more in 5."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
