"""Somebody's own project, which knows nothing of segpress: a network, images, a training, a checkpoint.

`python recipes/own/my_net.py` draws a data folder, trains for a minute and writes runs/own/my_net.pt; then
`compress run recipes/own/my_net.yaml` takes the network from there. All it needs is this file and the checkpoint.
"""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

COUNTS = {"train": 64, "calibration": 24, "val": 8, "test": 40}


class MyNet(nn.Module):
    """A small network that answers as many do: a dictionary, at half the size of the image."""

    def __init__(self, width: int = 16, classes: int = 3) -> None:
        super().__init__()
        self.stem = block(1, width, stride=2)
        self.down = block(width, 2 * width, stride=2)
        self.deep = nn.Sequential(block(2 * width, 4 * width, stride=2), block(4 * width, 4 * width))
        self.up = block(6 * width, 2 * width)
        self.merge = block(3 * width, width)
        self.head = nn.Conv2d(width, classes, 1)
        self.aux = nn.Conv2d(4 * width, classes, 1)

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """`out` at half the size of the image; `aux` at an eighth."""
        half = self.stem(image)
        quarter = self.down(half)
        deep = self.deep(quarter)
        quarter = self.up(torch.cat([quarter, F.interpolate(deep, scale_factor=2)], dim=1))
        half = self.merge(torch.cat([half, F.interpolate(quarter, scale_factor=2)], dim=1))
        return {"out": self.head(half), "aux": self.aux(deep)}


def block(before: int, after: int, stride: int = 1) -> nn.Sequential:
    """A 3x3 convolution, batch norm, ReLU."""
    conv = nn.Conv2d(before, after, 3, stride, 1, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(after), nn.ReLU(inplace=True))


def draw(rng: np.random.Generator, side: int) -> tuple[np.ndarray, np.ndarray]:
    """A noisy image with a bright square (class 1) and a dark disc (class 2), and its mask."""
    mask = np.zeros((side, side), np.uint8)
    top, left = rng.integers(2, side // 2, 2)
    mask[top : top + side // 3, left : left + side // 3] = 1
    rows, columns = np.mgrid[:side, :side]
    middle = rng.integers(side // 4, 3 * side // 4, 2)
    mask[(rows - middle[0]) ** 2 + (columns - middle[1]) ** 2 < (side // 7) ** 2] = 2
    image = np.choose(mask, [110, 150, 70]) + rng.normal(0, 25, mask.shape)
    return np.clip(image, 0, 255).astype(np.uint8), mask


def write_data(root: Path, counts: dict[str, int], side: int) -> None:
    """A data folder: images/, masks/ and split.csv."""
    rng = np.random.default_rng(0)
    rows = [("image", "mask", "split")]
    for split, count in counts.items():
        for index in range(count):
            name = f"{split}_{index:03d}.png"
            for kind, pixels in zip(("images", "masks"), draw(rng, side), strict=True):
                (root / kind).mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels).save(root / kind / name)
            rows.append((f"images/{name}", f"masks/{name}", split))
    with (root / "split.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)


def train(net: MyNet, root: Path, steps: int) -> None:
    """Adam on random batches of the train cases, pixels as (value / 255 - 0.4) / 0.15."""
    paths = sorted((root / "images").glob("train_*.png"))
    pixels = [(np.asarray(Image.open(path)), np.asarray(Image.open(root / "masks" / path.name))) for path in paths]
    images = torch.from_numpy(np.stack([image for image, _ in pixels])[:, None] / np.float32(255) - np.float32(0.4))
    masks = torch.from_numpy(np.stack([mask for _, mask in pixels])).long()
    optimizer = torch.optim.Adam(net.parameters(), lr=3e-3)
    for step in range(steps):
        picked = torch.randperm(len(images), generator=torch.Generator().manual_seed(step))[:8]
        answer = net(images[picked] / 0.15)
        losses = [
            F.cross_entropy(F.interpolate(answer[key], masks.shape[1:], mode="bilinear"), masks[picked])
            for key in ("out", "aux")
        ]
        optimizer.zero_grad()
        (losses[0] + 0.4 * losses[1]).backward()
        optimizer.step()


def main(folder: Path, counts: dict[str, int] = COUNTS, side: int = 128, steps: int = 200) -> None:
    """Everything, into `folder`: data/ and my_net.pt."""
    torch.manual_seed(0)
    write_data(folder / "data", counts, side)
    net = MyNet()
    train(net, folder / "data", steps)
    torch.save({"state_dict": net.state_dict(), "steps": steps}, folder / "my_net.pt")


if __name__ == "__main__":
    main(Path("runs/own"))
