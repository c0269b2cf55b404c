"""What the report says beside overlap: sizes, classes taken for others, subgroups, and what a network is for."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from shared_fixtures import write_recipe
from shown import draw_equal_plots_once, page, report
from whole_run import Done, gone_on

from compress.commands.check import check
from compress.data.dataset.cases import Case
from compress.data.dataset.split import read_split
from compress.data.dataset.subgroups import subgroups
from compress.errors import DataError
from compress.measure.segmentation import FEWEST
from compress.recipe import load
from compress.report.derived import agreement
from compress.report.drawing.agreement import sizes as plot
from compress.report.markdown import to_markdown
from compress.report.tables import tables


def sized(**of_artifact: list[tuple[float, float]]) -> dict[str, Any]:
    """A report in which the nerve of each case has these true and answered sizes on a runtime."""
    found = report()
    for row in found["rows"]:
        pairs = of_artifact.get(row["backend"])
        if row["scores"] is None or pairs is None:
            continue
        nothing = {"vessel": {"dice": None, "sizes": [0, 0]}}
        row["scores"]["per_case"] = {
            f"case_{place}": {"nerve": {"dice": 0.9, "sizes": list(pair)}, **nothing}
            for place, pair in enumerate(pairs)
        }
    return found


def named(found: dict[str, Any], title: str) -> list[tuple[str, ...]]:
    """The rows of a table; none where the report has no such table."""
    return [row for table in tables(found) if table.title == title for row in table.rows]


def test_sizes_are_told_with_bias_and_limits_of_agreement() -> None:
    found = sized(torch=[(100, 110), (200, 220), (0, 0)], onnxruntime=[(100, 90), (200, 180), (0, 0)])
    found["data"]["sizes_in"] = "mm²"
    rows = {(row[0], row[1]): row[2:] for row in named(found, "Sizes")}
    # Differences of 10 and 20 have a deviation of the square root of 50; where there is no nerve, nothing is measured.
    assert rows["nerve", "baseline on torch"] == ("2", "150 mm²", "+15.0 mm²", "+10.0", "+1.14 to +28.9")
    assert rows["nerve", "01-int8 on onnxruntime (cpu)"] == ("2", "150 mm²", "-15.0 mm²", "-10.0", "-28.9 to -1.14")
    assert not [key for key in rows if key[0] == "vessel"]


def test_a_single_case_has_no_limits_and_an_older_report_no_sizes() -> None:
    (one,) = {row[-1] for row in named(sized(torch=[(5, 6)]), "Sizes")}
    assert one == "–"
    assert not named(report(), "Sizes") and not named(report(), "Which class was taken for which")
    assert not named(report(), "Subgroups") and plot(report()) is None


def test_sizes_are_drawn_where_there_are_cases_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    draw_equal_plots_once(monkeypatch)
    pairs = [(float(size), size * 1.1) for size in range(10, 10 + FEWEST)]
    assert plot(sized(torch=pairs[1:])) is None
    drawing = str(plot(sized(torch=pairs, onnxruntime=pairs)))
    assert drawing.count('<div class="panel">') == 1 and "01-int8 on onnxruntime (cpu): bias +2.45" in drawing
    assert "How large, in answers and in truth" in page(sized(torch=pairs))


def test_it_is_told_which_class_was_taken_for_which() -> None:
    found = report()
    found["rows"][0]["scores"]["confusion"] = [[90.0, 10.0, 0.0], [5.0, 15.0, 0.0], [0.0, 0.0, 0.0]]
    assert named(found, "Which class was taken for which") == [
        ("baseline on torch", "background", "100", "90.00", "10.00", "0.00"),
        ("baseline on torch", "nerve", "20", "25.00", "75.00", "0.00"),
        ("baseline on torch", "vessel", "0", "–", "–", "–"),
    ]
    found["data"]["classes"] = [f"class {place}" for place in range(agreement.MOST_CLASSES + 1)]
    assert not named(found, "Which class was taken for which"), "as many columns are read by nobody"


def test_each_subgroup_has_its_own_drop() -> None:
    found = report()
    found["data"]["subgroups"] = {"site": {"A": ["case_01"], "B": ["case_02", "case_03"]}}
    rows = {(row[1], row[2]): row[3:] for row in named(found, "Subgroups")}
    cases, before, after, lost = rows["A", "01-int8 on openvino (cpu)"]
    assert (cases, before, after) == ("1", "0.9300", "0.9270") and lost.startswith("+0.0030")
    assert rows["B", "01-int8 on openvino (cpu)"][0] == "2"
    assert "Subgroups" in to_markdown(found)


def test_what_a_network_is_for_stands_in_every_form_and_is_no_markup() -> None:
    found = report()
    found["recipe"]["about"] = {"intended_use": "Nerves <b>only</b>.", "limits": ["Not for children.", "One make."]}
    for text in (page(found), to_markdown(found).partition("## Recipe")[0]):
        assert text.index("Intended use") < text.index("Not for children.") < text.index("Gates")
        assert "<b>only" not in text and "Contact" not in text


# Where subgroups come from


def with_columns(root: Path, table: Path, **columns: list[str]) -> None:
    """A split.csv with more columns, whose values come again and again."""
    with (root / "split.csv").open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    for place, row in enumerate(rows):
        row |= {name: values[place % len(values)] for name, values in columns.items()}
    with table.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def test_cases_are_told_apart_by_columns_of_the_split(folder: Path, tmp_path: Path) -> None:
    with_columns(folder, tmp_path / "split.csv", site=["B", " A ", ""], age=[str(number) for number in range(50)])
    cases = read_split(folder, tmp_path / "split.csv")["test"]
    assert cases == read_split(folder)["test"], "what else is told of a case changes nothing"
    found = subgroups(cases, ["site"])["site"]
    assert list(found) == ["A", "B", "not given"]
    assert sorted(name for names in found.values() for name in names) == sorted(case.name for case in cases)
    with pytest.raises(DataError, match="no column 'sex'; it has site, age"):
        subgroups(cases, ["sex"])
    with pytest.raises(DataError, match=f"'age' has {len(cases)} values in the test cases, more than 20"):
        subgroups(cases, ["age"])
    with pytest.raises(DataError, match="it has none but image, mask, split and patient"):
        subgroups([Case(name="a", image=Path("a"), mask=Path("b"))], ["site"])


def test_a_run_tells_them_apart_without_doing_anything_again(done: Done, tmp_path: Path) -> None:
    root = Path(done[1]["recipe"]["data"]["folder"]["root"])
    with_columns(root, tmp_path / "split.csv", site=["A", "B"])
    data = {"folder": {**done[1]["recipe"]["data"]["folder"], "table": str(tmp_path / "split.csv")}}
    found = gone_on(done, tmp_path, data=data, scoring={"subgroups": ["site"]}, about={"intended_use": "Squares."})
    told = json.loads((tmp_path / "out" / "report.json").read_text())
    assert set(told["data"]["subgroups"]["site"]) == {"A", "B"} and told["recipe"]["about"] == {
        "intended_use": "Squares."
    }
    assert {row[1] for row in named(found.as_dict(), "Subgroups")} == {"A", "B"}
    log = (tmp_path / "out" / "log.txt").read_text().splitlines()
    begun = max(place for place, line in enumerate(log) if "segpress" in line)
    assert not any("built for" in line or "mean foreground Dice" in line for line in log[begun:])


def test_a_column_that_is_not_there_is_found_before_a_run(tmp_path: Path, recipe: dict[str, Any]) -> None:
    recipe["scoring"] = {"subgroups": ["sex"]}
    found = check(load(write_recipe(tmp_path, recipe)), lambda _: None)
    assert any("scoring subgroups: the split has no column 'sex'" in mistake for mistake in found.mistakes)
