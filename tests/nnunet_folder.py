"""A small results folder and a small raw folder, written as nnU-Net v2 writes them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from shared_fixtures import solid

TRAINER = "nnUNetTrainer"
INTENSITIES = {"mean": 100.0, "std": 20.0, "percentile_00_5": 60.0, "percentile_99_5": 140.0, "min": 0.0, "max": 200.0}


def architecture(dims: int, residual: bool = False) -> dict[str, Any]:
    """Of plans.json: a U-Net of three stages, the last of which halves the last axis alone."""
    blocks = "n_blocks_per_stage" if residual else "n_conv_per_stage"
    return {
        "network_class_name": "dynamic_network_architectures.architectures.unet."
        + ("ResidualEncoderUNet" if residual else "PlainConvUNet"),
        "arch_kwargs": {
            "n_stages": 3,
            "features_per_stage": [4, 8, 8],
            "conv_op": f"torch.nn.modules.conv.Conv{dims}d",
            "kernel_sizes": [[3] * dims] * 3,
            "strides": [[1] * dims, [2] * dims, [*[1] * (dims - 1), 2]],
            blocks: [1, 1, 1],
            "n_conv_per_stage_decoder": [1, 1],
            "conv_bias": True,
            "norm_op": f"torch.nn.modules.instancenorm.InstanceNorm{dims}d",
            "norm_op_kwargs": {"eps": 1e-05, "affine": True},
            "dropout_op": None,
            "dropout_op_kwargs": None,
            "nonlin": "torch.nn.LeakyReLU",
            "nonlin_kwargs": {"inplace": True},
        },
        "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
    }


def plans(configuration: str, **changes: Any) -> dict[str, Any]:
    """plans.json, the configuration inheriting the half of what it says."""
    dims = 2 if configuration.startswith("2d") else 3
    kwargs = {"is_seg": False, "order_z": 0, "force_separate_z": None}
    base = {
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": 2,
        "patch_size": [8, 12, 8][-dims:],
        "spacing": [1.0, 1.0, 1.0][-dims:],
        "normalization_schemes": ["ZScoreNormalization"],
        "use_mask_for_norm": [False],
        "resampling_fn_data": "resample_data_or_seg_to_shape",
        "resampling_fn_data_kwargs": {**kwargs, "order": 3},
        "resampling_fn_probabilities": "resample_data_or_seg_to_shape",
        "resampling_fn_probabilities_kwargs": {**kwargs, "order": 1},
    }
    return {
        "dataset_name": "Dataset001_Toy",
        "plans_name": "nnUNetPlans",
        "image_reader_writer": "SimpleITKIO",
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {"0": INTENSITIES},
        "configurations": {
            "base": base,
            configuration: {"inherits_from": "base", "architecture": architecture(dims), **changes},
        },
    }


def dataset(**changes: Any) -> dict[str, Any]:
    """dataset.json."""
    labels = {"background": 0, "organ": 1, "lesion": 2}
    return {"channel_names": {"0": "MRI"}, "labels": labels, "file_ending": ".nii.gz", "numTraining": 4, **changes}


def write_results(
    place: Path,
    configuration: str = "2d",
    *,
    trainer: str = TRAINER,
    told: Mapping[str, Any] | None = None,
    plan: Mapping[str, Any] | None = None,
    net: torch.nn.Module | None = None,
    held: Sequence[str] = (),
    mirroring: Sequence[int] | None = (0, 1),
) -> Path:
    """The folder of one training, whose fold 0 has held these cases out; a checkpoint where there is a network."""
    results = place / "nnUNet_results" / "Dataset001_Toy" / f"{trainer}__nnUNetPlans__{configuration}"
    (results / "fold_0" / "validation").mkdir(parents=True)
    (results / "plans.json").write_text(json.dumps(dict(plan or plans(configuration))))
    (results / "dataset.json").write_text(json.dumps(dict(told or dataset())))
    for name in held:
        (results / "fold_0" / "validation" / f"{name}.nii.gz").touch()
    if net is not None:
        write_checkpoint(results / "fold_0" / "checkpoint_final.pth", net, configuration, mirroring)
    return results


def write_checkpoint(path: Path, net: torch.nn.Module, configuration: str, mirroring: Sequence[int] | None) -> None:
    """As nnUNetTrainer.save_checkpoint: numpy's numbers in the log, a torch.device among the arguments."""
    torch.save(
        {
            "network_weights": net.state_dict(),
            "optimizer_state": torch.optim.SGD(net.parameters(), 0.01, momentum=0.99).state_dict(),
            "grad_scaler_state": None,
            "logging": {"mean_fg_dice": [np.float64(0.5), np.float32(0.6)], "train_losses": [np.float64(-0.3)]},
            "_best_ema": np.float64(0.55),
            "current_epoch": 1,
            "init_args": {"configuration": configuration, "fold": 0, "device": torch.device("cpu")},
            "trainer_name": TRAINER,
            "inference_allowed_mirroring_axes": None if mirroring is None else tuple(mirroring),
        },
        path,
    )


def write_raw(
    root: Path, cases: Sequence[str], *, channels: int = 1, tested: Sequence[str] = (), spacing: float = 1.0
) -> Path:
    """A folder of nnUNet_raw with solids in it, their sides longer than a patch or shorter."""
    import nibabel

    rng = np.random.default_rng(0)
    for number, name in enumerate((*cases, *tested)):
        part = "Ts" if name in tested else "Tr"
        image, mask = solid(rng, (11 + number % 3, 10, 14 - number % 3))
        affine = np.diag([1.0, spacing, 1.0, 1.0])
        for folder in ("images", "labels"):
            (root / f"{folder}{part}").mkdir(parents=True, exist_ok=True)
        nibabel.save(nibabel.Nifti1Image(mask, affine), root / f"labels{part}" / f"{name}.nii.gz")
        for channel in range(channels):
            voxels = (image * (channel + 1)).astype(np.float32)
            place = root / f"images{part}" / f"{name}_{channel:04d}.nii.gz"
            nibabel.save(nibabel.Nifti1Image(voxels, affine), place)
    return root
