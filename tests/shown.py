"""Reports to show, as Markdown, as a page, on the terminal, and what a person reads of them."""

import copy
import functools
import json
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from compress.report import plots
from compress.report.html import to_html
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


def draw_equal_plots_once(monkeypatch: pytest.MonkeyPatch) -> None:
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
