"""nnU-Net's results folders: the network and its weights, its preparation, its windows, its way back, its rules."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from nnunet_folder import INTENSITIES, architecture, dataset, plans, write_checkpoint, write_raw, write_results
from shared_fixtures import write_recipe
from torch import nn

from compress.commands.init import Answers, init
from compress.commands.run import run
from compress.data.dataset.cases import Dataset
from compress.data.dataset.windows import _starts, drawn, slid, window
from compress.data.nnunet import Nnunet as Data
from compress.data.planned.normalization import Intensities, Normalizer
from compress.data.planned.resampling import Resampling, size_at
from compress.data.planned.results import results_in
from compress.data.planned.rules import RULE, rules_beside, steps_of
from compress.errors import DataError, RecipeError, WeightsError
from compress.networks.foreign.notes import notes_of
from compress.networks.nnunet import Nnunet
from compress.pipeline.exports import metadata
from compress.pipeline.stages import Stage
from compress.postprocess.largest_foreground import LargestForeground
from compress.recipe import Recipe, load
from compress.storage.description import Description, build_net
from compress.storage.weights import load_net, load_weights, save_net
from compress.task import Task
from export.backends.torch import infer_from_module

pytest.importorskip("nibabel")
needs_builder = pytest.mark.skipif(
    find_spec("dynamic_network_architectures") is None, reason="dynamic-network-architectures is not installed"
)
pytestmark = pytest.mark.usefixtures("one_thread")
SHIPPED = Path(__file__).parent.parent / "recipes" / "nnunet" / "hippocampus_int8.yaml"
CASES = [f"toy_{number:03d}" for number in range(5)]
KINDS = {
    "slices": ("2d", {}, "nnUNetTrainer"),
    "volumes": ("3d_fullres", {}, "nnUNetTrainer"),
    "a residual encoder": ("3d_fullres", {"architecture": architecture(3, residual=True)}, "nnUNetTrainer"),
    "batch norms": ("2d", {}, "nnUNetTrainerBN"),
}


def trained(place: Path, kind: str = "slices", **more: Any) -> tuple[Path, nn.Module]:
    """A results folder, and nnU-Net's own module with the weights in its checkpoint."""
    configuration, changes, trainer = KINDS[kind]
    plan = plans(configuration, **changes)
    results = write_results(place, configuration, plan=plan, trainer=trainer, held=CASES[:2], **more)
    torch.manual_seed(0)
    net = Nnunet(results=str(results)).unwrapped().eval()
    axes = (0, 1) if configuration == "2d" else (0, 1, 2)
    write_checkpoint(results / "fold_0" / "checkpoint_final.pth", net, configuration, axes)
    return results, net


def recipe_of(place: Path, results: Path, network: Mapping[str, Any] | None = None, **data: Any) -> Path:
    network = {"nnunet": {"results": str(results), **(network or {})}}
    return write_recipe(place, {"network": network, "data": {"nnunet": {"root": str(place / "raw"), **data}}})


# The network.


@needs_builder
@pytest.mark.parametrize("kind", KINDS)
def test_the_network_of_a_fold_answers_as_nnunets_own(tmp_path: Path, kind: str) -> None:
    results, theirs = trained(tmp_path, kind)
    ours = Nnunet(results=str(results))()
    load_weights(ours, results / "fold_0" / "checkpoint_final.pth")
    image = torch.randn(1, 1, *([16, 16] if KINDS[kind][0] == "2d" else [8, 16, 16]))
    with torch.no_grad():
        assert torch.equal(ours.eval()(image), theirs(image))
    assert any(isinstance(each, nn.modules.batchnorm._BatchNorm) for each in ours.modules()) == (kind == "batch norms")
    tensors = [tensor.data_ptr() for tensor in ours.state_dict().values() if tensor.dim()]
    assert len(tensors) == len(set(tensors)), "a layer has two names"
    assert len([name for name in ours.state_dict() if "seg_layers" in name]) == 2, "a head of deep supervision is left"


@needs_builder
def test_what_is_saved_is_loaded_without_the_folder(tmp_path: Path) -> None:
    results, theirs = trained(tmp_path)
    network = load(recipe_of(tmp_path, results)).network
    ours = build_net(network)
    load_weights(ours, results / "fold_0" / "checkpoint_final.pth")
    save_net(ours, Description(network=ours.description), tmp_path / "net.safetensors")
    shutil.rmtree(results)
    assert str(tmp_path) not in (tmp_path / "net.json").read_text()
    image = torch.randn(1, 1, 16, 16)
    with torch.no_grad():
        assert torch.equal(load_net(tmp_path / "net.safetensors")(image), theirs(image))


def test_plans_from_before_2024_describe_the_same_network(tmp_path: Path) -> None:
    now = write_results(tmp_path / "now", "3d_fullres")
    told = plans("3d_fullres")
    kwargs = told["configurations"]["3d_fullres"].pop("architecture")["arch_kwargs"]
    told["configurations"]["3d_fullres"] |= {
        "UNet_class_name": "PlainConvUNet",
        "UNet_base_num_features": 4,
        "unet_max_num_features": 8,
        "n_conv_per_stage_encoder": kwargs["n_conv_per_stage"],
        "n_conv_per_stage_decoder": kwargs["n_conv_per_stage_decoder"],
        "conv_kernel_sizes": kwargs["kernel_sizes"],
        "pool_op_kernel_sizes": kwargs["strides"],
    }
    before = write_results(tmp_path / "before", "3d_fullres", plan=told)
    assert Nnunet(results=str(before)).arch == Nnunet(results=str(now)).arch


def test_sizes_are_multiples_of_each_axis_strides(tmp_path: Path) -> None:
    network = Nnunet(results=str(write_results(tmp_path, "3d_fullres")))
    assert (network.classes, network.in_channels, network.dims) == (3, 1, 3)
    assert network.check_size((2, 6, 8)) is None
    assert "multiples of 2x2x4: pad to 4x6x8" in str(network.check_size((3, 6, 6)))


@needs_builder
def test_a_layer_that_is_no_layer_of_torch_is_never_looked_up(tmp_path: Path) -> None:
    changed = architecture(2)
    changed["arch_kwargs"]["nonlin"] = "os.system"
    network = Nnunet(results=str(write_results(tmp_path, plan=plans("2d", architecture=changed))))
    with pytest.raises(RecipeError, match=r"nonlin: the plans have 'system', which is no layer of torch.nn"):
        network.check()


# What is refused.


def changed_plans(**changes: Any) -> dict[str, Any]:
    return {**plans("2d"), **changes}


def other_network() -> dict[str, Any]:
    name = "dynamic_network_architectures.architectures.primus.Primus"
    return plans("2d", architecture={**architecture(2), "network_class_name": name})


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "a cascade": ({"plan": plans("2d", previous_stage="3d_lowres")}, "2d is the second stage of a cascade: it takes"),
    "another class": ({"plan": other_network()}, r"architectures\.primus\.Primus, and PlainConvUNet and Residual"),
    "regions": ({"told": dataset(labels={"background": 0, "whole": [1, 2], "core": 2})}, r"overlap \(whole"),
    "a gap in the labels": ({"told": dataset(labels={"background": 0, "organ": 2})}, "without a gap"),
    "another configuration": ({"plan": plans("3d_fullres")}, "has no configuration 2d; there are base, 3d_fullres"),
    "damaged plans": ({"plan": {"configurations": {"2d": {}}}}, "lacks or misstates"),
    "another resampling": ({"plan": plans("2d", resampling_fn_data="resample_torch_fornnunet")}, "fornnunet, and"),
    "another scheme": ({"plan": plans("2d", normalization_schemes=["Mine"])}, "normalized by Mine, and ZScoreNorm"),
    "too few schemes": ({"told": dataset(channel_names={"0": "T1", "1": "T2"})}, "1 normalization_schemes for the 2"),
    "another preprocessor": ({"plan": plans("2d", preprocessor_name="Mine")}, "preprocessor_name is Mine"),
    "pictures": ({"plan": changed_plans(image_reader_writer="NaturalImage2DIO")}, r"read by NaturalImage2DIO from"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_not_served_is_refused_by_its_name(tmp_path: Path, what: str) -> None:
    given, told = REFUSED[what]
    results = write_results(tmp_path, **given)
    with pytest.raises(ValueError, match=told):
        Nnunet(results=str(results))


def test_what_is_no_results_folder_is_told(tmp_path: Path) -> None:
    results = write_results(tmp_path)
    with pytest.raises(DataError, match="no such folder; results is a folder such as nnUNet_results/Dataset004"):
        results_in(tmp_path / "nothing")
    with pytest.raises(DataError, match=r"holds trainings .nnUNetTrainer__nnUNetPlans__2d.; name one"):
        results_in(results.parent)
    with pytest.raises(DataError, match="its name does not tell trainer, plans and configuration"):
        results_in(tmp_path / "nnUNet_results")
    (results / "plans.json").unlink()
    with pytest.raises(DataError, match=r"plans\.json: no such file; nnU-Net writes"):
        results_in(results).plans()
    (results / "plans.pkl").touch()
    with pytest.raises(DataError, match="is of nnU-Net v1"):
        results_in(results)


def test_a_recipe_says_which_folds_and_checkpoints_there_are(tmp_path: Path) -> None:
    results = write_results(tmp_path)
    write_raw(tmp_path / "raw", CASES)
    for network, told in (
        ({"fold": 3}, "has no fold 3; there are 0"),
        ({}, "has no checkpoint_final.pth; its training has not written one yet"),
    ):
        with pytest.raises(RecipeError, match=told):
            load(recipe_of(tmp_path, results, network))
    (results / "fold_0" / "checkpoint_best.pth").touch()
    with pytest.raises(RecipeError, match=r"set checkpoint: checkpoint_best.pth"):
        load(recipe_of(tmp_path, results))
    (results / "fold_0").rename(results / "elsewhere")
    with pytest.raises(RecipeError, match=r"has no fold_0, fold_1, ... at all"):
        load(recipe_of(tmp_path, results))


@needs_builder
def test_weights_of_another_training_are_told(tmp_path: Path) -> None:
    results, _ = trained(tmp_path)
    other = Nnunet(results=str(write_results(tmp_path / "other", plan=plans("2d", architecture=architecture(2, True)))))
    with pytest.raises(WeightsError, match="weights of another network"):
        load_weights(other(), results / "fold_0" / "checkpoint_final.pth")


# The data: which cases, and what the network sees.


def data_of(place: Path, configuration: str = "2d", classes: int = 3, **options: Any) -> Dataset:
    results = write_results(place, configuration, held=CASES[:2], **options.pop("results", {}))
    options = {"calibration": 1, "mirror": [], **options}
    return Data(root=place / "raw", results=results, **options)(channels=1, classes=classes)


def test_the_cases_that_a_fold_held_out_are_for_testing(tmp_path: Path) -> None:
    write_raw(tmp_path / "raw", CASES)
    data = data_of(tmp_path)
    assert [case.name for case in data.cases["test"]] == CASES[:2]
    assert {case.name for role in ("train", "calibration") for case in data.cases[role]} == set(CASES[2:])
    splits = tmp_path / "splits_final.json"
    splits.write_text(json.dumps([{"train": CASES[:4], "val": CASES[4:]}]))
    shutil.rmtree(tmp_path / "nnUNet_results")
    assert [case.name for case in data_of(tmp_path, splits=splits).cases["test"]] == CASES[4:]


def test_of_many_training_cases_a_tenth_is_for_validation(tmp_path: Path) -> None:
    names = [f"toy_{number:03d}" for number in range(24)]
    write_raw(tmp_path / "raw", names)
    data = data_of(tmp_path)
    volumes = {role: {case.name for case in cases} for role, cases in data.cases.items()}
    assert {role: len(found) for role, found in volumes.items()} == {"test": 2, "train": 19, "calibration": 1, "val": 2}
    assert set().union(*volumes.values()) == set(names)


def test_labelled_test_images_leave_the_held_out_cases_for_validation(tmp_path: Path) -> None:
    write_raw(tmp_path / "raw", CASES, tested=["unseen_001"])
    data = data_of(tmp_path)
    assert [case.name for case in data.cases["test"]] == ["unseen_001"]
    assert {case.name for case in data.cases["val"]} == set(CASES[:2])


def test_a_fold_that_has_seen_everything_cannot_be_measured(tmp_path: Path) -> None:
    write_raw(tmp_path / "raw", CASES)
    with pytest.raises(DataError, match="fold all has seen every labelled case"):
        data_of(tmp_path, fold="all")
    shutil.rmtree(tmp_path / "nnUNet_results")
    with pytest.raises(DataError, match="nothing tells which they are; set splits"):
        results = write_results(tmp_path)
        Data(root=tmp_path / "raw", results=results, mirror=[])(channels=1, classes=3)


def test_what_is_wrong_with_the_folder_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has neither imagesTr and labelsTr"):
        data_of(tmp_path)
    write_raw(tmp_path / "raw", CASES)
    (tmp_path / "raw" / "imagesTr" / "toy_004_0000.nii.gz").unlink()
    shutil.rmtree(tmp_path / "nnUNet_results")
    with pytest.raises(DataError, match=r"toy_004\.nii\.gz: its image, .*toy_004_0000\.nii\.gz, does not exist"):
        data_of(tmp_path)
    shutil.rmtree(tmp_path / "nnUNet_results")
    with pytest.raises(DataError, match=r"dataset.json has 1 channels and 3 classes, the network takes 1 and gives 2"):
        data_of(tmp_path, classes=2)


def test_all_channels_are_read_and_each_is_normalized_by_its_own_scheme(tmp_path: Path) -> None:
    write_raw(tmp_path / "raw", CASES, channels=2)
    told = plans(
        "3d_fullres",
        normalization_schemes=["ZScoreNormalization", "CTNormalization"],
        use_mask_for_norm=[False, False],
    )
    told["foreground_intensity_properties_per_channel"] = {"0": INTENSITIES, "1": INTENSITIES}
    results = write_results(
        tmp_path, "3d_fullres", plan=told, told=dataset(channel_names={"0": "T1", "1": "CT"}), held=CASES[:2]
    )
    data = Data(root=tmp_path / "raw", results=results, calibration=1, mirror=[])(channels=2, classes=3)
    case = data.cases["test"][0]
    assert [path.name for path in data.files(case)] == ["toy_000_0000.nii.gz", "toy_000_0001.nii.gz", "toy_000.nii.gz"]
    first, second = data.whole_pixels(case)
    assert abs(first.mean()) < 1e-4 and abs(first.std() - 1) < 1e-4
    assert second.max() == pytest.approx((140 - 100) / 20) and second.min() >= (60 - 100) / 20
    # nnU-Net's arrays have the file's slowest axis first.
    assert first.shape == (14, 10, 11) == data.mask(case).shape
    assert data.image(case).shape == (2, 8, 12, 8)
    (tmp_path / "raw" / "imagesTr" / "toy_000_0001.nii.gz").unlink()
    with pytest.raises(DataError, match=r"toy_000_0001\.nii\.gz: no such file, but dataset.json has 2 channels"):
        data.reader.checked(case)


VOXELS = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
INSIDE = VOXELS > 3


@pytest.mark.parametrize(
    ("normalizer", "expected"),
    [
        (Normalizer(scheme="NoNormalization", masked=False), VOXELS),
        (Normalizer(scheme="RescaleTo01Normalization", masked=False), VOXELS / 23),
        (Normalizer(scheme="RGBTo01Normalization", masked=False), VOXELS / 255),
        (Normalizer(scheme="ZScoreNormalization", masked=False), (VOXELS - 11.5) / VOXELS.std()),
        (
            Normalizer(scheme="ZScoreNormalization", masked=True),
            np.where(INSIDE, (VOXELS - 13.5) / VOXELS[INSIDE].std(), VOXELS),
        ),
        (
            Normalizer(
                scheme="CTNormalization", masked=False, intensities=Intensities(mean=10, std=5, low=2.5, high=20)
            ),
            (np.clip(VOXELS, 2.5, 20) - 10) / 5,
        ),
    ],
    ids=str,
)
def test_each_scheme_is_nnunets(normalizer: Normalizer, expected: np.ndarray) -> None:
    np.testing.assert_allclose(normalizer(VOXELS, INSIDE, "a file"), expected, rtol=1e-5, atol=1e-6)


def test_an_rgb_image_that_is_none_is_told() -> None:
    with pytest.raises(DataError, match=r"a file: holds voxels outside 0\.\.255"):
        Normalizer(scheme="RGBTo01Normalization", masked=False)(VOXELS * 20, INSIDE, "a file")


def test_linear_resampling_is_that_of_torch_and_splines_stay_within_the_image() -> None:
    values = np.random.default_rng(0).normal(size=(2, 5, 6, 7)).astype(np.float32)
    size, mm = (8, 9, 10), (1.0, 1.0, 1.0)
    linear = Resampling(order=1)(values, size, mm, mm)
    torchs = torch.nn.functional.interpolate(torch.from_numpy(values)[None], size, mode="trilinear")[0]
    np.testing.assert_allclose(linear, torchs.numpy(), atol=1e-5)
    spline = Resampling(order=3)(values, size, mm, mm)
    assert spline.max() <= values.max() and spline.min() >= values.min() and not np.allclose(spline, linear, atol=0.1)
    assert Resampling(order=3)(values, values.shape[1:], mm, mm) is values
    assert size_at((10, 20, 30), (3.0, 1.0, 0.5), (1.0, 1.0, 1.0)) == (30, 20, 15)


def test_slices_far_apart_are_resampled_each_for_itself() -> None:
    values = np.zeros((1, 3, 4, 4), np.float32)
    values[0, 1] = 1
    thick, cubes = (5.0, 1.0, 1.0), (1.0, 1.0, 1.0)
    apart = Resampling(order=3)(values, (6, 8, 8), thick, cubes)
    assert set(np.unique(apart)) == {0.0, 1.0} and (apart[0, 2:4] == 1).all(), "the nearest slice is taken across"
    assert len(np.unique(Resampling(order=3, separate=False)(values, (6, 8, 8), thick, cubes))) > 2
    # Two long sides are no slices.
    assert len(np.unique(Resampling(order=3)(values, (6, 8, 8), (5.0, 5.0, 1.0), cubes))) > 2


# The windows, and the way back.


def test_windows_lie_as_nnunet_lays_them() -> None:
    # The example in nnU-Net's own comment on its sliding window.
    assert _starts(110, 64, 0.5) == [0, 23, 46]
    assert _starts(64, 64, 0.5) == [0] and _starts(65, 64, 0.5) == [0, 1]


@pytest.mark.parametrize(("size", "asked"), [((8, 12), 5 * 3 * 4), ((4, 8, 12), 2 * 3 * 8)])
def test_a_network_that_answers_its_own_input_gives_the_image_back(size: tuple[int, ...], asked: int) -> None:
    image = np.random.default_rng(0).normal(size=(2, 5, 14, 10)).astype(np.float32)
    calls = []

    def infer(tile: np.ndarray) -> np.ndarray:
        calls.append(tile.shape)
        return tile

    found = slid(infer, image, size, 0.5, range(len(size)))
    np.testing.assert_allclose(found, image, atol=1e-5)
    assert len(calls) == asked and set(calls) == {(1, 2, *size)}


def test_drawn_tiles_lie_about_foreground_every_other_time_and_stay_the_same() -> None:
    mask = np.zeros((9, 30, 30), np.uint8)
    mask[7, 20, 3] = 1
    corner = drawn(mask, (8, 8), "a", (0,))
    assert corner == (7, 16, 0) == drawn(mask, (8, 8), "a", (2,))
    assert window(mask, corner, (8, 8)).shape == (8, 8) and window(mask, corner, (8, 8)).any()
    others = {drawn(mask, (8, 8), name, (1,)) for name in "abcdef"}
    assert len(others) > 3 and drawn(mask, (8, 8), "a", (1,)) == drawn(mask, (8, 8), "a", (1,))
    # Smaller than a tile: zeros on both sides.
    assert drawn(mask, (16, 40, 40), "a", None) == (-3, -5, -5)
    assert window(mask, (-3, -5, -5), (16, 40, 40))[10, 25, 8] == 1


class Bright(nn.Module):
    """Says class 1 where the image is bright and class 2 where it is dark, as nnU-Net's toy masks do."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return torch.cat([torch.full_like(image, 1.5), image, -image], dim=1)


@pytest.mark.parametrize("configuration", ["2d", "3d_fullres"])
def test_labels_are_brought_back_to_where_they_are_in_the_file(tmp_path: Path, configuration: str) -> None:
    write_raw(tmp_path / "raw", CASES, spacing=1.4)
    told = plans(configuration)
    told |= {"transpose_forward": [1, 0, 2], "transpose_backward": [1, 0, 2]}
    write_results(tmp_path, configuration, plan=told, held=CASES[:2])
    results = tmp_path / "nnUNet_results" / "Dataset001_Toy" / f"nnUNetTrainer__nnUNetPlans__{configuration}"
    data = Data(root=tmp_path / "raw", results=results, calibration=1, mirror=[1])(channels=1, classes=3)
    task = Task(data=data, net=Bright(), seed=0)
    case = data.cases["test"][0]
    # 10 voxels of 1.4 mm are the first axis of the plan: slices keep their distance where the network takes slices.
    assert data.size_of(case) == (10, 14, 11)
    assert data.whole_pixels(case).shape == (1, 10 if configuration == "2d" else 14, 14, 11)
    scores = task.measure(infer_from_module(task.net))
    assert scores.mean("dice") > 0.8
    image, truth = task.shown(case)
    assert image.shape[:-1] == truth.shape == task.fitted_labels(infer_from_module(task.net), case).shape
    assert image.min() == 0 and image.max() == 255


def test_what_is_zero_around_an_image_is_cut_off_and_labelled_background(tmp_path: Path) -> None:
    import nibabel

    write_raw(tmp_path / "raw", CASES)
    for name in CASES:
        path = tmp_path / "raw" / "imagesTr" / f"{name}_0000.nii.gz"
        voxels = nibabel.load(path).get_fdata().astype(np.float32)
        voxels[:3] = 0
        nibabel.save(nibabel.Nifti1Image(voxels, np.eye(4)), path)
    for label in (tmp_path / "raw" / "labelsTr").iterdir():
        nibabel.save(nibabel.Nifti1Image(np.asarray(nibabel.load(label).dataobj), np.eye(4)), label)
    data = data_of(tmp_path, "3d_fullres")
    case = data.cases["test"][0]
    assert data.size_of(case) == (14, 10, 11) and data.whole_pixels(case).shape == (1, 14, 10, 8)
    task = Task(data=data, net=Bright(), seed=0)
    organ = np.array([0, 9, 0], np.float32).reshape(1, 3, 1, 1, 1)
    labels = task.labels(lambda tile: organ * np.ones_like(tile), case)
    assert labels.shape == (14, 10, 11) and not labels[..., :3].any() and (labels[..., 3:] == 1).all()


# A recipe.


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    results, _ = trained(tmp_path, "volumes")
    write_raw(tmp_path / "raw", CASES)
    return load(recipe_of(tmp_path, results, calibration=1))


@needs_builder
def test_the_data_know_the_training_of_the_network(recipe: Recipe) -> None:
    assert recipe.weights is not None and recipe.weights.name == "checkpoint_final.pth"
    task = recipe.task()
    assert task.data.fit.mirrored == (0, 1, 2) and task.data.fit.size == (8, 12, 8) and task.data.fit.overlap == 0.5
    assert task.data.class_names == ("background", "organ", "lesion")
    assert recipe.normalization_from() == "nnU-Net's plans"
    answers = task.measure(infer_from_module(task.net))
    assert len(answers.cases) == 2 and np.isfinite(answers.mean("dice"))


@needs_builder
def test_rules_that_a_recipe_does_not_have_are_told(recipe: Recipe) -> None:
    folder = recipe.data.results / "crossval_results_folds_0"
    folder.mkdir()
    assert recipe.data.notes(()) == [
        "classes and preparation are those of nnU-Net's plans (nnUNetTrainer__nnUNetPlans__3d_fullres)"
    ]
    assert recipe.data.notes(())[0] in notes_of(recipe.task().net)
    (folder / "postprocessing.pkl").touch()
    assert "postprocessing.pkl is a pickle and is not opened" in recipe.data.notes(())[1]
    told = {"postprocessing_fns": [RULE], "postprocessing_kwargs": [{"labels_or_regions": 1}]}
    (folder / "postprocessing.json").write_text(json.dumps(told))
    assert "postprocessing.json), and the recipe has none" in recipe.data.notes(())[1]
    assert len(recipe.data.notes([("largest_component", None)])) == 1


@pytest.mark.slow
@needs_builder
@pytest.mark.parametrize("kind", ["slices", "a residual encoder"])
def test_a_fold_goes_through_pruning_training_and_integers(tmp_path: Path, kind: str) -> None:
    results, _ = trained(tmp_path, kind)
    write_raw(tmp_path / "raw", [f"toy_{number:03d}" for number in range(16)])
    place = recipe_of(tmp_path, results, calibration=2)
    told = yaml.safe_load(place.read_text())
    told["passes"] = [
        {"prune": {"ratio": 0.3, "by": "taylor", "multiple": 1}},
        {"distill": {"epochs": 1}},
        {"int8": {"calibrate": 4}},
    ]
    told |= {"postprocess": ["largest_foreground"], "latency": {"samples": 10, "seconds": 0.1, "threads": 1}}
    report = run(load(write_recipe(tmp_path, told)), tmp_path / "out", say=lambda _: None)
    measured = [row for row in report.rows if row.status == "measured"]
    assert {row.backend for row in measured} == {"torch", "onnxruntime", "openvino"}
    assert all(row.scores is not None and row.latency_ms is not None for row in measured)


@needs_builder
def test_an_artifact_says_what_a_device_must_do(recipe: Recipe, tmp_path: Path) -> None:
    (tmp_path / "net.safetensors").touch()
    task = recipe.task()
    place = tmp_path / "net.safetensors"
    stage = Stage(name="baseline", key="", path=place, params=0, macs=0, seconds=0.0, notes=())
    told = metadata(stage, task)
    assert (told["segpress.fit"], told["segpress.restore"], told["segpress.spacing"]) == (
        "nnunet",
        "logits",
        "[1.0, 1.0, 1.0]",
    )
    nnunet = json.loads(told["segpress.nnunet"])
    assert nnunet["step"] == 0.5 and nnunet["mirrored"] == [0, 1, 2] and nnunet["resampling"]["image"]["order"] == 3


@needs_builder
def test_a_training_that_did_not_mirror_is_not_asked_mirrored(tmp_path: Path) -> None:
    results, net = trained(tmp_path)
    write_raw(tmp_path / "raw", CASES)
    write_checkpoint(results / "fold_0" / "checkpoint_final.pth", net, "2d", None)
    assert load(recipe_of(tmp_path, results, calibration=1)).data.mirror == ()
    with pytest.raises(RecipeError, match=r"mirror: .2. are not different axes of the 2 of a tile"):
        load(recipe_of(tmp_path, results, mirror=[2]))


@needs_builder
def test_the_shipped_recipe_is_good(tmp_path: Path) -> None:
    """Beside folders of nnU-Net's as they lie beside each other."""
    results, _ = trained(tmp_path, "volumes")
    shutil.move(results, tmp_path / "nnUNet_results" / "Dataset004_Hippocampus" / results.name)
    write_raw(tmp_path / "nnUNet_raw" / "Dataset004_Hippocampus", CASES)
    place = tmp_path / "recipes" / "nnunet" / SHIPPED.name
    place.parent.mkdir(parents=True)
    shutil.copyfile(SHIPPED, place)
    recipe = load(place)
    assert recipe.weights is not None and recipe.weights.is_file() and recipe.data.mirror == (0, 1, 2)
    assert [word for word, _ in recipe.postprocess] == ["largest_foreground"]
    assert isinstance(recipe.postprocess[0][1], LargestForeground)


@needs_builder
def test_init_writes_the_recipe_of_a_results_folder(tmp_path: Path) -> None:
    results, _ = trained(tmp_path, "volumes")
    write_raw(tmp_path / "raw", CASES)
    rules = results / "crossval_results_folds_0" / "postprocessing.json"
    rules.parent.mkdir()
    options = [{"labels_or_regions": [1, 2]}, {"labels_or_regions": 1}]
    rules.write_text(json.dumps({"postprocessing_fns": [RULE] * 2, "postprocessing_kwargs": options}))
    said: list[str] = []
    out = tmp_path / "mine" / "recipe.yaml"
    assert init(results, tmp_path / "raw", out, Answers(), unasked, said.append) == [out]
    recipe = load(out)
    assert [word for word, _ in recipe.postprocess] == ["largest_foreground", "largest_component"]
    assert recipe.weights is not None and recipe.weights.samefile(results / "fold_0" / "checkpoint_final.pth")
    assert said[0].startswith("network: nnU-Net's PlainConvUNet, 1 channels in, 3 classes out (nnUNetTrainer__")
    assert said[1].startswith("data: 3 train, 2 test; channel 0: (voxel - mean of the image)")
    rules.rename(rules.with_suffix(".pkl"))
    (results / "fold_0" / "checkpoint_final.pth").rename(results / "fold_0" / "checkpoint_best.pth")
    assert init(results / "fold_0", tmp_path / "raw", out, Answers(force=True), unasked, said.append) == [out]
    assert "postprocessing.pkl is a pickle and is not opened; nnU-Net writes postprocessing.json" in said[-1]
    assert not load(out).postprocess and "checkpoint: checkpoint_best.pth" in out.read_text()
    (results / "fold_0" / "checkpoint_best.pth").unlink()
    with pytest.raises(DataError, match=r"holds no checkpoint .fold_0/checkpoint_final\.pth."):
        init(results, tmp_path / "raw", out, Answers(force=True), unasked, said.append)


def unasked(question: str, proposed: str, flag: str) -> str:
    """Of nnU-Net's folders nothing is asked."""
    raise AssertionError(question)


# Rules.


def test_nnunets_rules_become_words_of_postprocess(tmp_path: Path) -> None:
    results = write_results(tmp_path)
    assert rules_beside(results_in(results)) is None
    folder = results / "crossval_results_folds_0_1"
    folder.mkdir()
    options = [{"labels_or_regions": [1, 2]}, {"labels_or_regions": 2}]
    told = {"postprocessing_fns": [RULE, RULE], "postprocessing_kwargs": options}
    (folder / "postprocessing.json").write_text(json.dumps(told))
    found = rules_beside(results_in(results))
    assert found is not None
    names = ("background", "organ", "lesion")
    assert steps_of(found, names) == [{"largest_foreground": {}}, {"largest_component": {"classes": ["lesion"]}}]
    for wrong, said in (
        ({"postprocessing_fns": ["mine"], "postprocessing_kwargs": options[:1]}, "has the rule mine"),
        ({**told, "postprocessing_kwargs": options[:1]}, "no rules of nnU-Net's"),
        ({"postprocessing_fns": [RULE], "postprocessing_kwargs": [{"labels_or_regions": 3}]}, "has a rule for 3"),
    ):
        found.write_text(json.dumps(wrong))
        with pytest.raises(DataError, match=said):
            steps_of(found, names)


def test_of_the_foreground_the_largest_component_of_all_classes_together_stays() -> None:
    labels = np.array([[1, 2, 0, 1, 0], [0, 2, 0, 0, 0], [0, 0, 0, 2, 1]], np.uint8)
    names = ("background", "organ", "lesion")
    kept = LargestForeground()(labels, names, None)
    assert kept.tolist() == [[1, 2, 0, 0, 0], [0, 2, 0, 0, 0], [0, 0, 0, 0, 0]]
    only = LargestForeground(classes=("lesion",))(labels, names, None)
    assert only.tolist() == [[1, 2, 0, 1, 0], [0, 2, 0, 0, 0], [0, 0, 0, 0, 1]]
    assert LargestForeground()(kept, names, None) is kept
