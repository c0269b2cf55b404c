"""In what precision an artifact's layers ran, and where, as its runtime tells."""

from __future__ import annotations

from typing import Any

from export.artifact import Artifact
from export.backend import Backend, Inspector, Partitioner
from export.errors import NotHere


def executed(backend: Backend, artifact: Artifact) -> dict[str, int] | None:
    """How many convolutions and multiplications of matrices ran in each precision; None where nothing tells."""
    if "executed" in artifact.made:
        # Told when it was built, by what cannot be asked again.
        return dict(artifact.made["executed"])
    if not isinstance(backend, Inspector):
        return None
    try:
        return dict(backend.executed_precisions(artifact))
    except NotHere:
        return None


def fallback(backend: Backend, artifact: Artifact) -> dict[str, Any] | None:
    """Which layers the processor did not take, and another one computes; None where nothing tells, or all are its own.

    What TensorRT leaves of a DLA core was told when it was built.
    """
    if not isinstance(backend, Partitioner):
        return None
    try:
        return dict(backend.fallback(artifact))
    except NotHere:
        return None
