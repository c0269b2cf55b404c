"""What is built beside its device: the ONNX file is sent there once, and what becomes of it comes back with its log."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Protocol

from export.artifact import Artifact
from export.device import Device
from export.engines.wanted import Wanted
from export.errors import SurroundingsError
from export.remote import answers
from export.remote.answers import Facts
from export.remote.device import RemoteDevice

SHARE_OF_MEMORY = 4
"""A layer may use this part of a board's memory: the GPU has no other, and the rest is for everything else."""


class Builder(Protocol):
    """A backend that has its files built on the device."""

    @property
    def device(self) -> Device: ...

    def wanted(self, onnx: Artifact) -> Wanted:
        """What the device is told of the file."""
        ...

    def kept(self, onnx: Artifact, path: Path, engine: bytes, log: str, made: Mapping[str, Any]) -> Artifact:
        """What it built as an artifact, with its log beside it."""
        ...


def built_there(remote: RemoteDevice, backend: Builder, word: str, onnx: Artifact, folder: Path) -> Artifact:
    """The engine of an ONNX file, built on the device.

    Raises:
        BackendError: naming the node that is refused there, and the reason.
        NotHere: if what it needs is not there, such as a DLA core.
        SurroundingsError: if the link is lost.
    """
    told, wanted = remote.told, backend.wanted(onnx)
    if told.board is not None and told.memory_mb is not None:
        wanted = replace(wanted, workspace_mb=told.memory_mb // SHARE_OF_MEMORY)
    request = {"do": "build", **remote.opening(word, onnx), "wanted": asdict(wanted)}
    answer, _ = remote.conversation.ask(answers.BuiltThere, request)
    engine, log = (_got(remote, sha256) for sha256 in (answer.artifact, answer.log))
    made = {**answer.made.model_dump(exclude_none=True), "device": _identity(backend.device, told)}
    path = folder / f"{onnx.path.stem}.{backend.device.name}.engine"
    return backend.kept(onnx, path, engine, log.decode("utf-8", "replace"), made)


def _got(remote: RemoteDevice, sha256: str) -> bytes:
    answer, data = remote.conversation.ask(answers.Got, {"do": "get", "sha256": sha256})
    if answer.got != sha256 or hashlib.sha256(data).hexdigest() != sha256:
        raise SurroundingsError("what was built on the device arrived damaged (its SHA-256 differs)")
    return data


def _identity(device: Device, told: Facts) -> dict[str, Any]:
    """On what it was built, and so what it is for."""
    plain = ("board", "hostname", "l4t", "machine", "memory_mb")
    return {"name": device.name, **{name: getattr(told, name) for name in plain}}
