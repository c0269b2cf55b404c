"""Why the tensors of a file are not those of a network, and what to correct."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from compress.storage.checkpoint import counted


def mismatch(
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
        counted(names, what)
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


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "a scalar"
