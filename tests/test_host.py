"""What is told of the machine that everything is measured on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from export import host
from export.host import conditions, host_facts, is_shared


def test_the_host_is_told_in_plain_json() -> None:
    found = json.loads(json.dumps(host_facts(3), allow_nan=False))
    assert found["threads"] == 3
    assert found["cpus"] >= 1
    assert found["cpu"]
    assert found["machine"]
    assert isinstance(found["isa"], list)


def test_conditions_are_plain_json_wherever_we_are() -> None:
    found = json.loads(json.dumps(conditions(), allow_nan=False))
    assert set(found) == {"clock_mhz", "governor", "temperature_c", "load"}
    assert found["load"] >= 0


@pytest.mark.parametrize(
    ("text", "value"), [("2400000\n", 2400.0), ("<unknown>\n", None), ("", None), ("-3\n", -0.003)]
)
def test_a_sensor_that_gives_no_number_is_null(tmp_path: Path, text: str, value: float | None) -> None:
    (tmp_path / "temp").write_text(text)
    assert host._thousandths(tmp_path / "temp") == value
    assert host._thousandths(tmp_path / "none") is None


@pytest.mark.parametrize(
    ("running", "cpus", "shared"),
    [
        ((1, 1, 1, 1, 1), 2, False),
        ((1, 2, 1, 1, 2), 2, False),
        ((2, 1, 2, 3, 1), 2, True),
        ((3, 3, 3, 3, 3), 16, False),
        ((4, 4, 1, 4, 1), 16, True),
    ],
)
def test_a_host_is_shared_where_others_mostly_run(
    running: tuple[int, ...], cpus: int, shared: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = iter(running)
    monkeypatch.setattr(host, "_read", lambda path: f"0.20 0.18 0.12 {next(said)}/80 11206")
    assert is_shared(cpus) == shared


def test_a_host_that_does_not_say_is_taken_for_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "_read", lambda path: None)
    assert is_shared(2)
