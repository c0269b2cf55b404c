"""The report as Markdown, HTML and terminal text."""

import copy
import json
import math
import re
from typing import Any

import numpy as np
import pytest
from shown import (
    BASELINE,
    DROPS,
    FORMS,
    INT8,
    Page,
    draw_equal_plots_once,
    gate,
    measured,
    overlay,
    page,
    printed,
    report,
    row,
    scores,
    seen,
)

from compress.report import plots
from compress.report.derived import compared, drops, executed, headline, numbers, slower, verdicts
from compress.report.html import PALETTE, to_html
from compress.report.markdown import to_markdown
from compress.report.report import Overlay


@pytest.fixture(autouse=True)
def equal_plots_are_drawn_once(monkeypatch: pytest.MonkeyPatch) -> None:
    draw_equal_plots_once(monkeypatch)


def test_the_page_needs_nothing_but_itself() -> None:
    text = page(report(), overlay())
    without_namespaces = re.sub(r'xmlns(:\w+)?="[^"]*"', "", text)
    assert not re.search(
        r"https?:|//\w|@import|url\((?!#)", re.sub(r'"data:image/png;base64,[^"]*"', "", without_namespaces)
    )
    found = Page(text)
    assert found.tags.isdisjoint({"script", "link", "iframe", "object"})
    assert all(reference.startswith(("#", "data:")) for reference in found.references)


def test_the_page_starts_with_its_doctype_and_every_reference_has_its_target() -> None:
    text = page(report(), overlay("a"), overlay("b"))
    assert text.startswith("<!DOCTYPE html>")
    found = Page(text)
    assert {reference[1:] for reference in found.references if reference[0] == "#"} <= set(found.ids)
    assert len([name for name in found.ids if name.startswith("case-")]) == 2


def test_the_page_has_both_bar_plots_the_scatter_and_every_view_of_a_worst_case() -> None:
    written = page(report(), overlay())
    text = Page(written).text
    assert "ms an image" in text
    assert "0.10 lost" in text
    assert "Dice before 0.9050, after 0.7100 (drop +0.1950)" in text
    assert "loses more than 0.10" in text
    views = re.findall(r'aria-label="(image|truth|before|after)"', written)
    assert views == ["image", "truth", "before", "after"]


def test_a_color_image_is_shown_and_a_large_one_is_scaled_down() -> None:
    large = np.zeros((900, 1200, 3), np.uint8)
    mask = np.zeros((900, 1200), np.uint8)
    wide = Overlay(
        case="wide",
        image_HWC=large,
        truth_HW=mask,
        before_HW=mask,
        after_HW=mask,
        dice_before=None,
        dice_after=math.nan,
        after="01-int8 on openvino",
    )
    text = page(report(), overlay(channels=3), wide)
    assert 'viewBox="0 0 1200 900"' in text
    assert "Dice before –, after –" in Page(text).text


@FORMS
def test_names_cannot_become_markup(render: Any) -> None:
    bad = "<script>alert(1)</script> [bold] $x^$ `a` *b*"
    text = json.dumps(report()).replace('"nerve"', json.dumps(bad)).replace('"case_02"', json.dumps(bad))
    found = json.loads(text) | {"name": bad}
    out = render(found, overlay(bad)) if render is page else render(found)
    if render is printed:
        assert "[bold]" in out
    else:
        assert "<script" not in out
        assert "&lt;script&gt;" in out


def test_a_bar_in_a_name_does_not_split_a_markdown_row() -> None:
    found = json.loads(
        json.dumps(report()).replace("nerve", "ner|ve").replace("no NVIDIA driver", "no | driver\\nfound")
    )
    for block in re.findall(r"(?:^\|.*\n)+", to_markdown(found), re.M):
        columns = {len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines()}
        assert len(columns) == 1
    assert r"no \| driver found" in to_markdown(found)


@FORMS
def test_what_was_not_measured_says_why(render: Any) -> None:
    text = seen(render, report())
    assert "not measured: no NVIDIA driver" in text
    assert text.count("no NVIDIA driver") >= 2
    assert "which was not reached" in text


@pytest.mark.parametrize("render", [to_markdown, page])
def test_each_machine_that_was_reached_over_ssh_is_told(render: Any) -> None:
    found = report()
    facts = {
        "cpu": "Cortex-A78AE",
        "board": "NVIDIA Jetson Orin Nano",
        "memory_mb": 7620,
        "threads": 6,
        "at": "tower-7",
    }
    conditions = {"load": 0.5, "governor": "schedutil", "power_mode": "15W"}
    for step, dice in (("baseline", BASELINE), ("01-int8", INT8)):
        found["rows"].append(measured(step, "tensorrt", 5.0, dice) | {"device": "orin_nano@tower-7"})
        found["rows"][-1]["latency_ms"] |= {"host": facts, "conditions": conditions}
    text = seen(render, found)
    assert text.count("Host of orin_nano@tower-7") == 1
    told = ["NVIDIA Jetson Orin Nano", "7620", "schedutil", "15W", "tower-7", "Intel Xeon"]
    assert [each for each in told if each not in text] == []


@FORMS
def test_power_heat_and_throttling_are_told(render: Any) -> None:
    found, clocks = report(), {"gpu": {"min": 306.0, "mean": 600.0, "most": 625.0}}
    total = {"of": ["VDD_IN"], "what": "the whole module", "mean_w": 7.512, "max_w": 9.1, "idle_w": 4.2}
    soak = {"minutes": 12.0, "settled": True, "warm_p50_ms": 5.5, "warm_p99_ms": 6.25, "cold_p50_ms": 4.5}
    soak |= {"slowest_minute": 9, "slowest_p50_ms": 5.75, "begin_c": 40.0, "end_c": 71.0}
    watch = {"total": total, "energy_mj": 33.75, "energy_above_idle_mj": 14.5, "hottest": "tj", "clocks_mhz": clocks}
    watch |= {"temperatures_c": {"tj": {"begin": 45.9, "end": 51.2, "max": 52.0}}, "throttled": True, "soak": soak}
    watch |= {"throttled_by": ["oc3 (instantaneous over-current)"], "power_mode": "15W", "unknown": {"clocks": "none"}}
    measured = [row for row in found["rows"] if row["status"] == "measured"]
    measured[0]["watch"], measured[1]["watch"] = watch, {"why": "this machine tells no power"}
    measured[2]["latency_ms"]["throttled"] = ["core_throttle_count"]
    text = seen(render, found).replace("\\", "")
    assert "was throttled while it was watched, after the timing (oc3 (instantaneous over-current))" in text
    assert "was throttled while it was timed (core_throttle_count)" in text and "Power and heat" in text
    told = ["33.8", "7.51", "tj 46 to 51, at most 52"]
    if render is not printed:
        told += [
            "gpu 600 of 625",
            "soaked 12 min (the temperature settled): p50 4.50 ms cold, 5.50 ms warm, p99 6.25 ms; slowest minute 9",
        ]
        told += ["not measured: this machine tells no power", "power mode 15W"]
    assert [each for each in told if each not in text] == []


@FORMS
def test_a_number_in_a_row_that_was_not_measured_is_not_shown(render: Any) -> None:
    found = report()
    found["rows"][6]["scores"] = scores({"nerve": (0.1234,) * 3, "vessel": (0.1234,) * 3})
    found["rows"][6]["latency_ms"] = {"p50": 987.6, "p95": 987.6}
    text = seen(render, found)
    assert "0.1234" not in text
    assert "988" not in text


@FORMS
def test_nothing_and_nan_are_no_numbers_and_no_crash(render: Any) -> None:
    found = report()
    found["rows"][1] |= {"latency_ms": None, "parity": {"relative_error": None, "flipped": None}}
    found["rows"][1]["scores"] |= {"dice": math.nan, "hd95": math.nan}
    found["rows"][2] |= {"scores": None, "peak_memory_mb": math.nan}
    found["rows"][4]["scores"]["per_case"]["case_01"]["nerve"] = None
    del found["rows"][4]["scores"]["per_case"]["case_02"]["vessel"]
    found["rows"][4]["dice_drop"]["nerve"] = {"drop": None, "upper": None, "n": 0, "collapsed": 0}
    found["gates"][1] |= {"value": math.nan, "upper": math.nan}
    assert not re.search(r"\bnan\b|\bNone\b", seen(render, found))


@FORMS
def test_a_report_where_nothing_was_measured_can_be_shown(render: Any) -> None:
    found = report()
    found["rows"] = [row("baseline", "torch", status="not measured", reason="out of memory", size_mb=None)]
    assert "out of memory" in render(found)
    assert render(found | {"rows": [], "gates": [], "data": {}, "cases": {}, "host": {}, "versions": {}})


@FORMS
def test_the_same_report_gives_the_same_text(render: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    found = report()
    before, text = copy.deepcopy(found), render(found)
    monkeypatch.setattr("compress.report.html.plots", plots.plots)
    assert text == render(json.loads(json.dumps(found)))
    assert found == before


def test_the_same_overlays_give_the_same_page() -> None:
    assert page(report(), overlay(), overlay("b", 3)) == page(report(), overlay(), overlay("b", 3))


@FORMS
def test_the_verdict_stands_in_words(render: Any) -> None:
    found = report()
    assert "1 of 5 gates fails: dice_drop of nerve on onnxruntime (cpu)" in seen(render, found)
    unsure = found | {"gates": [each for each in found["gates"] if each["verdict"] != "fails"]}
    assert "not a pass" in seen(render, unsure)
    assert "All 2 gates hold" in seen(render, found | {"gates": [found["gates"][0], found["gates"][4]]})
    assert "nothing was judged" in seen(render, found | {"gates": []})


@FORMS
def test_every_gate_shows_its_direction_and_its_word(render: Any) -> None:
    text = seen(render, report())
    assert re.search("(at most|≤) 0.01", text)
    assert re.search("(at least|≥) 2", text)
    for word in ("holds", "fails", "inconclusive"):
        assert word in text


@FORMS
def test_a_gate_on_a_ratio_says_what_it_is_over(render: Any) -> None:
    found = report()
    found["gates"] = [gate("speedup", 1, 0.9, None, "fails", bound="at_least", over="int8_alone")]
    assert seen(render, found).count("speedup over int8_alone") == 2


def test_a_gate_value_is_never_rounded_onto_its_limit() -> None:
    shown = verdicts.in_numbers(gate("dice_drop", 0.01, 0.010004, 0.0099996, "fails"))
    assert shown == ("0.010004", "0.0099996", "at most 0.01")
    assert verdicts.in_numbers(gate("latency_ms", 33, 33.0, None, "holds"))[:2] == ("33.00", "–")


def test_drops_and_speed_ups_are_taken_from_the_right_rows() -> None:
    lines = {(line.step, line.backend, line.device): line for line in compared.lines(report())}
    int8 = lines["01-int8", "openvino", "cpu"]
    nerve, vessel = (0.905 + 0.71) / 2, (0.949 + 0.93) / 3
    assert int8.dice == pytest.approx((nerve + vessel) / 2)
    assert (int8.drop, int8.drop_upper) == (0.3165, 0.9128)
    assert int8.speed_up == pytest.approx(104.2 / 33.87)
    assert int8.over_torch == pytest.approx(182.4 / 33.87)
    assert int8.size_ratio == pytest.approx(31.1 / 7.9)
    # A built engine has a size, and nothing else to compare.
    engine = lines["01-int8", "tensorrt", "rtx_40"]
    assert engine.size_ratio == pytest.approx(31.1 / 7.9)
    assert (engine.speed_up, engine.over_torch, engine.drop) == (None, None, None)


def test_without_a_paired_drop_the_drop_is_the_difference_of_the_means() -> None:
    found = report()
    assert compared.lines(found)[1].drop == 0
    del found["rows"][5]["dice_drop"]
    assert drops.drop_of(found, found["rows"][5], "nerve") == pytest.approx((0.91 + 0.88 - 0.905 - 0.71) / 2)
    assert drops.upper_of(found["rows"][5], "nerve") is None
    assert drops.collapsed_of(found, found["rows"][5], "vessel") == 1


def test_a_case_that_one_network_rightly_leaves_empty_is_still_a_pair() -> None:
    found = report()
    int8 = found["rows"][4]
    assert drops.pairs_of(found, int8, "nerve") == [(0.91, 0.905), (0.88, 0.71)]
    assert drops.pairs_of(found, int8, "vessel") == [(0.95, 0.949), (0.93, 0.93), (1.0, 0.0)]
    assert drops.collapsed_pairs(drops.pairs_of(found, int8, "vessel")) == 1


def test_the_terminal_shows_the_baseline_the_drop_and_its_upper_limit_whole_in_100_columns() -> None:
    text = printed(report())
    assert max(map(len, text.splitlines())) <= 100
    assert "…" not in text
    flat = " ".join(text.split())
    assert "baseline on torch (cpu): mean foreground Dice 0.9175 over 3 test cases." in flat
    for name, drop in DROPS.items():
        assert f"{name} {drop['drop']:+.4f} (upper limit {drop['upper']:.4f}, {drop['n']} cases)" in flat
    assert flat.endswith("1 of 5 gates fails: dice_drop of nerve on onnxruntime (cpu); 2 are inconclusive.")


def test_an_artifact_slower_than_the_baseline_is_called_so() -> None:
    found = report()
    assert "is slower than the baseline" not in printed(found)
    found["rows"][4]["latency_ms"]["p50"] = 10_000.0
    assert "01-int8 on onnxruntime (cpu) is slower than the baseline there" in " ".join(printed(found).split())


def test_a_narrow_terminal_still_gets_every_word() -> None:
    assert "inconclusive" in printed(report(), 80)


def test_large_and_small_numbers_read_well() -> None:
    assert [numbers.amount(value) for value in (None, 0.0, 0.03127, 4.2049, 48.31, 1234.4)] == [
        "–",
        "0",
        "0.0313",
        "4.20",
        "48.3",
        "1234",
    ]
    assert re.search(r"7\.76 M \| 13\.7 G", to_markdown(report()))


def test_long_lists_of_failing_gates_are_cut_short() -> None:
    found = report()
    found["gates"] = [gate(f"gate_{n}", 1, 2, None, "fails") for n in range(5)]
    assert verdicts.conclusion(found).sentence.endswith("gate_2 on onnxruntime (cpu) and 2 more.")


def test_more_classes_than_there_are_colors_still_get_a_panel_and_a_color_each(monkeypatch: pytest.MonkeyPatch) -> None:
    found = report()
    monkeypatch.setattr("compress.report.html.PALETTE", PALETTE[:2])
    names = [f"class {n}" for n in range(4)]
    found["data"]["classes"] = ["background", *names]
    text = Page(page(found, overlay())).text
    assert all(name in text for name in names)


@pytest.mark.parametrize("render", [to_markdown, lambda found: to_html(found, [])], ids=["markdown", "html"])
def test_it_says_on_which_processors_an_answer_holds(render: Any) -> None:
    found = report()
    safe = {"measured_on": "AMX", "same_on": ["AMX", "AVX2"], "differs_on": [], "why": "proven", "expected": None}
    here = {"dice_there": 0.71, "dice_here": 0.9, "cases": 20}
    for each, told in zip(
        found["rows"][4:6],
        (safe, safe | {"same_on": ["AMX"], "differs_on": ["AVX2"], "why": "2 of 9 layers", "expected": here}),
        strict=True,
    ):
        each["processors"] = told
    text = seen(render, found)
    assert "answers alike on AMX and AVX2 (proven)" in text
    assert "may answer otherwise on AVX2: emulated on 20 test cases, mean Dice 0.7100 there and 0.9000 here" in text
    assert "Processors" in text
    assert "Processors" not in seen(render, report())


def test_a_step_that_is_slower_than_the_one_before_is_named_with_the_layers_that_cost_it() -> None:
    found = report()
    found["rows"][-1] |= {"slower": {"than": "02-depthwise", "speed_up": 0.6, "layers": [["up.0", 0.5, 3.25]]}}
    line = compared.lines(found)[-1]
    assert f"{line.title} is slower than 02-depthwise there (0.60x) (most of it in up.0 0.500 to 3.25 ms)." in " ".join(
        slower.slower_sentences(found)
    )


@pytest.mark.parametrize("render", [to_markdown, page], ids=["markdown", "html"])
def test_it_says_when_it_was_made_from_what(render: Any) -> None:
    digest, commit = "0123456789abcdef" * 4, "fedcba98" * 5
    made = {"date": "2026-11-29T21:43:05+00:00", "commit": f"{commit}-dirty"}
    found = report() | {"made": made, "hashes": {"data": digest, "weights": digest[::-1]}}
    found["rows"][4]["sha256"] = {"onnxruntime.onnx": digest}
    text = seen(render, found)
    assert "2026-11-29 21:43 UTC · segpress 0.1.0 · recipe at commit fedcba98fedc with uncommitted changes" in text
    for said in (f"SHA-256 {digest}", f"SHA-256 {digest[::-1]}", f"commit {commit}-dirty", "01-int8/onnxruntime.onnx"):
        assert said in text
    without = seen(render, report() | {"made": {**made, "commit": None}})
    assert "commit" not in without
    assert "SHA-256" not in seen(render, report())


def test_a_step_that_is_hardly_faster_says_what_its_longest_layers_are() -> None:
    found = report()
    layers = [["up.0", 0.5, 0.48, "in float"]]
    found["rows"][-1] |= {"slower": {"than": "02-depthwise", "speed_up": 1.06, "layers": layers}}
    title = compared.lines(found)[-1].title
    said = " ".join(slower.slower_sentences(found))
    assert (
        f"{title} is hardly faster than 02-depthwise there (1.06x) (most of it in up.0 0.500 to 0.480 ms, in float)."
        in said
    )


def test_an_integer_file_larger_than_the_float_one_says_why() -> None:
    found = report()
    assert "larger than the baseline's file" not in " ".join(slower.slower_sentences(found))
    found["rows"][4] |= {"size_mb": 1000.0, "layers": {"integer": 3, "float": 1}}
    assert "01-int8 on onnxruntime (cpu) is larger than the baseline's file there (1000 MB" in " ".join(
        slower.slower_sentences(found)
    )


def test_integers_that_a_runtime_did_not_compute_with_are_told() -> None:
    found = report()
    found["rows"][4] |= {"layers": {"integer": 3, "float": 1}, "executed": {"INT8": 3, "FP32": 1}}
    assert not executed.executed_sentences(found)
    found["rows"][4] |= {"executed": {"FP16": 4}}
    (said,) = executed.executed_sentences(found)
    assert said.startswith(
        "01-int8 on onnxruntime (cpu) has 3 layers in integers and its runtime ran none in them (4 in FP16)"
    )
    assert said in headline.summary(found)


def test_without_torch_drops_are_said_to_be_from_each_runtimes_own_baseline() -> None:
    with_torch, without = report(), report()
    without["rows"] = [each for each in without["rows"] if each["backend"] != "torch"]
    said = to_markdown(without).replace("\\", "")
    assert "Drops are from the baseline on the same backend and device (torch ran on none)" in said
    assert "from the baseline on the same backend" in said and "baseline under torch" not in said
    assert "the same backend and device (torch" not in to_markdown(with_torch)


def test_a_machine_that_is_not_the_host_is_described_with_when_it_was_timed() -> None:
    elsewhere = report()
    row = next(each for each in elsewhere["rows"] if each["latency_ms"])
    row["device"] = "cpu@tower"
    row["latency_ms"] = {
        **row["latency_ms"],
        "host": {"cpu": "Cortex-A78AE", "at": "tower"},
        "when": "2026-01-02T03:04:05Z",
        "conditions": {"governor": "schedutil"},
    }
    said = to_markdown(elsewhere)
    assert "Host of cpu" not in to_markdown(report())
    section = said[said.index("## Host of cpu@tower") :]
    assert all(word in section for word in ("Cortex-A78AE", "2026-01-02T03:04:05Z", "schedutil"))
