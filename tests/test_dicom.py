"""Frames of DICOM, and a window of values: what becomes black and white, the same wherever an image is read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from compress.data.dataset.cases import Case, Fit
from compress.data.dataset.drawn import Shares
from compress.data.dataset.images import Images
from compress.data.folder import Folder
from compress.errors import DataError
from compress.recipe import read

pydicom = pytest.importorskip("pydicom", reason="needs the extra dicom")
FIT = Fit(size=(6, 8))
VALUES = np.arange(48, dtype=np.int16).reshape(6, 8) * 50 - 1000


def write(path: Path, pixels: np.ndarray, kind: str = "MONOCHROME2", **given: Any) -> Path:
    data = pydicom.Dataset()
    data.file_meta = pydicom.dataset.FileMetaDataset()
    data.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = pydicom.uid.SecondaryCaptureImageStorage
    data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = pydicom.uid.generate_uid()
    bits = pixels.dtype.itemsize * 8
    data.Rows, data.Columns = pixels.shape[-3:-1] if kind == "RGB" else pixels.shape[-2:]
    data.SamplesPerPixel, data.PhotometricInterpretation = (3, kind) if kind == "RGB" else (1, kind)
    data.BitsAllocated, data.BitsStored, data.HighBit = bits, bits, bits - 1
    data.PixelRepresentation = int(pixels.dtype.kind == "i")
    if kind == "RGB":
        data.PlanarConfiguration = 0
    for name, value in given.items():
        setattr(data, name, value)
    data.PixelData = pixels.tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    data.save_as(path, enforce_file_format=True)
    return path


def test_a_window_is_of_values_after_the_rescale_slope(tmp_path: Path) -> None:
    path = write(tmp_path / "a.dcm", VALUES, RescaleSlope=2, RescaleIntercept=-24)
    seen = Images(window=(-200, 300)).image(path, 1, FIT)
    np.testing.assert_allclose(seen[0], np.clip((VALUES * 2.0 - 24 + 200) / 500, 0, 1), atol=1e-6)
    assert Images(window=(-200, 300)).size(path) == (6, 8)
    inverted = write(tmp_path / "b.dcm", VALUES, "MONOCHROME1", RescaleSlope=2, RescaleIntercept=-24)
    np.testing.assert_allclose(Images(window=(-200, 300)).image(inverted, 3, FIT)[2], 1 - seen[0], atol=1e-6)


def test_8_bits_need_no_window(tmp_path: Path) -> None:
    gray = np.arange(48, dtype=np.uint8).reshape(6, 8) * 5
    np.testing.assert_allclose(Images().image(write(tmp_path / "a.dcm", gray), 1, FIT)[0], gray / np.float32(255))
    turned = write(tmp_path / "b.dcm", gray, "MONOCHROME1")
    np.testing.assert_allclose(Images().image(turned, 1, FIT)[0], (255 - gray) / np.float32(255))
    colour = np.random.default_rng(0).integers(0, 256, (6, 8, 3)).astype(np.uint8)
    seen = Images().image(write(tmp_path / "c.dcm", colour, "RGB"), 3, FIT)
    np.testing.assert_allclose(seen, colour.transpose(2, 0, 1) / np.float32(255))


def test_a_window_serves_other_gray_images_as_well(tmp_path: Path) -> None:
    Image.fromarray(np.arange(48, dtype=np.uint16).reshape(6, 8) * 100).save(tmp_path / "a.png")
    seen = Images(window=(1000, 3000)).image(tmp_path / "a.png", 1, FIT)[0]
    np.testing.assert_allclose(seen.ravel(), np.clip((np.arange(48) * 100 - 1000) / 2000, 0, 1), atol=1e-6)
    Image.fromarray(VALUES.astype(np.float32)).save(tmp_path / "b.tif")
    assert Images(window=(-1000, 1350)).image(tmp_path / "b.tif", 1, FIT).max() == 1
    Image.new("RGB", (8, 6)).save(tmp_path / "c.png")
    with pytest.raises(DataError, match=r"is in colour .*leave window out"):
        Images(window=(0, 1)).image(tmp_path / "c.png", 1, FIT)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, r"values of 16 bits have no range of their own: .*such as window: \[0, 400\]"),
        ({"WindowCenter": 40, "WindowWidth": 400}, r"its own is window: \[-160, 240\]"),
        ({"WindowCenter": ["40", "300"], "WindowWidth": ["400", "1500"]}, r"its own is window: \[-160, 240\]"),
        ({"NumberOfFrames": 2, "Rows": 3}, "holds 2 frames; save each as a file of its own"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "colours of a palette are not read"),
        ({"Rows": 99}, "its pixels cannot be decoded"),
    ],
)
def test_what_cannot_be_read_is_told(given: dict[str, Any], said: str, tmp_path: Path) -> None:
    path = write(tmp_path / "a.dcm", VALUES, **given)
    with pytest.raises(DataError, match=rf"a\.dcm: .*{said}"):
        Images().image(path, 1, FIT)


def test_what_is_no_dicom_is_told(tmp_path: Path) -> None:
    (tmp_path / "a.dcm").write_text("text")
    for read_it in (lambda path: Images().size(path), lambda path: Images().image(path, 1, FIT)):
        with pytest.raises(DataError, match=r"a\.dcm: not a DICOM file that can be read"):
            read_it(tmp_path / "a.dcm")
        with pytest.raises(DataError, match=r"b\.dcm: no such file"):
            read_it(tmp_path / "b.dcm")


def test_a_folder_of_frames_has_masks_of_their_names(tmp_path: Path) -> None:
    for name in "abcd":
        write(tmp_path / "images" / f"{name}.dcm", VALUES)
        (tmp_path / "masks").mkdir(exist_ok=True)
        Image.fromarray((VALUES > 0).astype(np.uint8)).save(tmp_path / "masks" / f"{name}.png")
    folder = Folder(root=tmp_path, size=(8, 8), calibration=0, split=Shares(by="image"), window=(-500, 500))
    data = folder(channels=1, classes=2)
    looks = [look for looks in data.check().values() for _, look in looks]
    assert len(looks) == 4 and all(look.foreground == {1} and not look.constant for look in looks)
    assert data.normalization.scale == "values from -500 to 500 (of DICOM after its rescale slope), clipped, to 0..1"
    Image.fromarray(np.zeros((3, 3), np.uint8)).save(tmp_path / "masks" / "a.png")
    with pytest.raises(DataError, match=r"a\.png: the mask is 3x3, its image a\.dcm is 8x6"):
        data.reader.checked(Case(name="a", image=tmp_path / "images" / "a.dcm", mask=tmp_path / "masks" / "a.png"))


def test_a_window_goes_upwards(tmp_path: Path) -> None:
    recipe = tmp_path / "r.yaml"
    recipe.write_text(f"network: {{unet: {{classes: 2}}}}\ndata: {{folder: {{root: {tmp_path}, window: [5, 5]}}}}\n")
    assert any("window goes from 5 to 5; give the smaller end first" in mistake for mistake in read(recipe)[1])
