"""What an artifact says of the post-processing its scores are of, written into what is built already.

Post-processing comes after the network: changed, it is told and scored again, and nothing is built again.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from compress.errors import BackendError
from compress.postprocess.applying.chain import Postprocess
from export.artifact import Artifact
from export.files import sha256
from export.to_onnx import tell

_AS_EXPORTED = "exported_sha256"
_KEYS = ("postprocess", "threshold", _AS_EXPORTED)
"""What a sidecar has of post-processing where there is any, and the SHA-256 of the ONNX file before it said so."""


def told(artifact: Artifact, postprocess: Postprocess, logits: int) -> Artifact:
    """The artifact whose sidecar, and whose metadata if it is an ONNX file, say what comes after the network.

    Args:
        logits: how many the network gives for each pixel.
    """
    made = artifact.made
    said = _said(postprocess, logits)
    if artifact.format == "torch" or {key: made[key] for key in _KEYS[:2] if key in made} == said:
        return artifact
    others = {key: value for key, value in made.items() if key not in _KEYS}
    if artifact.format == "onnx":
        if said:
            others[_AS_EXPORTED] = made.get(_AS_EXPORTED) or made["sha256"][artifact.path.name]
        tell(artifact.path, {"segpress.postprocess": None, **postprocess.metadata(logits)})
    return replace(artifact, made={**others, **said}).sealed()


def is_export(path: Path, exported_sha256: str) -> bool:
    """Whether the file is what was exported once, whatever it says of post-processing now."""
    if not path.is_file():
        return False
    if sha256(path) == exported_sha256:
        return True
    try:
        artifact = Artifact.read(path)
        artifact.verify()
    except BackendError:
        return False
    return bool(artifact.made.get(_AS_EXPORTED) == exported_sha256)


def _said(postprocess: Postprocess, logits: int) -> dict[str, Any]:
    if not postprocess.steps:
        return {}
    return {"postprocess": postprocess.as_list(), "threshold": postprocess.threshold(logits)}
