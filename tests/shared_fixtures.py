"""Small real things that many tests share: a tiny data folder, a tiny trained U-Net, a recipe over them."""

from __future__ import annotations

import csv
import gc
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ssh_server
import torch
import yaml
from filelock import FileLock
from PIL import Image
from ssh_server import Server, served

from compress.data.dataset.cases import Normalization
from compress.networks.unet import UNet
from compress.recipe import load
from compress.storage.description import Description
from compress.storage.weights import save_net
from compress.task import Task
from compress.train.losses.sum import DiceCrossEntropy
from export.artifact import Artifact
from export.remote.conversation import close_all

# Tests that run beside each other have a thread each.
torch.set_num_threads(1 if "PYTEST_XDIST_WORKER" in os.environ else 2)

# What torch and its exporter hold for good is millions of objects, which every collection would look through.
gc.freeze()
gc.set_threshold(500_000, 20, 50)

SIZE = 32


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Networks this small only wait for a second thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session", autouse=True)
def commands_leave_openmp_alone() -> Iterator[None]:
    """On a busy machine a command has OpenMP's threads sleep, which it says in the report, for all of its process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("compress.cli._settle_waiting", lambda: None)
        yield


@pytest.fixture(scope="session", autouse=True)
def peaks_cost_nothing() -> Iterator[None]:
    """A run measures peak memory in a process for each artifact, each importing a runtime.

    Here each of these processes just says a number: tests/test_peak_memory.py looks at the real ones.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("export.target._peak_memory", lambda *_: ["echo", "100"])
        yield


@pytest.fixture(scope="session", autouse=True)
def plots_cost_nothing() -> Iterator[None]:
    """Drawing a report's plots takes longer than most tiny runs.

    tests/test_report.py draws them, and so does the shipped recipe that tests/test_recipes.py runs whole.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "compress.report.html.plots", lambda _: dict.fromkeys(("steps", "latency", "size", "scatter", "sizes"))
        )
        yield


@pytest.fixture(scope="session", autouse=True)
def slow_layers_cost_nothing() -> Iterator[None]:
    """A network this small is hardly faster for any step, and a run times each layer of it once more to say why.

    tests/test_slower.py has that looked for, and so does the shipped recipe that tests/test_recipes.py runs whole.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("compress.commands.run.with_slow_layers", lambda rows, *_: list(rows))
        yield


@pytest.fixture(scope="session", autouse=True)
def programs_are_kept() -> Iterator[None]:
    """Tests export the same small networks again and again; tests/test_programs.py looks at how few are kept."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("export.programs.kept.KEPT", 400)
        yield


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A real OpenSSH server on the loopback."""
    if not ssh_server.IS_THERE:
        pytest.skip(ssh_server.MISSING)
    with served(tmp_path_factory.mktemp("server")) as server:
        yield server


@pytest.fixture(scope="module")
def host(server: Server) -> Iterator[Server]:
    """The server, as `ssh tower` reaches it: those who ask a Python there by the same name share a conversation."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SEGPRESS_SSH", server.ssh)
        yield server
        close_all()


@pytest.fixture
def tower(server: Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """The server, as `ssh tower` reaches it: a test begins its conversations itself, and they end with it."""
    close_all()
    monkeypatch.setenv("SEGPRESS_SSH", server.ssh)
    yield server
    close_all()


@pytest.fixture(scope="session")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """A U-Net of one class as ONNX."""
    # Only here: it imports what few tests need.
    from zoo import written

    return written("unet of one class", tmp_path_factory.mktemp("onnx") / "net.onnx").sealed()


def blob(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A noisy 32x32 image with a bright square (class 1) and a dark disc (class 2), and its mask."""
    mask = np.zeros((SIZE, SIZE), np.uint8)
    top, left = rng.integers(2, 16, 2)
    mask[top : top + 10, left : left + 10] = 1
    rows, columns = np.mgrid[:SIZE, :SIZE]
    middle = rng.integers(20, 27, 2)
    mask[(rows - middle[0]) ** 2 + (columns - middle[1]) ** 2 < 16] = 2
    image = np.choose(mask, [110, 190, 30]) + rng.normal(0, 12, mask.shape)
    return np.clip(image, 0, 255).astype(np.uint8), mask


def write_folder(root: Path, counts: dict[str, int], seed: int = 0) -> Path:
    """A data folder with this many cases in each split."""
    rng = np.random.default_rng(seed)
    for name in ("images", "masks"):
        (root / name).mkdir(parents=True, exist_ok=True)
    with (root / "split.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["image", "mask", "split"])
        for split, count in counts.items():
            for index in range(count):
                image, mask = blob(rng)
                name = f"{split}_{index:03d}.png"
                Image.fromarray(image).save(root / "images" / name)
                Image.fromarray(mask).save(root / "masks" / name)
                table.writerow([f"images/{name}", f"masks/{name}", split])
    return root


def solid(rng: np.random.Generator, size: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray]:
    """A noisy volume with a bright ball (class 1) and a dark block (class 2), and its mask."""
    mask = np.zeros(size, np.uint8)
    corner = rng.integers(1, np.asarray(size) // 2)
    mask[tuple(slice(start, start + 4) for start in corner)] = 2
    middle = [rng.integers(side // 3, side - side // 3) for side in size]
    places = np.meshgrid(*map(np.arange, size), indexing="ij")
    mask[sum((place - at) ** 2 for place, at in zip(places, middle, strict=True)) < 14] = 1
    return np.choose(mask, [500, 900, 100]) + rng.normal(0, 40, size), mask


def write_volumes(root: Path, counts: dict[str, int], sizes: Sequence[tuple[int, int, int]], seed: int = 0) -> Path:
    """A folder of NIfTI volumes with this many cases in each split, of these sizes in turn, 1 x 1.5 x 2 mm a voxel."""
    import nibabel

    rng = np.random.default_rng(seed)
    affine = np.diag([1.0, 1.5, 2.0, 1.0])
    for name in ("images", "masks"):
        (root / name).mkdir(parents=True, exist_ok=True)
    with (root / "split.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["image", "mask", "split"])
        for split, count in counts.items():
            for index in range(count):
                image, mask = solid(rng, sizes[index % len(sizes)])
                name = f"{split}_{index:03d}.nii.gz"
                nibabel.save(nibabel.Nifti1Image(image.astype(np.int16), affine), root / "images" / name)
                nibabel.save(nibabel.Nifti1Image(mask, affine), root / "masks" / name)
                table.writerow([f"images/{name}", f"masks/{name}", split])
    return root


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder that nobody changes; copy it to spoil it."""
    counts = {"train": 6, "calibration": 8, "val": 4, "test": 32}
    return write_folder(tmp_path_factory.mktemp("data") / "blobs", counts)


def shared(tmp_path_factory: pytest.TempPathFactory, name: str) -> Path:
    """A place that is the same for every process that tests run in."""
    base = tmp_path_factory.getbasetemp()
    return (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / name


def trained() -> torch.nn.Module:
    """A two-level U-Net of width 8 that has learnt the blobs."""
    torch.manual_seed(0)
    net = UNet(classes=3, width=8, depth=2)()
    optimizer = torch.optim.Adam(net.parameters(), lr=5e-3)
    lose = DiceCrossEntropy()
    rng = np.random.default_rng(100)
    for _ in range(60):
        images, masks = zip(*(blob(rng) for _ in range(8)), strict=True)
        image_BCHW = torch.from_numpy(np.stack(images)[:, None].astype(np.float32) / 255 - 0.45) / 0.2
        loss = lose(net(image_BCHW), torch.from_numpy(np.stack(masks)).long())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return net.eval()


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small trained U-Net as safetensors with its description, the same for every process that tests run in."""
    path = shared(tmp_path_factory, "weights") / "tiny.safetensors"
    with FileLock(f"{path.parent}.lock"):
        if not path.with_suffix(".json").is_file():
            path.parent.mkdir(exist_ok=True)
            description = Description(
                network={"unet": {"classes": 3, "in_channels": 1, "width": 8, "depth": 2}},
                classes=("background", "square", "disc"),
                normalization=Normalization(mean=(0.45,), std=(0.2,)),
                size=(SIZE, SIZE),
            )
            save_net(trained(), description, path)
    return path


@pytest.fixture(scope="session")
def done(tmp_path_factory: pytest.TempPathFactory, folder: Path, weights: Path) -> tuple[Path, dict[str, Any]]:
    """One finished run and its report, the same for every process that tests run in; copy it to change it."""
    # Only here: it imports what few tests need.
    from whole_run import finished

    place = shared(tmp_path_factory, "finished")
    with FileLock(f"{place}.lock"):
        if not (place / "out" / "manifest.json").is_file():
            place.mkdir(exist_ok=True)
            finished(place, folder, weights)
    return place / "out", json.loads((place / "out" / "report.json").read_text())


def tiny_task(place: Path, folder: Path, weights: Path, word: str) -> Task:
    """A trained network of a few channels and 32x32 images, with the pass of this word."""
    recipe = {
        "name": "tiny",
        "network": {"unet": {"classes": 3, "in_channels": 1, "width": 8, "depth": 2, "weights": str(weights)}},
        "data": {"folder": {"root": str(folder), "size": [32, 32], "batch": 6}},
        "passes": [word],
    }
    return load(write_recipe(place, recipe)).task()


@pytest.fixture
def recipe(tmp_path: Path, folder: Path, weights: Path) -> dict[str, object]:
    """A whole recipe over the tiny things, to change and write with `write_recipe`."""
    return {
        "name": "tiny",
        "network": {"unet": {"classes": 3, "in_channels": 1, "width": 8, "depth": 2, "weights": str(weights)}},
        "data": {"folder": {"root": str(folder), "size": [SIZE, SIZE]}},
        "passes": [{"int8": {"calibrate": 8, "effort": "fast"}}],
        "latency": {"samples": 10, "seconds": 0.2, "warm_up": 0, "threads": 1},
    }


def write_recipe(folder: Path, recipe: dict[str, object]) -> Path:
    """The recipe as a YAML file in `folder`."""
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe, sort_keys=False))
    return path
