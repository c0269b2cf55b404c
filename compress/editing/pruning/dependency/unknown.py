"""The rule for an operation that no rule is for: whatever meets its result keeps its channels."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from compress.editing.pruning.dependency.trace import Trace


def unknown(trace: Trace, node: Any, name: str) -> Any:
    if node.meta.get("val") is None:
        # A check, such as torch.export writes for `.to(dtype)`: it gives nothing, and changes nothing.
        return None
    for source in node.all_input_nodes:
        trace.labels.keep(trace.of(source), f"what {name} does to its channels is not known")
    # Its result may be as wide as they are: nothing that meets it can be removed.
    value = node.meta["val"]
    reason = f"it is joined with what {name} gives"
    if isinstance(value, Tensor):
        return trace.kept(node, reason, channels=1)
    if not isinstance(value, list | tuple):
        return None
    kept = trace.labels.fresh(1)
    trace.labels.keep(kept, reason)
    return [kept.view([1] * one.dim()) if isinstance(one, Tensor) else None for one in value]
