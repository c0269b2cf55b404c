"""What is published of devices, and the time that cannot be beaten on them: a bound that nothing may undercut."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from shared_fixtures import write_recipe
from torch import nn
from zoo import image, made

from compress.commands.inspect import Where, inspect
from compress.passes.int8 import Int8
from compress.passes.low_bit import LowBit
from compress.passes.sparsify import Sparsify
from compress.pipeline import foreseen
from compress.pipeline.bounds import floor, floors, foreseen_floor, many_zeros, work_of
from compress.pipeline.build import Build
from compress.pipeline.deployment import deployments
from compress.pipeline.stages import Stage
from compress.recipe import load
from compress.report.tables import device_tables
from export.errors import NotHere
from export.floor import Floor, Peaks, Work, floor_of
from export.reach import Reach
from export.registry import find_device, words
from export.remote.answers import Facts
from export.remote.target import RemoteTarget
from export.to_onnx import to_onnx

PEAKS = Peaks(
    int8_tops=40, fp16_tops=20, tf32_tops=10, fp32_tops=2, bandwidth_gb_s=100, cache_mb=10, source="made up for tests"
)
WORK = Work(macs=10**12, weights=10**6, values=10**6)
MODELS = {
    "orin_nano": ["NVIDIA Jetson Orin Nano Developer Kit", "NVIDIA Orin Nano Developer Kit"],
    "orin_nx": ["NVIDIA Jetson Orin NX Engineering Reference Developer Kit"],
    "agx_orin": ["NVIDIA Jetson AGX Orin Developer Kit"],
    "igx_orin": ["NVIDIA IGX Orin Development Kit"],
    "xavier_nx": ["NVIDIA Jetson Xavier NX Developer Kit (SD-card/eMMC)"],
    "thor": ["NVIDIA Jetson AGX Thor Developer Kit"],
    "raspberry_pi_5": ["Raspberry Pi 5 Model B Rev 1.0"],
}
"""What /proc/device-tree/model prints."""


@pytest.mark.parametrize(
    ("changes", "ms", "by"),
    [
        # 2e12 operations at 10 TF32 tera-operations a second, four times fewer by Winograd; eight times in volumes.
        ({}, 50, "operations"),
        ({"dims": 3}, 25, "operations"),
        # Integers as they are; layers left in float would be as fast.
        ({"bits": 8}, 50, "operations"),
        ({"bits": 16}, 25, "operations"),
        ({"sparse": True}, 25, "operations"),
        # (4 bytes x 10^9 + 4 x 10^6 - 10^7) at 100 GB/s.
        ({"macs": 1, "weights": 10**9}, 39.94, "bytes"),
        ({"macs": 1, "weights": 10**9, "bits": 8}, 9.94, "bytes"),
    ],
)
def test_a_floor_is_operations_at_the_peak_or_bytes_beyond_the_cache(
    changes: dict[str, Any], ms: float, by: str
) -> None:
    found = floor_of(PEAKS, replace(WORK, **changes))
    assert found is not None and found.ms == pytest.approx(ms) and found.by == by
    assert "cannot be beaten" in found.sentence and "no prediction" in found.sentence


def test_what_is_not_published_gives_no_floor_and_what_stays_on_the_chip_no_bytes() -> None:
    assert floor_of(None, WORK) is None and floor_of(Peaks(source="nothing"), WORK) is None
    assert floor_of(replace(PEAKS, int8_tops=None), replace(WORK, bits=8)) is None
    small = Work(macs=0, weights=10**6, values=10**5)
    assert floor_of(PEAKS, small) is None
    assert floor_of(replace(PEAKS, cache_mb=None), replace(small, weights=10**9)) is None


def test_less_of_anything_is_never_slower() -> None:
    most = floor_of(PEAKS, WORK)
    assert most is not None
    for less in ({"macs": 10**11}, {"weights": 10}, {"values": 1}, {"bits": 16}, {"bits": 8}, {"sparse": True}):
        found = floor_of(PEAKS, replace(WORK, **less))
        assert found is not None and found.ms <= most.ms
    faster = floor_of(replace(PEAKS, beyond=2.0), WORK)
    assert faster is not None and faster.ms == pytest.approx(most.ms / 2)


PROFILES = [word for word in words("export.devices") if find_device(word).peaks]


@pytest.mark.parametrize("word", PROFILES)
def test_every_profile_says_where_its_numbers_are_from_and_they_fit_each_other(word: str) -> None:
    peaks = find_device(word).peaks
    assert peaks is not None and len(peaks.source) > 40 and peaks.url.startswith("https://")
    assert peaks.fp16_tops and peaks.fp32_tops
    # What nobody publishes is no number.
    assert (peaks.int8_tops is None) == ("int8 not published" in peaks.source)
    assert peaks.int8_tops is None or peaks.int8_tops >= peaks.fp16_tops * 1.9
    assert peaks.fp16_tops >= 1.9 * (peaks.tf32_tops or peaks.fp32_tops)
    assert peaks.bandwidth_gb_s and list(peaks.watts) == sorted(peaks.watts)
    # TF32 came with Ampere.
    capability = find_device(word).compute_capability
    assert (peaks.tf32_tops is not None) == (capability is not None and float(capability) >= 8)


def test_the_page_has_the_numbers_of_every_profile() -> None:
    page = Path(__file__).parents[1].joinpath("docs", "devices.md").read_text(encoding="utf-8")
    rows = {line.split("`")[1]: line for line in page.splitlines() if line.startswith("| `")}
    for word in PROFILES:
        peaks = find_device(word).peaks
        assert peaks is not None and peaks.source in rows[word] and peaks.url in rows[word]
        numbers = (peaks.int8_tops, peaks.fp16_tops, peaks.fp32_tops, peaks.bandwidth_gb_s, *peaks.watts)
        told = [cell.strip() for cell in rows[word].split("|")[3:10]]
        assert all(any(f"{each:g}" in cell.split(", ") for cell in told) for each in numbers if each is not None)
        device, last = find_device(word), [cell.strip() for cell in rows[word].split("|")[10:13]]
        cache = "not published" if peaks.cache_mb is None else f"{peaks.cache_mb:g}"
        assert last == [cache, device.compute_capability or "", f"{device.dla_cores or ''}"]
    assert all(f"`{word}`" in page for word in words("export.devices"))


def test_the_profiles_are_there() -> None:
    assert {"orin_nano_4gb", "orin_nx_8gb", "rtx_a2000", "rtx_4000_ada", "l4", *MODELS} == set(PROFILES)
    assert find_device("panel_pc").kind == "cpu" and find_device("panel_pc").peaks is None


@pytest.mark.parametrize("word", MODELS)
def test_a_board_is_told_by_its_module(word: str) -> None:
    for board in MODELS[word]:
        alike = {each for each in words("export.devices") if (find_device(each).model or "nothing") in board}
        assert {each.replace("_4gb", "").replace("_8gb", "") for each in alike} == {word}


def test_boards_of_one_name_are_told_by_their_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    told = {"cpu": "", "cpus": 6, "threads": 6, "os": "", "machine": "aarch64", "isa": [], "hostname": "", "flags": []}
    told |= {"boot_id": None, "python": "3.10", "executable": "", "runtimes": {}, "l4t": None, "process": 1}
    told |= {"board": MODELS["orin_nano"][0], "memory_mb": 7990}
    monkeypatch.setattr(RemoteTarget, "_told", Facts(**told))
    RemoteTarget(device=find_device("orin_nano").reached(Reach(at="tower"))).check_here()
    with pytest.raises(NotHere, match=r"tower is .* with 7990 MB of memory, and orin_nano_4gb has 4 GB"):
        RemoteTarget(device=find_device("orin_nano_4gb").reached(Reach(at="tower"))).check_here()


def stage(**more: Any) -> Stage:
    known = {"name": "baseline", "key": "", "path": Path("net"), "params": 10**6, "macs": 10**9, "seconds": 0.0}
    return Stage(**{**known, "notes": (), **more})


def test_what_is_only_built_has_a_floor_too(tmp_path: Path) -> None:
    artifact = to_onnx(made("unet of one class"), image(), tmp_path / "net.onnx")
    at = {each.device.word: each for each in deployments([find_device("orin_nano"), find_device("cpu")], 1)}

    def found(word: str, **more: Any) -> Any:
        return floor(Build(stage=stage(**more), deployment=at[word], key="", artifact=artifact))

    told = found("orin_nano")
    assert told == {"ms": pytest.approx(2e9 / (8.4e12 * 4) * 1000, rel=1e-3), "by": "operations"}
    assert found("orin_nano", macs=2 * 10**9)["ms"] == pytest.approx(2 * told["ms"], rel=1e-4)
    assert found("orin_nano", precision="half")["ms"] == pytest.approx(told["ms"] * 8.4 / 16.75, rel=1e-3)
    assert found("cpu") is None
    assert floor(Build(stage=stage(), deployment=at["orin_nano"], key="", artifact=None)) is None


def test_a_report_shows_how_far_from_its_floor_an_artifact_is() -> None:
    row = {"step": "baseline", "backend": "onnxruntime", "device": "orin_nano", "status": "measured", "params": 1}
    row |= {"macs": 1, "latency_ms": {"p50": 6.0}, "floor": {"ms": 1.5, "by": "operations"}, "scores": None}
    built = {**row, "status": "built", "reason": "away", "latency_ms": None, "step": "01-int8"}
    (table,) = device_tables({"rows": [row, built, {**row, "floor": None}]})
    assert table.rows == [
        ("baseline on onnxruntime (orin_nano)", "1.50", "operations", "6.00", "4.00×"),
        ("01-int8 on onnxruntime (orin_nano)", "1.50", "operations", "–", "–"),
    ]
    assert device_tables({"rows": [{**row, "floor": None}]}) == []


# Before anything is built.


def told_of(place: Path, recipe: dict[str, Any], passes: list[Any], at_most: float) -> tuple[list[str], list[str]]:
    """Mistakes and doubts about one gate on the latency on an Orin Nano."""
    gate = {"latency_ms": {"at_most": at_most, "device": "orin_nano"}}
    changes = {"passes": passes, "devices": ["cpu", "orin_nano"], "gates": [gate]}
    loaded = load(write_recipe(place, {**recipe, **changes, "latency": {"samples": 459}}))
    spots = foreseen.with_floors(loaded, foreseen.spots(loaded), Work(macs=10**11, weights=10**6, values=1000))
    scene = foreseen.scene(loaded, spots, ("square", "disc"), 40)
    doubts = [each for each in foreseen.doubts(loaded, scene) if "from this host" not in each]
    return list(foreseen.contradictions(loaded, scene)), doubts


def test_a_latency_that_no_kernel_reaches_is_a_mistake_where_no_pass_takes_work_away(
    tmp_path: Path, recipe: dict[str, Any]
) -> None:
    # 2e11 operations at 33.5 or 4 x 8.4 tera-operations a second are 5.95 ms.
    int8 = [{"int8": {"calibrate": 4}}]
    (mistake,), doubts = told_of(tmp_path, recipe, int8, 5.9)
    assert mistake == (
        "gates[0] (latency_ms): never holds: on orin_nano the network cannot take less than 5.95 ms, for its "
        "operations alone, and no pass takes any away; allow more, or prune before"
    )
    assert doubts == [] and told_of(tmp_path, recipe, int8, 6) == ([], [])


def test_a_latency_that_needs_a_smaller_network_is_a_warning_with_the_factor(
    tmp_path: Path, recipe: dict[str, Any]
) -> None:
    passes = [{"prune": {"ratio": 0.5}}, {"int8": {"calibrate": 4}}]
    mistakes, (doubt,) = told_of(tmp_path, recipe, passes, 2)
    assert mistakes == [] and "2 ms on orin_nano needs at least 2.9 times fewer operations than the network" in doubt
    assert told_of(tmp_path, recipe, passes, 6) == ([], [])


def test_sparse_weights_are_allowed_to_be_twice_as_fast() -> None:
    device, work = find_device("orin_nano"), Work(macs=10**11, weights=1, values=1)
    plain, sure = foreseen_floor(device, work, [("int8", Int8())])
    sparse, _ = foreseen_floor(device, work, [("sparsify", Sparsify())])
    assert foreseen_floor(device, work, [("low_bit", LowBit())]) == (plain, sure)
    assert sure and plain is not None and sparse is not None and sparse.ms == pytest.approx(plain.ms / 2, rel=0.01)


def test_the_work_of_a_network_and_of_its_file_is_the_same(tmp_path: Path) -> None:
    net = made("unet of one class")
    work = work_of(net, (1, 3, 32, 32))
    assert work.values == 4 * 32 * 32 and work.dims == 2 and work.bits == 32
    file = to_onnx(net, image(), tmp_path / "net.onnx").path
    found = inspect(file, Where(runs=2))
    assert found.floors["raspberry_pi_5"].ms == pytest.approx(floors(work)["raspberry_pi_5"].ms, rel=0.02)
    assert next(iter(found.floors)) == "raspberry_pi_5" and isinstance(found.floors["thor"], Floor)


def test_half_zeros_count_as_sparse(tmp_path: Path) -> None:
    net = nn.Conv2d(3, 8, 3)
    dense = onnx.load(to_onnx(net, torch.zeros(1, 3, 8, 8), tmp_path / "dense.onnx").path)
    with torch.no_grad():
        net.weight[:4] = 0
    half = onnx.load(to_onnx(net, torch.zeros(1, 3, 8, 8), tmp_path / "half.onnx").path)
    assert many_zeros(half) and not many_zeros(dense)
