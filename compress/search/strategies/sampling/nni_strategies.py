"""NNI's strategies, which learn from the trials told to them; of NNI 3.0, its last release (archived in 2024).

Of NNI it is the space of labelled choices, the strategies and the sequential engine that are used: no experiment, so
that no server is started, no port is opened and no file is written; and no layer of `nni.nas.nn`.
"""

from __future__ import annotations

import logging
import math
import sys
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from queue import SimpleQueue
from threading import Thread, current_thread
from typing import Any

import numpy as np

from compress.errors import MissingExtra
from compress.search.objectives.judging.objective import Direction
from compress.search.space.domain import Between, Domain
from compress.search.space.space import Decision, Space
from compress.search.strategies.sampling.strategy import Proposal, Start

POPULATION, TOURNAMENT = 10, 3
"""Individuals that evolution keeps, and of how many the best is the parent: about a quarter (Real et al. 2019)."""
OF_TPE = {"n_startup_jobs": 8, "n_ei_candidates": 4, "constant_liar_type": "worst"}
"""It learns from the ninth trial on. Of 24 candidates, NNI's own number, the best is mostly one that was proposed, in
whose place NNI puts the next of a grid, from its first corner on. What is being tried is taken for bad: others are
proposed."""
EXPONENT = -0.07
"""Of a cost: a network that takes twice as much must score 5 % more (Tan et al. 2019)."""
Sample = Mapping[str, Any]
"""Of every decision, those that stand nowhere included, the value by its name."""


def reward(values: Sequence[float], directions: Sequence[Direction]) -> float:
    """The one number that NNI takes: scores times costs, each cost to the power of -0.07.

    The weighted product of MnasNet (Tan et al. 2019, CVPR, section 3.1). In what unit a cost is, and relative to what,
    changes the number by a factor, and no order.
    """
    pairs = list(zip(values, directions, strict=True))
    scores = [value for value, direction in pairs if direction == "maximize"]
    costs = [max(value, sys.float_info.min) for value, direction in pairs if direction == "minimize"]
    return math.prod(scores) * math.prod(cost**EXPONENT for cost in costs)


def imported() -> Any:
    """NNI, which says nothing on the terminal and writes no file.

    Raises:
        MissingExtra: if it is not installed.
    """
    try:
        import nni
    except ImportError:
        raise MissingExtra("nni", "nni") from None
    nni.silence_stdout()
    logging.getLogger("nni").setLevel(logging.CRITICAL)
    # With a framework, its evaluators and one-shot strategies are imported: seconds of PyTorch Lightning, and a file of
    # layers that is written to where NNI is installed.
    nni.set_default_framework("none")
    with _absent("pytorch_lightning"):
        import nni.mutable
        import nni.nas.execution
        import nni.nas.space
        import nni.nas.strategy
    return nni


@contextmanager
def _absent(module: str) -> Iterator[None]:
    """A module is not found, unless it was imported before: NNI does without."""
    there = module in sys.modules
    sys.modules.setdefault(module, None)  # type: ignore[arg-type]
    try:
        yield
    finally:
        if not there:
            del sys.modules[module]


class Driven:
    """A strategy that is one of NNI's.

    NNI drives: its strategy runs, submits models, and goes on when their numbers come back. So it runs in a thread, in
    which all of NNI's code is executed, and which waits in `_Engine` while nothing is asked of it.
    """

    def __init__(self, start: Start, word: str) -> None:
        nni = imported()
        self.space, self._directions = start.space, start.directions
        self._engine, self._by_chance = _Engine(nni), _ByChance(nni, start)
        # From a population of none evolution chooses no parent.
        self._blind, self._proposed, self._told = POPULATION if word == "evolution" else math.inf, 0, 0
        models = nni.nas.space.RawFormatModelSpace(_labelled(nni, start.space), self._engine.evaluator)
        thread = Thread(target=_drive, args=(_strategy(nni, word, start), models, self._engine), daemon=True)
        # It ends with the strategy, or with Python.
        weakref.finalize(self, _end, self._engine, thread)
        thread.start()

    def propose(self) -> Proposal:
        self._proposed += 1
        if not self._engine.is_over and (self._told or self._proposed <= self._blind):
            self._engine.asked.put(_Engine.another)
            model = self._engine.submitted.get()
            if model is not None:
                return Proposal(choice=self.space.choice(_choosing(model.sample)), token=model)
        if self._engine.failure is not None:
            raise self._engine.failure
        return self._by_chance.proposal()

    def learn(self, proposal: Proposal, values: Sequence[float]) -> None:
        # What it did not propose NNI does not take.
        if proposal.token is not None:
            self._told += 1
            self._engine.asked.put((proposal.token, reward(values, self._directions)))


class Tuned:
    """TPE, whose tuner is asked and told as a search asks and tells: its strategy sleeps a second at each model."""

    def __init__(self, start: Start) -> None:
        nni = imported()
        self.space, self._directions, self._by_chance = start.space, start.directions, _ByChance(nni, start)
        strategy = nni.nas.strategy.TPE(optimize_mode="maximize", seed=start.seed, tpe_args=OF_TPE)
        self._tuner, self._nothing_left = strategy.tuner, nni.NoMoreTrialError
        self._tuner.update_search_space({each.name: _legacy(each.domain) for each in start.space.decisions.values()})
        self._count = 0

    def propose(self) -> Proposal:
        self._count += 1
        try:
            sample = self._tuner.generate_parameters(self._count)
        except self._nothing_left:
            return self._by_chance.proposal()
        return Proposal(choice=self.space.choice(_choosing(sample)), token=(self._count, sample))

    def learn(self, proposal: Proposal, values: Sequence[float]) -> None:
        if proposal.token is not None:
            self._tuner.receive_trial_result(*proposal.token, reward(values, self._directions))


class _ByChance:
    """What is proposed where NNI has no other, or cannot choose yet."""

    def __init__(self, nni: Any, start: Start) -> None:
        self._space, self._labelled = start.space, _labelled(nni, start.space)
        # Not what NNI's own strategies draw from this seed, which was proposed.
        self._state = np.random.RandomState([start.seed, 1])

    def proposal(self) -> Proposal:
        """Of which NNI is not told what it is worth."""
        sample: dict[str, Any] = {}
        self._labelled.random(memo=sample, random_state=self._state)
        return Proposal(choice=self._space.choice(_choosing(sample)))


class _Engine:
    """What a strategy of NNI takes for its engine: the sequential one, behind what lets in one proposal at a time."""

    another = object()
    end = object()

    def __init__(self, nni: Any) -> None:
        self._sequential = nni.nas.execution.SequentialExecutionEngine()
        self.register_model_event_callback = self._sequential.register_model_event_callback
        self.unregister_model_event_callback = self._sequential.unregister_model_event_callback
        self.evaluator = _Evaluator(nni.report_final_result)
        self.asked: SimpleQueue[Any] = SimpleQueue()
        """`another`, `end`, or a model with what it is worth."""
        self.submitted: SimpleQueue[Any] = SimpleQueue()
        """Models; at the end None."""
        self.is_over = False
        self.failure: Exception | None = None

    def idle_worker_available(self) -> bool:
        """Wait until another model is wanted, and tell of earlier ones what they are worth."""
        while (asked := self.asked.get()) is not self.another:
            if asked is self.end:
                self.is_over = True
                return False
            model, self.evaluator.worth = asked
            self._sequential.submit_models(model)
        return True

    def budget_available(self) -> bool:
        return not self.is_over

    def submit_models(self, *models: Any) -> None:
        for model in models:
            self.submitted.put(model)

    def wait_models(self, *models: Any) -> None:
        """Nothing: a search that has ended tells of no other model."""


class _Evaluator:
    """What NNI's engine executes of a model: the search has measured it already."""

    def __init__(self, report: Callable[[float], None]) -> None:
        self.worth, self._report = 0.0, report

    def _execute(self, model: Any) -> None:
        self._report(self.worth)


def _drive(strategy: Any, models: Any, engine: _Engine) -> None:
    try:
        strategy(models, engine)
    except Exception as error:  # noqa: BLE001  it is raised where the next proposal is asked for
        engine.failure = error
    engine.is_over = True
    engine.submitted.put(None)


def _end(engine: _Engine, thread: Thread) -> None:
    engine.asked.put(_Engine.end)
    if thread is not current_thread():
        thread.join()


def _strategy(nni: Any, word: str, start: Start) -> Any:
    if word == "random":
        return nni.nas.strategy.Random(seed=start.seed)
    # One decision changes, as in the paper, rather than one in twenty.
    chance = 1 / max(1, len(start.space.decisions))
    return nni.nas.strategy.RegularizedEvolution(
        population_size=POPULATION, sample_size=TOURNAMENT, mutation_prob=chance, seed=start.seed
    )


def _labelled(nni: Any, space: Space) -> Any:
    """The decisions as NNI's choices; those inside of a choice that is not taken are drawn too, and stand nowhere."""
    decisions = space.decisions.values()
    return nni.mutable.MutableDict({each.name: _mutable(nni, each.name, each.domain) for each in decisions})


def _mutable(nni: Any, name: str, domain: Domain) -> Any:
    if _is_listed(domain):
        return nni.choice(name, list(domain.listed()))
    assert isinstance(domain, Between)
    if not domain.log:
        return nni.uniform(name, domain.low, domain.high)
    drawn = [nni.qloguniform, 1] if domain.whole else [nni.loguniform]
    return drawn[0](name, domain.low, domain.high, *drawn[1:])


def _legacy(domain: Domain) -> dict[str, Any]:
    """A domain in the words of NNI's tuners."""
    if _is_listed(domain):
        return {"_type": "choice", "_value": list(domain.listed())}
    assert isinstance(domain, Between)
    word = f"{'q' if domain.log and domain.whole else ''}{'log' if domain.log else ''}uniform"
    return {"_type": word, "_value": [domain.low, domain.high, *([1] if word.startswith("q") else [])]}


def _is_listed(domain: Domain) -> bool:
    """Whether each value is as likely as the next."""
    return domain.size is not None and not (isinstance(domain, Between) and domain.log)


def _choosing(sample: Sample) -> Callable[[Decision], int | float]:
    def choose(decision: Decision) -> int | float:
        domain, value = decision.domain, sample[decision.name]
        if _is_listed(domain):
            return value
        return round(value) if isinstance(domain, Between) and domain.whole else float(value)

    return choose
