"""The waterfall: what each step took, what it said, and what it is compared with."""

from itertools import pairwise
from typing import Any

import pytest
from shown import FORMS, Page, draw_equal_plots_once, overlay, page, printed, row, seen, waterfall

from compress.report.derived import compared, numbers
from compress.report.drawing.waterfall import _apart
from compress.report.markdown import to_markdown


@pytest.fixture(autouse=True)
def equal_plots_are_drawn_once(monkeypatch: pytest.MonkeyPatch) -> None:
    draw_equal_plots_once(monkeypatch)


@FORMS
def test_every_step_says_what_it_took_and_what_it_said(render: Any) -> None:
    text = seen(render, waterfall())
    for said in ("kept head: its channels are classes", "4 min", "3.2 s", "6.00 G"):
        assert said in text
    if render is printed:
        assert "÷ 32.0" in text
        assert "head <stays> in float; [two] ranges" in text
    else:
        assert "ratio=0.5" in text
        limits = "+0.0120 [0.0080, 0.0160]" if render is page else r"+0.0120 \[0.0080, 0.0160\]"
        assert limits in text
        assert "48.0 G (32×)" in text, "a sixteenth of 8 bits for a quarter of the parameters"
        assert "5.17 (24×)" in text
        assert "vs. int8_alone" in text


def test_the_drop_of_a_step_and_the_drop_since_the_baseline_stand_apart() -> None:
    line = next(line for line in to_markdown(waterfall()).splitlines() if "02-distill" in line)
    assert line.index("-0.0090") < line.index("+0.0030")


def test_steps_stand_in_the_recipes_order_and_what_they_are_compared_with_last() -> None:
    steps = compared.steps(waterfall())
    assert [step.name for step in steps] == ["baseline", "01-prune", "02-distill", "03-int8", "int8_alone"]
    assert [step.compared for step in steps] == [False] * 4 + [True]
    assert [round(step.smaller or 0, 1) for step in steps] == [1, 6.2, 6.2, 6.2, 1]
    assert [line.fewer_bits for line in steps[3].lines] == [32, 32, 32]
    assert [line.step for line in compared.last_step(waterfall())] == ["03-int8"] * 3


def test_the_page_draws_each_quantity_with_a_factor_at_the_end_of_each_line() -> None:
    text = Page(page(waterfall(), overlay())).text
    for title in (
        "Dice lost since the baseline",
        "latency, p50 in ms",
        "size on disk, MB",
        "parameters",
        "MACs × bits",
    ):
        assert title in text
    assert "not measured" in text, "tensorrt"
    assert {"24×", "10×", "8.0×", "32×"} <= set(text.split())


def test_a_report_of_one_step_needs_no_waterfall() -> None:
    found = waterfall()
    found["rows"], found["steps"] = found["rows"][:4], found["steps"][:1]
    assert "Dice lost since the baseline" not in page(found)
    assert "baseline" in to_markdown(found)


def test_a_waterfall_of_nothing_measured_can_be_drawn() -> None:
    found = waterfall()
    found["rows"] = [
        row(each["step"], "openvino", status="not measured", reason="x", size_mb=None) for each in found["rows"]
    ]
    for each in found["rows"]:
        each["macs"] = each["params"] = 0
    for each in found["steps"]:
        each |= {"params": None, "macs": None, "seconds": None, "notes": []}
    assert "not measured" in Page(page(found)).text
    assert to_markdown(found)
    assert printed(found)


def test_labels_that_would_cover_each_other_are_moved_apart() -> None:
    moved = _apart([0.1, 0.11, 0.12, 0.99], 0.1)
    assert all(after - before >= 0.1 - 1e-9 for before, after in pairwise(moved))
    assert moved[-1] <= 0.95 + 1e-9
    assert _apart([], 0.1) == []


def test_a_step_with_many_notes_shows_them_all_but_on_the_terminal() -> None:
    found = waterfall()
    found["steps"][1]["notes"] = [f"kept layer {number}" for number in range(9)]
    assert all(f"kept layer {number}" in to_markdown(found) for number in range(9))
    text = " ".join(printed(found).split())
    assert "7 more in the report" in text
    assert "kept layer 5" not in text


@pytest.mark.parametrize(
    ("seconds", "said"), [(None, "–"), (0.04, "0.0 s"), (12.4, "12 s"), (240, "4 min"), (7500, "2 h 5 min")]
)
def test_how_long_a_step_took_reads_well(seconds: float | None, said: str) -> None:
    assert numbers.lasted(seconds) == said
