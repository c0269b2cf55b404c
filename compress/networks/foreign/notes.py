"""What was found out about a network as it came in, kept with it for the log and the report."""

from __future__ import annotations

from torch import nn


def notes_of(net: nn.Module) -> tuple[str, ...]:
    """What was found out about a network as it came in, one plain sentence each."""
    found: tuple[str, ...] = vars(net).get("_notes", ())
    return found


def note_on(net: nn.Module, *lines: str) -> None:
    """Keep what was found out about a network with it, for the log and the report."""
    # Underscored: it is no attribute by which a layer differs from the one it was built as (storage/changed.py).
    vars(net)["_notes"] = (*notes_of(net), *lines)
