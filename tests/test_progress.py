"""Long work tells what it does, how far it is and how long it takes, where there is no terminal too."""

from __future__ import annotations

import re
import sys
import time
from typing import Any

import pytest

from compress import progress


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "EVERY", 0.06)


def test_a_pipe_gets_a_line_now_and_then(often: None, capsys: Any) -> None:
    for _ in progress.bar(range(10), "counting", 10):
        time.sleep(0.02)
    lines = capsys.readouterr().err.splitlines()
    assert 1 <= len(lines) <= 4
    assert all(re.fullmatch(r"counting: \d of 10 in 0 s, about 0 s left", line) for line in lines)


def test_what_has_no_known_end_tells_how_much_is_done(often: None, capsys: Any) -> None:
    with progress.steps("timing", None) as step:
        time.sleep(0.07)
        step()
    assert capsys.readouterr().err == "timing: 1 done in 0 s\n"


def test_work_that_does_not_count_tells_that_it_goes_on(often: None, capsys: Any) -> None:
    with progress.at_work("01-prune"):
        time.sleep(0.15)
    assert capsys.readouterr().err.startswith("01-prune: at work for 0 s\n")


def test_what_is_counted_within_it_tells_how_far_it_is_however_long_a_step_takes(often: None, capsys: Any) -> None:
    with progress.at_work("01-blocks"), progress.steps("trying blocks", 4) as step:
        step()
        time.sleep(0.15)
    assert capsys.readouterr().err.startswith("trying blocks: 1 of 4 in 0 s, about 0 s left\n")


def test_short_work_says_nothing(capsys: Any) -> None:
    with progress.at_work("01-prune"):
        assert list(progress.bar(range(3), "counting", 3)) == [0, 1, 2]
    assert capsys.readouterr().err == ""


def test_a_bar_within_a_bar_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setattr("rich.console.Console.is_terminal", True)
    inner = [list(progress.bar(range(2), "inner", 2)) for _ in progress.bar(range(2), "outer", 2)]
    assert inner == [[0, 1], [0, 1]]


def test_nobody_listening_ends_nothing(often: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    with progress.steps("timing", 1) as step:
        time.sleep(0.07)
        step()
