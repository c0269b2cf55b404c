"""Blocks that were trained once, kept by all that their training depended on."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import nn

from compress.cache import code_key, key_of
from compress.editing.blocks.candidates import Candidate
from export.files import make_folder, write_bytes, write_json


@dataclass(frozen=True, kw_only=True)
class Kept:
    """A folder of trained blocks."""

    folder: Path
    key: str
    """Of what they all depend on: the network, the data, the seed, the steps."""

    def load(self, candidate: Candidate) -> float | None:
        """Give a block the weights that it learned; its error, or None if it was not trained yet."""
        path = self._path(candidate)
        try:
            error = json.loads(path.with_suffix(".json").read_text())["error"]
            candidate.block.load_state_dict(safetensors.torch.load_file(path))
        except (OSError, ValueError, KeyError, SafetensorError, RuntimeError):
            # Not there, or not whole: it is trained, again.
            return None
        return float(error)

    def save(self, candidate: Candidate, error: float) -> None:
        """Keep a trained block."""
        path = self._path(candidate)
        make_folder(path.parent)
        state = {name: tensor.contiguous().clone() for name, tensor in candidate.block.state_dict().items()}
        write_bytes(path, safetensors.torch.save(state))
        said = {"stretch": candidate.stretch.name, "kind": candidate.kind, "error": error}
        write_json(path.with_suffix(".json"), said)

    def _path(self, candidate: Candidate) -> Path:
        key = key_of(self.key, candidate.stretch.places, candidate.stretch.into, candidate.kind, str(candidate.block))
        return self.folder / f"{key[:24]}.safetensors"


def key_of_lessons(net: nn.Module, fingerprint: object, seed: int, steps: int) -> str:
    """The key of all that the training of a network's blocks depends on."""
    digest = hashlib.sha256()
    for name, tensor in net.state_dict().items():
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return key_of(code_key(), str(net), digest.hexdigest(), fingerprint, seed, steps)
