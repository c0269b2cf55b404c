"""Networks in 16 bits, built again from their descriptions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from compress.errors import WeightsError
from compress.storage.changed import Build
from export.capture import folded_graph
from export.half.network import Half, plain


def rebuilt(options: Mapping[str, Any], build: Build) -> Half:
    """The network that a saved description of 16 bits speaks of, its tensors still to be loaded.

    Raises:
        WeightsError: if it was saved with a torch that captures the network as other operations.
    """
    graph = plain(folded_graph(build(options["net"]), torch.zeros(options["input"]), options["dynamic"]))
    unknown = sorted(set(options["kept"]) - {node.name for node in graph.graph.nodes})
    if unknown:
        raise WeightsError(f"half: saved with another version of torch: there is no {unknown[0]}; run half again")
    return Half(graph, options["type"], options["kept"])
