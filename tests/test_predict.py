"""`compress predict`: masks of images by an artifact of a finished run, as the run itself scored it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_cli import compress, refused
from whole_run import Done

from compress.commands.predict import Which, predict
from compress.data.dataset.masks import MaskValues
from compress.errors import SegpressError
from compress.measure.segmentation import DICE, score_case
from compress.pipeline.finished import finished
from compress.pipeline.manifest import seal
from compress.pipeline.reopened import reopened
from compress.report.predictions import mask_png, overlay_png


def quiet(_: str) -> None:
    """What is said, which nobody reads."""


def read(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


@pytest.mark.parametrize(("step", "backend"), [("baseline", "torch"), (None, "onnxruntime")])
def test_masks_have_the_scores_of_the_report(
    done: Done, folder: Path, tmp_path: Path, step: str | None, backend: str
) -> None:
    names = [f"test_{place:03d}.png" for place in range(4)]
    images = [folder / "images" / name for name in names]
    assert predict(done[0], images, Which(step=step, backend=backend), tmp_path, force=False, say=quiet) == 4
    rows = [row for row in done[1]["rows"] if row["backend"] == backend and row["step"] == (step or "01-int8")]
    for name in names:
        values_KM, *_ = score_case(
            read(tmp_path / "masks" / name), read(folder / "masks" / name), classes=3, ruler=None
        )
        told = rows[0]["scores"]["per_case"][f"images/{name}"]
        assert np.allclose(values_KM[:, DICE], [told[each]["dice"] for each in ("square", "disc")], atol=1e-6)
        assert read(tmp_path / "overlays" / name).shape == (32, 32, 3)


def test_the_command_takes_a_folder_and_images_of_any_size(done: Done, folder: Path, tmp_path: Path) -> None:
    given = tmp_path / "mine"
    given.mkdir()
    Image.open(folder / "images" / "test_000.png").resize((50, 40)).convert("RGB").save(given / "a.jpg")
    (given / "notes.txt").touch()
    words = ("predict", done[0], given, "--out", tmp_path / "out")
    told = compress(*words)
    assert told.returncode == 0, told.stderr
    assert "01-int8 on onnxruntime (cpu), tiny" in told.stdout and "1 masks" in told.stdout
    assert read(tmp_path / "out" / "masks" / "a.png").shape == (40, 50)
    refused(compress(*words), "a.png", "is there already")
    assert compress(*words, "--force").returncode == 0


def test_what_cannot_be_answered_is_one_sentence(done: Done, folder: Path, tmp_path: Path) -> None:
    image = folder / "images" / "test_000.png"
    shutil.copy(image, tmp_path / "test_000.png")
    (tmp_path / "empty").mkdir()
    given = ("predict", done[0], image)
    to = ("--out", tmp_path / "out")
    refused(compress(*given, tmp_path / "test_000.png", *to), "have one name")
    refused(compress(*given, tmp_path / "none.png", *to), "none.png: no such image")
    refused(compress(*given, tmp_path / "empty", *to), "holds no image")
    refused(compress(*given, *to, "--step", "02-int8"), "no step '02-int8'; did you mean '01-int8'?")
    refused(compress(*given, *to, "--backend", "tensorflow"), "was not built for tensorflow on cpu, but for")
    refused(compress("predict", tmp_path, image, *to), "report.json")
    assert not (tmp_path / "out").exists()


def test_images_that_cannot_be_read_are_left_out_and_the_others_answered(
    done: Done, folder: Path, tmp_path: Path
) -> None:
    given = tmp_path / "Bilder ß"
    given.mkdir()
    shutil.copy(folder / "images" / "test_000.png", given / "z.PNG")
    (given / "a.png").write_text("no image")
    Image.fromarray(np.zeros((4, 4), np.float32)).save(given / "f.tif")
    said: list[str] = []
    with pytest.raises(SegpressError, match=r"2 of 3 images have no mask, all others have .*a\.png.*named above"):
        predict(done[0], [given], Which(), tmp_path / "out", force=False, say=said.append)
    assert [path.name for path in (tmp_path / "out").rglob("*.png")] == ["z.png", "z.png"]
    with pytest.raises(SegpressError, match=r"none of 1 images has a mask: .*a\.png: not an image"):
        predict(done[0], [given / "a.png"], Which(), tmp_path / "none", force=False, say=said.append)
    with pytest.raises(SegpressError, match=r"a\.png: is a file, where a folder is to be"):
        predict(done[0], [given], Which(), given / "a.png", force=False, say=said.append)
    assert not (tmp_path / "none").exists()
    assert sum("left out" in line for line in said) == 3 and "f.tif: floating-point" in said[2]


def test_tiles_postprocess_and_values_are_those_of_the_run(done: Done, folder: Path, tmp_path: Path) -> None:
    shutil.copytree(done[0], tmp_path / "run")
    path = tmp_path / "run" / "report.json"
    record = json.loads(path.read_text())
    values = {0: "background", 200: "square", 100: "disc"}
    record["recipe"]["data"]["folder"] |= {"fit": "tile", "overlap": 0.5, "masks": values, "split": {"by": "image"}}
    record["data"]["postprocess"] = [{"largest_component": {}}]
    path.write_text(json.dumps(record))
    seal(path.parent)
    Image.open(folder / "images" / "test_001.png").resize((70, 64)).save(tmp_path / "large.png")
    predict(path.parent, [tmp_path / "large.png"], Which(), tmp_path / "out", force=False, say=quiet)
    mask = read(tmp_path / "out" / "masks" / "large.png")
    assert mask.shape == (64, 70) and set(np.unique(mask)) <= {0, 100, 200}
    run = finished(path.parent)
    (row,) = (row for row in run.rows if row.step == "01-int8" and row.backend == "onnxruntime")
    with reopened(run, row) as opened:
        assert opened.task.data.fit.overlap == 0.5 and [word for word, _ in opened.task.postprocess.steps] == [
            "largest_component"
        ]


def test_a_mask_has_the_colours_of_its_data_and_an_overlay_outlines_it(tmp_path: Path) -> None:
    labels = np.zeros((6, 6), np.uint8)
    labels[1:5, 1:5] = 1
    masks = MaskValues(values=((0, 0), (0xFF0000, 1)), colours=True)
    (tmp_path / "a.png").write_bytes(mask_png(labels, masks))
    assert read(tmp_path / "a.png")[2, 2].tolist() == [255, 0, 0]
    (tmp_path / "b.png").write_bytes(overlay_png(np.zeros((1, 6, 6), np.float32), labels))
    seen = read(tmp_path / "b.png")
    assert seen[1, 1].tolist() == [0xE6, 0x9F, 0] and 0 < seen[2, 2, 0] < 0xE6 and not seen[0, 0].any()
