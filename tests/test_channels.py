"""Images of several channels: arrays of NumPy and TIFF of several pages, as any other image from there on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from compress.data.dataset.cases import Case, Dataset, Fit
from compress.data.dataset.drawn import Shares
from compress.data.dataset.images import Images
from compress.data.folder import Folder
from compress.errors import DataError
from compress.networks.unet import UNet
from compress.task import Task
from compress.train.augment import augmentation, augmented

FIT = Fit(size=(16, 24))
STACK = np.random.default_rng(0).integers(0, 65536, (16, 24, 4)).astype(np.uint16)


def pages(path: Path, stack_HWC: np.ndarray) -> Path:
    each = [Image.fromarray(np.ascontiguousarray(stack_HWC[..., place])) for place in range(stack_HWC.shape[2])]
    each[0].save(path, save_all=True, append_images=each[1:])
    return path


def array(path: Path, stack: np.ndarray) -> Path:
    np.save(path, stack)
    return path


def test_arrays_and_pages_are_channels(tmp_path: Path) -> None:
    wanted = STACK.transpose(2, 0, 1) / np.float32(65535)
    for path in (
        array(tmp_path / "last.npy", STACK),
        array(tmp_path / "first.npy", STACK.transpose(2, 0, 1)),
        pages(tmp_path / "pages.tif", STACK),
    ):
        np.testing.assert_allclose(Images(channels=4).image(path, 4, FIT), wanted)
        assert Images(channels=4).size(path) == (16, 24)
    small = Images(channels=4).image(tmp_path / "last.npy", 4, Fit(size=(8, 8), how="pad"))
    assert small.shape == (4, 8, 8) and not small[:, 6:].any()
    values = array(tmp_path / "values.npy", STACK.astype(np.float32) / 65535 * 2 - 1)
    np.testing.assert_allclose(Images(channels=4, window=(-1, 1)).image(values, 4, FIT), wanted, atol=1e-6)
    gray = array(tmp_path / "gray.npy", STACK[..., 0])
    np.testing.assert_allclose(Images(channels=1).image(gray, 1, FIT), wanted[:1])


@pytest.mark.parametrize(
    ("given", "channels", "said"),
    [
        (STACK, 5, "has 4 channels, and the network takes 5"),
        (STACK.astype(np.float32), 4, "values of float32 have no range of their own"),
        (STACK * np.nan, 4, "holds what are no numbers"),
        (STACK[None], 4, "has 4 axes; give height, width and channels"),
        (np.array([{}]), 4, "not an array of numbers that NumPy reads"),
    ],
)
def test_what_cannot_be_read_is_told(given: Any, channels: int, said: str, tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", given, allow_pickle=True)
    with pytest.raises(DataError, match=rf"a\.npy: {said}"):
        Images(channels=channels).image(tmp_path / "a.npy", channels, FIT)


def test_other_files_say_how_many_channels_they_have(tmp_path: Path) -> None:
    Image.fromarray(STACK[..., 0]).save(tmp_path / "a.png")
    with pytest.raises(DataError, match="has 1 channels, and the network takes 4"):
        Images(channels=4).image(tmp_path / "a.png", 4, FIT)
    Image.new("RGB", (24, 16)).save(tmp_path / "b.png")
    with pytest.raises(DataError, match=r"its 1 pages are not gray"):
        Images(channels=4).image(tmp_path / "b.png", 4, FIT)
    with pytest.raises(DataError, match="holds 4 pages or frames"):
        Images(channels=3).image(pages(tmp_path / "c.tif", STACK), 3, FIT)
    (tmp_path / "d.tif").write_text("text")
    for name in ("d.tif", "none.tif"):
        with pytest.raises(DataError, match=f"{name[:-4]}.tif: (not an image|no such file)"):
            Images(channels=4).image(tmp_path / name, 4, FIT)


def folder(root: Path) -> Dataset:
    (root / "images").mkdir()
    (root / "masks").mkdir()
    for place, name in enumerate("abcd"):
        np.save(root / "images" / f"{name}.npy", np.roll(STACK, place, axis=0))
        Image.fromarray((STACK[..., 1] > 30000).astype(np.uint8)).save(root / "masks" / f"{name}.png")
    return Folder(root=root, size=(16, 24), calibration=0, split=Shares(by="image"))(channels=4, classes=2)


def test_a_network_of_4_channels_is_given_them(tmp_path: Path) -> None:
    data = folder(tmp_path)
    assert all(look.foreground == {1} for looks in data.check().values() for _, look in looks)
    assert len(data.measured_normalization().mean) == 4
    task = Task(data=data, net=UNet(classes=2, in_channels=4, width=8, depth=2)().eval(), seed=0)
    case = data.cases["test"][0]
    seen_HWC, _ = task.shown(case)
    assert seen_HWC.shape == (16, 24, 1), "what can be looked at is one channel"
    transform = augmentation("strong")
    image_CHW, mask_HW = augmented(transform, data.pixels(case), data.fitted_mask(case), (0, 0, 0))
    assert image_CHW.shape == (4, 16, 24) and mask_HW.shape == (16, 24)


def test_a_mask_of_another_size_is_told(tmp_path: Path) -> None:
    data = folder(tmp_path)
    Image.new("L", (5, 5)).save(tmp_path / "masks" / "a.png")
    with pytest.raises(DataError, match=r"a\.png: the mask is 5x5, its image a\.npy is 24x16"):
        data.reader.checked(Case(name="a", image=tmp_path / "images" / "a.npy", mask=tmp_path / "masks" / "a.png"))
