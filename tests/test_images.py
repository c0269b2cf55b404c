"""What a file says of its pixels besides their values: each is applied as OpenCV's imread does, or refused by name."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from compress.data.dataset.cases import Case, Fit
from compress.data.dataset.images import Images
from compress.errors import DataError

HEIGHT, WIDTH = 24, 16
# Smooth, so that JPEG changes little; no symmetry, so that no turn is missed.
GRAY_HW = np.add.outer(np.arange(HEIGHT) * 8, np.arange(WIDTH) * 3).astype(np.uint8)
READER, FIT = Images(), Fit(size=(HEIGHT, WIDTH), how="tile")
TURNS = {
    1: GRAY_HW,
    2: GRAY_HW[:, ::-1],
    3: GRAY_HW[::-1, ::-1],
    4: GRAY_HW[::-1],
    5: GRAY_HW.T,
    6: GRAY_HW[::-1].T,
    7: GRAY_HW[::-1, ::-1].T,
    8: GRAY_HW[:, ::-1].T,
}
"""What is shown of GRAY_HW under each EXIF orientation (EXIF 2.32, tag 0x0112), as OpenCV's ExifTransform turns it."""


def oriented(path: Path, tag: int) -> Path:
    image, exif = Image.fromarray(GRAY_HW), Image.Exif()
    exif[0x0112] = tag
    compression = "tiff_lzw" if "lzw" in path.name else None
    tiff = {"tiffinfo": {274: tag}, "compression": compression}
    more: dict[str, Any] = tiff if path.suffix == ".tif" else {"exif": exif, "quality": 98}
    image.save(path, **more)
    return path


@pytest.mark.parametrize("suffix", ["jpg", "png", "tif", "lzw.tif"])
@pytest.mark.parametrize("tag", TURNS)
def test_an_image_is_turned_as_its_exif_orientation_says_and_its_size_with_it(
    tmp_path: Path, suffix: str, tag: int
) -> None:
    path = oriented(tmp_path / f"a.{suffix}", tag)
    (found_HW,) = READER.image(path, 1, FIT) * 255
    assert found_HW.shape == READER.size(path) == TURNS[tag].shape
    np.testing.assert_allclose(found_HW, TURNS[tag], atol=3)


def test_a_mask_is_turned_like_its_image(tmp_path: Path) -> None:
    image, mask = oriented(tmp_path / "a.jpg", 6), oriented(tmp_path / "m.png", 6)
    mask_HW, constant = READER.checked(Case(name="a", image=image, mask=mask))
    assert np.array_equal(mask_HW, TURNS[6])
    assert not constant


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def test_an_orientation_behind_the_pixels_of_a_png_counts_too(tmp_path: Path) -> None:
    path, exif = tmp_path / "a.png", Image.Exif()
    Image.fromarray(GRAY_HW).save(path)
    exif[0x0112] = 8
    whole = path.read_bytes()
    path.write_bytes(whole[:-12] + chunk(b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0")) + whole[-12:])
    assert READER.size(path) == (WIDTH, HEIGHT)
    assert np.array_equal((READER.image(path, 1, FIT)[0] * 255).round(), TURNS[8])


@pytest.mark.parametrize("orientation", [0, 9])
def test_an_orientation_that_is_none_changes_nothing(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(GRAY_HW).save(tmp_path / "a.png", exif=exif)
    assert np.array_equal((READER.image(tmp_path / "a.png", 1, FIT)[0] * 255).round(), GRAY_HW)


def png16(path: Path, pixels: np.ndarray, colour: int) -> Path:
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    head = struct.pack(">IIBBBBB", pixels.shape[1], pixels.shape[0], 16, colour, 0, 0, 0)
    parts = chunk(b"IHDR", head), chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))
    return path


@pytest.mark.parametrize(("colour", "channels"), [(2, 3), (6, 4)])
def test_16_bit_colour_is_read_by_its_high_bytes_and_without_its_opacity(
    tmp_path: Path, colour: int, channels: int
) -> None:
    # As imread without IMREAD_ANYDEPTH, which strips PNG to 8 bits and leaves alpha out.
    deep = np.random.default_rng(0).integers(0, 65536, (HEIGHT, WIDTH, channels)).astype(np.uint16)
    found_CHW = READER.image(png16(tmp_path / "a.png", deep, colour), 3, FIT) * 255
    assert np.array_equal(found_CHW.round().transpose(1, 2, 0), deep[..., :3] >> 8)


def test_opacity_gamma_and_colour_profiles_change_no_pixel(tmp_path: Path) -> None:
    # imread knows none of the three.
    plain = READER.image(oriented(tmp_path / "a.png", 1), 3, FIT)
    image = Image.fromarray(GRAY_HW)
    image.convert("LA").save(tmp_path / "la.png")
    image.convert("RGBA").save(tmp_path / "rgba.png")
    image.save(tmp_path / "icc.png", icc_profile=b"no profile that anyone could apply")
    whole = (tmp_path / "a.png").read_bytes()
    (tmp_path / "gamma.png").write_bytes(whole[:33] + chunk(b"gAMA", struct.pack(">I", 100_000)) + whole[33:])
    for name in ("la", "rgba", "icc", "gamma"):
        assert np.array_equal(READER.image(tmp_path / f"{name}.png", 3, FIT), plain)


@pytest.mark.parametrize("suffix", ["jpg", "tif"])
def test_cmyk_is_read_as_the_light_that_its_inks_leave(tmp_path: Path, suffix: str) -> None:
    # Adobe's JPEG holds its inks inverted; white paper must be white all the same.
    inks = np.zeros((HEIGHT, WIDTH, 4), np.uint8)
    inks[:, 8:] = 200, 0, 0, 30
    Image.frombytes("CMYK", (WIDTH, HEIGHT), inks.tobytes()).save(tmp_path / f"a.{suffix}", quality=100)
    found_CHW = READER.image(tmp_path / f"a.{suffix}", 3, FIT) * 255
    np.testing.assert_allclose(found_CHW[:, :, 2].T, np.full((HEIGHT, 3), 255), atol=3)
    np.testing.assert_allclose(found_CHW[:, :, -3].T, np.tile([55 * 225 / 255, 225, 225], (HEIGHT, 1)), atol=3)


def refused(path: Path) -> str:
    with pytest.raises(DataError) as caught:
        READER.image(path, 3, FIT)
    return str(caught.value)


@pytest.mark.parametrize("suffix", ["png", "gif", "tif", "webp"])
def test_a_film_is_refused_rather_than_cut_to_its_first_picture(tmp_path: Path, suffix: str) -> None:
    first, second = Image.fromarray(GRAY_HW), Image.fromarray(255 - GRAY_HW)
    first.save(tmp_path / f"a.{suffix}", save_all=True, append_images=[second])
    assert f"a.{suffix}: holds 2 pages or frames; save each as a file of its own" in refused(tmp_path / f"a.{suffix}")


def test_a_photograph_with_a_preview_is_its_first_picture(tmp_path: Path) -> None:
    first, second = (Image.fromarray(pixels).convert("RGB") for pixels in (GRAY_HW, 255 - GRAY_HW))
    first.save(tmp_path / "a.jpg", "MPO", save_all=True, append_images=[second], quality=98)
    np.testing.assert_allclose(READER.image(tmp_path / "a.jpg", 1, FIT)[0] * 255, GRAY_HW, atol=4)


def test_what_other_software_reads_otherwise_is_refused_by_name(tmp_path: Path) -> None:
    Image.new("LAB", (WIDTH, HEIGHT)).save(tmp_path / "lab.tif")
    assert "lab.tif: LAB colours are not read; save it as RGB or gray" in refused(tmp_path / "lab.tif")
    Image.fromarray(GRAY_HW.astype(np.uint16)).save(tmp_path / "w.tif", tiffinfo={262: 0})
    assert "w.tif: 16-bit gray whose 0 is white" in refused(tmp_path / "w.tif")


def test_turns_are_those_of_pillow(tmp_path: Path) -> None:
    for tag, shown_HW in TURNS.items():
        with Image.open(oriented(tmp_path / "a.png", tag)) as image:
            assert np.array_equal(np.asarray(ImageOps.exif_transpose(image)), shown_HW)
