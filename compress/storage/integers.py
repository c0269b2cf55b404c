"""Networks in integers, built again from their descriptions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from compress.errors import WeightsError
from compress.storage.changed import Build
from export.capture import folded_graph
from export.quantization.placement import candidates
from export.quantization.quantized import Quantized


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
    quantized = Quantized(
        graph, ranges, tuple(options["keep_float"]), tuple(options.get("exact", ())), options.get("assigned", {})
    )
    quantized.description = {"int8": options}
    return quantized
