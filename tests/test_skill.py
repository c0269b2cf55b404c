"""A baseline that cannot do its task: refused before any pass, told in the report, and no gate on its drop holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from judged import row, ruled, scores, verdict
from PIL import Image
from shared_fixtures import SIZE, write_folder, write_recipe
from torch import nn

from compress.commands.run import run
from compress.data.dataset.cases import Role
from compress.data.dataset.faults import Look
from compress.data.dataset.oddities import oddities
from compress.data.folder import Folder
from compress.errors import DataError, RecipeError
from compress.measure.segmentation import score_case, scores_of
from compress.measure.skill import REASONS, lacking
from compress.pipeline.baseline_skill import refuse_without
from compress.recipe import load, schema
from compress.report.derived.headline import baseline_sentence
from compress.report.derived.verdicts import conclusion
from compress.task import Task

DROPS = ("dice_drop", "iou_drop", "hd95_rise")


def gate(name: str, before: Any, after: Any, **options: Any) -> Any:
    rows = row("baseline", "torch", scores=scores(before)), row("01-int8", scores=scores(after))
    return verdict((name, options), *rows)


@pytest.mark.parametrize("name", DROPS)
@pytest.mark.parametrize("dice", [0.0, 0.04])
def test_no_drop_holds_over_a_baseline_that_finds_nothing(name: str, dice: float) -> None:
    found = gate(name, np.full(200, dice), np.full(200, dice), at_most=1)
    assert found.verdict == "inconclusive"
    assert found.reason.startswith(f"the baseline has no skill: its Dice is {dice:.4f}; check its normalization")
    assert gate(name, np.full(200, 0.9), np.full(200, 0.9), at_most=1).verdict == "holds"


def test_one_class_without_skill_leaves_the_others_their_verdict() -> None:
    dice = np.tile([0.9, 0.0], (200, 1))
    rows = [row(step, "torch", scores=scores(dice, ("nerve", "vessel"))) for step in ("baseline", "01-int8")]
    found = ruled(("dice_drop", {"at_most": 0.01}), *rows)
    assert [each.verdict for each in found] == ["holds", "inconclusive"]


def of_answers(answer_HW: np.ndarray, truths: list[np.ndarray]) -> Any:
    scored = [score_case(answer_HW, truth, classes=2, ruler=None) for truth in truths]
    return scores_of([(str(n), str(n)) for n in range(len(truths))], scored, ("nerve",))


@pytest.mark.parametrize("share", [0.2, 0.6, 0.95])
def test_a_network_that_marks_nearly_everything_has_no_skill_however_large_the_class(share: float) -> None:
    rng = np.random.default_rng(0)
    truths = [(rng.random((40, 40)) < share).astype(np.uint8) for _ in range(4)]
    everything, most = np.ones((40, 40), np.uint8), np.ones((40, 40), np.uint8)
    most[0] = 0
    for answer_HW in (everything, most):
        reason = lacking(of_answers(answer_HW, truths), "nerve")
        assert reason is not None
        assert "and marking every pixel has" in reason
    good = of_answers(truths[0], [truths[0]] * 3)
    assert lacking(good, "nerve") is None


def test_a_class_that_no_test_case_has_is_inconclusive() -> None:
    assert gate("dice_drop", np.full(200, np.nan), np.full(200, np.nan), at_most=1).verdict == "inconclusive"
    assert lacking(scores(np.full(9, np.nan)), "nerve") is None


# The gate on the baseline itself


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"dice": {"at_least": 0.7}}, [("nerve", "holds"), ("vessel", "fails")]),
        ({"dice": {"at_least": 0.7}, "class": "nerve"}, [("nerve", "holds")]),
        ({"dice": {"at_least": 0.5}}, [("nerve", "holds"), ("vessel", "holds")]),
        ({"dice": {"at_least": 0.5}, "class": "bone"}, [("bone", "inconclusive")]),
    ],
)
def test_the_baselines_own_dice_is_judged_once_for_each_class(
    options: dict[str, Any], expected: list[tuple[str, str]]
) -> None:
    before, after = np.tile([0.9, 0.6], (3, 1)), np.tile([0.1, 0.1], (3, 1))
    rows = [
        *(row("baseline", backend, scores=scores(before, ("nerve", "vessel"))) for backend in ("torch", "openvino")),
        *(row("01-int8", backend, scores=scores(after, ("nerve", "vessel"))) for backend in ("torch", "openvino")),
    ]
    found = ruled(("baseline", options), *rows)
    assert [(each.class_name, each.verdict) for each in found] == expected
    assert {(each.name, each.backend, each.bound) for each in found} == {("baseline dice", "torch", "at_least")}


def test_a_baseline_that_was_not_measured_or_lacks_the_class_does_not_hold() -> None:
    gate = ("baseline", {"dice": {"at_least": 0.1}})
    absent = verdict(gate, row("01-int8", scores=scores([0.9])))
    assert (absent.verdict, absent.reason) == ("inconclusive", "not measured: the baseline has no scores")
    nothing = verdict(gate, row("baseline", "torch", scores=scores([np.nan])))
    assert (nothing.verdict, nothing.reason) == ("inconclusive", "no test case has this class")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("{dice: {at_leest: 0.7}}", "no option 'dice.at_leest'; did you mean 'at_least'?"),
        ("{dice: {at_least: 7}}", "gates[0] (baseline): dice.at_least: 7: input should be less than or equal to 1"),
        ("{at_least: 0.7}", "gates[0] (baseline): no option 'at_least'; there are class, dice"),
        ("{}", "gates[0] (baseline): lacks the option 'dice'"),
        ("{dice: 0.7}", "gates[0] (baseline): dice: 0.7: "),
    ],
)
def test_a_mistake_in_the_gate_is_told_with_its_place(tmp_path: Path, options: str, said: str) -> None:
    recipe = tmp_path / "recipe.yaml"
    text = "network: {unet: {classes: 3}}\ndata: {folder: {root: x}}\ngates: [{baseline: %s}]\n"
    recipe.write_text(text % options)
    with pytest.raises(RecipeError) as caught:
        load(recipe)
    assert said in str(caught.value)
    recipe.write_text(text % "{dice: {at_least: 0.7}, class: nerve}")
    ((name, gate),) = load(recipe).gates
    assert (name, gate.bound.limit, gate.class_name) == ("baseline", 0.7, "nerve")


def test_the_schema_has_the_gate() -> None:
    kinds = schema()["properties"]["gates"]["items"]["anyOf"]
    (options,) = (kind["properties"]["baseline"] for kind in kinds if "baseline" in kind["properties"])
    assert set(options["properties"]) == {"dice", "class"}


# At the door


class Says(nn.Module):
    """A network that calls every pixel what its one pixel is, by the threshold 0."""

    def __init__(self, classes: int, always: int) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.full((classes,), -1.0))
        self.bias.data[always if classes > 1 else 0] = 2.0 * always - 1

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.bias.reshape(1, -1, 1, 1) + 0 * image[:, :1]


def task_of(folder: Path, net: nn.Module, classes: int, **options: Any) -> Task:
    made = Folder(root=folder, size=(SIZE, SIZE), calibration=0, **options)
    return Task(data=made(channels=1, classes=classes), net=net.eval(), seed=0)


@pytest.mark.parametrize("classes", [1, 3])
def test_a_baseline_that_finds_nothing_is_refused_before_any_pass(folder: Path, classes: int) -> None:
    masks = {1: 1, 2: 1} if classes == 1 else None
    task = task_of(folder, Says(classes, 0), classes, masks=masks)
    with pytest.raises(DataError) as caught:
        refuse_without(task, True, print)
    said = str(caught.value)
    assert "the baseline's Dice is 0 on all of 12 test cases with foreground" in said
    assert REASONS in said
    assert ("give postprocess: [threshold: {at: t}]" in said) == (classes == 1)
    lines: list[str] = []
    refuse_without(task, False, lines.append)
    assert len(lines) == 1, "where no gate reads it, it is told"
    with pytest.raises(DataError, match=r"fit other cases' masks .* as well as their own"):
        refuse_without(task_of(folder, Says(classes, 1), classes, masks=masks), True, lines.append)
    assert len(lines) == 1, "one case with a Dice above 0 is enough to go on to what its answers fit"


@pytest.mark.parametrize(("gates", "judged"), [([{"dice_drop": {"at_most": 0.5}}], True), ([], False)])
def test_a_run_looks_at_its_baseline_before_any_pass(
    recipe: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gates: list[Any], judged: bool
) -> None:
    def refuse(task: Task, asked: bool, log: Any) -> None:
        assert asked == judged
        raise DataError("finds nothing")

    monkeypatch.setattr("compress.commands.run.refuse_without", refuse)
    recipe["gates"] = gates
    with pytest.raises(DataError, match="finds nothing"):
        run(load(write_recipe(tmp_path, recipe)), tmp_path / "out", say=lambda _: None)
    assert not (tmp_path / "out" / "steps").exists()


# What is odd in the data


def spoilt(tmp_path: Path, *names: str, value: int = 0, part: str = "images") -> Path:
    root = write_folder(tmp_path / "data", {"train": 2, "calibration": 2, "val": 1, "test": 3})
    for name in names:
        Image.fromarray(np.full((SIZE, SIZE), value, np.uint8)).save(root / part / f"{name}.png")
    return root


@pytest.mark.parametrize("role", ["train", "calibration", "test"])
def test_images_of_one_value_are_named_and_where_all_are_refused(tmp_path: Path, role: str) -> None:
    root = spoilt(tmp_path, f"{role}_000", value=7)
    notes = task_of(root, Says(3, 0), 3).check()
    count = 3 if role == "test" else 2
    assert notes == [f"1 of {count} {role} images are of one value (all black?): {role}_000.png"]
    root = spoilt(tmp_path, *(f"{role}_{number:03d}" for number in range(count)))
    with pytest.raises(
        DataError, match=rf"all {count} {role} images are of one value .*the first is .*{role}_000\.png"
    ):
        task_of(root, Says(3, 0), 3).check()


def test_a_test_split_without_foreground_is_refused_and_a_class_it_lacks_is_told(tmp_path: Path) -> None:
    root = spoilt(tmp_path, "test_000", "test_001", "test_002", value=1, part="masks")
    assert task_of(root, Says(3, 0), 3).check() == [
        "no test case has the class 'class 2': nothing can be said of its drop"
    ]
    with pytest.raises(DataError, match="no test case has a foreground pixel once 1 is ignored, so no Dice"):
        task_of(root, Says(3, 0), 3, ignore=1).check()
    root = spoilt(tmp_path, "test_000", "test_001", "test_002", value=0, part="masks")
    with pytest.raises(DataError, match="no test case has a foreground pixel, so no Dice can be measured"):
        task_of(root, Says(3, 0), 3).check()


@pytest.mark.parametrize(
    ("role", "named", "means"),
    [
        ("val", "validation", "what is chosen by these cases says nothing of it"),
        ("train", "train", "nothing is learnt of it"),
    ],
)
def test_what_other_roles_lack_is_told(tmp_path: Path, role: Role, named: str, means: str) -> None:
    data = task_of(spoilt(tmp_path, "nothing", value=1, part="masks"), Says(3, 0), 3).data
    looked = {kind: [(each, Look(values=frozenset({0, 1}))) for each in data.cases["test"]] for kind in (role,)}
    assert oddities(data, looked) == [f"no {named} case has the class 'class 2': {means}"]
    looked = {role: [(each, Look(values=frozenset({0}))) for each, _ in looked[role]]}
    assert oddities(data, looked) == [f"no {named} case has a foreground pixel: {means}"]


# In the report


def report_of(dice: float, logits: int) -> dict[str, Any]:
    scored = scores(np.full(200, dice))
    rows = [
        {"step": step, "backend": "torch", "device": "cpu", "status": "measured", "scores": scored.as_dict()}
        for step in ("baseline", "01-int8")
    ]
    judged = {"name": "size_mb", "verdict": "holds", "class": None, "backend": None, "device": None}
    return {"rows": rows, "cases": {"test": 200}, "data": {"logits": logits}, "gates": [judged]}


def test_a_low_baseline_is_told_beside_its_dice_and_in_the_headline() -> None:
    low, fair = report_of(0.2, 2), report_of(0.3, 2)
    assert "Under 0.3 a baseline has little skill" in baseline_sentence(low)
    assert "threshold: {at: t}" not in baseline_sentence(low)
    of_one = report_of(0.2, 1)
    assert "postprocess: [threshold: {at: t}]" in baseline_sentence(of_one)
    of_one["data"]["postprocess"] = [{"threshold": {"at": 0.3}}]
    assert "threshold: {at: t}" not in baseline_sentence(of_one), "it has one already"
    assert conclusion(low).sentence.endswith("but the baseline has little skill: its mean foreground Dice is 0.2000.")
    assert baseline_sentence(fair).endswith("mean foreground Dice 0.3000 over 200 test cases.")
    assert conclusion(fair).sentence == "The only gate holds."
