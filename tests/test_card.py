"""A graphics card's power, heat, clocks and what slows it, against a fake of NVML that is compiled here."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from export.errors import NotHere
from export.reach import Reach
from export.remote.answers import Throttling, Watched
from export.remote.runner import card, sampling, throttling
from export.remote.runner.watcher import Watcher
from export.remote.runner.watching import Asked, watched
from export.remote.watchers import WatcherHere

FAKE = Path(__file__).parent / "fakes" / "nvml.c"


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("cc") is None:
        pytest.skip("no C compiler is installed")
    path = tmp_path_factory.mktemp("nvml") / "libnvidia-ml.so.1"
    plain = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
    subprocess.run(["cc", "-shared", "-fPIC", "-o", str(path), str(FAKE)], check=True, env=plain)
    return path


@pytest.fixture
def nvml(library: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ctypes.CDLL]:
    """The fake, as the library of this machine."""
    monkeypatch.setattr(card, "LIBRARIES", (str(library), str(library)))
    monkeypatch.setattr(sampling, "PERIOD", 0.01)
    card._found.cache_clear()
    fake = ctypes.CDLL(str(library))
    kept = {name: kind.in_dll(fake, name).value for name, kind in KINDS.items()}
    yield fake
    for name, value in kept.items():
        put(fake, name, value)
    card._found.cache_clear()


KINDS: dict[str, Any] = {"has_energy": ctypes.c_int, "reasons": ctypes.c_ulonglong, "held_ns": ctypes.c_ulonglong}


def put(fake: ctypes.CDLL, name: str, value: int) -> None:
    KINDS[name].in_dll(fake, name).value = value


def seen(run: Callable[[int], object] = lambda _: time.sleep(0.002), kind: str = "cuda") -> dict[str, Any]:
    told = Watched.model_validate(watched(run, Asked(seconds=0.2, idle=0.05, kind=kind)))
    return {"why": told.why} if told.watched is None else told.watched.model_dump()


@pytest.mark.parametrize("has_energy", [1, 0])
def test_a_card_s_energy_is_what_it_counted_or_its_power(nvml: ctypes.CDLL, has_energy: int) -> None:
    put(nvml, "has_energy", has_energy)
    told = seen()
    assert told["total"]["of"] == ["card"] and "without the machine around it" in told["total"]["what"]
    assert told["total"]["mean_w"] == pytest.approx(50, rel=0.1)
    each = told["seconds"] / told["inferences"]
    assert told["energy_mj"] == pytest.approx(50_000 * each, rel=0.1)


def test_a_card_tells_heat_and_clocks_and_is_what_speaks_for_the_machine(nvml: ctypes.CDLL) -> None:
    told = seen()
    assert told["hottest"] == "card" and told["temperatures_c"]["card"]["max"] == 61
    assert told["clocks_mhz"]["card"] == {"min": 1410, "mean": 1410, "most": 2100}


@pytest.mark.parametrize(
    ("bit", "name"),
    [
        (4, "power cap"),
        (8, "hardware slowdown"),
        (32, "software thermal"),
        (64, "hardware thermal"),
        (128, "brake"),
    ],
)
def test_what_slows_a_card_is_told_and_its_being_idle_is_not(nvml: ctypes.CDLL, bit: int, name: str) -> None:
    assert not any(throttling.flags(kind="cuda")[each] for each in throttling.flags(kind="cuda") if "card" in each)
    put(nvml, "reasons", bit | 0x01 | 0x02 | 0x10 | 0x100)
    (on,) = (each for each, state in throttling.flags(kind="cuda").items() if "card" in each and state)
    assert name in on
    told = seen()
    assert told["throttled"] and on in told["throttled_by"]


def test_for_how_long_it_was_held_down_is_counted(nvml: ctypes.CDLL) -> None:
    before = throttling.state(kind="cuda")
    assert set(before["counters"]) >= {"card: power cap", "card: thermal limit"}
    assert "card: board limit" not in before["counters"]
    after = throttling.state(kind="cuda")
    assert "card: thermal limit" in (throttling.slowed_by(before, after, {}) or [])
    assert "card: power cap" not in (throttling.slowed_by(before, after, {}) or [])


def test_a_cpu_is_not_told_by_a_card_beside_it(nvml: ctypes.CDLL) -> None:
    put(nvml, "reasons", 0xFF)
    assert not [each for each in throttling.state(kind="cpu")["flags"] if "card" in each]
    assert "card" not in seen(kind="cpu").get("rails", {})


def test_a_machine_with_a_kernel_s_tree_of_its_own_has_no_card_of_this_one(nvml: ctypes.CDLL, tmp_path: Path) -> None:
    assert card.card("cuda", tmp_path) is None and card.card("cuda") is not None


def test_the_runner_and_this_host_tell_alike(nvml: ctypes.CDLL) -> None:
    def run(said: dict[str, Any]) -> Any:
        raise NotHere("nothing is open")

    said, _ = Watcher(run).requests["throttling"]({"kind": "cuda"}, b"")
    there = Throttling.model_validate(said).throttling
    here = WatcherHere(kind="cuda", reach=Reach()).throttling()
    assert set(there.counters) == set(here["counters"]) and there.flags == here["flags"]
    assert any("card" in each for each in there.flags)


def test_without_the_library_there_is_no_card(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(card, "LIBRARIES", ("libnothing-of-this-name.so", "libcuda.so.1"))
    card._found.cache_clear()
    assert card.card("cuda") is None
    card._found.cache_clear()
