"""Losses: each against numbers worked out apart from it, and on the masks that make losses fail."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
import yaml
from pydantic import TypeAdapter
from shared_fixtures import write_recipe
from torch import Tensor
from torch.nn import functional as F

from compress.data.folder import Folder
from compress.errors import DataError, RecipeError
from compress.recipe import load, schema
from compress.train.losses.cross_entropy import gap_weights
from compress.train.losses.distance import signed_distance
from compress.train.losses.sum import DiceCrossEntropy, Losses, OneOrMore, Sum, Word
from compress.train.objective import Supervised
from compress.train.training import Training, class_shares

WORDS = get_args(Word)
SHARES = (0.7, 0.2, 0.1)
ADAPTER: TypeAdapter[Losses] = TypeAdapter(OneOrMore)


def made(how: Any, ignore: int | None = None, shares: tuple[float, ...] | None = SHARES) -> Sum:
    return Sum(ADAPTER.validate_python(how), ignore, shares)


def logits(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * 2


def squares(*shape: int) -> Tensor:
    """Masks of a class-1 block and a class-2 block on background (B and two or three axes)."""
    mask = torch.zeros(shape, dtype=torch.long)
    mask[..., 2:6, 2:6] = 1
    mask[..., 8:12, 6:12] = 2
    return mask


def sure(mask: Tensor, classes: int) -> Tensor:
    """Logits of a network that is right, and sure of it."""
    return 12.0 * F.one_hot(mask, classes).movedim(-1, 1).float()


def softmax(values: Tensor) -> Any:
    """In numpy and float64: BKS -> (K, B x S)."""
    z = values.double().numpy()
    e = np.exp(z - z.max(1, keepdims=True))
    return np.moveaxis(e / e.sum(1, keepdims=True), 1, 0).reshape(z.shape[1], -1)


X = logits(2, 3, 14, 14)
Y = squares(2, 14, 14)
P, T = softmax(X), np.eye(3)[Y.numpy().ravel()].T
TRUE = (P * T).sum(0)
"""The probability of each pixel's true class."""


def dice_of(k: int, smooth: float = 1.0) -> float:
    return float((2 * (P[k] * T[k]).sum() + smooth) / (P[k].sum() + T[k].sum() + smooth))


def dice_by_case() -> float:
    """Both masks are the same, the answers differ."""
    values = []
    for k in (1, 2):
        for p, t in zip(np.split(P[k], 2), np.split(T[k], 2), strict=True):
            values.append((2 * (p * t).sum() + 1) / (p.sum() + t.sum() + 1))
    return float(np.mean(values))


def nll(weights: Any = 1.0) -> Any:
    return -np.log(TRUE) * weights


def by_class(weights: tuple[float, ...]) -> Any:
    return np.array(weights)[Y.numpy().ravel()]


def tversky(k: int, alpha: float, beta: float) -> float:
    hit, extra, missed = (P[k] * T[k]).sum(), (P[k] * (1 - T[k])).sum(), ((1 - P[k]) * T[k]).sum()
    return float((hit + 0.5) / (hit + alpha * extra + beta * missed + 0.5))


def generalized() -> float:
    weight = 1 / T.sum(1) ** 2
    return float(1 - 2 * (weight * (P * T).sum(1)).sum() / (weight * (P + T).sum(1)).sum())


def distances(mask: Any) -> Any:
    """To the nearest pixel of a mask, by trying every pair (HW)."""
    there = np.argwhere(mask)
    return np.linalg.norm(np.argwhere(np.ones_like(mask))[:, None] - there[None], axis=2).min(1).reshape(mask.shape)


def boundary() -> float:
    total = 0.0
    for k in (1, 2):
        for case in range(2):
            mask = Y[case].numpy() == k
            phi = np.where(mask, 1 - distances(~mask), distances(mask))
            total += float((P[k].reshape(2, 14, 14)[case] * phi).mean())
    return total / 4


def hausdorff(alpha: float) -> float:
    total = 0.0
    for k in (1, 2):
        for case in range(2):
            chance, true = P[k].reshape(2, 14, 14)[case], Y[case].numpy() == k
            fields = [distances(mask) + distances(~mask) for mask in (chance > 0.5, true)]
            total += float(((chance - true) ** 2 * sum(field**alpha for field in fields)).mean())
    return total / 4


def exp_log(gamma: float, dice: float, cross: float) -> float:
    logs = np.mean([(-np.log(dice_of(k))) ** gamma for k in range(3)])
    return float(dice * logs + cross * (by_class(tuple(share**-0.5 for share in SHARES)) * nll() ** gamma).mean())


BALANCED = tuple(1 / (3 * share) for share in SHARES)

EXPECTED: list[tuple[Any, float]] = [
    ("dice", 1 - (dice_of(1) + dice_of(2)) / 2),
    ("ce", nll().mean()),
    ("dice_ce", 1 - (dice_of(1) + dice_of(2)) / 2 + nll().mean()),
    ({"dice": {"over": "case"}}, 1 - dice_by_case()),
    ({"dice": {"over": "case"}, "ce": 1}, 1 - dice_by_case() + nll().mean()),
    ({"ce": {"class_weights": [1, 2, 5]}}, nll(by_class((1, 2, 5))).sum() / by_class((1, 2, 5)).sum()),
    ({"ce": {"balance": "frequency"}}, nll(by_class(BALANCED)).sum() / by_class(BALANCED).sum()),
    ("generalized_dice", generalized()),
    ("tversky", 1 - (tversky(1, 0.3, 0.7) + tversky(2, 0.3, 0.7)) / 2),
    ({"tversky": {"alpha": 0.5}}, 1 - (dice_of(1) + dice_of(2)) / 2),
    ({"tversky": {"alpha": 1, "beta": 2}}, 1 - (tversky(1, 1, 2) + tversky(2, 1, 2)) / 2),
    ("focal", (nll() * (1 - TRUE) ** 2).mean()),
    ({"focal": {"gamma": 1, "alpha": 0.25}}, (nll(by_class((0.75, 0.25, 0.25))) * (1 - TRUE)).mean()),
    ("boundary", boundary()),
    ("hausdorff", hausdorff(2)),
    ({"hausdorff": {"alpha": 1}}, hausdorff(1)),
    ("exp_log", exp_log(0.3, 0.8, 0.2)),
    ({"exp_log": {"gamma": 1, "dice": 0.5, "cross": 0.5}}, exp_log(1, 0.5, 0.5)),
    ({"distance_ce": {"border": 0}}, nll(by_class(BALANCED)).mean()),
    ({"dice": 1.0, "ce": {"weight": 0.5}}, 1 - (dice_of(1) + dice_of(2)) / 2 + 0.5 * nll().mean()),
]


@pytest.mark.parametrize(("how", "expected"), EXPECTED, ids=[str(how) for how, _ in EXPECTED])
def test_a_loss_is_what_its_paper_says(how: Any, expected: float) -> None:
    assert made(how)(X, Y).item() == pytest.approx(expected, rel=2e-5)


def test_the_gap_between_two_objects_weighs_what_the_paper_says() -> None:
    mask = np.zeros((9, 20), int)
    mask[:, 3:6], mask[:, 10:13] = 1, 1
    weight = gap_weights(mask, sigma=2.0)
    # Four columns lie between them: whichever it is, d1 + d2 = 5.
    assert weight[4, 6:10] == pytest.approx(np.full(4, np.exp(-25 / 8)))
    # Left of both, d1 = 3 and d2 = 10.
    assert weight[4, 0] == pytest.approx(np.exp(-((3 + 10) ** 2) / 8))
    assert (weight[mask > 0] == 0).all()
    assert not gap_weights(np.where(mask[:, :8] > 0, 1, 0), 2.0).any()
    expected = (nll() * (by_class(BALANCED) + 10 * np.stack([gap_weights(y.numpy(), 5.0) for y in Y]).ravel())).mean()
    assert made("distance_ce")(X, Y).item() == pytest.approx(expected, rel=1e-5)


def test_many_objects_weigh_as_if_every_pair_had_been_tried() -> None:
    rng = np.random.default_rng(0)
    mask = np.zeros((40, 40), int)
    for row, column in rng.integers(0, 37, (12, 2)):
        mask[row : row + 2, column : column + 2] = rng.integers(1, 3)
    from scipy import ndimage

    objects = [ndimage.label(mask == k)[0] == n for k in (1, 2) for n in range(1, ndimage.label(mask == k)[1] + 1)]
    every = np.sort([distances(each) for each in objects], axis=0)
    expected = np.where(mask == 0, np.exp(-((every[0] + every[1]) ** 2) / (2 * 3.0**2)), 0)
    assert gap_weights(mask, 3.0) == pytest.approx(expected, abs=1e-6)


def test_signed_distance_is_negative_inside_and_0_where_there_is_no_border() -> None:
    mask = np.zeros((1, 7), bool)
    mask[:, 2:5] = True
    assert signed_distance(mask).tolist() == [[2, 1, 0, -1, 0, 1, 2]]
    assert not signed_distance(np.zeros((3, 3), bool)).any()
    assert not signed_distance(np.ones((3, 3), bool)).any()


@pytest.mark.parametrize("word", WORDS)
@pytest.mark.parametrize("shape", [(2, 14, 14), (1, 6, 14, 14)], ids=["2-D", "3-D"])
def test_the_right_answer_costs_least(word: str, shape: tuple[int, ...]) -> None:
    lose, mask = made(word), squares(*shape)
    right, unsure = sure(mask, 3), torch.zeros(shape[0], 3, *shape[1:])
    wrong = right.roll(1, 1)
    assert lose(right, mask) < lose(unsure, mask) < lose(wrong, mask)


@pytest.mark.parametrize("word", WORDS)
def test_a_step_down_its_slope_lowers_it(word: str) -> None:
    lose, values = made(word), X.clone().requires_grad_()
    before = lose(values, Y)
    before.backward()
    assert values.grad is not None and values.grad.abs().sum() > 0
    step = 1e-2 * values.grad / values.grad.norm()
    assert lose((values - step).detach(), Y) < before


@pytest.mark.parametrize("word", WORDS)
@pytest.mark.parametrize("classes", [1, 3])
@pytest.mark.parametrize("fill", ["empty", "full", "ignored", "one pixel"])
@pytest.mark.parametrize("scale", [1.0, 300.0])
def test_slopes_are_finite_whatever_the_mask(word: str, classes: int, fill: str, scale: float) -> None:
    mask = torch.full((2, 8, 8), {"empty": 0, "full": 1, "ignored": 255, "one pixel": 0}[fill])
    if fill == "one pixel":
        mask[0, 4, 4] = 1
    values = (scale * logits(2, classes, 8, 8)).requires_grad_()
    loss = made(word, 255, SHARES if classes == 3 else (0.9, 0.1))(values, mask)
    loss.backward()
    assert loss.isfinite()
    assert values.grad is not None and values.grad.isfinite().all()
    if fill == "ignored":
        assert values.grad.abs().sum() == 0


@pytest.mark.parametrize("word", WORDS)
def test_what_is_ignored_does_not_count(word: str) -> None:
    lose, mask = made(word, 255), Y.clone()
    mask[:, :, 12:] = 255
    changed = X.clone()
    changed[..., 12:] = 7 * logits(2, 3, 14, 2, seed=1)
    assert lose(changed, mask).item() == pytest.approx(lose(X, mask).item(), rel=1e-5)
    assert lose(X, mask).item() != pytest.approx(made(word, 255)(X, Y).item(), rel=1e-3)


@pytest.mark.parametrize("word", WORDS)
def test_one_logit_is_a_softmax_against_zero(word: str) -> None:
    mask = (Y == 1).long()
    one = logits(2, 1, 14, 14)
    two = torch.cat([torch.zeros_like(one), one], 1)
    lose = made(word, None, (0.9, 0.1))
    assert lose(one, mask).item() == pytest.approx(lose(two, mask).item(), rel=1e-6)


@pytest.mark.parametrize("word", WORDS)
def test_16_bit_logits_are_compared_in_float32(word: str) -> None:
    lose, short = made(word), X.bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        loss = lose(short, Y)
    assert loss.dtype == torch.float32
    assert loss.item() == lose(short.float(), Y).item()


def test_a_false_speck_costs_more_where_dice_is_over_cases() -> None:
    mask = squares(2, 14, 14)
    mask[1] = 0
    false = mask.clone()
    false[1, 0, 0] = 1
    cost = {
        over: (
            made({"dice": {"over": over}})(sure(false, 3), mask) - made({"dice": {"over": over}})(sure(mask, 3), mask)
        )
        for over in ("batch", "case")
    }
    assert cost["case"] > 4 * cost["batch"] > 0


def test_ready_made_is_the_default_and_its_sum() -> None:
    default = Training().loss
    assert DiceCrossEntropy(255)(X, Y) == Sum(default, 255)(X, Y)
    assert made({"dice": 1, "ce": 1})(X, Y).item() == pytest.approx(DiceCrossEntropy()(X, Y).item())


def test_deep_supervision_and_every_loss_go_together() -> None:
    class Two(torch.nn.Module):
        def forward(self, image: Tensor) -> list[Tensor]:
            return [image, F.avg_pool2d(image, 2)]

    from compress.train.objective import Batch

    batch = Batch(image_BCHW=X, mask_BHW=Y, names=((0, 0), (0, 1)))
    for word in WORDS:
        assert Supervised(made(word))(Two(), batch).isfinite()


def test_words_and_fields_are_the_same() -> None:
    assert tuple(field.name for field in fields(Losses)) == WORDS


@pytest.mark.parametrize("short", ["tversky", {"tversky": None}, {"tversky": {}}, {"tversky": 1.0}])
def test_every_way_of_writing_one_loss_is_that_loss(short: Any) -> None:
    assert ADAPTER.validate_python(short) == ADAPTER.validate_python({"tversky": {"weight": 1, "alpha": 0.3}})


@pytest.mark.parametrize(
    ("loss", "sentence"),
    [
        ("tverski", "train: no option 'loss.tverski'; did you mean 'tversky'?"),
        ({"dice": 1, "boundry": 0.1}, "train: no option 'loss.boundry'; did you mean 'boundary'?"),
        ({"tversky": {"alpah": 0.3}}, "train: no option 'loss.tversky.alpah'; did you mean 'alpha'?"),
        ({"dice": -1}, "train: loss.dice.weight: -1: input should be greater than 0"),
        (
            {"dice": "much"},
            "train: loss: {'dice': 'much'}: dice takes a weight, or names of options with values, not 'much'",
        ),
        ({"focal": {"gamma": 0.5}}, "train: loss.focal.gamma: 0.5: input should be greater than or equal to 1"),
        ({"ce": {"balance": "frequncy"}}, "is not one of none, frequency; did you mean 'frequency'?"),
        ({"ce": {"balance": "frequency", "class_weights": [1, 2]}}, "balance and class_weights are both given"),
        ({"tversky": {"alpha": 0, "beta": 0}}, "alpha and beta are both 0"),
        ({"tversky": {"alpha": 2}}, "alpha 2 leaves 1 - alpha below 0 for beta"),
        ({"exp_log": {"dice": 0, "cross": 0}}, "dice and cross are both 0"),
        ({}, "names no loss; there are dice_ce, ce, distance_ce"),
        (["dice", "ce"], "train: loss: ['dice', 'ce']: a loss is a word, such as tversky, or words, each with"),
        ({"dice": True}, "train: loss: {'dice': True} is not a number or a word"),
    ],
)
def test_a_mistake_is_told_with_its_place(loss: Any, sentence: str, recipe: dict[str, object], tmp_path: Path) -> None:
    recipe["train"] = {"loss": loss}
    with pytest.raises(RecipeError) as caught:
        load(write_recipe(tmp_path, recipe))
    assert sentence in str(caught.value)
    assert len(caught.value.mistakes) == 1


def test_the_schema_lists_the_losses() -> None:
    made = schema()
    choices = made["properties"]["train"]["properties"]["loss"]["anyOf"]
    assert {"enum": list(WORDS), "type": "string"} in choices
    assert list(made["$defs"]["Losses"]["properties"]) == list(WORDS)


def test_classes_are_counted_in_the_train_masks(folder: Path) -> None:
    data = Folder(root=folder, size=(16, 16))(channels=1, classes=3)
    masks = np.stack([data.mask(case) for case in data.cases["train"]])
    assert class_shares(data) == pytest.approx([(masks == k).mean() for k in range(3)])
    kept = Folder(root=folder, size=(16, 16), ignore=2)(channels=1, classes=3)
    first, second, third = class_shares(kept)
    assert third == 0
    assert first / second == pytest.approx((masks == 0).sum() / (masks == 1).sum())


def test_a_class_that_no_train_mask_has_is_no_division_by_zero() -> None:
    for how in ("exp_log", "distance_ce", {"ce": {"balance": "frequency"}}):
        lose = made(how, None, (0.75, 0.25, 0.0))
        values = X.clone().requires_grad_()
        lose(values, (Y == 1).long()).backward()
        assert values.grad is not None and values.grad.isfinite().all()


def test_the_number_of_weights_must_be_that_of_the_classes(folder: Path) -> None:
    data = Folder(root=folder, classes=("background", "square", "disc"))(channels=1, classes=3)
    training = Training(loss={"ce": {"class_weights": (1, 2)}})  # type: ignore[arg-type]
    with pytest.raises(RecipeError, match=r"train: loss\.ce\.class_weights: 2 numbers, .* 3 classes \(background, sq"):
        training.objective(data, 0)


def test_shares_of_nothing_are_refused(folder: Path) -> None:
    data = Folder(root=folder)(channels=1, classes=3)
    bare = type(data)(**{**vars(data), "cases": {**data.cases, "train": []}})
    with pytest.raises(DataError, match="hold no pixel of any class"):
        Training(loss="exp_log").objective(bare, 0)  # type: ignore[arg-type]


TRAINING_MD = (Path(__file__).parent.parent / "docs" / "training.md").read_text()
SNIPPETS = [block.split("```")[0] for block in TRAINING_MD.split("```yaml\n")[1:]]


@pytest.mark.parametrize("snippet", SNIPPETS)
def test_a_snippet_in_the_docs_is_good(snippet: str, recipe: dict[str, object], tmp_path: Path) -> None:
    assert load(write_recipe(tmp_path, {**recipe, **yaml.safe_load(snippet)}))


def test_the_docs_know_every_loss_and_every_option_with_its_default() -> None:
    for field in fields(Losses):
        (row,) = [line for line in TRAINING_MD.splitlines() if line.startswith(f"| `{field.name}` |")]
        loss = getattr(ADAPTER.validate_python(field.name), field.name)
        for option in fields(loss):
            if option.name != "weight":
                assert f"`{option.name}" in row
                if isinstance(option.default, float):
                    assert f"`{option.name}: {option.default:g}`" in row
