"""`compress init`: a checkpoint and a folder of images become a recipe; what can be seen is seen, the rest is asked."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from monai.networks import nets
from PIL import Image
from safetensors.torch import load_file, save_file
from test_cli import compress, refused
from torch import nn

from compress.commands.check import check
from compress.commands.init import Answers, init
from compress.data.dataset.cases import Case, Normalization
from compress.errors import SegpressError, WeightsError
from compress.networks.unet import UNet
from compress.recipe import load
from compress.recognition.found import meaning_of
from compress.recognition.inputs import IMAGENET, Tried, Way, tried_ways
from compress.recognition.network import recognized
from compress.recognition.recipe_text import _text


def nobody(question: str, proposed: str, flag: str) -> str:
    raise SegpressError(f"{question}: say so with {flag}")


def quiet(_: str) -> None:
    """What was found, which nobody reads."""


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory, folder: Path, weights: Path) -> Path:
    """Somebody's folder: a checkpoint of a training program; masks hold 0, 255 (square) and 128 (disc)."""
    place = tmp_path_factory.mktemp("theirs")
    (place / "data" / "masks").mkdir(parents=True)
    shutil.copytree(folder / "images", place / "data" / "images")
    for number, path in enumerate(sorted((place / "data" / "images").iterdir())):
        mask = np.asarray(Image.open(folder / "masks" / path.name))
        name = f"p{number // 5:02d}_{number:03d}.png"
        path.rename(path.with_name(name))
        Image.fromarray(np.choose(mask, [0, 255, 128]).astype(np.uint8)).save(place / "data" / "masks" / name)
    state = {f"model.{name}": tensor for name, tensor in load_file(weights).items()}
    torch.save({"epoch": 3, "state_dict": state}, place / "best.ckpt")
    return place


@pytest.fixture(scope="module")
def begun(theirs: Path) -> tuple[Path, list[str]]:
    """The recipe that it becomes, and what was said on the way."""
    said: list[str] = []
    out = theirs / "mine" / "recipe.yaml"
    init(theirs / "best.ckpt", theirs / "data", out, Answers(), nobody, said.append)
    return out, said


def test_what_can_be_seen_is_in_the_recipe(begun: tuple[Path, list[str]]) -> None:
    recipe = yaml.safe_load(begun[0].read_text())
    assert recipe["network"]["unet"] | {"weights": ""} == {
        "classes": 3, "in_channels": 1, "width": 8, "depth": 2, "weights": ""
    }  # fmt: skip
    folder = recipe["data"]["folder"]
    assert folder["size"] == [32, 32] and folder["table"] == "split.csv"
    assert folder["masks"] == {0: "background", 255: "class 1", 128: "class 2"}, "the order that scores best"
    assert abs(folder["normalization"]["mean"][0] - 0.45) < 0.1, "that of these images, with which it was trained"
    assert any("mean and std of these images" in line for line in begun[1])


def test_the_split_keeps_patients_together(begun: tuple[Path, list[str]]) -> None:
    with (begun[0].parent / "split.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 50 and {row["split"] for row in rows} == {"train", "val", "test"}
    assert all(len({row["split"] for row in rows if row["patient"] == f"p{n:02d}"}) == 1 for n in range(10))


def test_the_recipe_is_good(begun: tuple[Path, list[str]]) -> None:
    found = check(load(begun[0]), quiet)
    assert not found.mistakes and any("baseline in torch" in fact for fact in found.facts)


def test_the_command_says_what_to_do_next_and_writes_nothing_over(theirs: Path, tmp_path: Path) -> None:
    out = tmp_path / "r.yaml"
    words = ("init", theirs / "best.ckpt", theirs / "data", "--out", out, "--classes", "background, square, disc")
    more = ("--size", "32x32", "--normalization", "0.45,0.2", "--masks", "0: background, 255: square, 128: disc")
    done = compress(*words, *more)
    assert done.returncode == 0, done.stderr
    assert f"Next: compress check {out}; compress run {out}" in done.stdout
    folder = yaml.safe_load(out.read_text())["data"]["folder"]
    assert folder["classes"] == ["background", "square", "disc"] and folder["normalization"]["std"] == [0.2]
    before = yaml.safe_load(out.read_text())
    out.write_text("mine")
    refused(compress(*words, *more), "r.yaml", "is there already", "--force")
    assert out.read_text() == "mine"
    assert compress(*words, *more, "--force").returncode == 0 and yaml.safe_load(out.read_text()) == before


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"size": (33, 32)}, "--size: input is 33x32; this network needs multiples of 4"),
        ({"normalization": "imagenette"}, "--normalization: 'imagenette' is not imagenet"),
        ({"masks": "0: background, 255: square"}, "--masks: says nothing of 128"),
        ({"masks": "0: 0, 255: 1, 128: blob"}, "128 is to be 'blob'"),
        ({"masks": "[1"}, "is not a mapping"),
        ({"window": "5,1"}, "--window: '5,1' is not a smaller and a larger value"),
        ({"classes": ("a", "b")}, "--classes: 3 different names"),
        ({"network": "unet"}, r"--network \(unet\): lacks the option 'classes'"),
        ({"network": "unte: {classes: 3}"}, r"--network \(unte\): no such network; did you mean 'unet'\?"),
        ({"network": "unet: {classes: 3, wdth: 8}"}, r"^--network \(unet\): no option 'wdth'; did you mean 'width'\?$"),
        ({"network": "unet: {classes: 3, width: 16}"}, "weights of another|width"),
        ({"patients": "(x)"}, "finds no patient"),
        ({"normalization": "100, 0.2"}, "--normalization, --size or --masks|--size, --masks or --network"),
    ],
)
def test_what_is_wrong_is_one_sentence_with_its_flag(
    theirs: Path, tmp_path: Path, more: dict[str, Any], said: str
) -> None:
    answers = Answers(**{"size": (32, 32), "normalization": "0.45,0.2", **more})
    with pytest.raises(SegpressError, match=said):
        init(theirs / "best.ckpt", theirs / "data", tmp_path / "r.yaml", answers, nobody, quiet)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("out", "rows", "said"),
    [
        ("file/r.yaml", None, "file: is a file, where a folder is to be"),
        ("folder.yaml", None, r"folder\.yaml: is a folder, where a file is to be written"),
        ("r.yaml", "image;mask;split\n", "lacks the column image: it has 'image;mask;split'"),
        ("r.yaml", "image,mask,split\n", "lists no case"),
        ("r.yaml", "image,mask,split\nimages/{0},masks/{0},train\n", "no case is for test, which a run is scored on"),
        ("r.yaml", "image,mask,split\nimages/{0},masks/{0},test\n", "no case is for train or calibration"),
    ],
)
def test_a_place_or_a_table_that_cannot_be_is_told_first(
    theirs: Path, tmp_path: Path, out: str, rows: str | None, said: str
) -> None:
    data, place = tmp_path / "data", tmp_path / "place"
    shutil.copytree(theirs / "data", data)
    (place / "folder.yaml").mkdir(parents=True)
    (place / "file").touch()
    if rows is not None:
        (data / "split.csv").write_text(rows.format(next((data / "masks").iterdir()).name))
    answers = Answers(size=(32, 32), normalization="0.45,0.2", force=True)
    with pytest.raises(SegpressError, match=said):
        init(theirs / "best.ckpt", data, place / out, answers, nobody, quiet)
    assert sorted(path.name for path in place.rglob("*")) == ["file", "folder.yaml"]


def test_weights_that_are_a_folder_are_told(theirs: Path) -> None:
    with pytest.raises(WeightsError, match="mine: a folder; give the file of the weights in it"):
        recognized(theirs / "mine")


def test_nothing_is_written_beside_images_unasked(theirs: Path) -> None:
    out = theirs / "data" / "recipe.yaml"
    refused(compress("init", theirs / "best.ckpt", theirs / "data", "--out", out), "holds data", "--out elsewhere")
    asked: list[str] = []

    def no(question: str, proposed: str, flag: str) -> str:
        asked.append(question)
        return proposed

    with pytest.raises(SegpressError, match="nothing was written"):
        init(theirs / "best.ckpt", theirs / "data", out, Answers(), no, quiet)
    assert len(asked) == 1 and not out.exists()


def test_a_pickle_is_refused_and_an_unknown_network_is_to_be_named(theirs: Path, tmp_path: Path) -> None:
    torch.save(nn.Linear(2, 2), tmp_path / "net.pth")
    refused(compress("init", tmp_path / "net.pth", theirs / "data", "--out", tmp_path / "r.yaml"), "pickle")
    torch.save(nn.Sequential(nn.Conv2d(1, 4, 3), nn.Conv2d(4, 2, 1)).state_dict(), tmp_path / "own.pth")
    with pytest.raises(WeightsError, match=r"no network known here has its 4 tensors.*--network 'python"):
        recognized(tmp_path / "own.pth")


MONAI: dict[str, nn.Module] = {
    "UNet": nets.UNet(2, 1, 2, channels=(4, 8, 16), strides=(2, 2), num_res_units=2),
    "UNet without residuals": nets.UNet(3, 1, 2, channels=(4, 8), strides=(2,), norm="batch"),
    "BasicUNet": nets.BasicUNet(2, 3, 5, features=(4, 4, 8, 8, 16, 4)),
    "DynUNet": nets.DynUNet(2, 1, 3, [3, 3, 3], [1, 2, 2], [2, 2], filters=(4, 8, 16)),
    "SegResNet": nets.SegResNet(2, 8, 1, 3),
}


@pytest.mark.parametrize("name", MONAI)
def test_networks_of_monai_are_known_by_their_tensors(tmp_path: Path, name: str) -> None:
    net = MONAI[name]
    torch.save({"model": {f"module.{key}": each for key, each in net.state_dict().items()}}, tmp_path / "net.pt")
    found = recognized(tmp_path / "net.pt")
    assert found.network["monai"]["arch"] == name.split(maxsplit=1)[0]
    theirs, ours = net.state_dict(), found.net.state_dict()
    assert all(torch.equal(theirs[key], ours[key]) for key in theirs)


@pytest.mark.parametrize("shape", [(), (3,), (2, 3)])
def test_tensors_of_odd_shapes_under_known_names_belong_to_no_network(shape: tuple[int, ...], tmp_path: Path) -> None:
    names = ("backbone.conv1.weight", "classifier.4.bias", "encoder.conv1.weight", "segmentation_head.0.weight")
    others = ("model.0.conv.unit0.conv.weight", "input_block.conv1.conv.weight", "conv_0.conv_0.conv.weight")
    for name in (*names, *others, "encoder.0.0.weight", "model.1.submodule.0.conv.weight"):
        path = tmp_path / "odd.safetensors"
        save_file({name: torch.zeros(shape)}, path)
        with pytest.raises(WeightsError, match="no network known here has its 1 tensors"):
            recognized(path)


def test_ours_are_known_without_their_description(tmp_path: Path) -> None:
    net = UNet(classes=2, in_channels=3, width=4, depth=3, norm="instance", up="nearest")()
    torch.save(net.state_dict(), tmp_path / "net.pt")
    assert recognized(tmp_path / "net.pt").network == {
        "unet": {"classes": 2, "in_channels": 3, "width": 4, "norm": "instance", "up": "nearest", "depth": 3}
    }


@pytest.mark.parametrize("text", ["a/b c.png", "no", "0x1", "ä: b", "#ff", "../data", "1e3", "nerve", "", "a'b"])
def test_whatever_a_name_is_yaml_reads_it_back(text: str) -> None:
    assert yaml.safe_load(f"[{_text(text)}]") == [text]


@pytest.mark.parametrize(
    ("dice_of", "first"),
    [
        ({"channel": 0.9, "usual": 0.8}, {"z_score": "channel"}),
        ({"BGR": 0.9, "usual": 0.8}, {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225], "order": "BGR"}),
        ({"channel": 0.9, "usual": 0.895}, {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}),
    ],
)
def test_an_images_own_numbers_and_bgr_are_taken_where_they_are_better(
    dice_of: dict[str, float], first: dict[str, Any]
) -> None:
    class Judged:
        channels = 3

        def measured(self, size: tuple[int, int]) -> Normalization:
            return Normalization()

        def tried(self, way: Way, size: tuple[int, int]) -> Tried:
            given = way.normalization
            word = "usual" if given == IMAGENET else given.z_score or given.order
            return Tried(way=way, dice=dice_of.get(word, 0.1), order=(0, 1))

    tried = tried_ways(Judged(), (32, 32))  # type: ignore[arg-type]
    assert tried[0].way.normalization.told == first
    assert len({each.way.title for each in tried}) == len(tried) == 9


def test_labels_of_annotations_become_the_classes_in_the_order_that_scores_best(theirs: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    shutil.copytree(theirs / "data" / "images", data / "images")
    for value, label in ((128, "a disc"), (255, "square")):
        (data / "masks" / label).mkdir(parents=True)
        for path in (theirs / "data" / "masks").iterdir():
            on = np.asarray(Image.open(path)) == value
            Image.fromarray(on.astype(np.uint8) * 255).save(data / "masks" / label / path.name)
    given = Answers(size=(32, 32), normalization="0.45,0.2")
    said: list[str] = []
    init(theirs / "best.ckpt", data, tmp_path / "r.yaml", given, nobody, said.append)
    folder = yaml.safe_load((tmp_path / "r.yaml").read_text())["data"]["folder"]
    assert folder["classes"] == ["background", "square", "a disc"] and "masks" not in folder
    assert any("masks: labels a disc, square; classes background, square, a disc" in line for line in said)
    masks = [data / "masks" / "{a disc|square}" / path.name for path in (data / "masks" / "square").iterdir()]
    cases = [Case(name=path.name, image=path, mask=path) for path in masks[:3]]
    named = meaning_of(cases, 3, None, ("background", "box", "blob")).in_order((0, 2, 1))
    assert named.written() == {"a disc": "blob", "square": "box"}


@pytest.mark.parametrize("given", ["z_score: image", "{z_score: image}"])
def test_a_normalization_can_be_given_as_a_recipe_says_it(theirs: Path, tmp_path: Path, given: str) -> None:
    masks = "0: background, 255: square, 128: disc"
    answers = Answers(size=(32, 32), normalization=given, masks=masks, window="0, 255")
    said: list[str] = []
    init(theirs / "best.ckpt", theirs / "data", tmp_path / "r.yaml", answers, nobody, said.append)
    assert yaml.safe_load((tmp_path / "r.yaml").read_text())["data"]["folder"]["normalization"] == {"z_score": "image"}
    assert yaml.safe_load((tmp_path / "r.yaml").read_text())["data"]["folder"]["window"] == [0, 255]


def test_probabilities_are_told_before_anything_is_tried(theirs: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "from torch import nn\n\n\nclass Net(nn.Module):\n    def __init__(self):\n        super().__init__()\n"
        "        self.last = nn.Conv2d(1, 3, 3, padding=1)\n\n"
        "    def forward(self, image):\n        return self.last(image).softmax(1)\n"
    )
    state = {f"last.{name}": each for name, each in nn.Conv2d(1, 3, 3).state_dict().items()}
    torch.save(state, tmp_path / "mine.pt")
    network = f"python: {{path: {tmp_path / 'mine.py'}, build: Net, classes: 3, in_channels: 1}}"
    answers = Answers(size=(32, 32), network=network)
    with pytest.raises(WeightsError, match=r"answers with probabilities, not logits.*head: \{activation: softmax\}"):
        init(tmp_path / "mine.pt", theirs / "data", tmp_path / "r.yaml", answers, nobody, quiet)
