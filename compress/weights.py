"""Networks on disk: safetensors beside a JSON description. Nothing is ever unpickled.

`net.safetensors` holds the tensors, `net.json` what is needed to build the module that takes
them: the network's word and options, class names, normalization and where they came from.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import json
import pickle
import struct
import sys
import warnings
import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.torch
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from compress.data.cases import Normalization
from compress.errors import WeightsError
from compress.foreign.computed import folded
from compress.foreign.inert import WouldRun, is_harmless, stand_ins, unknown
from compress.head import Headed, as_built, note_on, notes_of
from compress.networks.python import check_described
from export.device import named, words
from export.files import write_bytes, write_json

FORMAT = 1
# Where checkpoints keep a state dict, the usual ones first; an average of the weights only where there is no other.
_NESTED = (
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
# Parts that wrappers put into a name, at its front or wherever a part of the network was wrapped.
_WRAPPERS = ("module", "_orig_mod")
# What counters and averages leave in a state dict; no weights.
_LEFT_BEHIND = ("n_averaged", "total_ops", "total_params")
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


@dataclass(frozen=True, kw_only=True)
class Description:
    """What a weights file's JSON says."""

    network: Mapping[str, Mapping[str, Any]]
    """One word and its options, as in a recipe."""
    classes: tuple[str, ...] | None = None
    normalization: Normalization | None = None
    size: tuple[int, ...] | None = None
    made: Mapping[str, Any] = field(default_factory=dict)
    """How the weights came to be: training recipe, epochs, scores."""


def save_net(net: nn.Module, description: Description, path: Path, *, half: bool = False) -> None:
    """Write path (.safetensors) and its .json; `half` stores floats in 16 bits."""
    tensors = {name: _stored(tensor, half) for name, tensor in net.state_dict().items()}
    write_bytes(path, safetensors.torch.save(tensors))
    write_json(
        path.with_suffix(".json"),
        {
            "format": FORMAT,
            "network": description.network,
            "classes": description.classes,
            "normalization": None if description.normalization is None else asdict(description.normalization),
            "size": description.size,
            "made": description.made,
        },
    )


def build_net(network: Mapping[str, Mapping[str, Any]]) -> nn.Module:
    """The module that a description's word and options speak of, freshly initialised.

    A word is a network (`unet`), a network whose layers passes have changed (`changed`), or a pass that
    leaves a network of its own kind (`int8`). The module carries its description as `net.description`.
    """
    ((word, options),) = network.items()
    if word == "changed":
        from compress.surgery import rebuilt

        net = rebuilt(options, build_net)
    elif word in words("compress.networks"):
        shape = shape_of(network)
        net = shape()
        # Of a user's file its name and hash are kept, not where it lies.
        options = dataclasses.asdict(shape) if word in ("python", "onnx") else options
    elif word in words("compress.passes"):
        net = importlib.import_module(f"compress.passes.{word}").rebuild(options, build_net)
    else:
        raise WeightsError(f"'{word}' is no network known here; was it made by a newer segpress?")
    net.description = {word: dict(options)}  # type: ignore[assignment]
    return net


def shape_of(network: Mapping[str, Mapping[str, Any]]) -> Any:
    """The configured file of compress/networks/ that a word and its options name; called, it builds the module."""
    ((word, options),) = network.items()
    try:
        return named("compress.networks", word)(**options)
    except ValidationError as error:
        fault = error.errors()[0]
        where = ".".join(map(str, fault["loc"]))
        raise WeightsError(f"{word}: {where}: {fault['msg']}; was it made by a newer segpress?") from None


def load_net(path: Path) -> nn.Module:
    """A network saved by `save_net`: built from its description, its tensors loaded, in evaluation mode."""
    description = read_description(path)
    if description is None:
        raise WeightsError(f"{path}: has no {path.with_suffix('.json').name} beside it to say which network it is")
    net = build_net(description.network)
    load_weights(net, path)
    return net.eval()


def _stored(tensor: Tensor, half: bool) -> Tensor:
    tensor = tensor.detach().cpu().contiguous().clone()
    if not half or not tensor.is_floating_point():
        return tensor
    halved = tensor.half()
    # Over 65504 there is no 16-bit number: such a tensor (a variance, say) stays as it is.
    return halved if torch.isfinite(halved).all() else tensor


def read_description(path: Path) -> Description | None:
    """The JSON beside a weights file; None for a checkpoint from elsewhere, which has none."""
    beside = path.with_suffix(".json")
    if not beside.is_file() or path.suffix.lower() == ".onnx":
        return None
    try:
        read = json.loads(beside.read_text())
        check_described(read)
    except json.JSONDecodeError as error:
        raise WeightsError(f"{beside}: not a description of a network ({error})") from None
    except WeightsError as error:
        raise WeightsError(f"{beside}: {error}") from None
    try:
        size = read.get("size")
        ((word, options),) = read["network"].items()
        if word in words("compress.networks"):
            shape_of({word: options})
        return Description(
            network={word: dict(options)},
            classes=tuple(read["classes"]) if read.get("classes") else None,
            normalization=Normalization(**read["normalization"]) if read.get("normalization") else None,
            size=tuple(size) if size else None,
            made=read.get("made", {}),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise WeightsError(f"{beside}: not a description of a network ({error})") from None


def load_weights(net: nn.Module, path: Path) -> None:
    """Load a checkpoint, ours or anyone's, into a network of the same architecture.

    Safetensors, or a torch checkpoint of tensors alone (`weights_only=True`). The state dict may lie under any
    key, and its names may have prefixes (`module.`, `_orig_mod.`, `model.`, a Lightning module's own). What was
    left out, and what there was to choose from, is noted on the network.

    Raises:
        WeightsError: missing or damaged file; a pickle of more than tensors; a file that is no state dict; tensors
            of another network, with what is missing, unexpected or of another shape, and why that may be.
    """
    # A network whose answer is taken apart (compress/head.py) keeps its own names.
    own = net.net if isinstance(net, Headed) else net
    ours = own.state_dict()
    read: list[str] = []
    state, notes = _as_ours(_tensors_in(path, own, read), ours)
    # BatchNorm's step counter is not a weight; old checkpoints lack it.
    counters = {name for name in ours if name.endswith("num_batches_tracked")}
    whole = None if set(ours) <= {*state, *counters} else as_built(own)
    if whole is not None:
        load_weights(whole, path)
        folded(whole)
        state, notes, read = whole.state_dict(), list(notes_of(whole)), []
    missing = [name for name in ours if name not in state and name not in counters]
    unexpected = [name for name in state if name not in ours]
    wrong = [name for name in ours if name in state and ours[name].shape != state[name].shape]
    if missing or unexpected or wrong:
        raise WeightsError(f"{path}: {_mismatch(ours, state, missing, unexpected, wrong)}")
    own.load_state_dict({**ours, **{name: tensor.to(ours[name].dtype) for name, tensor in state.items()}})
    broken = [name for name, tensor in own.state_dict().items() if not torch.isfinite(tensor).all()]
    if broken:
        raise WeightsError(f"{path}: {broken[0]} holds values that are not finite (NaN or infinity)")
    note_on(net, *read, *notes)


# Reading a file.


def _tensors_in(path: Path, net: nn.Module, notes: list[str]) -> dict[str, Tensor]:
    if path.suffix.lower() == ".onnx":
        # Only here, as `rebuilt` above: importing what reads ONNX takes time and memory that most networks do not need.
        from compress.blocks.onnx_graph import Translated
        from compress.networks.onnx import tensors_of

        if isinstance(net, Translated):
            return tensors_of(path)
    return _read_state(path, notes)


def _read_state(path: Path, notes: list[str]) -> dict[str, Tensor]:
    """Every tensor in a file, by its keys and its name, joined by dots; what else there was is added to the notes."""
    if not path.is_file():
        raise WeightsError(f"{path}: no such weights file")
    _check_format(path)
    if path.suffix == ".safetensors":
        try:
            return safetensors.torch.load_file(path)
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
            f"{path}: no state dict of tensors in it (found {_found_in(read)}); looked under {', '.join(_NESTED[:8])} "
            "and every other key"
        )
    if left:
        notes.append(
            f"of the weights file only the tensors are read, and not {_counted(left, 'kinds of other things')}"
        )
    return state


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
            reason = next(iter(str(error).strip().splitlines()), type(error).__name__)[:160]
            raise WeightsError(f"{path}: damaged or not a torch checkpoint ({reason}): {_AGAIN}") from None


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
    while isinstance(read, Mapping) and (inner := next((key for key in _NESTED if key in read), None)) is not None:
        if not isinstance(read[inner], Mapping):
            break
        read = read[inner]
    return ", ".join(map(str, list(read)[:6])) or "nothing" if isinstance(read, Mapping) else type(read).__name__


# Which of its names are ours.


def _as_ours(read: Mapping[str, Tensor], ours: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """The tensors under our names where they have them, and what was left out or chosen on the way."""
    state = {name: tensor for name, tensor in read.items() if name.rpartition(".")[2] not in _LEFT_BEHIND}
    if set(ours) <= set(state):
        return state, []
    state = _unwrapped(state, ours)
    prefixes = _prefixes(state, ours)
    if not prefixes:
        return _usual(state), []
    prefix = prefixes[0]
    inside = {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
    if not prefix:
        return inside, []
    # Some training programs wrap only a part of the network.
    bare = {name: tensor for name, tensor in state.items() if name in ours and name not in inside}
    whole = {**inside, **bare}
    notes = []
    if len(prefixes) > 1:
        also = ", ".join(f"'{each.rstrip('.')}'" for each in prefixes[1:])
        notes.append(
            f"the weights are those under '{prefix.rstrip('.')}'; the file also has such tensors under {also}: save "
            "those by themselves to use them"
        )
    beside = [name for name in state if not name.startswith(prefix) and name not in bare]
    others = [name for name in beside if not any(each and name.startswith(each) for each in prefixes)]
    if others:
        notes.append(f"{_counted(others, 'tensors')} in the weights file are no part of the network and are left out")
    return whole, notes


def _unwrapped(state: Mapping[str, Tensor], ours: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Names without the parts that wrappers add, wherever they stand, unless our own names have such parts."""
    wrappers = set(_WRAPPERS) - {part for name in ours for part in name.split(".")}
    found: dict[str, Tensor] = {}
    for name, tensor in state.items():
        short = ".".join(part for part in name.split(".") if part not in wrappers)
        found[name if name in ours or short in found or short in state else short] = tensor
    return found


def _prefixes(state: Mapping[str, Tensor], ours: Mapping[str, Tensor]) -> list[str]:
    """The prefixes under which as many of our names are found as under any, the likeliest first."""
    counts: Counter[str] = Counter()
    for name in state:
        parts = name.split(".")
        for place in range(len(parts)):
            if ".".join(parts[place:]) in ours:
                counts["".join(f"{part}." for part in parts[:place])] += 1
    most = max(counts.values(), default=0)
    return sorted((prefix for prefix, count in counts.items() if count == most), key=_unlikely)


def _unlikely(prefix: str) -> tuple[int, int]:
    """How far a prefix is from what the weights that were trained are usually kept under."""
    words = [word for word in prefix.split(".") if word]
    places = [_NESTED.index(word) if word in _NESTED else _NESTED.index("module") for word in words]
    return max(places, default=-1), len(words)


def _usual(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of which none has a name of ours, without the keys that they lie under: to be told as they are."""
    for key in _NESTED:
        inside = {name.removeprefix(f"{key}."): each for name, each in state.items() if name.startswith(f"{key}.")}
        if inside:
            return _usual(inside)
    return state


# Saying what does not fit.


def _mismatch(
    ours: Mapping[str, Tensor], state: Mapping[str, Tensor], missing: list[str], unexpected: list[str], wrong: list[str]
) -> str:
    if wrong and not missing and not unexpected:
        name = wrong[-1] if _outputs_differ(ours, state, wrong) else wrong[0]
        what, remedy = _of_another(ours, state, wrong)
        return (
            f"weights of another {what}: {name} is {_shape(state[name])} in the file and {_shape(ours[name])} in the "
            f"recipe's network ({len(wrong)} tensors differ); {remedy}"
        )
    told = [
        _counted(names, what)
        for names, what in ((missing, "missing"), (unexpected, "unexpected"), (wrong, "of another shape"))
        if names
    ]
    return f"weights of another network: {', '.join(told)}; {_cause(ours, state, missing, unexpected)}"


def _of_another(ours: Mapping[str, Tensor], state: Mapping[str, Tensor], wrong: Sequence[str]) -> tuple[str, str]:
    """What differs where only shapes do, and what to correct."""
    if _outputs_differ(ours, state, wrong):
        classes = state[wrong[-1]].shape[0]
        return "number of classes", f"set classes: {classes}"
    if len(wrong) == 1 and ours[wrong[0]].dim() > 1 and wrong[0] == next(iter(ours)):
        channels = state[wrong[0]].shape[1]
        if (*state[wrong[0]].shape[:1], *state[wrong[0]].shape[2:]) == (
            *ours[wrong[0]].shape[:1],
            *ours[wrong[0]].shape[2:],
        ):
            return "number of input channels", f"set in_channels: {channels}"
    return "width", "correct the network's width, channels or classes"


def _outputs_differ(ours: Mapping[str, Tensor], state: Mapping[str, Tensor], wrong: Sequence[str]) -> bool:
    """Whether the same few layers differ, by the same two numbers of outputs, and in nothing else: heads."""
    pairs = {(ours[name].shape[:1], state[name].shape[:1]) for name in wrong}
    rest = all(ours[name].shape[1:] == state[name].shape[1:] for name in wrong)
    layers = {name.rpartition(".")[0] for name in wrong}
    return rest and len(pairs) == 1 and len(layers) < max(2, len(ours) // 8) and wrong[0] != next(iter(ours))


def _cause(
    ours: Mapping[str, Tensor], state: Mapping[str, Tensor], missing: Sequence[str], unexpected: Sequence[str]
) -> str:
    """The likeliest reason for names that do not fit, and what to correct."""
    lacking, more = set(missing), set(unexpected)
    if not set(ours) & set(state):
        there = ", ".join(list(state)[:3])
        return f"no name is the same (the file begins with {there}): correct the recipe's network"
    for names, other, having, what in (
        (more, lacking, ours, "the file's has"),
        (lacking, more, state, "the recipe's has"),
    ):
        if names and not other and all("aux" in name for name in names):
            wanted = "true" if names is more else "false"
            return f"{what} an auxiliary head: set aux: {wanted}, or the option that makes it"
        if any(_is_statistic(name) for name in names) and not any(_is_statistic(name) for name in having):
            return f"{what} batch norms and the other has none: correct the recipe's norm"
    tops = {name.partition(".")[0] for name in (*lacking, *more)}
    if tops in ({"encoder"}, {"backbone"}):
        return f"only the {next(iter(tops))} differs: correct the recipe's encoder"
    return "correct the recipe's network or its options"


def _is_statistic(name: str) -> bool:
    return name.endswith(("running_mean", "running_var"))


def _counted(names: Sequence[str], what: str, most: int = 3) -> str:
    """How many there are, and the first few."""
    return f"{len(names)} {what} ({', '.join(names[:most])}{', ...' if len(names) > most else ''})"


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "a scalar"
