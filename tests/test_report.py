"""The report as Markdown, HTML and terminal text."""

import copy
import functools
import json
import math
import re
from html.parser import HTMLParser
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from compress.report import plots
from compress.report.derived import compared, drops, executed, headline, numbers, slower, verdicts
from compress.report.drawing.waterfall import _apart
from compress.report.html import PALETTE, to_html
from compress.report.markdown import to_markdown
from compress.report.report import Overlay
from compress.report.terminal import show

CASES = ("case_01", "case_02", "case_03")
METRICS = ("dice", "iou", "hd95", "nsd", "precision", "recall")
# In the last case there is no nerve; there is no vessel either, and int8 sees one.
BASELINE = {"nerve": (0.91, 0.88, None), "vessel": (0.95, 0.93, None)}
INT8 = {"nerve": (0.905, 0.71, None), "vessel": (0.949, 0.93, 0.0)}
DROPS = {
    "mean": {"drop": 0.3165, "upper": 0.9128, "n": 3, "collapsed": 1},
    "nerve": {"drop": 0.0875, "upper": 0.164, "n": 2, "collapsed": 1},
    "vessel": {"drop": 0.3337, "upper": 0.9912, "n": 3, "collapsed": 1},
}


def scores(dice: dict[str, tuple[float | None, ...]]) -> dict[str, Any]:
    """`Scores.as_dict()` for these values of Dice, the other metrics following from them."""

    def metrics(value: float | None) -> dict[str, Any]:
        if value is None:
            return dict.fromkeys(METRICS)
        near = {"dice": value, "iou": value / (2 - value), "hd95": 10 * (1 - value), "nsd": value}
        return near | {"precision": value, "recall": value}

    def mean(values: Any) -> float | None:
        defined = [value for value in values if value is not None]
        return sum(defined) / len(defined) if defined else None

    per_class = {
        name: metrics(mean(values)) | {"absent": values.count(None), "false_alarms": 0} for name, values in dice.items()
    }
    per_case = {case: {name: metrics(values[n]) for name, values in dice.items()} for n, case in enumerate(CASES)}
    return metrics(mean(each["dice"] for each in per_class.values())) | {"per_class": per_class, "per_case": per_case}


def row(step: str, backend: str, device: str = "cpu", **more: Any) -> dict[str, Any]:
    small = step != "baseline"
    empty = dict.fromkeys(
        ("reason", "artifact", "size_mb", "scores", "latency_ms", "peak_memory_mb", "parity", "layers")
    )
    known = {"step": step, "backend": backend, "device": device, "params": 7_760_130, "macs": 13_650_000_000}
    return (
        empty
        | known
        | {"status": "measured", "flags": {"threads": 2, "opset": 20}, "size_mb": 7.9 if small else 31.1}
        | more
    )


def measured(step: str, backend: str, p50: float, dice: dict[str, tuple[float | None, ...]]) -> dict[str, Any]:
    latency = {"p50": p50, "p90": p50 * 1.08, "p95": p50 * 1.12, "p99": p50 * 1.3, "max": p50 * 1.6}
    latency |= {"n": 60, "end_to_end_p50": p50 + 4.2, "screening": True, "settled": True}
    parity = {"relative_error": 2.3e-6, "flipped": 0.00013, "cases": 3}
    layers = {"integer": 17, "float": 2} if step != "baseline" else {"integer": 0, "float": 19}
    return row(
        step,
        backend,
        scores=scores(dice),
        dice_drop=copy.deepcopy(DROPS) if dice is INT8 else None,
        latency_ms=latency,
        peak_memory_mb=212.5,
        parity=None if backend == "torch" else parity,
        layers=layers,
        artifact=f"{step}/{backend}.onnx",
    )


def gate(
    name: str, limit: float, value: float | None, upper: float | None, verdict: str, **more: Any
) -> dict[str, Any]:
    known = {"name": name, "limit": limit, "value": value, "upper": upper, "verdict": verdict, "bound": "at_most"}
    return {**known, "device": "cpu", "backend": "onnxruntime", "class": None, "reason": "", **more}


def report() -> dict[str, Any]:
    """Two classes, three cases, and every state that a row and a gate can have."""
    no_driver = {"status": "built", "reason": "no NVIDIA driver"}
    return {
        "name": "unet-int8",
        "seed": 7,
        "recipe": {"name": "unet-int8", "passes": [{"int8": {"calibrate": 64}}]},
        "versions": {"segpress": "0.1.0", "torch": "2.13.0"},
        "host": {"cpu": "Intel Xeon", "cpus": 2, "load": [0.5, 0.4], "throttled": False, "temperature": None},
        "cases": {"train": 400, "calibration": 64, "val": 40, "test": 3},
        "data": {
            "source": "phantom, seed 0",
            "classes": ["background", "nerve", "vessel"],
            "unit": "mm",
            "roles": {
                "test": "Scores every artifact; nothing was chosen on them.",
                "calibration": "Sets the int8 ranges.",
            },
            "independent": "case",
            "test_looks": 1,
        },
        "rows": [
            measured("baseline", "torch", 182.4, BASELINE),
            measured("baseline", "onnxruntime", 121.7, BASELINE),
            measured("baseline", "openvino", 104.2, BASELINE),
            row("baseline", "tensorrt", "rtx_40", **no_driver),
            measured("01-int8", "onnxruntime", 48.31, INT8),
            measured("01-int8", "openvino", 33.87, INT8),
            row("01-int8", "tensorrt", "rtx_40", **no_driver),
            row(
                "01-int8",
                "tensorrt",
                "orin_nano",
                status="not measured",
                reason="its engines are built on the device itself, which was not reached",
                size_mb=None,
            ),
        ],
        "gates": [
            gate("size_mb", 10, 7.9, None, "holds"),
            gate("dice_drop", 0.01, 0.0875, 0.164, "fails", **{"class": "nerve"}, reason="the drop is past the limit"),
            gate(
                "hd95_rise",
                0.5,
                0.21,
                0.73,
                "inconclusive",
                **{"class": "vessel"},
                reason="only 3 cases; 30 are needed",
            ),
            gate(
                "latency_ms", 5, None, None, "inconclusive", backend="tensorrt", device="rtx_40", reason="not measured"
            ),
            gate("speedup", 2, 2.52, None, "holds", bound="at_least"),
        ],
    }


def drop(mean: float) -> dict[str, Any]:
    one = {"drop": mean, "lower": mean - 0.004, "upper": mean + 0.004, "n": 3, "collapsed": 0}
    return {"mean": one, "nerve": one, "vessel": one}


def waterfall() -> dict[str, Any]:
    """A report of three passes, beside int8 alone, on three runtimes of which one could only build."""
    chain = [
        # name, chain, parameters, MACs, bits, times faster, times smaller, Dice lost, in this step, notes
        ("baseline", None, 31_000_000, 48_000_000_000, 32, 1, 1, 0.0, 0.0, []),
        ("01-prune", None, 5_000_000, 6_000_000_000, 32, 4, 6, 0.012, 0.012, ["kept head: its channels are classes"]),
        ("02-distill", None, 5_000_000, 6_000_000_000, 32, 4, 6, 0.003, -0.009, []),
        ("03-int8", None, 5_000_000, 6_000_000_000, 8, 10, 24, 0.004, 0.001, ["head <stays> in float", "[two] ranges"]),
        ("int8_alone", "int8_alone", 31_000_000, 48_000_000_000, 8, 3, 4, 0.001, 0.001, []),
    ]
    steps, rows = [], []
    for name, title, params, macs, bits, faster, smaller, lost, here, notes in chain:
        word = name.partition("-")[2] or "int8"
        steps.append(
            {"step": name, "chain": title, "word": word, "options": {"ratio": 0.5} if word == "prune" else {}}
            | {"params": params, "macs": macs, "seconds": 245.0 if word == "distill" else 3.24, "notes": notes}
        )
        size = {"params": params, "macs": macs, "bit_operations": macs * bits, "size_mb": 124 / smaller}
        for backend, whole in (("torch", 457), ("onnxruntime", 314), ("openvino", 298)):
            if backend != "torch" or bits == 32:
                more = {"dice_drop": drop(lost), "step_drop": drop(here)} if name != "baseline" else {}
                rows.append(measured(name, backend, whole / faster, BASELINE) | size | more)
        rows.append(row(name, "tensorrt", "rtx_40", status="built", reason="no NVIDIA driver") | size)
    # As a run has them: the chain beside goes before the recipe's own steps.
    rows.sort(key=lambda each: ["baseline", "int8_alone", "01-prune", "02-distill", "03-int8"].index(each["step"]))
    return report() | {"steps": steps, "rows": rows}


def overlay(name: str = "case_02", channels: int = 1) -> Overlay:
    image = np.random.default_rng(0).integers(0, 255, (32, 40, channels), np.uint8)
    truth = np.zeros((32, 40), np.uint8)
    truth[4:20, 0:14], truth[22:30, 25:33] = 1, 2
    # Pixels that the truth leaves out, and an answer that misses a class.
    truth[:, 38:] = 255
    return Overlay(
        case=name,
        image_HWC=image,
        truth_HW=truth,
        before_HW=np.where(truth == 255, 0, truth).astype(np.uint8),
        after_HW=np.where(truth == 1, truth, 0).astype(np.uint8),
        dice_before=0.905,
        dice_after=0.71,
        after="01-int8 on openvino",
    )


@functools.cache
def drawn(text: str) -> Any:
    return plots.plots(json.loads(text))


@pytest.fixture(autouse=True)
def equal_plots_are_drawn_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes most of a page's time, and most pages here differ in words alone."""

    def kept(of: dict[str, Any]) -> Any:
        shown = {key: value for key, value in of.items() if key not in ("gates", "made", "hashes")}
        unseen = ("sha256", "processors", "slower", "parity", "peak_memory_mb")
        shown["rows"] = [{key: value for key, value in row.items() if key not in unseen} for row in of["rows"]]
        return drawn(json.dumps(shown))

    monkeypatch.setattr("compress.report.html.plots", kept)


def page(of: dict[str, Any], *overlays: Overlay) -> str:
    return to_html(of, overlays)


def printed(of: dict[str, Any], width: int = 100) -> str:
    console = Console(width=width)
    with console.capture() as capture:
        show(of, console)
    return capture.get()


def seen(render: Any, of: dict[str, Any]) -> str:
    """What a person reads of it, with line breaks and runs of spaces as one space."""
    text = render(of)
    return " ".join((Page(text).text if render is page else text).split())


FORMS = pytest.mark.parametrize("render", [to_markdown, page, printed])


class Page(HTMLParser):
    """Tags, references and text of a page; checks that every tag is closed."""

    VOID = ("meta", "br", "hr", "img", "link")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.references: list[str] = []
        self.ids: list[str] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.references += [value or "" for key, value in attrs if key in ("href", "src", "xlink:href", "action")]
        self.ids += [value or "" for key, value in attrs if key == "id"]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


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


# The waterfall


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
