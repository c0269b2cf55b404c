"""In what precision an artifact's layers ran, as its runtime tells."""

from __future__ import annotations

from export.artifact import Artifact
from export.backend import Backend, Inspector
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
