"""NNI's strategies as those of a search: tests/test_search.py holds them to what every strategy is held to."""

from __future__ import annotations

import gc
import math
import random
import sys
import threading
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from compress.errors import MissingExtra
from compress.search.space.space import Choice, Space, space_of
from compress.search.strategies.sampling.nni_strategies import reward
from compress.search.strategies.sampling.strategy import Start, Strategy
from export.registry import named, words

WORDS = [word for word in words("compress.search.strategies") if word.startswith("nni_")]
installed = pytest.mark.skipif(find_spec("nni") is None, reason="NNI is not installed: pip install '.[nni]'")


def space() -> Space:
    """Eight decisions of four values each, the last of them inside of one that may not be taken."""
    passes: list[Any] = [{"a": {f"x{place}": {"choices": [0, 1, 2, 3]}}} for place in range(7)]
    found, mistakes = space_of({"passes": [*passes, {"choices": ["none", {"b": {"y": {"between": [0, 3]}}}]}]})
    assert not mistakes
    return found


def made(word: str, seed: int = 7) -> Strategy:
    start = Start(space=space(), directions=["maximize", "minimize"], seed=seed)
    return named("compress.search.strategies", word)(start)  # type: ignore[no-any-return]


def total(choice: Choice) -> float:
    return sum(value for value in choice.values.values() if isinstance(value, int))


def test_a_network_of_twice_the_cost_is_worth_as_much_if_it_scores_5_percent_more() -> None:
    directions = ["maximize", "minimize", "minimize"]
    small, large = reward([0.8, 10, 3], directions), reward([0.8 * 1.05, 20, 3], directions)
    assert math.isclose(small, large, rel_tol=2e-3)
    assert reward([0.0, 1, 1], directions) == 0 and reward([0.8, 0, 0], directions) > small
    assert reward([0.5, 0.5], ["maximize", "maximize"]) == 0.25


def test_the_unit_of_a_cost_changes_no_order() -> None:
    rng = np.random.default_rng(0)
    drawn = rng.uniform(0.1, 1, (20, 2))
    orders = [np.argsort([reward([a, b * unit], ["maximize", "minimize"]) for a, b in drawn]) for unit in (1, 1e9)]
    assert orders[0].tolist() == orders[1].tolist()


@pytest.mark.parametrize("word", WORDS)
def test_without_nni_the_error_says_how_to_install_it(word: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nni", None)
    with pytest.raises(MissingExtra, match=r"pip install 'segpress\[nni\]'"):
        made(word)


@installed
@pytest.mark.parametrize("word", ["nni_evolution", "nni_tpe"])
def test_what_nni_is_told_is_learnt_from(word: str) -> None:
    def best_ten(word: str, seed: int) -> list[float]:
        strategy, scores = made(word, seed), []
        for _ in range(60):
            proposal = strategy.propose()
            assert proposal is not None
            scores.append(total(proposal.choice))
            strategy.learn(proposal, [scores[-1], 1])
        return sorted(scores)[-10:]

    for seed in (1, 2):
        assert np.mean(best_ten(word, seed)) > np.mean(best_ten("nni_random", seed)) + 1.5


@installed
@pytest.mark.parametrize("count", [4, 24])
@pytest.mark.parametrize("word", WORDS)
def test_trials_that_are_made_at_once_are_told_in_any_order(word: str, count: int) -> None:
    def proposed() -> Iterator[Any]:
        strategy, shuffled = made(word), random.Random(0)
        for _ in range(6):
            pending = [strategy.propose() for _ in range(count)]
            shuffled.shuffle(pending)
            for proposal in pending:
                assert proposal is not None
                yield proposal.choice.chosen
                strategy.learn(proposal, [total(proposal.choice), 1])

    assert list(proposed()) == list(proposed())


@installed
def test_the_thread_in_which_nni_runs_ends_with_the_strategy() -> None:
    before = threading.active_count()
    strategy = made("nni_evolution")
    assert strategy.propose() is not None and threading.active_count() == before + 1
    del strategy
    gc.collect()
    assert threading.active_count() == before


@installed
def test_what_goes_wrong_in_nni_is_raised_where_a_proposal_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    strategy = made("nni_random")
    strategy.propose()

    def fails(*_: Any) -> None:
        raise ZeroDivisionError("of NNI")

    monkeypatch.setattr("nni.nas.strategy.Random.random", fails)
    with pytest.raises(ZeroDivisionError, match="of NNI"):
        for _ in range(3):
            strategy.propose()


@installed
@pytest.mark.parametrize("word", WORDS)
def test_nni_prints_nothing_and_writes_no_file(
    word: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    import nni

    places = [Path(nni.__file__).parent, Path(sys.prefix) / "nni"]
    before = [sorted(place.rglob("*.py")) for place in places]
    for name in ("HOME", "TMPDIR", "NNI_CONFIG_DIR"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.chdir(tmp_path)
    strategy = made(word)
    for _ in range(12):
        proposal = strategy.propose()
        assert proposal is not None
        strategy.learn(proposal, [1.0, 1.0])
    assert capfd.readouterr() == ("", "")
    assert list(tmp_path.iterdir()) == [] and [sorted(place.rglob("*.py")) for place in places] == before
