"""The names and shapes in a checkpoint, as its network may have called them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

from torch import Tensor

State = Mapping[str, Tensor]

WRAPPERS = ("module", "_orig_mod")
DEEPEST = 4
"""Prefixes of training programs have no more parts than this: `state_dict.model.net.`"""


def views(state: State) -> Iterator[State]:
    """The tensors as they are called, then without each prefix that many of them have."""
    plain = {".".join(part for part in name.split(".") if part not in WRAPPERS): each for name, each in state.items()}
    waiting, seen = [(plain, 0)], set[frozenset[str]]()
    while waiting:
        view, depth = waiting.pop(0)
        if not view or frozenset(view) in seen:
            continue
        seen.add(frozenset(view))
        yield view
        counts = Counter(name.partition(".")[0] for name in view if "." in name)
        many = [prefix for prefix, count in counts.most_common() if count >= 0.3 * len(view)]
        for prefix in many if depth < DEEPEST else ():
            inner = {name[len(prefix) + 1 :]: each for name, each in view.items() if name.startswith(f"{prefix}.")}
            waiting.append((inner, depth + 1))


def likeness(some: Iterable[str], others: Iterable[str]) -> float:
    """The share of names that both have, of all that either has; numbers in them do not count."""
    ours, theirs = _unnumbered(some), _unnumbered(others)
    return len(ours & theirs) / max(1, len(ours | theirs))


def contained(some: State, others: State) -> float:
    """The share of names that both have, of those of the one that has fewer; numbers in them do not count."""
    ours, theirs = _unnumbered(some), _unnumbered(others)
    return len(ours & theirs) / max(1, min(len(ours), len(theirs)))


def _unnumbered(names: Iterable[str]) -> set[str]:
    return {re.sub(r"\d+", "#", name) for name in names}


def channels_out(state: State, name: str) -> int | None:
    """The output channels of a layer; None where there is none of that name."""
    weight = state.get(f"{name}.weight")
    return None if weight is None else len(weight)


def first_convolution(state: State, prefix: str = "") -> Tensor | None:
    """The weight of the convolution that takes the image."""
    found = {name: each for name, each in state.items() if each.ndim >= 4 and name.startswith(prefix)}
    if _is_sorted(found):
        found = {name: each for name, each in found.items() if _STEM.search(name)} or found
    return next(iter(found.values()), None)


def last_convolution(state: State) -> Tensor | None:
    """The weight of the convolution that gives the logits."""
    found = {name: each for name, each in state.items() if each.ndim >= 4}
    if _is_sorted(found):
        found = {name: each for name, each in found.items() if _HEAD.search(name)} or found
    return next(reversed(found.values()), None)


def _is_sorted(found: State) -> bool:
    """Whether layers lie in the order of their names, as in safetensors, and not in that of the network."""
    return list(found) == sorted(found)


_STEM = re.compile(
    r"(?:^|[._])(?:stem|conv_?stem|conv0|conv1|conv1_1|conv_0|conv_0_0|conv2d_1a|patch_embed\d*|features\.0|encoder\.0|"
    r"layer0|stage0|in_tr|input_block|convInit|model\.0)\b",
    re.IGNORECASE,
)
_HEAD = re.compile(r"(?:^|[._])(?:head|final\w*|out\w*|classifier|logits|conv_final|up_layers)\b", re.IGNORECASE)
