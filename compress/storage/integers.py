"""Networks in integers, built again from their descriptions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from compress.errors import WeightsError
from compress.storage.changed import Build
from export.capture import folded_graph
from export.quantization.assignment import Assignment
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
    # Before there were several, the pass was int8.
    word = options.get("pass", "int8")
    example = torch.zeros(options["input"])
    graph = folded_graph(build(options["net"]), example, options["dynamic"])
    unknown = sorted(candidates(graph) - set(options["ranges"]))
    if unknown:
        raise WeightsError(
            f"{word}: saved with another version of torch: it has no range for {unknown[0]}; quantize again"
        )
    ranges = dict.fromkeys(options["ranges"], (0.0, 0.0))
    learnt = Learnt(
        grids={path: Grid(scale_O=torch.zeros(rows), bits=bits) for path, rows, bits in options.get("grids", ())},
        means={name: torch.zeros(channels, dtype=torch.float64) for name, channels in options.get("means", ())},
    )
    assignment = Assignment(
        word=word,
        keep_float=tuple(options["keep_float"]),
        exact=tuple(options.get("exact", ())),
        by_runtime=options.get("assigned", {}),
    )
    quantized = Quantized(graph, ranges, assignment, learnt)
    quantized.description = {"int8": options}
    return quantized


def description_of(quantized: Quantized, net: nn.Module, task: Task) -> Mapping[str, Any]:
    """What `rebuilt` builds a network in integers from again.

    Args:
        net: the network in float that it was made from.
    """
    learnt, given = quantized.learnt, quantized.assignment
    return {
        "int8": {
            "pass": given.word,
            "net": net.description,
            "input": list(task.example.shape),
            "dynamic": list(task.dynamic),
            "keep_float": list(given.keep_float),
            "exact": list(given.exact),
            "assigned": {runtime: dict(chosen) for runtime, chosen in given.by_runtime.items()},
            "ranges": list(quantized.names),
            "grids": [[path, len(grid.scale_O), grid.bits] for path, grid in learnt.grids.items()],
            "means": [[name, len(mean_C)] for name, mean_C in learnt.means.items()],
        }
    }
