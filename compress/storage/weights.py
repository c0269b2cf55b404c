"""Networks on disk: safetensors beside a JSON description. Nothing is ever unpickled.

`net.safetensors` holds the tensors, `net.json` what is needed to build the module that takes
them: the network's word and options, class names, normalization and where they came from.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from compress.errors import WeightsError
from compress.networks.foreign.adapter import LogitsAdapter, as_built
from compress.networks.foreign.computed import folded
from compress.networks.foreign.left_out import left_out
from compress.networks.foreign.notes import note_on, notes_of
from compress.storage.bits import in_bits
from compress.storage.checkpoint import NESTED, counted, read_state
from compress.storage.description import Description, build_net, read_description
from compress.storage.mismatch import mismatch
from export.files import write_bytes, write_json

FORMAT = 1
# Parts that wrappers put into a name, at its front or wherever a part of the network was wrapped.
_WRAPPERS = ("module", "_orig_mod")
# What counters and averages leave in a state dict; no weights.
_LEFT_BEHIND = ("n_averaged", "total_ops", "total_params")


def save_net(net: nn.Module, description: Description, path: Path, *, half: bool = False) -> None:
    """Write path (.safetensors) and its .json; `half` stores floats in 16 bits; weights of two or three values an
    output channel are stored in bits (compress/storage/bits.py).
    """
    tensors = in_bits({name: _stored(tensor, half) for name, tensor in net.state_dict().items()})
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


def load_weights(net: nn.Module, path: Path) -> None:
    """Load a checkpoint, ours or anyone's, into a network of the same architecture.

    Safetensors, or a torch checkpoint of tensors alone (`weights_only=True`). The state dict may lie under any
    key, and its names may have prefixes (`module.`, `_orig_mod.`, `model.`, a Lightning module's own). What was
    left out, and what there was to choose from, is noted on the network.

    Raises:
        WeightsError: missing or damaged file; a pickle of more than tensors; a file that is no state dict; tensors
            of another network, with what is missing, unexpected or of another shape, and why that may be.
    """
    # A network whose answer is taken apart (compress/networks/foreign/adapter.py) keeps its own names.
    own = net.net if isinstance(net, LogitsAdapter) else net
    ours = own.state_dict()
    read: list[str] = []
    found, notes = _as_ours(_tensors_in(path, own, read), ours)
    state = {name: tensor for name, tensor in found.items() if name not in left_out(own)}
    whole = None if not _misfits(state, ours)[0] else as_built(own)
    if whole is not None:
        load_weights(whole, path)
        folded(whole)
        state, notes, read = whole.state_dict(), list(notes_of(whole)), []
    missing, unexpected, wrong = _misfits(state, ours)
    if missing or unexpected or wrong:
        raise WeightsError(f"{path}: {mismatch(ours, state, missing, unexpected, wrong)}")
    own.load_state_dict({**ours, **{name: tensor.to(ours[name].dtype) for name, tensor in state.items()}})
    broken = [name for name, tensor in own.state_dict().items() if not torch.isfinite(tensor).all()]
    if broken:
        raise WeightsError(f"{path}: {broken[0]} holds values that are not finite (NaN or infinity)")
    note_on(net, *read, *notes)


def misfits(read: Mapping[str, Tensor], ours: Mapping[str, Tensor]) -> int:
    """How many tensors keep a file's from being a network's, as `load_weights` takes them; 0 where they fit."""
    state, _ = _as_ours(read, ours)
    return sum(map(len, _misfits(state, ours)))


def _misfits(state: Mapping[str, Tensor], ours: Mapping[str, Tensor]) -> tuple[list[str], list[str], list[str]]:
    """The names that are missing, that are unexpected, and that are of another shape."""
    # BatchNorm's step counter is not a weight; old checkpoints lack it.
    missing = [name for name in ours if name not in state and not name.endswith("num_batches_tracked")]
    unexpected = [name for name in state if name not in ours]
    wrong = [name for name in ours if name in state and ours[name].shape != state[name].shape]
    return missing, unexpected, wrong


# Reading a file.


def _tensors_in(path: Path, net: nn.Module, notes: list[str]) -> dict[str, Tensor]:
    if path.suffix.lower() == ".onnx":
        # Only here, as `rebuilt` above: importing what reads ONNX takes time and memory that most networks do not need.
        from compress.networks.foreign.onnx.graph import Translated
        from compress.networks.onnx import tensors_of

        if isinstance(net, Translated):
            return tensors_of(path)
    return read_state(path, notes)


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
    elsewhere = [name for name in state if not name.startswith(prefix) and name not in bare]
    others = [name for name in elsewhere if not any(each and name.startswith(each) for each in prefixes)]
    if others:
        notes.append(f"{counted(others, 'tensors')} in the weights file are no part of the network and are left out")
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
        for start in range(len(parts)):
            if ".".join(parts[start:]) in ours:
                counts["".join(f"{part}." for part in parts[:start])] += 1
    most = max(counts.values(), default=0)
    return sorted((prefix for prefix, count in counts.items() if count == most), key=_unlikely)


def _unlikely(prefix: str) -> tuple[int, int]:
    """How far a prefix is from what the weights that were trained are usually kept under."""
    words = [word for word in prefix.split(".") if word]
    places = [NESTED.index(word) if word in NESTED else NESTED.index("module") for word in words]
    return max(places, default=-1), len(words)


def _usual(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of which none has a name of ours, without the keys that they lie under: to be told as they are."""
    for key in NESTED:
        inside = {name.removeprefix(f"{key}."): each for name, each in state.items() if name.startswith(f"{key}.")}
        if inside:
            return _usual(inside)
    return state
