"""A file that runs."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from export.errors import BackendError
from export.files import sha256, write_json

Infer = Callable[[NDArray[np.float32]], NDArray[np.float32]]
"""logits_BKHW = infer(image_BCHW): a torch module, an ONNX Runtime session and an engine are all one."""


@runtime_checkable
class Chooser(Protocol):
    """An `Infer` that chooses labels where it computes, since logits are many more bytes on the way here."""

    def labels(self, image_BCHW: NDArray[np.float32]) -> NDArray[np.uint8]:
        """The class of every pixel (BHW), as `labels_from_logits` of its logits (export/choice.py).

        Raises:
            NotHere: if a logit is not finite.
        """
        ...


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
    format: str
    """What kind of file it is, in a word: "onnx", or that of the runtime whose own it is."""
    input: Port
    output: Port
    beside: tuple[str, ...] = ()
    """Names of the files beside it that it does not run without, as an OpenVINO IR's weights."""
    made: Mapping[str, Any] = field(default_factory=dict)
    """Versions, flags, and the SHA-256 of the file and of what it was made from."""

    @property
    def files(self) -> tuple[Path, ...]:
        """Every file that a device needs."""
        return (self.path, *(self.path.with_name(name) for name in self.beside))

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
        sealed = replace(self, made={**self.made, "sha256": hashes})
        record = asdict(sealed)
        del record["path"]
        write_json(self.sidecar, record)
        return sealed

    def verify(self) -> None:
        """Check that the files are those that the sidecar was written for.

        Raises:
            BackendError: if one is missing, was changed, or was never sealed. Engines are executable
                code: only those of our own making are ever loaded.
        """
        known = self.made.get("sha256", {})
        for file in self.files:
            if not file.is_file():
                raise BackendError(f"{file}: the file is gone; --fresh builds it again")
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
            return artifact_of(path, record)
        except FileNotFoundError:
            raise BackendError(f"{path}: has no sidecar {sidecar.name}, so it is not known how it was made") from None
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise BackendError(f"{sidecar}: not an artifact's sidecar ({error})") from None


def artifact_of(path: Path, record: Mapping[str, Any]) -> Artifact:
    """The artifact of a record such as a sidecar holds, the inverse of `dataclasses.asdict`."""
    ports = {which: _port(record[which]) for which in ("input", "output")}
    beside = tuple(record.get("beside", ()))
    return Artifact(path=path, format=record["format"], beside=beside, made=record["made"], **ports)


def _port(record: Mapping[str, Any]) -> Port:
    return Port(name=record["name"], shape=tuple(record["shape"]), dtype=record["dtype"])
