"""Folders of images and masks: every kind of file people have, and every way their folders are wrong."""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from compress.data.dataset.cases import Dataset, Fit, Normalization
from compress.data.dataset.images import Images
from compress.data.dataset.split import read_split
from compress.data.folder import Folder
from compress.errors import DataError

HEIGHT, WIDTH = 24, 16
GRAY_HW = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH)).astype(np.uint8)
COLOUR_HWC = np.random.default_rng(1).integers(0, 256, (HEIGHT, WIDTH, 3)).astype(np.uint8)
MASK_HW = (np.arange(HEIGHT)[:, None] // 8 + np.zeros((1, WIDTH), int)).astype(np.uint8)


def write(path: Path, pixels: np.ndarray, mode: str | None = None, **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(pixels)
    (image if mode is None else image.convert(mode)).save(path, **options)
    return path


def table(root: Path, rows: Sequence[Sequence[str]], columns: Sequence[str] = ("image", "mask", "split")) -> Path:
    with (root / "split.csv").open("w", newline="") as file:
        csv.writer(file).writerows([columns, *rows])
    return root


def case(root: Path, name: str = "a.png", image: np.ndarray = GRAY_HW, mask: np.ndarray = MASK_HW) -> list[str]:
    """Writes one case; its row of split.csv, without the split."""
    write(root / "images" / name, image)
    write(root / "masks" / f"{Path(name).stem}.png", mask)
    return [f"images/{name}", f"masks/{Path(name).stem}.png"]


def data(root: Path, *, channels: int = 1, classes: int = 3, **options: object) -> Dataset:
    options = {"size": (HEIGHT, WIDTH), "calibration": 0, **options}
    return Folder(root=root, **options)(channels=channels, classes=classes)  # type: ignore[arg-type]


def one(root: Path, image: str, **options: object) -> Dataset:
    """The data set whose only case is this image, which has been written."""
    write(root / "masks/m.png", MASK_HW)
    return data(table(root, [[image, "masks/m.png", "test"]]), **options)


def pixels(found: Dataset) -> np.ndarray:
    return found.pixels(found.cases["test"][0])


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.bmp"])
def test_8_bit_gray_is_read_to_0_to_1(tmp_path: Path, name: str) -> None:
    write(tmp_path / name, GRAY_HW)
    assert np.array_equal(pixels(one(tmp_path, name))[0], np.float32(GRAY_HW) / 255)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_16_bit_gray_keeps_its_16_bits(tmp_path: Path, name: str, channels: int) -> None:
    deep_HW = np.random.default_rng(2).integers(0, 65536, (HEIGHT, WIDTH)).astype(np.uint16)
    write(tmp_path / name, deep_HW)
    found_CHW = pixels(one(tmp_path, name, channels=channels))
    assert found_CHW.shape == (channels, HEIGHT, WIDTH)
    for found_HW in found_CHW:
        np.testing.assert_allclose(found_HW, deep_HW / 65535, atol=1e-7)


def test_big_endian_16_bit_tiff_is_the_same_image(tmp_path: Path) -> None:
    deep_HW = np.random.default_rng(2).integers(0, 65536, (HEIGHT, WIDTH)).astype(">u2")
    Image.frombytes("I;16B", (WIDTH, HEIGHT), deep_HW.tobytes()).save(tmp_path / "a.tif")
    np.testing.assert_allclose(pixels(one(tmp_path, "a.tif"))[0], deep_HW / 65535, atol=1e-7)


def test_16_bit_gray_is_resized_without_losing_bits(tmp_path: Path) -> None:
    write(tmp_path / "a.png", np.tile(np.array([[30_000, 30_001]], np.uint16), (16, 8)))
    found_HW = pixels(one(tmp_path, "a.png", size=(8, 8)))[0] * 65535
    assert 30_000 < found_HW.mean() < 30_001


def test_jpeg_is_close_to_what_was_saved(tmp_path: Path) -> None:
    smooth_HW = np.tile(np.linspace(0, 255, WIDTH), (HEIGHT, 1)).astype(np.uint8)
    write(tmp_path / "a.jpg", smooth_HW, quality=95)
    np.testing.assert_allclose(pixels(one(tmp_path, "a.jpg"))[0], smooth_HW / 255, atol=0.03)


def test_colour_for_three_channels_keeps_its_order(tmp_path: Path) -> None:
    write(tmp_path / "a.png", COLOUR_HWC)
    found_CHW = pixels(one(tmp_path, "a.png", channels=3))
    np.testing.assert_allclose(found_CHW.transpose(1, 2, 0), COLOUR_HWC / 255, atol=1e-7)


def test_colour_for_one_channel_is_its_luma(tmp_path: Path) -> None:
    write(tmp_path / "a.png", COLOUR_HWC)
    luma_HW = COLOUR_HWC @ np.array([0.299, 0.587, 0.114]) / 255
    np.testing.assert_allclose(pixels(one(tmp_path, "a.png"))[0], luma_HW, atol=1.5 / 255)


def test_gray_for_three_channels_is_repeated(tmp_path: Path) -> None:
    write(tmp_path / "a.png", GRAY_HW)
    found_CHW = pixels(one(tmp_path, "a.png", channels=3))
    assert all(np.array_equal(found_HW, np.float32(GRAY_HW) / 255) for found_HW in found_CHW)


@pytest.mark.parametrize("transparency", [{}, {"transparency": 3}, {"transparency": bytes([0, 128] + [255] * 254)}])
def test_a_palette_image_is_its_colours_even_the_transparent_ones(
    tmp_path: Path, transparency: dict[str, object]
) -> None:
    index_HW = (GRAY_HW // 64).astype(np.uint8)
    colours = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [9, 9, 9]], np.uint8)
    image = Image.fromarray(index_HW)
    image.putpalette(colours.tobytes() + bytes(252 * 3))
    image.save(tmp_path / "a.png", **transparency)  # type: ignore[arg-type]
    found_CHW = pixels(one(tmp_path, "a.png", channels=3))
    np.testing.assert_allclose(found_CHW.transpose(1, 2, 0), colours[index_HW] / 255, atol=1e-7)


@pytest.mark.parametrize("mode", ["1", "LA", "RGBA"])
@pytest.mark.parametrize("channels", [1, 3])
def test_other_modes_are_read_too(tmp_path: Path, mode: str, channels: int) -> None:
    write(tmp_path / "a.png", np.uint8(GRAY_HW > 127) * 255, mode)
    expected_HW = np.float32(GRAY_HW > 127)
    assert all(np.array_equal(each, expected_HW) for each in pixels(one(tmp_path, "a.png", channels=channels)))


def refused_file(root: Path, words: str, **options: object) -> None:
    with pytest.raises(DataError, match=words):
        one(root, "a.tif", **options).check()


def test_floating_point_tiff_is_refused_by_name(tmp_path: Path) -> None:
    write(tmp_path / "a.tif", GRAY_HW.astype(np.float32))
    refused_file(tmp_path, r"a\.tif: floating-point pixels have no known range; save it as 8-bit or")


def test_32_bit_tiff_is_refused_by_name(tmp_path: Path) -> None:
    write(tmp_path / "a.tif", GRAY_HW.astype(np.int32) * 100_000)
    refused_file(tmp_path, r"a\.tif: 32-bit or signed pixels")


def test_a_volume_in_one_tiff_is_refused_rather_than_cut_to_its_first_page(tmp_path: Path) -> None:
    page = Image.fromarray(GRAY_HW)
    page.save(tmp_path / "a.tif", save_all=True, append_images=[page, page])
    refused_file(tmp_path, r"a\.tif: holds 3 pages")


def test_text_in_place_of_an_image_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "a.tif").write_text("not an image")
    refused_file(tmp_path, r"a\.tif: not an image that can be read \(PNG, JPEG or TIFF\)")


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow also warns of a TIFF that is cut off.
@pytest.mark.parametrize("name", ["b.png", "b.jpg", "b.tif"])
@pytest.mark.parametrize("kept", [0.3, 0.9])
def test_a_truncated_image_in_the_middle_is_found_and_named(tmp_path: Path, name: str, kept: float) -> None:
    rows = [[*case(tmp_path, each), "test"] for each in ("a.png", name, "c.png")]
    whole = (tmp_path / "images" / name).read_bytes()
    (tmp_path / "images" / name).write_bytes(whole[: int(len(whole) * kept)])
    with pytest.raises(DataError, match=rf"images/{name}: damaged or unreadable image"):
        data(table(tmp_path, rows)).check()


def test_a_truncated_mask_is_named_too(tmp_path: Path) -> None:
    noise_HW = np.random.default_rng(0).integers(0, 3, (HEIGHT, WIDTH)).astype(np.uint8)
    root = table(tmp_path, [[*case(tmp_path, mask=noise_HW), "test"]])
    whole = (root / "masks/a.png").read_bytes()
    (root / "masks/a.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"masks/a\.png: damaged or unreadable image"):
        data(root).check()


def test_an_image_that_goes_away_after_the_split_was_read_is_named(tmp_path: Path) -> None:
    found = data(table(tmp_path, [[*case(tmp_path), "test"]]))
    (tmp_path / "images/a.png").unlink()
    with pytest.raises(DataError, match=r"a\.png: no such file, but the split lists it"):
        found.check()


def test_the_first_fault_in_split_order_is_told_and_the_others_counted(tmp_path: Path) -> None:
    shifts = {"a.png": 0, "b.png": 7, "c.png": 9}
    rows = [[*case(tmp_path, name, mask=MASK_HW + shift), "test"] for name, shift in shifts.items()]
    with pytest.raises(DataError, match=r"b\.png: class 7 is outside .*\(and 1 more files\)"):
        data(table(tmp_path, rows)).check()


def test_only_the_roles_asked_for_are_looked_at(tmp_path: Path) -> None:
    rows = [[*case(tmp_path, "a.png"), "train"], [*case(tmp_path, "b.png", mask=MASK_HW + 7), "test"]]
    found = data(table(tmp_path, rows))
    found.check(("train",))
    with pytest.raises(DataError, match=r"b\.png"):
        found.check(("test",))


def test_gray_values_are_class_indices(tmp_path: Path) -> None:
    assert np.array_equal(Images().mask(write(tmp_path / "m.png", MASK_HW)), MASK_HW)


@pytest.mark.parametrize("name", ["m.png", "m.tif"])
def test_16_bit_masks_are_class_indices(tmp_path: Path, name: str) -> None:
    mask_HW = Images().mask(write(tmp_path / name, MASK_HW.astype(np.uint16)))
    assert mask_HW.dtype == np.uint8
    assert np.array_equal(mask_HW, MASK_HW)


def test_a_palette_mask_gives_its_indices_not_its_colours(tmp_path: Path) -> None:
    image = Image.fromarray(MASK_HW)
    image.putpalette(bytes([0, 0, 0, 200, 0, 0, 0, 0, 255]) + bytes(253 * 3))
    image.save(tmp_path / "m.png")
    assert np.array_equal(Images().mask(tmp_path / "m.png"), MASK_HW)


def test_a_black_and_white_mask_is_0_and_1(tmp_path: Path) -> None:
    mask_HW = Images().mask(write(tmp_path / "m.png", MASK_HW > 0))
    assert np.array_equal(mask_HW, MASK_HW > 0)
    assert mask_HW.dtype == np.uint8


def test_a_colour_mask_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"m\.png: a mask holds one class index a pixel, but this one is RGB"):
        Images().mask(write(tmp_path / "m.png", COLOUR_HWC))


@pytest.mark.parametrize("index", [-1, 256, 70_000])
def test_an_index_that_does_not_fit_is_refused_rather_than_wrapped(tmp_path: Path, index: int) -> None:
    mask_HW = MASK_HW.astype(np.int32)
    mask_HW[3, 3] = index
    with pytest.raises(DataError, match=rf"m\.tif: class {index} does not fit in 0\.\.255"):
        Images().mask(write(tmp_path / "m.tif", mask_HW))


def test_class_7_of_3_is_refused_with_what_would_be_right(tmp_path: Path) -> None:
    mask_HW = MASK_HW.copy()
    mask_HW[5, 5] = 7
    with pytest.raises(DataError, match=r"masks/a\.png: class 7 is outside the 3 classes 0\.\.2; .*ignore: 7"):
        data(table(tmp_path, [[*case(tmp_path, mask=mask_HW), "test"]])).check()


def test_the_ignored_index_is_no_class_and_no_fault(tmp_path: Path) -> None:
    mask_HW = MASK_HW.copy()
    mask_HW[5, 5] = 7
    found = data(table(tmp_path, [[*case(tmp_path, mask=mask_HW), "test"]]), ignore=7)
    found.check()
    assert found.mask(found.cases["test"][0])[5, 5] == 7


def test_padding_is_ignored_where_there_is_an_ignored_index_and_background_where_not(tmp_path: Path) -> None:
    root = table(tmp_path, [[*case(tmp_path), "test"]])
    for ignore, fill in ((7, 7), (None, 0)):
        found = data(root, size=(24, 24), fit="pad", ignore=ignore)
        fitted_HW = found.fitted_mask(found.cases["test"][0])
        assert np.array_equal(fitted_HW[:, :16], MASK_HW)
        assert (fitted_HW[:, 16:] == fill).all()


def test_a_mask_of_another_size_than_its_image_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"masks/a\.png: the mask is 16x20, its image a\.png is 16x24"):
        data(table(tmp_path, [[*case(tmp_path, mask=MASK_HW[:20]), "test"]])).check()


@pytest.mark.parametrize("how", ["resize", "pad"])
@pytest.mark.parametrize("original", [(24, 16), (16, 24), (24, 24), (48, 12), (5, 31)])
def test_labels_come_back_at_the_size_of_the_image(how: str, original: tuple[int, int]) -> None:
    fit = Fit(size=(96, 96), how=how)  # type: ignore[arg-type]
    mask_HW = np.random.default_rng(0).integers(0, 3, original).astype(np.uint8)
    fitted_HW = fit.mask(mask_HW)
    assert fitted_HW.shape == (96, 96)
    # Enlarged by nearest neighbour and brought back the same way, every pixel is its own again.
    assert np.array_equal(fit.restore(fitted_HW, original), mask_HW)


@pytest.mark.parametrize("how", ["resize", "pad"])
@pytest.mark.parametrize("original", [(200, 120), (120, 200)])
def test_a_shape_comes_back_where_it_was_from_a_smaller_network(how: str, original: tuple[int, int]) -> None:
    fit = Fit(size=(64, 96), how=how)  # type: ignore[arg-type]
    rows, columns = np.mgrid[: original[0], : original[1]]
    mask_HW = ((rows - 60) ** 2 + (columns - 70) ** 2 < 40**2).astype(np.uint8)
    back_HW = fit.restore(fit.mask(mask_HW), original)
    assert back_HW.shape == original
    both = np.logical_and(back_HW, mask_HW).sum() * 2 / (back_HW.sum() + mask_HW.sum())
    assert both > 0.97


def test_padding_keeps_the_aspect_and_fills_bottom_and_right(tmp_path: Path) -> None:
    image = write(tmp_path / "a.png", np.full((40, 20), 9, np.uint8))
    (filled_HW,) = Images().image(image, 1, Fit(size=(32, 64), how="pad")) * 255
    assert filled_HW.shape == (32, 64)
    assert (filled_HW[:, :16].round() == 9).all()
    assert (filled_HW[:, 16:] == 0).all()


def test_image_and_mask_are_fitted_alike(tmp_path: Path) -> None:
    square_HW = np.zeros((60, 100), np.uint8)
    square_HW[20:40, 50:90] = 1
    image = write(tmp_path / "a.png", square_HW * 200)
    for fit in (Fit(size=(48, 48)), Fit(size=(48, 48), how="pad")):
        (seen_HW,) = Images().image(image, 1, fit) * 255 > 100
        assert (seen_HW != fit.mask(square_HW)).mean() < 0.02


def test_labels_are_enlarged_and_shrunk_as_pillow_does() -> None:
    labels_HW = np.random.default_rng(0).integers(0, 9, (37, 720)).astype(np.uint8)
    for size in ((37, 300), (64, 720), (33, 33), (111, 200), (37, 720)):
        pillows = Image.fromarray(labels_HW).resize(size[::-1], Image.Resampling.NEAREST)
        assert np.array_equal(Fit(size=size).mask(labels_HW), np.asarray(pillows))


def test_the_size_of_an_image_is_read_from_its_header(tmp_path: Path) -> None:
    found = data(table(tmp_path, [[*case(tmp_path), "test"]]), size=(8, 8))
    assert found.size_of(found.cases["test"][0]) == (HEIGHT, WIDTH)


def test_a_very_thin_image_keeps_at_least_one_pixel() -> None:
    fit = Fit(size=(32, 32), how="pad")
    mask_HW = np.ones((1, 500), np.uint8)
    assert np.array_equal(fit.restore(fit.mask(mask_HW), (1, 500)), mask_HW)


def test_each_channel_gets_its_own_mean_and_deviation() -> None:
    normalization = Normalization(mean=(0.5, 0.25, 0.0), std=(0.5, 0.25, 2.0))
    found_CHW = normalization(np.ones((3, 2, 2), np.float32))
    assert found_CHW.dtype == np.float32
    assert found_CHW[:, 0, 0].tolist() == [1.0, 3.0, 0.5]


def test_one_number_serves_every_channel(tmp_path: Path) -> None:
    write(tmp_path / "a.png", COLOUR_HWC)
    found = one(tmp_path, "a.png", channels=3, normalization={"mean": [0.5], "std": [0.5]})
    np.testing.assert_allclose(found.image(found.cases["test"][0]), pixels(found) * 2 - 1, atol=1e-6)


def test_numbers_for_another_count_of_channels_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "a.png", GRAY_HW)
    with pytest.raises(DataError, match=r"normalization has 3 numbers in mean, but the network takes 1 channels"):
        one(tmp_path, "a.png", normalization={"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]})


def test_the_measured_one_makes_zero_mean_and_unit_deviation(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    images = [rng.integers(20, 120, (HEIGHT, WIDTH)).astype(np.uint8) for _ in range(4)]
    rows = [[*case(tmp_path, f"{place}.png", image), "train"] for place, image in enumerate(images)]
    found = data(table(tmp_path, rows))
    found = found.normalized_by(found.measured_normalization())
    seen = np.stack(list(found.images(found.cases["train"])))
    assert abs(seen.mean()) < 1e-2
    assert abs(seen.std() - 1) < 1e-2


def refused_split(root: Path, words: str) -> None:
    with pytest.raises(DataError, match=words):
        read_split(root)


def test_each_case_gets_its_role_and_patient(tmp_path: Path) -> None:
    roles = ("train", "calibration", "val", "test")
    rows = [[*case(tmp_path, f"{role}.png"), role, f"p-{role}"] for role in roles]
    cases = read_split(table(tmp_path, rows, ("image", "mask", "split", "patient")))
    assert {role: [each.patient for each in cases[role]] for role in roles} == {r: [f"p-{r}"] for r in roles}
    assert cases["val"][0].unit == "p-val"


def test_without_a_patient_the_case_is_the_unit(tmp_path: Path) -> None:
    (found,) = read_split(table(tmp_path, [[*case(tmp_path), "test"]]))["test"]
    assert found.patient is None
    assert found.unit == "images/a.png"


def test_a_table_saved_by_a_spreadsheet_is_read(tmp_path: Path) -> None:
    case(tmp_path)
    text = "split,mask,image,remark\r\n test ,masks/a.png, images/a.png,\u00e9\r\n\r\n"
    (tmp_path / "split.csv").write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert len(read_split(tmp_path)["test"]) == 1


def test_a_missing_table_is_told(tmp_path: Path) -> None:
    refused_split(tmp_path, r"split\.csv: no such file; a data folder holds images/, masks/ and split\.csv")


@pytest.mark.parametrize("text", ["", "image,mask,split\n"])
def test_an_empty_table_is_told(tmp_path: Path, text: str) -> None:
    (tmp_path / "split.csv").write_text(text)
    refused_split(tmp_path, r"split\.csv: (lists no case|lacks the column image)")


@pytest.mark.parametrize("lacking", ["image", "mask", "split"])
def test_a_missing_column_is_named(tmp_path: Path, lacking: str) -> None:
    columns = [name for name in ("image", "mask", "split") if name != lacking]
    table(tmp_path, [["a", "b"]], columns)
    refused_split(tmp_path, rf"split\.csv: lacks the column {lacking}: .*; it needs image,mask,split")


def test_an_unknown_split_is_told_with_its_line(tmp_path: Path) -> None:
    rows = [[*case(tmp_path, "a.png"), "train"], [*case(tmp_path, "b.png"), "validation"]]
    refused_split(table(tmp_path, rows), r"split\.csv:3: split is 'validation'; it must be one of train, ")


def test_an_image_without_a_mask_is_told(tmp_path: Path) -> None:
    image, _ = case(tmp_path)
    refused_split(table(tmp_path, [[image, "", "test"]]), r"split\.csv:2: images/a\.png has no mask")


def test_a_row_that_is_cut_short_is_told(tmp_path: Path) -> None:
    case(tmp_path)
    refused_split(table(tmp_path, [["images/a.png"]]), r"split\.csv:2: split is ''")


def test_a_missing_image_and_a_missing_mask_are_named(tmp_path: Path) -> None:
    image, mask = case(tmp_path)
    refused_split(table(tmp_path, [["images/b.png", mask, "test"]]), r"2: the image, .*images/b\.png, does not exist")
    refused_split(
        table(tmp_path, [[image, "masks/b.png", "test"]]), r"2: the mask of images/a\.png, .*, does not exist"
    )


def test_a_file_in_two_splits_is_told_with_both(tmp_path: Path) -> None:
    row = case(tmp_path)
    refused_split(
        table(tmp_path, [[*row, "train"], [*row, "test"]]), r"3: .*images/a\.png is in two splits, train and test"
    )


def test_a_file_in_two_splits_is_found_under_another_spelling(tmp_path: Path) -> None:
    image, mask = case(tmp_path)
    write(tmp_path / "masks/b.png", MASK_HW)
    (tmp_path / "linked.png").symlink_to(tmp_path / image)
    for other in (f"./{image}", f"masks/../{image}", str(tmp_path / image), "linked.png"):
        rows = [[image, mask, "train"], [other, "masks/b.png", "test"]]
        refused_split(table(tmp_path, rows), r"is in two splits, train and test")


def test_a_case_listed_twice_is_told(tmp_path: Path) -> None:
    row = [*case(tmp_path), "test"]
    refused_split(table(tmp_path, [row, row]), r"3: .*images/a\.png is listed twice")


def test_a_table_that_is_no_text_is_told(tmp_path: Path) -> None:
    (tmp_path / "split.csv").write_bytes("image,mask,split\ncaf\u00e9,b,test\n".encode("latin-1"))
    refused_split(tmp_path, r"split\.csv: not a table of comma-separated UTF-8 text")


def test_names_are_made_up_where_none_are_given(tmp_path: Path) -> None:
    root = table(tmp_path, [[*case(tmp_path), "test"]])
    assert data(root).class_names == ("background", "class 1", "class 2")
    assert data(root, classes=1).class_names == ("background", "class 1")


def test_another_count_than_the_network_has_is_refused(tmp_path: Path) -> None:
    root = table(tmp_path, [[*case(tmp_path), "test"]])
    with pytest.raises(DataError, match=r"2 class names \(background, nerve\), but the network has 3 classes"):
        Folder(root=root, classes=("background", "nerve"), calibration=0)(channels=1, classes=3)


@pytest.mark.parametrize("names", [("bg", "nerve", "nerve"), ("bg", "patient", "nerve"), ("bg", "", "nerve")])
def test_names_that_scores_could_not_tell_apart_are_refused(tmp_path: Path, names: tuple[str, ...]) -> None:
    root = table(tmp_path, [[*case(tmp_path), "test"]])
    with pytest.raises(DataError, match="cannot name class"):
        Folder(root=root, classes=names, calibration=0)(channels=1, classes=3)


def patients_folder(root: Path, patients: int, frames: int) -> Path:
    rows = [
        [*case(root, f"{patient}_{frame}.png"), "train", f"p{patient}"]
        for patient in range(patients)
        for frame in range(frames)
    ]
    rows += [[*case(root, f"{role}.png"), role, f"p-{role}"] for role in ("val", "test")]
    return table(root, rows, ("image", "mask", "split", "patient"))


def test_cases_set_aside_are_whole_patients_that_no_other_role_has(tmp_path: Path) -> None:
    cases = data(patients_folder(tmp_path, patients=6, frames=3), calibration=4).cases
    patients = {role: {each.patient for each in cases[role]} for role in cases}
    assert len(cases["calibration"]) == 6
    assert len(cases["train"]) == 12
    assert len(patients["calibration"]) == 2
    assert not patients["calibration"] & (patients["train"] | patients["val"] | patients["test"])


def test_the_same_ones_are_set_aside_every_time_and_in_any_order(tmp_path: Path) -> None:
    root = patients_folder(tmp_path, patients=8, frames=1)
    first = {each.name for each in data(root, calibration=3).cases["calibration"]}
    lines = (root / "split.csv").read_text().splitlines()
    (root / "split.csv").write_text("\n".join([lines[0], *reversed(lines[1:])]))
    assert {each.name for each in data(root, calibration=3).cases["calibration"]} == first
    assert first < {each.name for each in data(root, calibration=5).cases["calibration"]}


def test_cases_that_the_split_names_are_taken_as_they_are(tmp_path: Path) -> None:
    rows = [[*case(tmp_path, f"{role}{n}.png"), role] for role in ("train", "calibration") for n in range(3)]
    cases = data(table(tmp_path, rows), calibration=1).cases
    assert [len(cases[role]) for role in ("train", "calibration")] == [3, 3]


def test_more_than_there_are_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="8 cases are to be set aside for calibration, but there are only 8 train"):
        data(patients_folder(tmp_path, patients=8, frames=1), calibration=8)


def test_setting_every_patient_aside_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"4 cases set aside .* would be all 2 train patients; lower data calib"):
        data(patients_folder(tmp_path, patients=2, frames=3), calibration=4)


def test_it_is_the_same_until_a_file_or_the_way_of_reading_changes(tmp_path: Path) -> None:
    root = table(tmp_path, [[*case(tmp_path), "test"]])
    before = data(root).fingerprint()
    assert data(root).fingerprint() == before
    other_ways = [{"size": (32, 32)}, {"fit": "pad"}, {"ignore": 9}, {"spacing": (1, 1)}, {"tolerance": 3}]
    others = [data(root, **way).fingerprint() for way in other_ways]
    assert len({before, *others}) == 1 + len(others)


@pytest.mark.parametrize("file", ["images/a.png", "masks/a.png"])
def test_it_changes_when_a_file_changes(tmp_path: Path, file: str) -> None:
    found = data(table(tmp_path, [[*case(tmp_path), "test"]]))
    before = found.fingerprint()
    status = (tmp_path / file).stat()
    write(tmp_path / file, MASK_HW[::-1])
    os.utime(tmp_path / file, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    assert found.fingerprint() != before


def test_it_changes_when_a_case_changes_its_role(tmp_path: Path) -> None:
    row = case(tmp_path)
    prints = {data(table(tmp_path, [[*row, role]])).fingerprint() for role in ("val", "test")}
    assert len(prints) == 2
