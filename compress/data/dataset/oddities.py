"""What is odd in data whose every file can be read: images of one value, classes that no case of a role has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from compress.data.dataset.cases import Case, Dataset, Role
from compress.data.dataset.faults import Look
from compress.errors import DataError

NAMED = 3
"""So many files are named of those that are odd in one way."""
ABSENT: Mapping[Role, str] = {
    "test": "nothing can be said of its drop",
    "val": "what is chosen by these cases says nothing of it",
    "train": "nothing is learnt of it",
}
"""What it means that a class is missing in a role."""
Seen = Mapping[Role, Sequence[tuple[Case, Look]]]


def oddities(data: Dataset, seen: Seen) -> list[str]:
    """One sentence for each.

    Raises:
        DataError: if all images of a role are of one value, or no test case has any foreground.
    """
    flat = _of_one_value(data, seen)
    if "test" in seen and not _found(seen["test"]):
        ignored = f" once {data.ignore} is ignored" if data.ignore is not None else ""
        raise DataError(
            f"{data.source}: no test case has a foreground pixel{ignored}, so no Dice can be measured; correct the "
            "masks, ignore, or say in masks which class each stored value is"
        )
    return [*flat, *(line for role in ABSENT for line in _absent(data, role, seen.get(role, ())))]


def _of_one_value(data: Dataset, seen: Seen) -> list[str]:
    notes = []
    for role, looks in seen.items():
        flat = list(dict.fromkeys(case.image for case, look in looks if look.constant))
        images = len({case.image for case, _ in looks})
        if flat and len(flat) == images:
            raise DataError(
                f"{data.source}: all {images} {role} images are of one value (all black?), the first is {flat[0]}: "
                f"nothing can be learnt or measured from them; give real images"
            )
        if flat:
            more = f" and {len(flat) - NAMED} more" if len(flat) > NAMED else ""
            named = ", ".join(path.name for path in flat[:NAMED])
            notes.append(f"{len(flat)} of {images} {role} images are of one value (all black?): {named}{more}")
    return notes


def _absent(data: Dataset, role: Role, looks: Sequence[tuple[Case, Look]]) -> list[str]:
    found, named = _found(looks), "validation" if role == "val" else role
    if looks and not found:
        return [f"no {named} case has a foreground pixel: {ABSENT[role]}"]
    return [
        f"no {named} case has the class '{name}': {ABSENT[role]}"
        for index, name in enumerate(data.class_names)
        if looks and index and index not in found
    ]


def _found(looks: Sequence[tuple[Case, Look]]) -> frozenset[int]:
    return frozenset[int]().union(*(look.foreground for _, look in looks))
