"""Checkpoints as other programs wrote them: the tensors in them, read without running anything."""

from __future__ import annotations

import argparse
import pickle
import struct
import sys
import warnings
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import Tensor

from compress.errors import WeightsError
from compress.storage.bits import out_of_bits
from compress.storage.inert import WouldRun, is_harmless, stand_ins, unknown
from export.errors import first_line

# Where checkpoints keep a state dict, the usual ones first; an average of the weights only where there is no other.
NESTED = (
    "state_dict",
    "model_state_dict",
    "model_state",
    "model",
    "network",
    "net",
    "weights",
    "params",
    "network_weights",
    "student",
    "segmentor",
    "generator",
    "module",
    "ema",
    "model_ema",
    "ema_model",
    "ema_state_dict",
    "state_dict_ema",
    "params_ema",
    "teacher",
)
# What torch.load raises on bytes that are no checkpoint, or no longer one.
_DAMAGE = (
    RuntimeError,
    EOFError,
    LookupError,
    OSError,
    ValueError,
    AssertionError,
    AttributeError,
    TypeError,
    struct.error,
)
_AGAIN = "save it again with torch.save(net.state_dict(), ...) or as safetensors"
# Files that hold a network in a form that no state dict can be read from without running it.
_FORMATS = {
    ".onnx": "an ONNX file: its tensors have lost their names in the network; give the checkpoint it was exported "
    "from, or the file as the network: network: {onnx: {path: ...}}",
    ".h5": "a Keras or HDF5 file, which torch does not read: give a torch state dict",
    ".keras": "a Keras file, which torch does not read: give a torch state dict",
    ".tflite": "a TensorFlow Lite file, which torch does not read: give a torch state dict",
    ".pdparams": "a Paddle file, which torch does not read: give a torch state dict",
    ".engine": "an engine, which holds no state dict; give the checkpoint it was built from",
    ".plan": "an engine, which holds no state dict; give the checkpoint it was built from",
}
# What trainers put beside the tensors and what runs nothing when it is read.
_HARMLESS: list[Any] = [
    np.dtype,
    *{type(np.dtype(code)) for code in np.typecodes["All"]},
    *((np.float64(0).__reduce__()[0], f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),
    argparse.Namespace,
]


def read_state(path: Path, notes: list[str]) -> dict[str, Tensor]:
    """Every tensor in a file, by its keys and its name, joined by dots; what else there was is added to the notes."""
    if path.is_dir():
        raise WeightsError(f"{path}: a folder; give the file of the weights in it")
    if not path.is_file():
        raise WeightsError(f"{path}: no such weights file")
    _check_format(path)
    if path.suffix == ".safetensors":
        try:
            return out_of_bits(safetensors.torch.load_file(path), path)
        except (safetensors.SafetensorError, OSError) as error:
            raise WeightsError(f"{path}: damaged or truncated safetensors file ({error})") from None
    read, left = _unpickled(path)
    state = dict(_flat(read))
    if not state and any("numpy" in name for name in left):
        raise WeightsError(
            f"{path}: its arrays are numpy's, which a pickle makes by running code: save tensors instead, "
            "torch.save({name: torch.from_numpy(array) for name, array in state.items()}, ...)"
        )
    if not state:
        raise WeightsError(
            f"{path}: no state dict of tensors in it (found {_found_in(read)}); looked under {', '.join(NESTED[:8])} "
            "and every other key"
        )
    if left:
        notes.append(f"of the weights file only the tensors are read, and not {counted(left, 'kinds of other things')}")
    return state


def entries_of(path: Path) -> Mapping[str, Any]:
    """What a training program put into a torch checkpoint by name, its tensors among it; inert where it is no value.

    Raises:
        WeightsError: if it is missing, damaged, no mapping, or would run something.
    """
    if not path.is_file():
        raise WeightsError(f"{path}: no such weights file")
    _check_format(path)
    read, _ = _unpickled(path)
    if not isinstance(read, Mapping):
        raise WeightsError(f"{path}: holds a {type(read).__name__}, not values by their names")
    return read


def _unpickled(path: Path) -> tuple[Any, list[str]]:
    """What is in a torch checkpoint, and the names of what was left unread: something inert stands for each."""
    left: dict[str, bool] = {}
    while True:
        try:
            with warnings.catch_warnings(), torch.serialization.safe_globals([*_HARMLESS, *stand_ins(left)]):
                # A plain pickle is refused below, in our own words.
                warnings.simplefilter("ignore", UserWarning)
                return torch.load(path, map_location="cpu", weights_only=True), list(left)
        except pickle.UnpicklingError as error:
            name, mapped = unknown(str(error))
            if name is None or (name in left and left[name] >= mapped):
                raise WeightsError(f"{path}: damaged or not a torch checkpoint: {_AGAIN}") from None
            if not is_harmless(name):
                raise _would_run(path, name, left) from None
            left[name] = mapped
        except WouldRun as error:
            raise _would_run(path, str(error), left) from None
        except _DAMAGE as error:
            raise WeightsError(f"{path}: damaged or not a torch checkpoint ({first_line(error)}): {_AGAIN}") from None


def _would_run(path: Path, name: str, left: Mapping[str, bool]) -> WeightsError:
    # Of what stands beside it only a program's own classes say what the file is.
    own = [each for each in left if each != name and each.partition(".")[0] not in sys.stdlib_module_names]
    names = ", ".join([*own[:2], name])
    return WeightsError(
        f"{path}: refused, because it is a pickle of more than tensors ({names}) and loading one can run any code: "
        f"{_AGAIN}, in the program that wrote it"
    )


def _check_format(path: Path) -> None:
    """Refuse what holds a network, but no state dict that could be read without running something."""
    refusal = _FORMATS.get(path.suffix.lower())
    if refusal is None and zipfile.is_zipfile(path):
        try:
            with zipfile.ZipFile(path) as archive:
                names = archive.namelist()
        except (OSError, ValueError, zipfile.BadZipFile):
            names = []
        stem = repr(f"{path.stem}_state.pt")
        # Which archive it is stands in its folder names, whatever the file is called.
        if any(name.partition("/")[2].startswith("code/") for name in names):
            refusal = (
                "a TorchScript archive, which is a program; save its tensors alone: "
                f"net = torch.jit.load({path.name!r}); torch.save(net.state_dict(), {stem})"
            )
        elif any(name.endswith(("archive_format", "serialized_exported_program.json")) for name in names):
            refusal = (
                "an exported program, which is a graph; save its tensors alone: "
                f"program = torch.export.load({path.name!r}); torch.save(dict(program.state_dict), {stem})"
            )
    if refusal is not None:
        raise WeightsError(f"{path}: {refusal}")


def _flat(read: Any, depth: int = 4) -> Iterator[tuple[str, Tensor]]:
    """Every tensor in nested mappings, but for what optimizers keep."""
    if not isinstance(read, Mapping) or depth == 0:
        return
    for key, value in read.items():
        if isinstance(value, Tensor):
            # Sparse ones too: a network's own are not.
            yield str(key), value.to_dense() if value.layout is not torch.strided else value
        elif not str(key).startswith("optim"):
            yield from ((f"{key}.{name}", tensor) for name, tensor in _flat(value, depth - 1))


def _found_in(read: Any) -> str:
    while isinstance(read, Mapping) and (inner := next((key for key in NESTED if key in read), None)) is not None:
        if not isinstance(read[inner], Mapping):
            break
        read = read[inner]
    return ", ".join(map(str, list(read)[:6])) or "nothing" if isinstance(read, Mapping) else type(read).__name__


def counted(names: Sequence[str], what: str, most: int = 3) -> str:
    """How many there are, and the first few."""
    return f"{len(names)} {what} ({', '.join(names[:most])}{', ...' if len(names) > most else ''})"
