"""Backends that are told how a network is loaded, where theirs is no file of its own."""

from __future__ import annotations

from export.artifact import Backend
from export.device import Device
from export.registry import named


def backend_for(word: str, device: Device, threads: int) -> Backend:
    """The backend of this word on this device; torch's is told how we load a network."""
    kind = named("export.backends", word)
    if word == "torch":
        from compress.storage.weights import load_net

        return kind(device=device, threads=threads, load=load_net)
    return kind(device=device, threads=threads)
