"""The report as a browser lays it out: on a phone, on a desk, on paper. Skipped where there is no Chromium."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from shown import overlay, page, report, row, waterfall

from compress.report.outputs import Outputs
from compress.report.pdf import BROWSERS

BROWSER = next(filter(None, map(shutil.which, BROWSERS)), None)
PAPER = {"upright": 703, "on_its_side": 1046}
"""What is left of A4's 210 and 297 mm between margins of 12 and 10 mm, in CSS pixels."""
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars")

pytestmark = pytest.mark.skipif(BROWSER is None, reason=f"no Chromium here (looked for {', '.join(BROWSERS)})")

# Runs beside the report, which has no script itself: its policy forbids them.
MEASURE = """
<pre id="found"></pre>
<script>
addEventListener("load", () => {
  const found = {};
  for (const frame of document.querySelectorAll("iframe")) {
    const page = frame.contentDocument, wide = frame.clientWidth, cut = [];
    for (const each of page.querySelectorAll("td, h1, h2, h3, li, p, svg, pre, figcaption span, .badge, dd")) {
      const box = each.getBoundingClientRect();
      if (box.width && (box.right > wide + 1 || box.left < -1)) cut.push(each.textContent.trim().slice(0, 60));
    }
    const scrolled = [...page.querySelectorAll(".scroll")].filter(each => each.scrollWidth > each.clientWidth + 1);
    const rows = [...page.querySelectorAll("details td")];
    found[frame.id] = {
      width: page.documentElement.scrollWidth, cut, scrolled: scrolled.map(each => each.ariaLabel),
      folded: rows.filter(each => !each.checkVisibility({contentVisibilityAuto: true})).length, rows: rows.length,
    };
    found[frame.id].shown = rows.length - found[frame.id].folded;
  }
  document.getElementById("found").textContent = JSON.stringify(found);
});
</script>
"""


def hard() -> dict[str, Any]:
    """A report with everything that is long: names, hashes, paths, a sentence of a reason, many backends."""
    found = waterfall()
    digest = "0123456789abcdef" * 4
    for each in found["rows"]:
        each["artifact"] = f"artifacts/{each['step']}/{each['backend']}_with_quite_a_long_name_that_somebody_chose.onnx"
        each["sha256"] = {each["artifact"].rpartition("/")[2]: digest}
    found["rows"].append(row("03-int8", "tensorrt", "orin_nano", status="not measured", reason="not reached " * 9))
    found["data"]["source"] = "/data/" + "a_long_folder_name/" * 6
    found["gates"][0]["reason"] = "release, 149 cases: " + "the upper limit is not under the margin; " * 4
    cases = next(each["scores"]["per_case"] for each in found["rows"] if each["scores"])
    found["data"] |= {"sizes_in": "mm²", "subgroups": {"device": {"a machine of a long name " * 3: list(cases)}}}
    for scores in (each["scores"] for each in found["rows"] if each["scores"]):
        scores["confusion"] = [[9e9, 1.0, 0.0], [5.0, 15e6, 0.0], [0.0, 0.0, 0.0]]
        for case in scores["per_case"].values():
            case["nerve"]["sizes"] = [123456.7, 234567.8]
    found["recipe"]["about"] = {"intended_use": "To show what lies there. " * 9, "limits": ["/a/long/path/" * 12]}
    text = json.dumps(found).replace('"nerve"', '"a nerve of a rather long name"')
    made = {"date": "2026-11-29T21:43:05+00:00", "commit": f"{digest[:40]}-dirty"}
    return {**json.loads(text), "made": made, "hashes": {"data": digest, "weights": digest}}


def on_paper(text: str, wide: bool) -> str:
    """The page with its print rules in force on the screen, and those of a narrow screen not.

    Args:
        wide: shows what is printed on pages that lie on their side, else all the rest.
    """
    hidden = "main > :not(.landscape)" if wide else ".landscape"
    printed = text.replace("@media print {", "@media screen {").replace(
        "@media screen and (max-width", "@media print and (max-width"
    )
    return printed.replace("</style>", f"{hidden} {{ display: none !important; }}</style>")


def browse(place: Path, *words: str) -> str:
    assert BROWSER is not None
    done = subprocess.run(
        [BROWSER, *FLAGS, f"--user-data-dir={place / 'profile'}", *words],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    return done.stdout


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the browser says of each page at each width, all in one go."""
    place = tmp_path_factory.mktemp("browser")
    pages = {"usual": page(report(), overlay(), overlay("b", 3)), "hard": page(hard(), overlay("c" * 60))}
    frames = [(f"{name}-{width}", width, text) for name, text in pages.items() for width in (420, 1200)]
    for way, width in PAPER.items():
        frames += [(f"{name}-{way}", width, on_paper(text, way != "upright")) for name, text in pages.items()]
    harness = "".join(
        f'<iframe id="{name}" style="border:0;width:{width}px;height:900px" srcdoc="{html.escape(text)}"></iframe>'
        for name, width, text in frames
    )
    (place / "harness.html").write_text(f"<!DOCTYPE html><body>{harness}{MEASURE}</body>")
    dom = browse(place, "--dump-dom", "--virtual-time-budget=20000", (place / "harness.html").as_uri())
    told = re.search(r'<pre id="found">(.+?)</pre>', dom, re.S)
    assert told is not None
    return json.loads(html.unescape(told[1]))  # type: ignore[no-any-return]


@pytest.mark.parametrize("name", ["usual", "hard"])
@pytest.mark.parametrize("width", [420, 1200])
def test_a_page_is_never_wider_than_its_window(measured: dict[str, Any], name: str, width: int) -> None:
    assert measured[f"{name}-{width}"]["width"] <= width


@pytest.mark.parametrize("name", ["usual", "hard"])
def test_on_a_phone_no_table_has_a_column_that_must_be_scrolled_to(measured: dict[str, Any], name: str) -> None:
    found = measured[f"{name}-420"]
    assert (found["cut"], found["scrolled"]) == ([], [])


@pytest.mark.parametrize("name", ["usual", "hard"])
@pytest.mark.parametrize("way", PAPER)
def test_on_paper_nothing_is_cut_off_or_folded_away(measured: dict[str, Any], name: str, way: str) -> None:
    found = measured[f"{name}-{way}"]
    assert found["width"] <= PAPER[way]
    assert (found["cut"], found["scrolled"]) == ([], [])
    assert found["shown"] > 0
    hidden = sum(measured[f"{name}-{each}"]["folded"] for each in PAPER)
    assert hidden == found["rows"], "each cell is on one of the two kinds of pages"
    assert measured[f"{name}-1200"]["folded"] > 0, "on the screen, details are folded until they are asked for"


@pytest.mark.slow
def test_printed_the_report_is_on_a4_and_has_every_word(tmp_path: Path) -> None:
    pypdf = pytest.importorskip("pypdf", reason="pypdf reads the printed pages: pip install 'segpress[dev]'")
    (tmp_path / "report.html").write_text(page(hard(), overlay(), overlay("b")))
    browse(
        tmp_path,
        "--no-pdf-header-footer",
        f"--print-to-pdf={tmp_path / 'report.pdf'}",
        (tmp_path / "report.html").as_uri(),
    )
    pages = pypdf.PdfReader(tmp_path / "report.pdf").pages
    sides = {tuple(sorted(round(float(side) / 72 * 25.4) for side in each.mediabox[2:])) for each in pages}
    assert sides == {(210, 297)}
    text = "".join("".join(each.extract_text().split()) for each in pages)
    for said in ("kept head: its channels are classes", "0123456789abcdef" * 4, '"calibrate": 64', "false alarms"):
        assert "".join(said.split()) in text, said


def test_a_report_is_printed_where_that_is_asked_for(tmp_path: Path) -> None:
    (tmp_path / "report.html").write_text(page(report()))
    outputs = Outputs(pdf=tmp_path / "to" / "report.pdf")
    outputs.begin()
    outputs.write({}, folder=tmp_path)
    assert (tmp_path / "to" / "report.pdf").read_bytes().startswith(b"%PDF-")
