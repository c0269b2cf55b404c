"""Which rule an operation follows, by its name among torch's operators: the tables of the files beside this one."""

from __future__ import annotations

from typing import Any, Final

import torch
from torch import fx

from compress.editing.pruning.dependency import elementwise, layers, shapes
from compress.editing.pruning.dependency.trace import Rule

NAMES: Final = {**layers.NAMES, **shapes.NAMES, **elementwise.NAMES}
PATTERNS: Final = (*layers.PATTERNS, *shapes.PATTERNS, *elementwise.PATTERNS)


def rule_for(node: Any) -> Rule | None:
    """What to do with an operation; None if it is not known."""
    name = operator_name(node)
    if name == "repeat_interleave" and isinstance(node.args[1], fx.Node):
        return None
    if name in NAMES:
        return NAMES[name]
    found = next((rule for pattern, rule in PATTERNS if pattern.fullmatch(name)), None)
    return found or (elementwise.pointwise if torch.Tag.pointwise in node.target.tags else None)


def operator_name(node: Any) -> str:
    """Without its overload; an operation that works in place is named as the one that does not."""
    return str(node.target.overloadpacket.__name__).removesuffix("_")
