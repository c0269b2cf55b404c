"""Networks in integers, built again from their descriptions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from compress.errors import WeightsError
from compress.storage.changed import Build
from export.capture import folded_graph
from export.quantization.learnt import Grid, Learnt
from export.quantization.placement import candidates
from export.quantization.quantized import Quantized

if TYPE_CHECKING:
    from compress.task import Task


def rebuilt(options: Mapping[str, Any], build: Build) -> Quantized:
    """The network that a saved int8 description speaks of, its tensors still to be loaded.

    Raises:
        WeightsError: if it was saved with a torch that captures the network as other operations.
    """
    example = torch.zeros(options["input"])
    graph = folded_graph(build(options["net"]), example, options["dynamic"])
    unknown = sorted(candidates(graph) - set(options["ranges"]))
    if unknown:
        raise WeightsError(
            f"int8: saved with another version of torch: it has no range for {unknown[0]}; quantize again"
        )
    ranges = dict.fromkeys(options["ranges"], (0.0, 0.0))
    learnt = Learnt(
        grids={path: Grid(scale_O=torch.zeros(rows), bits=bits) for path, rows, bits in options.get("grids", ())},
        means={name: torch.zeros(channels, dtype=torch.float64) for name, channels in options.get("means", ())},
    )
    quantized = Quantized(
        graph,
        ranges,
        tuple(options["keep_float"]),
        tuple(options.get("exact", ())),
        options.get("assigned", {}),
        learnt,
    )
    quantized.description = {"int8": options}
    return quantized


def description_of(quantized: Quantized, net: nn.Module, task: Task) -> Mapping[str, Any]:
    """What `rebuilt` builds a network in integers from again.

    Args:
        net: the network in float that it was made from.
    """
    learnt = quantized.learnt
    return {
        "int8": {
            "net": net.description,
            "input": list(task.example.shape),
            "dynamic": list(task.dynamic),
            "keep_float": list(quantized.keep_float),
            "exact": list(quantized.exact),
            "assigned": {runtime: dict(chosen) for runtime, chosen in quantized.assigned.items()},
            "ranges": list(quantized.names),
            "grids": [[path, len(grid.scale_O), grid.bits] for path, grid in learnt.grids.items()],
            "means": [[name, len(mean_C)] for name, mean_C in learnt.means.items()],
        }
    }
