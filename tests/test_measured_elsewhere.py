"""What others have measured and published: no time of theirs undercuts our floor, which would then be no bound."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from export.floor import Bits, Work, floor_of
from export.registry import find_device

TABLE = Path(__file__).with_name("measured_elsewhere.csv")
"""Millions of parameters are left out where images were batched: their bytes are then shared by many."""
BITS: dict[str, Bits] = {"8": 8, "16": 16, "32": 32}
PAGE = Path(__file__).parents[1] / "docs" / "devices.md"


def rows() -> list[dict[str, str]]:
    with TABLE.open(encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines))


def times_the_floor(row: dict[str, str]) -> float:
    """How many times our floor a published time is."""
    work = Work(
        macs=round(float(row["gmacs"]) * 1e9),
        weights=round(float(row["params_m"] or 0) * 1e6),
        values=0,
        bits=BITS[row["bits"]],
        sparse=bool(row["sparse"]),
    )
    found = floor_of(find_device(row["device"]).peaks, work)
    assert found is not None
    return float(row["ms"]) / found.ms


@pytest.mark.parametrize("row", rows(), ids=lambda row: f"{row['device']}, {row['network']}, {row['bits']} bits")
def test_no_published_time_is_below_the_floor(row: dict[str, str]) -> None:
    assert len(row["source"]) > 20 and times_the_floor(row) > 1


@pytest.mark.parametrize("device", sorted({row["device"] for row in rows()}))
def test_a_floor_is_no_smaller_than_it_must_be(device: str) -> None:
    nearest = min(times_the_floor(row) for row in rows() if row["device"] == device)
    assert nearest < 13, f"{device}: what was measured is {nearest:.1f} times the floor, which then says little"


def test_the_page_says_how_near_published_times_come() -> None:
    page = " ".join(PAGE.read_text(encoding="utf-8").split())
    networks = [row for row in rows() if "in registers" not in row["network"]]
    assert f"{len(rows())} times that others published" in page
    assert f"{min(map(times_the_floor, rows())):.1f} times the floor for bare instructions" in page
    assert f"{min(map(times_the_floor, networks)):.1f} times for a network" in page
