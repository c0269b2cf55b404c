"""What is told of a pruned network: its size, its narrowest layer, and what stayed whole, with the reason."""

from __future__ import annotations

from collections.abc import Sequence

from compress.editing.pruning.plan import Plan
from compress.editing.pruning.removal import Cut

ROUNDED = 0.05
"""A share of channels that lies further from the ratio asked for is told."""


def remarks(plan: Plan, cuts: Sequence[Cut], before: tuple[int, int], ratio: float | None) -> list[str]:
    """What became of the network, a sentence each.

    Args:
        before: parameters and MACs before the first round.
        ratio: the share of channels that was asked for, if it was that.
    """
    return [
        _sizes(before, plan.trial.size(cuts)),
        *_narrowest(plan, cuts),
        *_rounding(plan, cuts, ratio),
        *kept_whole(plan, cuts),
    ]


def _sizes(before: tuple[int, int], after: tuple[int, int]) -> str:
    parts = (f"{b:,} -> {a:,} {what}" for b, a, what in zip(before, after, ("parameters", "MACs"), strict=True))
    return f"{', '.join(parts)} ({before[0] / after[0]:.2f}x and {before[1] / max(1, after[1]):.2f}x fewer)"


def _narrowest(plan: Plan, cuts: Sequence[Cut]) -> list[str]:
    widths = plan.widths_after(cuts)
    narrower = [index for index in plan.open if widths[index] < plan.channels_before(index)]
    if not narrower:
        return []
    index = min(narrower, key=widths.__getitem__)
    layer = plan.bundles[index].group.layers[0]
    return [f"narrowest layer: {layer}, {widths[index]} of {plan.channels_before(index)} channels"]


def _rounding(plan: Plan, cuts: Sequence[Cut], ratio: float | None) -> list[str]:
    """What became of the ratio, where widths that fit are another share of the channels."""
    widths = plan.widths_after(cuts)
    began = sum(plan.channels_before(index) for index in plan.open)
    gone = began - sum(widths[index] for index in plan.open)
    if ratio is None or not began or abs(gone / began - ratio) <= ROUNDED:
        return []
    return [
        f"ratio {ratio:g} became {gone / began:.2f}: {gone} of {began} channels go, since widths "
        f"are rounded to {plan.choice.widths}; multiple: 1 takes the ratio as it is"
    ]


def kept_whole(plan: Plan, cuts: Sequence[Cut]) -> list[str]:
    """One sentence for each reason for which layers stayed as they were."""
    widths = plan.widths_after(cuts)
    stayed = [index for index in plan.open if widths[index] == plan.channels_before(index)]
    layers = [layer for index in stayed for layer in plan.bundles[index].group.layers]
    reason = f"none of the narrower widths ({plan.choice.widths}) is nearer to what was asked for"
    return [*frozen(plan), *([f"kept {_listed(layers)}: {reason}"] if layers else [])]


def frozen(plan: Plan) -> list[str]:
    """The same, for the layers of which nothing can go."""
    layers: dict[str, list[str]] = {}
    for bundle in plan.bundles:
        if bundle.group.reason is not None:
            layers.setdefault(bundle.group.reason, []).extend(bundle.group.layers)
    return [f"kept {_listed(names)}: {reason}" for reason, names in layers.items()]


def _listed(names: Sequence[str], most: int = 6) -> str:
    names = list(dict.fromkeys(names))
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
