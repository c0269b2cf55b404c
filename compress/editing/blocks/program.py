"""The integer program of blocks: what is replaced by what, so that enough is saved and least is lost.

minimize    sum of loss[c] x[c] over candidates c
subject to  sum of saved[c] x[c] >= needed
            sum of x[c] over the candidates that replace layer l <= 1, for every layer l

x is binary. A layer may be in several stretches, one inside another: the last rows keep these apart. What comes second
and third best is found by forbidding what came before (Molchanov et al. 2022, LANA, arXiv 2107.10624, section 3.2;
Bercovich et al. 2024, Puzzle, arXiv 2411.19146). Solved by HiGHS (scipy.optimize.milp).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import lil_array

_SECONDS = 20.0
"""For the solver, which needs hundredths of one for some hundred candidates."""


@dataclass(frozen=True, kw_only=True)
class Replacement:
    """One candidate as the program sees it."""

    layers: frozenset[str]
    """What it replaces."""
    loss: float
    """What the network loses with it alone."""
    saved: float
    """What it costs less than what it replaces."""


Choice = tuple[int, ...]
"""The places of the chosen among the replacements, in order."""


def best(replacements: Sequence[Replacement], needed: float, count: int, unlike: float = 0.0) -> list[Choice]:
    """The choices with the least summed loss that save at least `needed`, the best first.

    Args:
        unlike: the share of its replacements that a choice has in none of those after it, one at least.

    Returns:
        At most `count` of them; none if nothing saves so much.
    """
    found: list[Choice] = []
    while len(found) < count:
        choice = _solved(replacements, [each.loss for each in replacements], needed, found, unlike)
        if choice is None:
            break
        found.append(choice)
    return found


def most_saved(replacements: Sequence[Replacement]) -> float:
    """What can be saved at most, whatever it loses."""
    choice = _solved(replacements, [-each.saved for each in replacements], 0.0)
    return sum(replacements[place].saved for place in choice or ())


def _solved(
    replacements: Sequence[Replacement],
    cost: Sequence[float],
    needed: float,
    without: Sequence[Choice] = (),
    unlike: float = 0.0,
) -> Choice | None:
    if not replacements:
        return None
    width, layers = len(replacements), sorted({layer for each in replacements for layer in each.layers})
    once = lil_array((len(layers), width))
    for place, each in enumerate(replacements):
        for layer in each.layers:
            once[layers.index(layer), place] = 1
    saved = np.asarray([[each.saved for each in replacements]], dtype=float)
    # Multiply-accumulates are millions, and milliseconds fractions: the solver's tolerances are for numbers near 1.
    largest = float(np.abs(saved).max()) or 1.0
    constraints = [
        LinearConstraint(once.tocsr(), -np.inf, 1),
        LinearConstraint(saved / largest, needed / largest, np.inf),
    ]
    for choice in without:
        signs = np.full((1, width), -1.0)
        signs[0, list(choice)] = 1.0
        if unlike:
            signs = np.maximum(signs, 0)
        constraints.append(LinearConstraint(signs, -np.inf, len(choice) - max(1, round(unlike * len(choice)))))
    scale = max((abs(each) for each in cost), default=1.0) or 1.0
    solution = milp(
        np.asarray(cost) / scale,
        constraints=constraints,
        integrality=np.ones(width),
        bounds=Bounds(0, 1),
        options={"time_limit": _SECONDS},
    )
    if solution.x is None:
        return None
    return tuple(int(place) for place in np.flatnonzero(solution.x > 0.5))
