"""nnU-Net's own planner and trainer on a folder of volumes, for a few epochs: the results folder that the door takes.

    python -m benchmarks.nnunet_train --data <folder of msd_hippocampus> --out <folder> --configuration 3d_fullres

nnU-Net v2 (`pip install nnunetv2`) does all of it: it plans, preprocesses and trains. The folder's `train` rows are the
fold's training cases, its `val` rows the fold's validation cases, its `test` rows imagesTs and labelsTs. Only how long
it trains, and on how many patches at once, is set otherwise than by default: a CPU has to do it.
"""

from __future__ import annotations

import csv
import json
import os
import shutil
from pathlib import Path
from typing import Annotated, Any

import typer

from compress.networks.foreign.torchvision_import import torchvision

NAME, NUMBER = "Dataset004_Hippocampus", 4
LABELS = {"background": 0, "Anterior": 1, "Posterior": 2}


def main(
    data: Annotated[Path, typer.Option(help="Folder of msd_hippocampus.")],
    out: Annotated[Path, typer.Option(help="Becomes the parent of nnUNet_raw, nnUNet_preprocessed, nnUNet_results.")],
    configuration: Annotated[str, typer.Option(help="2d or 3d_fullres")] = "2d",
    planner: Annotated[str, typer.Option(help="nnUNetPlannerResEncM plans a residual encoder.")] = "ExperimentPlanner",
    trainer: str = "nnUNetTrainer_5epochs",
    steps: Annotated[int, typer.Option(help="Steps of an epoch; nnU-Net's own are 250.")] = 60,
    batch: Annotated[int, typer.Option(help="Patches of a step; nnU-Net's own fill a GPU.")] = 8,
) -> None:
    """Train one fold, and print where its results are."""
    places = {name: out / name for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")}
    # nnU-Net reads them as it is imported.
    os.environ.update({name: str(place) for name, place in places.items()})
    os.environ.update({"nnUNet_compile": "f", "nnUNet_n_proc_DA": "1"})
    splits = _raw(data, places["nnUNet_raw"] / NAME)
    plans = _planned(places["nnUNet_preprocessed"] / NAME, planner, configuration, batch, splits)
    print(_trained(configuration, trainer, plans, steps))


def _raw(data: Path, raw: Path) -> list[dict[str, list[str]]]:
    """The folder as nnUNet_raw has it; returns the one fold."""
    fold: dict[str, list[str]] = {"train": [], "val": []}
    with (data / "split.csv").open(newline="") as lines:
        for row in csv.DictReader(lines):
            case, part = Path(row["image"]).name.removesuffix(".nii.gz"), "Ts" if row["split"] == "test" else "Tr"
            for folder, source, name in (("images", row["image"], f"{case}_0000"), ("labels", row["mask"], case)):
                place = raw / f"{folder}{part}" / f"{name}.nii.gz"
                place.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(data / source, place)
            if part == "Tr":
                fold[row["split"]].append(case)
    told = {
        "channel_names": {"0": "MRI"},
        "labels": LABELS,
        "numTraining": sum(map(len, fold.values())),
        "file_ending": ".nii.gz",
    }
    (raw / "dataset.json").write_text(json.dumps(told, indent=1))
    return [fold]


def _planned(
    preprocessed: Path, planner: str, configuration: str, batch: int, splits: list[dict[str, list[str]]]
) -> str:
    """nnU-Net's plans, of which the batch alone is changed; returns their name."""
    torchvision()
    from nnunetv2.experiment_planning import plan_and_preprocess_api as api

    api.extract_fingerprints([NUMBER], num_processes=1)
    plans = api.plan_experiments([NUMBER], experiment_planner_class_name=planner)
    place = preprocessed / f"{plans}.json"
    told: dict[str, Any] = json.loads(place.read_text())
    told["configurations"][configuration]["batch_size"] = batch
    place.write_text(json.dumps(told, indent=1))
    (preprocessed / "splits_final.json").write_text(json.dumps(splits))
    api.preprocess([NUMBER], plans, configurations=(configuration,), num_processes=(1,))
    return str(plans)


def _trained(configuration: str, trainer: str, plans: str, steps: int) -> Path:
    """Train fold 0, and have nnU-Net predict and score its validation cases."""
    import torch
    from nnunetv2.run.run_training import get_trainer_from_args

    # In this process; the planner wants a number of threads.
    os.environ.update({"nnUNet_n_proc_DA": "0"})
    made: Any = get_trainer_from_args(str(NUMBER), configuration, 0, trainer, plans, device=torch.device("cpu"))
    made.num_iterations_per_epoch, made.num_val_iterations_per_epoch = steps, max(1, steps // 10)
    made.run_training()
    made.perform_actual_validation(False)
    return Path(made.output_folder_base)


if __name__ == "__main__":
    typer.run(main)
