"""Test cases by the values of other columns of split.csv: the device, the site, the sex."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from compress.data.dataset.cases import Case
from compress.errors import DataError

MOST_VALUES = 20
"""Of one column: what has more, such as an age, is no group."""
NOT_GIVEN = "not given"
"""The value where a cell is empty."""


def subgroups(cases: Sequence[Case], columns: Sequence[str]) -> Mapping[str, Mapping[str, Sequence[str]]]:
    """For each column, the names of the cases by its value, in order of the values.

    Raises:
        DataError: if the split has no such column, or its values are too many to be groups.
    """
    there = list(dict.fromkeys(column for case in cases for column, _ in case.told))
    found = {}
    for column in columns:
        if column not in there:
            has = f"it has {', '.join(there)}" if there else "it has none but image, mask, split and patient"
            raise DataError(f"scoring subgroups: the split has no column '{column}'; {has}")
        groups: dict[str, list[str]] = {}
        for case in cases:
            groups.setdefault(dict(case.told).get(column) or NOT_GIVEN, []).append(case.name)
        if len(groups) > MOST_VALUES:
            raise DataError(
                f"scoring subgroups: the column '{column}' has {len(groups)} values in the test cases, more than "
                f"{MOST_VALUES}; give each case one of a few, such as 60-69 for an age"
            )
        found[column] = dict(sorted(groups.items()))
    return found
