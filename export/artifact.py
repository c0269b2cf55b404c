"""A file that runs, and the protocol of what builds and opens one."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from export.device import Device
from export.errors import BackendError
from export.files import sha256, write_json

Infer = Callable[[NDArray[np.float32]], NDArray[np.float32]]
"""logits_BKHW = infer(image_BCHW): a torch module, an ONNX Runtime session and an engine are all one."""
Format = Literal["torch", "onnx", "openvino", "tensorrt"]


@dataclass(frozen=True, kw_only=True)
class Port:
    """One input or output; a dimension that may change is -1."""

    name: str
    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True, kw_only=True)
class Artifact:
    """A file that runs, what goes in and out, and how it was made (its sidecar)."""

    path: Path
    format: Format
    input: Port
    output: Port
    made: Mapping[str, Any] = field(default_factory=dict)
    """Versions, flags, and the SHA-256 of the file and of what it was made from."""

    @property
    def files(self) -> tuple[Path, ...]:
        """Every file that a device needs; an OpenVINO IR has two."""
        weights = self.path.with_suffix(".bin")
        return (self.path, weights) if self.format == "openvino" else (self.path,)

    @property
    def size_mb(self) -> float:
        """Size of its files in MB (10^6 bytes)."""
        return sum(file.stat().st_size for file in self.files) / 1e6

    @property
    def sidecar(self) -> Path:
        return self.path.with_name(self.path.name + ".json")

    def sealed(self) -> Artifact:
        """The same artifact with the SHA-256 of its files, its sidecar written beside it."""
        hashes = {file.name: sha256(file) for file in self.files}
        sealed = Artifact(
            path=self.path,
            format=self.format,
            input=self.input,
            output=self.output,
            made={**self.made, "sha256": hashes},
        )
        record = asdict(sealed)
        del record["path"]
        write_json(self.sidecar, record)
        return sealed

    def verify(self) -> None:
        """Check that the files are those that the sidecar was written for.

        Raises:
            BackendError: if one is missing, was changed, or was never sealed. Engines are executable
                code: only those of our own making are ever loaded. Torch weights have no sidecar;
                they are data, and who loads them checks them.
        """
        known = self.made.get("sha256", {})
        for file in self.files:
            if not file.is_file():
                raise BackendError(f"{file}: the file is gone; --fresh builds it again")
            if self.format == "torch":
                continue
            if file.name not in known:
                raise BackendError(f"{file}: its sidecar has no SHA-256 of it; --fresh builds it again")
            if sha256(file) != known[file.name]:
                raise BackendError(
                    f"{file}: not the file that was built (its SHA-256 differs); --fresh builds it again"
                )

    @staticmethod
    def read(path: Path) -> Artifact:
        """The artifact whose sidecar lies beside `path`.

        Raises:
            BackendError: if there is no readable sidecar.
        """
        sidecar = path.with_name(path.name + ".json")
        try:
            record = json.loads(sidecar.read_text())
            ports = {
                which: Port(name=port["name"], shape=tuple(port["shape"]), dtype=port["dtype"])
                for which in ("input", "output")
                for port in [record[which]]
            }
            return Artifact(path=path, format=record["format"], made=record["made"], **ports)
        except FileNotFoundError:
            raise BackendError(f"{path}: has no sidecar {sidecar.name}, so it is not known how it was made") from None
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise BackendError(f"{sidecar}: not an artifact's sidecar ({error})") from None


class Backend(Protocol):
    """Builds an artifact from ONNX, and opens it on a device."""

    @property
    def device(self) -> Device: ...

    def build(self, onnx: Artifact, folder: Path) -> Artifact:
        """What this runtime makes of an ONNX file, in `folder`.

        Raises:
            BackendError: naming the node the runtime refuses, and its reason.
        """
        ...

    def open(self, artifact: Artifact) -> AbstractContextManager[Infer]:
        """The artifact, loaded and ready.

        Raises:
            NotHere: if this host cannot run it, with the reason.
        """
        ...
