"""What a recipe need not say of nnU-Net: the checkpoint of a fold, and what the data share with the network."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

from compress.data.planned.results import results_in
from compress.errors import DataError, WeightsError
from compress.networks.nnunet import Nnunet
from compress.recipe.entries import Entries
from compress.storage.checkpoint import entries_of

AXES = "inference_allowed_mirroring_axes"
"""nnU-Net's name for the axes along which its training mirrored."""
SHARED = ("results", "fold", "checkpoint")
"""Options of the network that say which training it is."""


def network_options(
    entries: Entries, options: dict[str, Any], weights: str | None
) -> tuple[dict[str, Any], str | None]:
    """The network's options with its folder where it is, and the fold's checkpoint unless other weights are given."""
    if not isinstance(options.get("results"), str):
        return options, weights
    options = {**options, "results": str(entries.resolved(options["results"]).absolute())}
    if weights is not None:
        return options, weights
    try:
        return options, str(_checkpoint(options))
    except DataError as error:
        if _is_there(Path(options["results"])):
            entries.mistakes.append(f"network (nnunet): {error}")
        # Of a folder that is none the network itself tells.
        return options, weights


def data_options(entries: Entries, options: dict[str, Any], network: Any) -> dict[str, Any]:
    """The data's options, with the training and its mirroring where they do not say them."""
    of_network = network.get("nnunet") if isinstance(network, dict) else None
    shared = {key: of_network[key] for key in SHARED if key in of_network} if isinstance(of_network, dict) else {}
    given = {**{key: value for key, value in shared.items() if key != "checkpoint"}, **options}
    if not isinstance(given.get("results"), str):
        return given
    given["results"] = str(entries.resolved(given["results"]).absolute())
    # What is wrong with the checkpoint is told where the network is read.
    with suppress(DataError, WeightsError):
        if given.get("mirror") is None:
            given["mirror"] = list(entries_of(_checkpoint({**shared, **given})).get(AXES) or ())
    return given


def _checkpoint(options: dict[str, Any]) -> Path:
    results = results_in(Path(options["results"]))
    return results.checkpoint(options.get("fold", 0), options.get("checkpoint", Nnunet.checkpoint))


def _is_there(path: Path) -> bool:
    with suppress(DataError):
        return bool(results_in(path))
    return False
