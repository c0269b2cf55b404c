"""Volumes: read as their header says, refused where they are wrong, and through training and a whole run."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from shared_fixtures import write_recipe, write_volumes
from torch import nn

from compress.commands.inspect import Where, inspect
from compress.commands.run import run
from compress.commands.train import train
from compress.data.dataset.cases import Dataset, Fit, Normalization
from compress.data.dataset.tiles import corners
from compress.data.nifti import Nifti, Volumes
from compress.errors import DataError, MissingExtra, RecipeError
from compress.recipe import load
from compress.task import Task
from compress.train.precision import precision
from export.to_onnx import metadata_of

nibabel = pytest.importorskip("nibabel")

SIZES = [(12, 16, 12), (16, 14, 20), (9, 16, 12)]
"""Sides of volumes: of one patch of 12x16x12, larger, and smaller."""
PATCH = [12, 16, 12]
RNG = np.random.default_rng(0)
VOLUME = RNG.normal(100, 20, (6, 7, 8))
MASK = (VOLUME > 110).astype(np.uint8)
PLACED = np.array([[2.0, 0, 0, 5], [0, 3, 0, -4], [0, 0, 4, 9], [0, 0, 0, 1]])
"""An affine: 2, 3 and 4 mm along axes that run to the right, to the front and upwards."""


def quiet(_: str) -> None:
    """A log nobody reads."""


def saved(path: Path, voxels: np.ndarray, affine: np.ndarray = PLACED, kind: str | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(voxels if kind is None else voxels.astype(kind), affine), path)
    return path


def one_case(root: Path, image: Any = VOLUME, mask: Any = MASK, more: str = "") -> Path:
    """A folder with one test case; its files are written unless None stands for one."""
    for name, voxels, kind in (("images", image, "float32"), ("masks", mask, None)):
        if voxels is not None:
            saved(root / name / "a.nii.gz", voxels, kind=kind)
    (root / "split.csv").write_text(f"image,mask,split\nimages/a.nii.gz,masks/a.nii.gz,test\n{more}")
    return root


def data(root: Path, classes: int = 2, **options: Any) -> Dataset:
    return Nifti(root=root, **{"size": (8, 8, 8), "calibration": 0, **options})(channels=1, classes=classes)


def percentiles(axes: str = "RAS") -> Volumes:
    return Volumes(axes=axes, intensity="percentiles")


@pytest.fixture(scope="module")
def varied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    counts = {"train": 12, "calibration": 4, "val": 3, "test": 6}
    return write_volumes(tmp_path_factory.mktemp("volumes") / "varied", counts, SIZES)


@pytest.mark.parametrize("stored", ["RAS", "LPS", "SPL", "AIR"])
def test_a_volume_is_the_same_however_its_file_orders_the_axes(tmp_path: Path, stored: str) -> None:
    ras = nibabel.Nifti1Image(VOLUME.astype(np.float32), PLACED)
    turn = nibabel.orientations.ornt_transform(
        nibabel.orientations.axcodes2ornt("RAS"), nibabel.orientations.axcodes2ornt(stored)
    )
    nibabel.save(ras.as_reoriented(turn), tmp_path / "a.nii")
    path = tmp_path / "a.nii"
    reader, fit = percentiles(), Fit(size=(6, 7, 8))
    assert reader.size(path) == (6, 7, 8)
    assert reader.spacing(path) == (2, 3, 4)
    (found,) = reader.image(path, 1, fit)
    low, high = np.percentile(VOLUME, [0.5, 99.5])
    np.testing.assert_allclose(found, np.clip((VOLUME - low) / (high - low), 0, 1), atol=1e-5)
    turned = percentiles("SPL")
    assert turned.size(path) == (8, 7, 6)
    assert turned.spacing(path) == (4, 3, 2)
    (other,) = turned.image(path, 1, Fit(size=(8, 7, 6)))
    assert np.array_equal(other, found.transpose(2, 1, 0)[:, ::-1, ::-1])


@pytest.mark.parametrize(("unit", "factor"), [("meter", 1000), ("micron", 0.001), ("mm", 1)])
def test_spacing_is_in_mm_whatever_the_header_counts_in(tmp_path: Path, unit: str, factor: float) -> None:
    image = nibabel.Nifti1Image(VOLUME, PLACED)
    image.header.set_xyzt_units(unit)
    nibabel.save(image, tmp_path / "a.nii")
    np.testing.assert_allclose(percentiles().spacing(tmp_path / "a.nii"), np.array([2, 3, 4]) * factor)


def test_intensities_become_0_to_1_in_the_way_that_is_asked_for(tmp_path: Path) -> None:
    path, fit = saved(tmp_path / "a.nii", VOLUME, kind="float32"), Fit(size=VOLUME.shape)
    scores = (VOLUME - VOLUME.mean()) / VOLUME.std()
    ways = {
        "z_score": np.clip(scores, -5, 5) / 10 + 0.5,
        "window": np.clip((VOLUME - 90) / 40, 0, 1),
    }
    told = set()
    for intensity, expected in ways.items():
        window = (90, 130) if intensity == "window" else None
        reader = Volumes(axes="RAS", intensity=intensity, window=window)  # type: ignore[arg-type]
        np.testing.assert_allclose(reader.image(path, 1, fit)[0], expected, atol=1e-5)
        told.add(reader.scale)
    assert "voxels clipped to 90..130, these to 0 and 1" in told
    assert percentiles().scale == "voxels clipped to the volume's percentiles 0.5 and 99.5, these to 0 and 1"


def test_scaled_integers_are_read_as_what_they_stand_for(tmp_path: Path) -> None:
    image = nibabel.Nifti1Image(VOLUME, PLACED)
    image.set_data_dtype(np.int16)
    nibabel.save(image, tmp_path / "a.nii")
    assert nibabel.load(tmp_path / "a.nii").dataobj.slope != 1
    window = Volumes(axes="RAS", intensity="window", window=(0, 200))
    np.testing.assert_allclose(window.image(tmp_path / "a.nii", 1, Fit(size=VOLUME.shape))[0] * 200, VOLUME, atol=0.01)


@pytest.mark.parametrize("size", [(12, 14, 16), (4, 5, 6), (6, 7, 4), (9, 7, 8)])
def test_volumes_are_resized_along_each_axis_and_antialiased(tmp_path: Path, size: tuple[int, int, int]) -> None:
    root = one_case(tmp_path, np.pad(np.ones((4, 4, 4)), 4), np.pad(np.ones((4, 4, 4), np.uint8), 4))
    found = data(root, size=size, fit="resize", intensity="window", window=(0, 1))
    case = found.cases["test"][0]
    (pixels,) = found.pixels(case)
    assert pixels.shape == size == found.fitted_mask(case).shape
    # What is there is spread, and none of it lost or gained.
    assert pixels.mean() == pytest.approx(64 / 12**3, rel=0.1)
    ramp = np.broadcast_to(np.arange(24.0)[:, None, None], (24, 5, 6))
    (shrunk,) = Volumes(axes="RAS", intensity="window", window=(0, 23)).image(
        saved(tmp_path / "ramp.nii", ramp), 1, Fit(size=(8, 5, 6))
    )
    np.testing.assert_allclose(shrunk[1:-1, 2, 2] * 23, np.arange(1, 23, 3)[1:-1], atol=0.05)


def test_patches_answer_at_the_size_of_the_volume(varied: Path) -> None:
    found = data(varied, classes=3, size=PATCH, overlap=0.5)
    task = Task(data=found, net=nn.Conv3d(1, 3, 3, padding=1), seed=0)
    assert len(found.cases["train"]) == sum(4 * len(corners(size, (12, 16, 12))) for size in SIZES)
    for case, original in zip(found.cases["test"], SIZES * 2, strict=True):
        calls: list[tuple[int, ...]] = []

        def infer(image: np.ndarray, calls: list[tuple[int, ...]] = calls) -> np.ndarray:
            calls.append(image.shape)
            with torch.inference_mode():
                return task.net(torch.from_numpy(image)).numpy()

        assert task.labels(infer, case).shape == original == found.size_of(case) == found.mask(case).shape
        assert set(calls) == {(1, 1, 12, 16, 12)}
        shown, truth = task.shown(case)
        assert shown.shape == (*original, 1)
        assert truth.shape == original == task.fitted_labels(infer, case).shape


def test_volumes_are_resampled_to_a_spacing_and_scored_on_their_own_voxels(varied: Path) -> None:
    found = data(varied, classes=3, size=PATCH, spacing=(1, 1, 1), intensity="window", window=(100, 900))
    task = Task(data=found, net=nn.Identity(), seed=0)
    for case, (deep, high, wide) in zip(found.cases["test"], SIZES, strict=False):
        assert (
            found.whole_pixels(case).shape
            == (1, deep, round(high * 1.5), wide * 2)
            == (1, *found.whole_mask(case).shape)
        )
        # Half of the way to a class's own gray there is the border: a perfect answer but for what resampling blurs.
        values, *_ = task.score(lambda image: np.concatenate([-np.abs(image - k) for k in (0.5, 1, 0)], 1), case)
        assert values[:, 0].min() > 0.75
        assert task.shown(case)[1].shape == found.whole_mask(case).shape


@pytest.mark.parametrize(("axis", "length"), enumerate([2, 3, 4]))
def test_distances_are_in_mm_by_the_spacing_of_each_file(tmp_path: Path, axis: int, length: float) -> None:
    mask = np.zeros((9, 9, 9), np.uint8)
    mask[3:6, 3:6, 3:6] = 1
    found = data(one_case(tmp_path, RNG.normal(size=mask.shape), mask), size=(9, 9, 9), fit="resize", tolerance=2.5)
    assert found.reader.unit == "mm"
    moved = np.roll(mask, 1, axis)
    answer = np.stack([1.0 - moved, moved])[None].astype(np.float32)
    values, *_ = Task(data=found, net=nn.Identity(), seed=0).score(lambda _: answer, found.cases["test"][0])
    dice, _, hd95, nsd, *_, hausdorff, _, _ = values[0]
    assert dice == pytest.approx(2 / 3)
    assert hausdorff == hd95 == length
    assert (nsd == 1) == (length < 2.5)
    nothing = np.stack([np.ones_like(mask), np.zeros_like(mask)])[None].astype(np.float32)
    values, *_ = Task(data=found, net=nn.Identity(), seed=0).score(lambda _: nothing, found.cases["test"][0])
    assert values[0, 6] == pytest.approx(9 * np.hypot(np.hypot(2, 3), 4))


def test_an_unpadded_network_is_compared_at_the_middle_of_a_volume(tmp_path: Path) -> None:
    mask = np.zeros((10, 10, 10), np.uint8)
    mask[4:7, 4:7, 4:7] = 1
    found = data(one_case(tmp_path, RNG.normal(size=mask.shape), mask), size=(10, 10, 10), fit="resize")
    middle = mask[2:8, 2:8, 2:8]
    answer = np.stack([1.0 - middle, middle])[None].astype(np.float32)
    task = Task(data=found, net=nn.Identity(), seed=0)
    case = found.cases["test"][0]
    assert task.score(lambda _: answer, case)[0][0, :2].tolist() == [1, 1]
    assert np.array_equal(task.fitted_labels(lambda _: answer, case), mask)


def with_nan(voxels: np.ndarray) -> np.ndarray:
    voxels = voxels.copy()
    voxels[1, 2, 3] = np.nan
    return voxels


@pytest.mark.parametrize(
    ("image", "mask", "told"),
    [
        (VOLUME, MASK * 3, r"masks/a\.nii\.gz: class 3 is outside the 2 classes 0\.\.1"),
        (VOLUME, MASK[:5], r"masks/a\.nii\.gz: the mask is 5x7x8 voxels along RAS, its image a\.nii\.gz is 6x7x8"),
        (with_nan(VOLUME), MASK, r"images/a\.nii\.gz: holds voxels that are NaN"),
        (VOLUME[..., None], MASK, r"images/a\.nii\.gz: has 4 axes \(6x7x8x1\), but a volume has three"),
        (VOLUME, MASK * 0.5, r"masks/a\.nii\.gz: a mask holds one class index a voxel, but this one has 0\.5"),
        (VOLUME, MASK * 0.4, r"masks/a\.nii\.gz: a mask holds one class index a voxel, but this one has 0\.4"),
        (VOLUME, MASK * 1.0021, r"masks/a\.nii\.gz: a mask holds one class index a voxel, but this one has 1\.0021"),
        (VOLUME, MASK * np.int16(-1), r"masks/a\.nii\.gz: class -1 does not fit in 0\.\.255"),
        (VOLUME, with_nan(MASK.astype(np.float32)), r"masks/a\.nii\.gz: holds voxels that are NaN"),
        (VOLUME * 0, MASK, r"images/a\.nii\.gz: nearly all of its voxels are 0, .* by percentiles"),
        (VOLUME, None, r"split\.csv:2: the mask of images/a\.nii\.gz, .* does not exist"),
        (None, MASK, r"split\.csv:2: the image, .* does not exist"),
    ],
)
def test_a_case_that_is_wrong_is_refused_by_name(tmp_path: Path, image: Any, mask: Any, told: str) -> None:
    with pytest.raises(DataError, match=told):
        data(one_case(tmp_path, image, mask), fit="resize").check()


@pytest.mark.parametrize("stored", [0.99999994, 1.0009, "slope"])
def test_a_class_that_is_a_whole_number_but_for_rounding_is_that_number(tmp_path: Path, stored: float | str) -> None:
    root = one_case(tmp_path)
    if stored == "slope":
        image = nibabel.Nifti1Image(MASK * 255, PLACED)
        image.header.set_slope_inter(1 / 255, 0)
        nibabel.save(image, root / "masks" / "a.nii.gz")
    else:
        saved(root / "masks" / "a.nii.gz", MASK * float(stored) - 1e-4, kind="float32")
    found = data(root)
    found.check()
    assert np.array_equal(found.mask(found.cases["test"][0]), MASK)


def test_stored_values_of_volumes_become_the_classes_that_masks_names(tmp_path: Path) -> None:
    root = one_case(tmp_path, mask=MASK.astype(np.int16) * 1003)
    with pytest.raises(DataError, match=r"class 1003 does not fit .*masks: \{0: background, 1003: class 1\}"):
        data(root).check()
    found = data(root, masks={1003: "hippocampus"})
    found.check()
    assert found.class_names == ("background", "hippocampus")
    assert np.array_equal(found.mask(found.cases["test"][0]), MASK)
    with pytest.raises(ValueError, match="masks names colours, but a volume holds values"):
        data(root, masks={"#ff0000": "hippocampus"})


def test_an_image_and_a_mask_on_different_grids_are_refused(tmp_path: Path) -> None:
    root = one_case(tmp_path)
    moved = PLACED.copy()
    moved[0, 3] += 1
    saved(root / "masks" / "a.nii.gz", MASK, moved)
    with pytest.raises(DataError, match=r"masks/a\.nii\.gz: its affine puts voxels elsewhere than that of its image"):
        data(root).check()


def test_a_split_that_is_empty_or_lists_a_file_twice_is_refused(tmp_path: Path) -> None:
    root = one_case(tmp_path, more="images/a.nii.gz,masks/a.nii.gz,train\n")
    with pytest.raises(DataError, match=r"split\.csv:3: .*a\.nii\.gz is in two splits, test and train"):
        data(root)
    (root / "split.csv").write_text("image,mask,split\nimages/a.nii.gz,masks/a.nii.gz,train\n")
    with pytest.raises(DataError, match="the split 'test' is empty"):
        Task(data=data(root), net=nn.Identity(), seed=0).check()
    (root / "split.csv").write_text("image,mask,split\n")
    with pytest.raises(DataError, match=r"split\.csv: lists no case"):
        data(root)


def test_a_file_that_is_no_whole_volume_is_refused_by_name(tmp_path: Path) -> None:
    def refused(path: Path, told: str) -> None:
        with pytest.raises(DataError, match=told) as caught:
            percentiles().image(path, 1, Fit(size=(6, 7, 8)))
        assert str(path) in str(caught.value)

    whole = saved(tmp_path / "whole.nii.gz", VOLUME).read_bytes()
    (tmp_path / "short.nii.gz").write_bytes(whole[: len(whole) // 2])
    refused(tmp_path / "short.nii.gz", "damaged or unreadable NIfTI file")
    (tmp_path / "text.nii.gz").write_text("no volume")
    refused(tmp_path / "text.nii.gz", "NIfTI file")
    (tmp_path / "text.nii").write_text("no volume")
    refused(tmp_path / "text.nii", "not a NIfTI file")
    (tmp_path / "a.png").write_text("no volume")
    refused(tmp_path / "a.png", "not a NIfTI file")
    refused(tmp_path / "none.nii", "no such file")
    plain = saved(tmp_path / "plain.nii", VOLUME).read_bytes()
    (tmp_path / "cut.nii").write_bytes(plain[:-100])
    refused(tmp_path / "cut.nii", "damaged or unreadable NIfTI file")
    nibabel.save(nibabel.MGHImage(VOLUME.astype(np.float32), PLACED), tmp_path / "a.mgz")
    refused(tmp_path / "a.mgz", "not a NIfTI file")
    colour = np.zeros((6, 7, 8), [("R", "u1"), ("G", "u1"), ("B", "u1")])
    nibabel.save(nibabel.Nifti1Image(colour, PLACED), tmp_path / "colour.nii")
    refused(tmp_path / "colour.nii", "no plain numbers")
    flat = PLACED.copy()
    flat[:3, 1] = 0
    image = nibabel.Nifti1Image(VOLUME, None)
    image.set_sform(flat, 1)
    nibabel.save(image, tmp_path / "flat.nii")
    refused(tmp_path / "flat.nii", "its affine does not tell where every axis runs")


def test_without_nibabel_it_is_told_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nibabel", None)
    with pytest.raises(MissingExtra, match=r"nibabel is not installed: pip install 'segpress\[nifti\]'"):
        data(tmp_path)


def test_a_network_of_several_channels_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="the network takes 4 channels, but a NIfTI volume has one"):
        Nifti(root=one_case(tmp_path))(channels=4, classes=2)


def recipe_of(root: Path, **options: Any) -> dict[str, Any]:
    return {
        "name": "solid",
        "network": {"unet3d": {"classes": 3, "width": 8, "depth": 1}},
        "data": {
            "nifti": {
                "root": str(root),
                "size": PATCH,
                "classes": ["background", "ball", "block"],
                "batch": 2,
                **options,
            }
        },
    }


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"axes": "RAR"}, "data (nifti): axes: 'RAR': one letter of each pair R/L, A/P and S/I, such as RAS or SPL"),
        ({"size": [16, 16]}, "data (nifti): lacks the option 'size.2'"),
        ({"fit": "pad", "spacing": [1, 1, 1]}, "spacing is of tiles, but fit is pad; leave it out or set fit: tile"),
        ({"intensity": "window"}, "window and intensity: window belong together; give both or neither"),
        ({"intensity": "window", "window": [5, 5]}, "the window 5..5 is empty; give its lower end first"),
        ({"intensity": "zscore"}, "'zscore' is not one of percentiles, z_score, window; did you mean 'z_score'?"),
        ({"spacing": [1, 0, 1]}, "data (nifti): spacing.1: 0: input should be greater than 0"),
        ({"how": "tile"}, "data (nifti): no option 'how'"),
    ],
)
def test_a_wrong_option_is_told_with_its_place(tmp_path: Path, options: dict[str, Any], told: str) -> None:
    with pytest.raises(RecipeError) as caught:
        load(write_recipe(tmp_path, recipe_of(tmp_path, **options)))
    assert told in str(caught.value)


def test_a_network_for_images_is_refused_on_volumes_and_the_reverse(tmp_path: Path, folder: Path) -> None:
    recipe = recipe_of(tmp_path)
    flat = {**recipe, "network": {"unet": {"classes": 3}}}
    with pytest.raises(
        RecipeError, match=r"data: gives volumes, but the network \(unet\) takes images; set other data"
    ):
        load(write_recipe(tmp_path, flat))
    images = {**recipe, "data": {"folder": {"root": str(folder)}}}
    with pytest.raises(RecipeError, match=r"data: gives images, but the network \(unet3d\) takes volumes; set other"):
        load(write_recipe(tmp_path, images))


def test_a_size_that_the_network_cannot_take_is_refused(varied: Path, tmp_path: Path) -> None:
    recipe = recipe_of(varied, size=[12, 15, 12])
    with pytest.raises(RecipeError, match=r"input is 12x15x12; this network needs multiples of 2: pad to 12x16x12"):
        load(write_recipe(tmp_path, recipe)).dataset()


def test_another_folder_is_taken_by_the_command_line(varied: Path, tmp_path: Path) -> None:
    path = write_recipe(tmp_path, recipe_of(tmp_path / "elsewhere"))
    assert load(path, varied).dataset().source == str(varied)


def test_a_normalization_of_values_scaled_otherwise_is_refused(varied: Path) -> None:
    found = data(varied, classes=3)
    measured = found.measured_normalization()
    assert measured.scale == found.reader.scale
    assert 0.2 < measured.mean[0] < 0.8
    found.normalized_by(Normalization(mean=(0.5,), std=(0.2,)))
    with pytest.raises(DataError, match=r"scaled otherwise \(voxels clipped to the volume's percentiles .*than this"):
        data(varied, classes=3, intensity="z_score").normalized_by(measured)


def test_in_bf16_no_kernel_is_larger_than_the_volume_it_reads(varied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: True)
    found = data(varied, classes=3, size=PATCH)
    fits = nn.Sequential(nn.Conv3d(1, 2, 5, padding=2), nn.MaxPool3d(4), nn.Conv3d(2, 3, 3, padding=1))
    outgrown = nn.Sequential(nn.Conv3d(1, 2, 5, padding=2), nn.MaxPool3d((6, 1, 1)), nn.Conv3d(2, 3, 3, padding=1))
    assert precision(fits, found) == "bf16-mixed"
    assert precision(outgrown, found) == "32-true"
    assert outgrown.training


@pytest.fixture(scope="module")
def trained(varied: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small 3-D U-Net that `compress train` has trained on the volumes."""
    place = tmp_path_factory.mktemp("trained")
    recipe = {**recipe_of(varied), "train": {"epochs": 8, "rate": 0.05, "average": 0.6, "augment": "flips"}}
    return train(load(write_recipe(place, recipe)), place / "out", say=quiet)


def test_a_network_is_trained_on_volumes_and_its_scaling_kept_with_it(trained: Path) -> None:
    described = json.loads(trained.with_suffix(".json").read_text())
    assert described["size"] == PATCH
    assert described["normalization"]["scale"] == percentiles().scale
    assert described["made"]["validation_dice"] > 0.5


def test_a_whole_run_takes_volumes_to_integers_on_both_runtimes(trained: Path, varied: Path, tmp_path: Path) -> None:
    recipe = recipe_of(varied)
    recipe["network"]["unet3d"]["weights"] = str(trained)
    recipe["passes"] = [{"int8": {"calibrate": 4}}]
    recipe["latency"] = {"samples": 10, "seconds": 0.05, "warm_up": 0, "threads": 1}
    recipe["gates"] = [{"hd95_rise": {"at_most": 100.0}}, {"dice_drop": {"at_most": 0.5}}]
    report = run(load(write_recipe(tmp_path, recipe)), tmp_path / "out", say=quiet)
    rows = {(row.step, row.backend): row for row in report.rows if row.status == "measured"}
    assert set(rows) == {
        ("baseline", "torch"),
        ("baseline", "onnxruntime"),
        ("baseline", "openvino"),
        ("01-int8", "onnxruntime"),
        ("01-int8", "openvino"),
    }
    for row in rows.values():
        assert row.scores is not None and row.latency_ms is not None and row.parity is not None
        assert row.scores["dice"] > 0.5
    for backend in ("onnxruntime", "openvino"):
        assert rows["01-int8", backend].bit_operations < 0.5 * rows["baseline", backend].bit_operations  # type: ignore[operator]
    assert report.data["unit"] == "mm"
    out = tmp_path / "out"
    told = metadata_of(out / "artifacts" / "baseline" / "model.onnx")
    assert json.loads(told["segpress.normalization"])["scale"] == percentiles().scale
    assert json.loads(told["segpress.size"]) == PATCH
    assert (told["segpress.axes"], told["segpress.fit"], told["segpress.spacing"]) == ("RAS", "tile", "null")
    assert told["segpress.resize"].startswith("trilinear")
    page = (out / "report.html").read_text()
    assert "slice " in page
    assert page.count("<figure") == 6


def test_a_saved_network_of_volumes_is_inspected(trained: Path) -> None:
    found = inspect(trained, Where(runs=2))
    assert found.input == (1, 1, *PATCH)
    assert sum(layer.macs or 0 for layer in found.layers) > 1e6
    assert any(group.prunable for group in found.groups)


def test_logits_are_blended_where_patches_overlap(varied: Path) -> None:
    found = data(varied, classes=3, size=PATCH, overlap=0.5)
    task = Task(data=found, net=nn.Identity(), seed=0)
    case = found.cases["test"][1]
    # A network that looks at no neighbours answers the same in every patch, so blended or whole is one.
    (pixels,) = found.normalization(found.whole_pixels(case))
    expected = F.one_hot(torch.from_numpy(np.digitize(pixels, [0.3, 0.7])), 3).movedim(-1, 0)[None].float().numpy()
    labels = task.labels(
        lambda image: np.moveaxis(np.eye(3, dtype=np.float32)[np.digitize(image[:, 0], [0.3, 0.7])], -1, 1), case
    )
    assert np.array_equal(labels, expected[0].argmax(0))
