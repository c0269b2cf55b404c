"""The integer program of mixed precision: the fastest choice of a precision for every unit under a limit of error.

minimize    sum of t[u, p] x[u, p] over units u and precisions p  +  sum of c[j] y[j, p, q] over neighbours j
subject to  sum of x[u, p] over p = 1                      each unit computes in one precision
            sum of e[u, p] x[u, p] <= limit                errors of single units add up (Dong et al. 2020, HAWQ-V2,
                                                           arXiv 1911.03852; Yao et al. 2021, HAWQ-V3, arXiv 2011.10680)
            y[j, p, q] >= x[before, p] + x[behind, q] - 1  neighbours in two precisions pay for the conversion
            x[operator, p] <= x[layer, p]                  what only a layer of this precision can give it

x is binary; y, which only costs, is one of both by itself. Solved by HiGHS (scipy.optimize.milp).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import lil_array

from export.quantization.assignment import PrecisionName

Choice = Mapping[str, PrecisionName]
"""The precision of every unit."""
_SECONDS = 20.0
"""For the solver, which needs hundredths of one for a hundred layers."""


@dataclass(frozen=True, kw_only=True)
class Unit:
    """A layer, or an operator without weights, that computes in one precision."""

    name: str
    us: Mapping[PrecisionName, float]
    """Microseconds in each precision that it can have."""
    error: Mapping[PrecisionName, float]
    """What it adds to the squared error of the logits in each of them; below zero where it takes some away."""


@dataclass(frozen=True, kw_only=True)
class Neighbours:
    """Two units, one of which reads what the other puts out."""

    before: str
    behind: str
    us: float
    """What it takes to convert the one's precision to the other's, where they differ."""


@dataclass(frozen=True, kw_only=True)
class Program:
    """What one network costs on one runtime, precision by precision."""

    units: Sequence[Unit]
    neighbours: Sequence[Neighbours] = ()
    needs: Sequence[tuple[str, str]] = ()
    """(operator, layer): the operator is in float only where the layer, which it reads, is."""
    error: float = 0.0
    """What is added to the errors of units, whatever is chosen."""
    us: float = 0.0
    """What is added to the microseconds of units, whatever is chosen."""

    def us_of(self, choice: Choice) -> float:
        """The microseconds that a choice is predicted to take."""
        converted = sum(each.us for each in self.neighbours if choice[each.before] != choice[each.behind])
        return self.us + sum(unit.us[choice[unit.name]] for unit in self.units) + converted

    def error_of(self, choice: Choice) -> float:
        """The squared error of the logits that a choice is predicted to have."""
        return self.error + sum(unit.error[choice[unit.name]] for unit in self.units)

    def solved(self, limit: float = math.inf) -> Choice | None:
        """The fastest choice whose error is `limit` at most; None if there is none."""
        places: dict[tuple[str, PrecisionName], int] = {}
        for unit in self.units:
            for precision in unit.us:
                places[unit.name, precision] = len(places)
        pairs = [
            (each, first, second)
            for each in self.neighbours
            for first in self._unit(each.before).us
            for second in self._unit(each.behind).us
            if first != second and each.us > 0
        ]
        cost = [unit.us[precision] for unit in self.units for precision in unit.us] + [each.us for each, *_ in pairs]
        solution = milp(
            np.asarray(cost),
            constraints=self._constraints(places, pairs, limit),
            integrality=np.asarray([1] * len(places) + [0] * len(pairs)),
            bounds=Bounds(0, 1),
            options={"time_limit": _SECONDS},
        )
        if solution.x is None:
            return None
        return {name: precision for (name, precision), place in places.items() if solution.x[place] > 0.5}

    def _unit(self, name: str) -> Unit:
        (found,) = (unit for unit in self.units if unit.name == name)
        return found

    def _constraints(
        self,
        places: Mapping[tuple[str, PrecisionName], int],
        pairs: Sequence[tuple[Neighbours, PrecisionName, PrecisionName]],
        limit: float,
    ) -> list[LinearConstraint]:
        width = len(places) + len(pairs)
        one = lil_array((len(self.units), width))
        for row, unit in enumerate(self.units):
            one[row, [places[unit.name, precision] for precision in unit.us]] = 1
        found = [LinearConstraint(one.tocsr(), 1, 1)]
        if math.isfinite(limit):
            errors = np.zeros((1, width))
            for unit in self.units:
                for precision in unit.us:
                    errors[0, places[unit.name, precision]] = unit.error[precision]
            found.append(_scaled(errors, limit - self.error))
        if pairs:
            both = lil_array((len(pairs), width))
            for row, (each, first, second) in enumerate(pairs):
                both[row, [places[each.before, first], places[each.behind, second]]] = 1
                both[row, len(places) + row] = -1
            found.append(LinearConstraint(both.tocsr(), -np.inf, 1))
        if self.needs:
            after = lil_array((len(self.needs), width))
            for row, (operator, layer) in enumerate(self.needs):
                after[row, places[operator, "float32"]] = 1
                after[row, places[layer, "float32"]] = -1
            found.append(LinearConstraint(after.tocsr(), -np.inf, 0))
        return found


def _scaled(errors: NDArray[np.float64], limit: float) -> LinearConstraint:
    """Errors of 1e-9 are below the solver's tolerance: they are counted in shares of the largest."""
    largest = float(np.abs(errors).max()) or 1.0
    return LinearConstraint(errors / largest, -np.inf, limit / largest)
