"""The whole way of a newcomer: a checkpoint of smp and a folder of 0/255 masks; init, check, run and predict."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from test_cli import compress
from torch import nn

from compress.networks.smp import Smp

MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])


def scene(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A reddish image of some size with a bright disc, and its mask of 0 and 255."""
    height, width = rng.integers(96, 200, 2)
    rows, columns = np.mgrid[:height, :width]
    middle, radius = (rng.uniform(0.3, 0.7, 2) * (height, width)), rng.uniform(0.15, 0.3) * min(height, width)
    inside = (rows - middle[0]) ** 2 + (columns - middle[1]) ** 2 < radius**2
    image = np.where(inside[..., None], [200, 150, 120], [130, 60, 40]) + rng.normal(0, 12, (height, width, 3))
    return np.clip(image, 0, 255).astype(np.uint8), (inside * 255).astype(np.uint8)


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Somebody's project: JPEGs of many sizes, PNG masks, and a U-Net of smp that has learnt them at 128x128."""
    place = tmp_path_factory.mktemp("theirs")
    rng = np.random.default_rng(0)
    for name in ("images", "masks"):
        (place / "data" / name).mkdir(parents=True)
    inputs, truths = [], []
    for number in range(60):
        image, mask = scene(rng)
        name = f"patient{number // 3:02d}_{number:03d}"
        Image.fromarray(image).save(place / "data" / "images" / f"{name}.jpg", quality=95)
        Image.fromarray(mask).save(place / "data" / "masks" / f"{name}_mask.png")
        small = np.asarray(Image.fromarray(image).resize((128, 128), Image.Resampling.BILINEAR)) / 255
        inputs.append(((small - MEAN) / STD).transpose(2, 0, 1))
        truths.append(np.asarray(Image.fromarray(mask).resize((128, 128), Image.Resampling.NEAREST))[None] > 0)
    torch.manual_seed(0)
    net = Smp(arch="Unet", encoder="mobilenet_v2", classes=1).unwrapped()
    optimizer = torch.optim.Adam(net.parameters(), 1e-3)
    images, masks = torch.tensor(np.array(inputs)).float(), torch.tensor(np.array(truths)).float()
    for step in range(50):
        some = torch.randint(0, 60, (8,), generator=torch.Generator().manual_seed(step))
        loss = nn.functional.binary_cross_entropy_with_logits(net(images[some]), masks[some])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    torch.save({"epoch": 3, "state_dict": net.state_dict()}, place / "best_model.pth")
    return place


@pytest.mark.slow
def test_a_newcomer_gets_from_a_checkpoint_to_masks_of_integers(
    theirs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    begun = compress("init", theirs / "best_model.pth", theirs / "data", "--size", "128x128")
    assert begun.returncode == 0, begun.stderr
    assert "smp Unet over mobilenet_v2" in begun.stdout and "20 patients" in begun.stdout
    assert "255 is foreground" in begun.stdout and "normalization: ImageNet" in begun.stdout
    checked = compress("check", "recipe.yaml")
    assert checked.returncode == 0 and "recipe.yaml: good" in checked.stdout, checked.stderr
    text = Path("recipe.yaml").read_text()
    Path("recipe.yaml").write_text(f"{text}latency: {{samples: 10, seconds: 0.2, warm_up: 0}}\n")
    ran = compress("run", "recipe.yaml")
    # Nine test cases of three patients decide nothing.
    assert ran.returncode == 3, ran.stderr
    (folder,) = Path("runs").iterdir()
    report = json.loads((folder / "report.json").read_text())
    (row,) = (row for row in report["rows"] if row["step"] == "01-int8" and row["backend"] == "onnxruntime")
    assert row["layers"]["integer"] > row["layers"]["float"]
    told = compress("predict", folder, theirs / "data" / "images", "--out", "masks_of")
    assert told.returncode == 0 and "60 masks" in told.stdout, told.stderr
    name = sorted((theirs / "data" / "images").iterdir())[0].stem
    mask, truth = (
        np.asarray(Image.open(path))
        for path in (Path("masks_of", "masks", f"{name}.png"), theirs / "data" / "masks" / f"{name}_mask.png")
    )
    assert mask.shape == truth.shape and set(np.unique(mask)) <= {0, 255}
    assert 2 * ((mask > 0) & (truth > 0)).sum() / ((mask > 0).sum() + (truth > 0).sum()) > 0.7
