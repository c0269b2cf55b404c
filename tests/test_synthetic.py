"""The ultrasound phantom: reproducible to the byte, and plausible as ultrasound."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from compress.data.dataset.cases import Dataset
from compress.data.synthetic import CLASSES, Synthetic, _bone, _log_compressed, _scan, phantom

SMALL = {"size": (64, 48), "train": 2, "calibration": 1, "val": 1, "test": 3}


def made(root: Path, **options: object) -> Dataset:
    return Synthetic(root=root, **{**SMALL, **options})(channels=1, classes=3)  # type: ignore[arg-type]


def files(root: Path) -> dict[str, bytes]:
    """The bytes of every image and mask, by image and case."""
    return {str(path.relative_to(path.parents[1])): path.read_bytes() for path in sorted(root.rglob("*.png"))}


def uniform(seed: int, side: int = 256) -> np.ndarray:
    """The envelope of tissue that echoes alike everywhere."""
    return _scan(np.random.default_rng(seed), np.ones((side, side)), np.ones((side, side)))


def speckle_width(envelope_HW: np.ndarray) -> float:
    """Columns after which the speckle of a row is half as like itself."""
    rows = envelope_HW - envelope_HW.mean(axis=1, keepdims=True)
    alike = np.fft.irfft((np.abs(np.fft.rfft(rows, axis=1)) ** 2).mean(axis=0))
    alike /= alike[0]
    after = int(np.argmax(alike < 0.5))
    return float(after - (0.5 - alike[after]) / (alike[after - 1] - alike[after]))


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(tmp_path: Path) -> None:
    made(tmp_path / "a")
    made(tmp_path / "b")
    made(tmp_path / "c", seed=1)
    first = files(tmp_path / "a")
    assert len(first) == 14
    assert files(tmp_path / "b") == first
    assert all(files(tmp_path / "c")[name] != image for name, image in first.items() if name.startswith("images"))


def test_cases_do_not_depend_on_how_many_there_are(tmp_path: Path) -> None:
    made(tmp_path / "few", train=1, val=0)
    made(tmp_path / "many", train=4, val=2)
    few, many = files(tmp_path / "few"), files(tmp_path / "many")
    assert few.items() <= many.items()
    assert len(many) - len(few) == 10


def test_cases_of_one_data_set_all_differ(tmp_path: Path) -> None:
    made(tmp_path)
    images = [image for name, image in files(tmp_path).items() if name.startswith("images")]
    assert len(set(images)) == len(images)


def test_each_set_of_options_keeps_a_folder_of_its_own(tmp_path: Path) -> None:
    made(tmp_path)
    made(tmp_path, seed=1)
    made(tmp_path, size=(64, 64))
    made(tmp_path, test=4)
    assert len(list(tmp_path.iterdir())) == 4


def test_it_is_read_as_any_folder_is(tmp_path: Path) -> None:
    data = made(tmp_path)
    data.check()
    assert data.class_names == CLASSES
    assert {role: len(cases) for role, cases in data.cases.items()} == {
        "train": 2,
        "calibration": 1,
        "val": 1,
        "test": 3,
    }
    assert data.image(data.cases["test"][0]).shape == (1, 64, 48)
    # 40 mm across, and square pixels.
    assert data.spacing_of(data.cases["test"][0]) == (40 / 48, 40 / 48)


def test_a_half_written_folder_is_completed_and_what_is_whole_is_kept(tmp_path: Path) -> None:
    data = made(tmp_path)
    folder = Path(data.source)
    whole = files(tmp_path)
    table = (folder / "split.csv").read_bytes()
    (folder / "split.csv").unlink()
    (folder / "images/train_0000.png").unlink()
    (folder / "masks/test_0001.png").unlink()
    (folder / "masks/test_0001.png.123.partial").write_bytes(b"half")
    kept = (folder / "images/test_0002.png").stat().st_mtime_ns
    made(tmp_path)
    assert files(tmp_path) == whole
    assert (folder / "split.csv").read_bytes() == table
    assert (folder / "images/test_0002.png").stat().st_mtime_ns == kept


@pytest.mark.parametrize("size", [(64, 64), (48, 96), (33, 47), (32, 256), (256, 32)])
def test_every_class_appears_in_20_cases_of_any_size(size: tuple[int, int]) -> None:
    cases = [phantom(np.random.default_rng(seed), size) for seed in range(20)]
    for image, mask in cases:
        assert image.shape == mask.shape == size
        assert image.dtype == mask.dtype == np.uint8
    for index in range(len(CLASSES)):
        assert sum((mask == index).any() for _, mask in cases) >= 5
    # Not every case has a nerve: a network must be able to say that there is none.
    assert not all((mask == 1).any() for _, mask in cases)


def test_the_image_is_neither_black_nor_white() -> None:
    for seed in range(5):
        image, _ = phantom(np.random.default_rng(seed), (96, 96))
        assert 20 < image.mean() < 220
        assert image.std() > 15
        assert (image == 255).mean() < 0.01


def test_the_envelope_of_uniform_tissue_is_fully_developed_speckle() -> None:
    # A Rayleigh envelope's mean over its deviation is sqrt(pi / (4 - pi)) = 1.913. Gain varies with
    # depth, so the ratio is taken in thin bands.
    ratios = []
    for seed in range(4):
        envelope = uniform(seed)
        bands = (envelope[top : top + 8, 8:-8] for top in range(30, 226, 8))
        ratios += [band.mean() / band.std() for band in bands]
    assert np.mean(ratios) == pytest.approx(1.913, abs=0.05)


def test_a_wider_beam_makes_no_brighter_or_darker_image() -> None:
    # The residual gain is a straight line in decibels; without it, focus and edges are alike.
    bends = []
    for seed in range(8):
        rows = np.convolve(uniform(seed).mean(axis=1), np.ones(16) / 16, "valid")
        decibels, depth = 20 * np.log10(rows), np.arange(len(rows))
        line = np.polynomial.Polynomial.fit(depth, decibels, 1)
        assert -12.5 < line(depth[-1]) - line(0) < 0.5
        bends.append(decibels - line(depth))
    assert np.abs(np.mean(bends, axis=0)).max() < 0.5


def test_speckle_is_widest_far_from_the_focus() -> None:
    # The focus lies between 0.3 and 0.7 of the depth: the top is always farther from it than the narrowest rows.
    for seed in range(3):
        envelope = uniform(seed)
        widths = [speckle_width(envelope[top : top + 32]) for top in range(0, 256, 32)]
        focus = int(np.argmin(widths))
        assert 1 <= focus <= 6
        assert max(widths[0], widths[-1]) > 1.25 * widths[focus]


def test_tissue_behind_bone_is_darker_than_beside_it() -> None:
    shadowed = 0
    for seed in range(5):
        rng = np.random.default_rng(seed)
        echo, loss, mask = np.ones((128, 128)), np.ones((128, 128)), np.zeros((128, 128), np.uint8)
        _bone(rng, echo, loss, mask)
        image = _log_compressed(rng, _scan(rng, np.ones_like(echo), loss)).astype(float)
        bottom = loss[-16:].mean(axis=0)
        behind, beside = bottom > bottom.max() * 0.9, bottom < 1.1
        if behind.any() and beside.any():
            shadowed += 1
            assert image[-16:, behind].mean() < image[-16:, beside].mean() - 30
    assert shadowed >= 3


def test_tissue_behind_fluid_is_brighter_than_beside_it() -> None:
    loss = np.ones((128, 128))
    loss[30:70, 40:80] = 0.1
    envelope = np.mean([_scan(np.random.default_rng(seed), np.ones((128, 128)), loss) for seed in range(4)], axis=0)
    assert envelope[80:120, 48:72].mean() > 1.3 * envelope[80:120, 90:].mean()


def test_a_network_of_another_number_of_classes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"3 class names \(background, nerve, vessel\), but the network has 2"):
        Synthetic(root=tmp_path, **SMALL)(channels=1, classes=2)  # type: ignore[arg-type]


@pytest.mark.parametrize("option", [{"size": (16, 64)}, {"seed": -1}, {"train": -1}, {"noise": 1}])
def test_options_out_of_range_are_refused(option: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Synthetic(**option)  # type: ignore[arg-type]
