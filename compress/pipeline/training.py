"""A recipe's network, trained as its section `train` says, and written with its description."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from compress.cache import versions
from compress.data.dataset.oddities import oddities
from compress.errors import DataError, RecipeError
from compress.recipe import Recipe
from compress.storage.description import Description, build_net, read_description
from compress.storage.weights import load_net, load_weights, save_net
from compress.train.net2net import widen

Say = Callable[[str], None]


def trained_into(folder: Path, recipe: Recipe, say: Say) -> Path:
    """Train the network, from its weights where it names some; write it in 16 bits. What was interrupted goes on.

    Raises:
        DataError: if there are no train or validation cases, or one of their files is wrong.
    """
    assert recipe.train is not None
    described = None if recipe.weights is None else read_description(recipe.weights)
    data = recipe.dataset(stored=described.normalization if described else None)
    for role in ("train", "val"):
        if not data.cases[role]:
            raise DataError(f"{data.source}: the split '{role}' is empty, and training needs it")
    for line in oddities(data, data.check(("train", "val"))):
        say(line)
    torch.manual_seed(recipe.seed)
    net = _started(recipe, described, say)
    begun = time.perf_counter()
    best = recipe.train(net, data, folder, recipe.seed, say)
    say(f"best validation Dice {best:.4f}, {(time.perf_counter() - begun) / 60:.1f} minutes")
    path = folder / "net.safetensors"
    save_net(
        net,
        Description(
            network=recipe.network,
            classes=data.class_names,
            normalization=data.normalization,
            size=data.fit.size,
            made={
                "recipe": recipe.name,
                "seed": recipe.seed,
                "epochs": recipe.train.epochs,
                "validation_dice": round(best, 4),
                "train_cases": len(data.cases["train"]),
                "torch": versions()["torch"],
            },
        ),
        path,
        half=True,
    )
    return path


def _started(recipe: Recipe, described: Description | None, say: Say) -> nn.Module:
    """The network with the weights that its training begins with."""
    assert recipe.train is not None
    net = build_net(recipe.network)
    if recipe.train.widen:
        if described is None or recipe.weights is None:
            raise RecipeError(recipe.name, ["train: widen: needs network weights with their description beside"])
        widen(net, load_net(recipe.weights).state_dict())
        say(f"starting from {recipe.weights}, widened")
    elif recipe.weights is not None:
        load_weights(net, recipe.weights)
        say(f"starting from {recipe.weights}")
    return net
