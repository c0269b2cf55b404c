"""Power, heat, clocks and throttling, read from the trees of machines that are not here; energy over known curves."""

from __future__ import annotations

import errno
import functools
import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import machines
import numpy as np
import pytest
from shared_fixtures import write_recipe

from compress.errors import RecipeError
from compress.pipeline import foreseen
from compress.pipeline import watch as run_watch
from compress.pipeline.deployment import deployments, reached, without_power_modes
from compress.recipe import load
from compress.storage.weights import load_net
from export.errors import SurroundingsError
from export.reach import Reach
from export.registry import find_device
from export.remote import answers
from export.remote.answers import Watched, read
from export.remote.runner import clocks, heat, power, sampling, sysfs, throttling
from export.remote.runner.power import Rail
from export.remote.runner.power_mode import PowerMode, mode, modes
from export.remote.runner.soaking import Soak, soaked
from export.remote.runner.watcher import Watcher
from export.remote.runner.watching import Asked, watched
from export.remote.watchers import WatcherThere
from export.target import LocalTarget

BRIEF = {"seconds": 0.06, "idle": 0.03}


@pytest.fixture(autouse=True)
def samples_are_taken_quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampling, "PERIOD", 0.01)


def seen(root: Path, run: Callable[[int], object] = lambda number: None, **more: Any) -> dict[str, Any]:
    """What is told of a machine, as a host takes it."""
    told = Watched.model_validate(watched(run, Asked(root=root, **{**BRIEF, **more})))
    assert told.watched is not None
    return told.watched.model_dump()


# What each machine tells.


def test_an_orin_nano_tells_its_module_by_one_rail(tmp_path: Path) -> None:
    told = seen(machines.orin_nano(tmp_path))
    assert set(told["rails"]) == {"VDD_IN", "VDD_CPU_GPU_CV", "VDD_SOC"}
    assert told["total"] == {"of": ["VDD_IN"], "what": "the whole module", "mean_w": 5, "max_w": 5, "idle_w": 5}
    # 5 W for the time of one inference.
    assert told["energy_mj"] == pytest.approx(5000 * told["seconds"] / told["inferences"])
    assert told["energy_above_idle_mj"] == pytest.approx(0, abs=1e-9)
    assert told["hottest"] == "tj-thermal" and "cv0-thermal" not in told["temperatures_c"]
    assert told["temperatures_c"]["tj-thermal"] == {"begin": 45.9, "end": 45.9, "max": 45.9}
    assert told["clocks_mhz"]["gpu"] == {"min": 306, "mean": 306, "most": 624.75}
    assert told["throttled"] is False and told["throttled_by"] == []
    assert told["power_mode"] is None and told["unknown"] == {"power_mode": "there is no nvpmodel on this machine"}


def test_classes_are_links_to_devices(tmp_path: Path) -> None:
    told = seen(machines.linked(machines.orin_nano(tmp_path)))
    assert told["hottest"] == "tj-thermal" and told["clocks_mhz"]["gpu"]["mean"] == 306
    assert throttling.state(tmp_path)["counters"]["oc3 (instantaneous over-current)"] == 7
    assert power.rails(machines.linked(machines.x86(tmp_path / "x86"))).total == ("package-0",)


def test_an_agx_orin_is_the_sum_of_three_rails(tmp_path: Path) -> None:
    told = seen(machines.agx_orin(tmp_path))
    assert told["total"]["of"] == ["VDD_GPU_SOC", "VDD_CPU_CV", "VIN_SYS_5V0"]
    assert told["total"]["mean_w"] == pytest.approx(5.7 + 1.9 + 5.5) == told["total"]["max_w"]
    assert told["rails"]["VDDQ_VDD2_1V8AO"]["mean_w"] == pytest.approx(1) and "NC" not in told["rails"]


def test_a_raspberry_pi_tells_heat_and_no_power(tmp_path: Path) -> None:
    told = seen(machines.raspberry_pi_5(tmp_path))
    assert told["total"] is None and told["energy_mj"] is None and told["rails"] == {}
    assert told["unknown"]["power"] == power.NOTHING
    assert told["hottest"] == "cpu-thermal" and told["throttled"] is False
    assert told["clocks_mhz"]["cpu"]["most"] == 2400


def test_an_x86_host_tells_its_processor(tmp_path: Path) -> None:
    root = machines.x86(tmp_path)
    counter = root / "sys/class/powercap/intel-rapl:0/energy_uj"

    def draws(number: int) -> None:
        counter.write_text(str((int(counter.read_text()) + 1000) % 262_143_328_850))

    told = seen(root, draws)
    assert set(told["rails"]) == {"package-0"} and told["total"]["what"] == "the processor, not the whole machine"
    # A millijoule each, also where the counter begins again.
    assert told["energy_mj"] == pytest.approx(1, rel=0.1) and told["total"]["idle_w"] == 0
    assert told["hottest"] == "x86_pkg_temp" and told["throttled"] is False


@pytest.mark.parametrize("kind", ["cuda", "dla"])
def test_the_power_of_a_processor_is_not_called_that_of_a_gpu(tmp_path: Path, kind: str) -> None:
    told = seen(machines.x86(tmp_path / "x86"), kind=kind)
    assert set(told["rails"]) == {"package-0"} and told["total"] is None is told["energy_mj"]
    assert told["unknown"]["power"] == "package-0: the processor's power, without that of the GPU"
    # A module's rail has all of it.
    assert seen(machines.orin_nano(tmp_path / "nano"), kind=kind)["total"]["mean_w"] == 5


def test_a_counter_that_only_root_reads_is_told_with_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = sysfs.read

    def refused(path: Path) -> str:
        if path.name == "energy_uj":
            raise PermissionError(errno.EACCES, "Permission denied")
        return read(path)

    monkeypatch.setattr(sysfs, "read", refused)
    told = seen(machines.x86(tmp_path))
    assert told["rails"] == {} and told["total"] is None
    assert told["unread"]["package-0"].startswith("not readable: needs root, or `sudo chmod a+r ")
    assert told["unknown"]["power"].startswith("package-0: not readable: needs root")


def test_a_machine_without_anything_is_not_watched_and_says_why(tmp_path: Path) -> None:
    ran: list[int] = []
    told = watched(ran.append, Asked(root=tmp_path))
    assert told == {"watched": None, "why": f"{power.NOTHING}; {heat.NOTHING}"} and ran == []


def test_rails_of_an_unknown_board_have_no_total(tmp_path: Path) -> None:
    root = machines.write(tmp_path, machines.ina3221("40", {1: ("VDD_ODD", 5000, 1000)}))
    told = seen(root)
    assert told["rails"]["VDD_ODD"]["mean_w"] == 5 and told["energy_mj"] is None
    assert told["unknown"]["power"] == "none of its rails is known to be the whole: VDD_ODD"


def test_a_power_supply_that_tells_microwatts_is_a_rail(tmp_path: Path) -> None:
    place = f"{machines.HWMON}/hwmon2"
    files = {f"{place}/name": "psu", f"{place}/power1_input": 12_500_000, f"{place}/power1_label": "in"}
    assert seen(machines.write(tmp_path, files))["rails"]["psu in"]["mean_w"] == 12.5


def test_a_device_of_this_host_is_watched_by_the_same_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = functools.partial(Asked, root=machines.orin_nano(tmp_path / "nano"), **BRIEF)
    monkeypatch.setattr("export.remote.watchers.Asked", asked)
    reached = find_device("cpu").reached(Reach(soak=0.001))
    watcher = LocalTarget(device=reached, threads=1, load=load_net).watcher
    images = [np.full((1, 1, 2, 2), value, np.float32) for value in (0, 1)]
    given: list[float] = []

    def infer(image_BCHW: np.ndarray) -> np.ndarray:
        given.append(float(image_BCHW.max()))
        return image_BCHW

    told = watcher.watch(infer, images, soak=True)
    assert told["total"]["of"] == ["VDD_IN"] and told["soak"]["settled"] is False
    assert set(given) == {0, 1} and watcher.watch(infer, images, soak=False)["soak"] is None
    monkeypatch.setattr("export.remote.watchers.Asked", functools.partial(Asked, root=tmp_path / "nothing"))
    assert "no sensor of power" in watcher.watch(infer, images, soak=False)["why"]


def test_a_device_of_this_host_without_modes_is_not_set_to_one() -> None:
    reached = find_device("cpu").reached(Reach(power_mode="MAXN"))
    watcher = LocalTarget(device=reached, threads=1, load=load_net).watcher
    with pytest.raises(SurroundingsError, match="there is no nvpmodel"), watcher.in_power_mode():
        pass
    with LocalTarget(device=find_device("cpu"), threads=1, load=load_net).watcher.in_power_mode():
        pass


def test_a_power_mode_without_nvpmodel_is_told_before_anything_is_built(
    recipe: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = load(write_recipe(tmp_path, recipe | {"devices": [{"cpu": {"power_mode": "MAXN"}}]}))
    said = "cpu): power_mode: MAXN: no nvpmodel, which Jetsons have, tells a mode there; leave it out"
    assert list(foreseen.of_power_modes(loaded, foreseen.spots(loaded))) == [f"devices[0] ({said}"]
    deployed = deployments(loaded.devices, None)
    with pytest.raises(SurroundingsError, match=r"^cpu: power_mode: MAXN: "), reached(deployed, print):
        pass
    # A board that is not here is built for, and nothing is set there.
    board = find_device("orin_nano").reached(Reach(power_mode="15W"))
    with reached(deployments([board], None), print):
        pass
    monkeypatch.setattr("export.remote.watchers.mode", lambda: ("15W", None))
    assert list(foreseen.of_power_modes(loaded, foreseen.spots(loaded))) == []
    with reached(deployed, print):
        pass


def test_the_mode_of_a_device_elsewhere_is_asked_with_its_conditions() -> None:
    class Talk:
        def __init__(self, **told: str) -> None:
            self.told = told

        def ask(self, kind: type[answers.Conditions], request: dict[str, str]) -> tuple[answers.Conditions, bytes]:
            assert request == {"do": "conditions"}
            return kind(conditions={"load": 0.5, **self.told}), b""

    def mode_of(talk: Talk) -> str | None:
        return WatcherThere(kind="cpu", reach=Reach(at="tower"), conversation=talk).power_mode()  # type: ignore[arg-type]

    assert mode_of(Talk(power_mode="15W")) == "15W" and mode_of(Talk()) is None


@pytest.mark.parametrize(
    ("known", "told"), [(["MAXN", "7W"], "there is no mode '15W'; there are MAXN, 7W"), ([], None)]
)
def test_a_mode_of_another_name_is_told_when_the_device_is_reached(known: list[str], told: str | None) -> None:
    class Board:
        device = find_device("orin_nano").reached(Reach(at="tower", power_mode="15W"))
        watcher = SimpleNamespace(power_mode=lambda: "MAXN", power_modes=lambda: known)

        def check_here(self) -> None:
            """It is."""

    found = without_power_modes(Board())  # type: ignore[arg-type]
    assert found == (told and f"power_mode: {told}")


def test_the_runner_lists_the_modes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    machines.nvpmodel(tmp_path)
    monkeypatch.setattr("export.remote.runner.power_mode.modes", lambda: modes(tmp_path))
    said, _ = Watcher(lambda _: lambda number: None).requests["power_modes"]({}, b"")
    assert answers.PowerModes.model_validate(said).modes == list(modes(tmp_path)) != []


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"soak": 0}, "soak: "),
        ({"soak": 1000}, "soak: "),
        ({"soak": float("nan")}, "soak: "),
        ({"power_mode": "15W; reboot"}, "power_mode: "),
        ({"power_mode": ""}, "power_mode: "),
    ],
)
def test_options_that_cannot_be_are_mistakes_of_the_recipe(
    recipe: dict[str, Any], tmp_path: Path, options: dict[str, Any], told: str
) -> None:
    with pytest.raises(RecipeError, match=rf"devices\[0\] \(cpu\): {told}"):
        load(write_recipe(tmp_path, {**recipe, "devices": [{"cpu": options}]}))


def test_devices_of_one_host_are_in_one_power_mode(recipe: dict[str, Any], tmp_path: Path) -> None:
    there = [{"cpu": {"at": "tower", "power_mode": "15W"}}, {"orin_nano": {"at": "tower"}}]
    with pytest.raises(RecipeError, match=r"devices\[1\] \(orin_nano@tower\): .* give both power_mode: 15W"):
        load(write_recipe(tmp_path, {**recipe, "devices": there}))
    load(write_recipe(tmp_path, {**recipe, "devices": ["cpu", there[0]]}))


# What a device says is not believed where it cannot be.


@pytest.mark.parametrize(
    "wrong",
    [
        {"energy_mj": float("nan")},
        {"energy_mj": -1.0},
        {"seconds": 0.0},
        {"inferences": 0},
        {"temperatures_c": {"tj": {"begin": 900.0, "end": 40.0, "max": 900.0}}},
        {"rails": {"VDD_IN": {"mean_w": -3.0, "max_w": 1.0, "idle_w": None}}},
        {"throttled": "no"},
        {"more": 1},
    ],
)
def test_a_watch_that_cannot_be_is_refused(tmp_path: Path, wrong: dict[str, Any]) -> None:
    told = watched(lambda number: None, Asked(root=machines.raspberry_pi_5(tmp_path), seconds=0.01))
    read(Watched, told, "tower")
    with pytest.raises(SurroundingsError, match="tower: answered what cannot be"):
        read(Watched, {**told, "watched": {**told["watched"], **wrong}}, "tower")


# Energy.


def test_energy_is_the_integral_of_the_power() -> None:
    rail = Rail("any", lambda: None)
    times = [place / 7 for place in range(71)]
    curve = [(each, 5 + 3 * math.sin(each)) for each in times]
    assert rail.joules(curve) == pytest.approx(50 + 3 * (1 - math.cos(10)), rel=1e-3)
    # Samples that come late weigh as long as they last.
    assert rail.joules([(0, 4), (1, 4), (9, 8), (10, 8)]) == 4 + 48 + 8
    assert rail.mean([(0, 4), (1, 4), (9, 8), (10, 8)]) == 6
    assert rail.watts([(0, 4), (1, 9)]) == [4, 9]


def test_a_counter_that_begins_again_loses_nothing() -> None:
    rail = Rail("package-0", lambda: None, counts=True, wraps_at=100)
    samples = [(0.0, 90.0), (1.0, 95.0), (2.0, 5.0), (4.0, 9.0)]
    assert rail.joules(samples) == 19 and rail.watts(samples) == [5, 10, 2] and rail.mean(samples) == 19 / 4


def test_a_counter_that_is_reset_and_a_sensor_that_tells_anything_are_no_power(tmp_path: Path) -> None:
    assert Rail("any", lambda: None, counts=True).joules([(0, 90), (1, 95), (2, 1), (3, 2)]) == 6
    place = f"{machines.HWMON}/hwmon2"
    root = machines.write(tmp_path, {f"{place}/name": "psu", f"{place}/power1_input": 2**62})
    told = seen(root)
    assert told["rails"] == {} and told["unread"] == {"psu power1": "it said nothing while it was watched"}
    # A sensor at rest is a little below nothing.
    low = seen(machines.write(tmp_path / "low", machines.ina3221("40", {1: ("VDD_IN", 5000, -8)})))
    assert low["rails"]["VDD_IN"]["mean_w"] == pytest.approx(-0.04) and low["total"] is None is low["energy_mj"]


def test_a_counter_that_stands_still_is_no_energy_of_nothing(tmp_path: Path) -> None:
    told = seen(machines.x86(tmp_path))
    assert told["rails"]["package-0"]["mean_w"] == 0 and told["total"] is None is told["energy_mj"]
    assert told["unknown"]["power"] == "package-0 told no power while it ran"


# Throttling.


def test_an_event_while_it_runs_is_throttling(tmp_path: Path) -> None:
    root = machines.orin_nano(tmp_path)

    def run(number: int) -> None:
        if number == 5:
            (root / machines.HWMON / "hwmon3/oc3_event_cnt").write_text("9")

    told = seen(root, run)
    assert told["throttled"] is True and told["throttled_by"] == ["oc3 (instantaneous over-current)"]


def test_what_cools_by_slowing_down_is_throttling_and_a_fan_is_not(tmp_path: Path) -> None:
    root = machines.orin_nano(tmp_path)
    before = throttling.state(root)
    (root / machines.THERMAL / "cooling_device1/cur_state").write_text("1")
    assert throttling.slowed_by(before, throttling.state(root), {}) == ["gpu-throttle-alert"]
    assert throttling.slowed_by(before, before, {"gpu-throttle-alert": 3}) == ["gpu-throttle-alert"]
    assert throttling.slowed_by(before, before, {}) == []


@pytest.mark.parametrize(
    ("said", "now", "since"),
    [
        ("0", [], []),
        ("50005", ["under-voltage", "throttled"], ["under-voltage", "throttled"]),
        ("throttled=0x80008", ["soft temperature limit"], ["soft temperature limit"]),
        ("20000", [], ["clock capped"]),
    ],
)
def test_the_bits_of_a_raspberry_pi(tmp_path: Path, said: str, now: list[str], since: list[str]) -> None:
    before = throttling.state(machines.raspberry_pi_5(tmp_path))
    after = throttling.state(machines.raspberry_pi_5(tmp_path, said))
    assert throttling.slowed_by(before, after, {}) == [f"{each} since it was started" for each in since] + now


def test_a_raspberry_pi_is_asked_by_its_program_where_it_has_no_file(tmp_path: Path) -> None:
    machines.program(tmp_path, "vcgencmd", 'test "$1" = get_throttled && echo throttled=0x20000')
    state = throttling.state(tmp_path)
    assert state["counters"]["clock capped since it was started"] == 1 and state["flags"]["clock capped"] == 0


def test_an_x86_host_counts_heat(tmp_path: Path) -> None:
    before = throttling.state(machines.x86(tmp_path))
    assert before["counters"] == {"core_throttle_count": 7, "package_throttle_count": 1}
    (tmp_path / "sys/devices/system/cpu/cpu1/thermal_throttle/core_throttle_count").write_text("5")
    assert throttling.slowed_by(before, throttling.state(tmp_path), {}) == ["core_throttle_count"]


def test_a_machine_that_counts_nothing_is_not_called_unthrottled(tmp_path: Path) -> None:
    nothing = throttling.state(tmp_path)
    assert throttling.slowed_by(nothing, nothing, {}) is None


# The power mode.


def test_a_power_mode_is_set_where_it_is_asked_for_and_put_back(tmp_path: Path) -> None:
    machines.nvpmodel(tmp_path)
    assert mode(tmp_path) == ("15W", None) and modes(tmp_path) == {"15W": 0, "MAXN_SUPER": 2}
    power_mode = PowerMode(tmp_path)
    assert power_mode.set("MAXN_SUPER") == "15W" and mode(tmp_path)[0] == "MAXN_SUPER"
    power_mode.put_back()
    assert mode(tmp_path)[0] == "15W"
    (tmp_path / "usr/bin/nvpmodel").write_text("#!/bin/sh\necho NVPM ERROR: not root; exit 1\n")
    assert mode(tmp_path) == (None, "nvpmodel -q fails: NVPM ERROR: not root")
    power_mode.put_back()


@pytest.mark.parametrize(
    ("name", "sudo", "says"),
    [
        ("MAXN", "exit 9", "there is no mode 'MAXN'; there are 15W, MAXN_SUPER"),
        ("MAXN_SUPER", "echo sudo: a password is required; exit 1", "not set (sudo: a password is required)"),
        ("MAXN_SUPER", "echo NVPM WARN: a reboot is required", "not set (NVPM WARN: a reboot is required)"),
    ],
)
def test_a_power_mode_that_is_refused_is_one_sentence(tmp_path: Path, name: str, sudo: str, says: str) -> None:
    machines.nvpmodel(tmp_path, sudo)
    with pytest.raises(SurroundingsError) as told:
        PowerMode(tmp_path).set(name)
    assert says in str(told.value) and "\n" not in str(told.value) and told.value.exit_code == 4
    assert mode(tmp_path)[0] == "15W"


def test_a_machine_without_modes_cannot_be_set_to_one(tmp_path: Path) -> None:
    with pytest.raises(SurroundingsError, match="there is no nvpmodel on this machine"):
        PowerMode(tmp_path).set("MAXN")


# Soaking.


class Oven:
    """A device that warms towards 80 degrees, and slows down above 70."""

    def __init__(self, warms: float) -> None:
        self.seconds, self.warms = 0.0, warms

    def degrees(self) -> float:
        return 80 - 40 * math.exp(-self.seconds / 60 * self.warms)

    def run(self, number: int) -> None:
        self.seconds += 2.5 if self.degrees() > 70 else 2.0


def soak(oven: Oven, minutes: float) -> dict[str, Any]:
    return soaked(oven.run, Soak(minutes, oven.degrees, lambda: oven.seconds))


def test_a_soak_ends_when_the_temperature_has_settled() -> None:
    told = soak(Oven(warms=0.5), 60)
    assert told["settled"] is True and 8 < told["minutes"] < 14
    assert told["cold_p50_ms"] == 2000 and told["warm_p50_ms"] == 2500 == told["warm_p99_ms"] == told["slowest_p50_ms"]
    assert told["slowest_minute"] > 1 and told["begin_c"] == 40 and told["end_c"] > 78


def test_a_soak_that_does_not_settle_says_so() -> None:
    told = soak(Oven(warms=0.05), 5)
    assert told["settled"] is False and 5 <= told["minutes"] < 5.1


def test_a_soak_without_a_temperature_runs_its_minutes() -> None:
    oven = Oven(warms=1)
    told = soaked(oven.run, Soak(0.5, lambda: None, lambda: oven.seconds))
    assert told["settled"] is None and told["minutes"] == pytest.approx(0.5, abs=0.05) and told["end_c"] is None


@pytest.mark.parametrize("bus", ["", "bus@0/"])
def test_the_clock_of_a_gpu_that_is_in_no_class_is_found(tmp_path: Path, bus: str) -> None:
    place = f"sys/devices/platform/{bus}17000000.gpu/devfreq/17000000.gpu"
    root = machines.write(tmp_path, {f"{place}/cur_freq": 918_000_000, f"{place}/max_freq": 1_020_000_000})
    assert clocks.now(root) == {"gpu": 918} and clocks.most(root) == {"gpu": 1020}


# What a run makes of it.


class Talk:
    """A conversation that is written down."""

    def __init__(self) -> None:
        self.said: list[Any] = []

    def ask(self, kind: Any, request: dict[str, Any]) -> tuple[Any, bytes]:
        self.said.append(request["name"])
        return kind(found="15W"), b""

    def close(self) -> None:
        self.said.append("closed")


def test_a_power_mode_elsewhere_is_put_back_also_where_something_fails() -> None:
    talk: Any = Talk()
    watcher = WatcherThere(kind="cpu", reach=Reach(at="tower", power_mode="MAXN"), conversation=talk)
    with watcher.in_power_mode():
        assert talk.said == ["MAXN"]
    assert talk.said == ["MAXN", None]
    with pytest.raises(KeyboardInterrupt), watcher.in_power_mode():
        raise KeyboardInterrupt
    # With the conversation the runner ends, which puts it back.
    assert talk.said == ["MAXN", None, "MAXN", "closed"]
    with WatcherThere(kind="cpu", reach=Reach(at="tower"), conversation=talk).in_power_mode():
        assert len(talk.said) == 4


def test_a_runner_that_ends_puts_the_power_mode_back(tmp_path: Path) -> None:
    machines.nvpmodel(tmp_path)
    watcher = Watcher(lambda said: lambda number: None)
    watcher._mode = PowerMode(tmp_path)
    assert watcher.requests["power_mode"]({"name": "MAXN_SUPER"}, b"") == ({"found": "15W"}, b"")
    assert mode(tmp_path)[0] == "MAXN_SUPER"
    watcher.end()
    assert mode(tmp_path)[0] == "15W"


def test_times_on_a_device_that_was_slowed_down_are_labelled(tmp_path: Path) -> None:
    root = machines.orin_nano(tmp_path / "nano")

    def build(name: str, device: str, tree: Path) -> Any:
        watcher = SimpleNamespace(throttling=lambda: throttling.state(tree))
        target = SimpleNamespace(watcher=watcher)
        at = SimpleNamespace(target=target, device=SimpleNamespace(name=device))
        return SimpleNamespace(name=name, deployment=at)

    builds = [build("baseline", "nano", root), build("int8", "nano", root), build("here", "cpu", tmp_path / "none")]
    before = run_watch.throttling(builds)
    assert run_watch.throttled(builds, before) == {"baseline": [], "int8": [], "here": None}
    (root / machines.HWMON / "hwmon3/oc1_event_cnt").write_text("1")
    slowed = ["oc1 (under-voltage)"]
    assert run_watch.throttled(builds, before) == {"baseline": slowed, "int8": slowed, "here": None}


def test_clocks_are_none_where_none_is_told(tmp_path: Path) -> None:
    assert clocks.now(tmp_path) == {} == heat.temperatures(tmp_path)
