"""Whose image each is, where the names of files tell it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from compress.data.dataset.pairs import Pair
from compress.errors import DataError

_TOLD = re.compile(
    r"(?:^|[^a-z])((?:patients?|patient[-_ ]?id|pat|subjects?|subj|sub|pid|pt|case|study|p|s)[-_ ]?\d+)(?=[^0-9])", re.I
)
_LEADING = re.compile(r"^([a-z]*\d+)[-_.]+(?:.*\D)?\d+$", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class Patients:
    """Whose image each is, as names tell it."""

    of: Mapping[Path, str]
    """The patient of each image."""
    told: bool
    """Whether names have a word for it (patient, p01, subject), and not only numbers that repeat."""

    @property
    def count(self) -> int:
        return len(set(self.of.values()))


def patients_of(pairs: Sequence[Pair], pattern: str | None = None) -> Patients | None:
    """The patients, where all names tell one and at least three patients have several images; None where they do not.

    Args:
        pattern: a regular expression whose first group in an image's path is the patient.

    Raises:
        DataError: if a pattern is given that does not tell the patient of every image.
    """
    if pattern is not None:
        return _by_pattern(pairs, pattern)
    for told, find in ((True, _of_folder), (True, _of_word), (False, _of_number)):
        found = {pair.image: find(pair) for pair in pairs}
        whole = {image: patient for image, patient in found.items() if patient}
        counts = Counter(whole.values())
        if len(whole) == len(pairs) and sum(count > 1 for count in counts.values()) >= 3:
            return Patients(of=whole, told=told)
    return None


def _by_pattern(pairs: Sequence[Pair], pattern: str) -> Patients:
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise DataError(f"patients: '{pattern}' is no regular expression ({error})") from None
    if compiled.groups != 1:
        raise DataError(
            f"patients: '{pattern}' has no group, or several: put round brackets around what is the patient"
        )
    found = {}
    for pair in pairs:
        match = compiled.search(pair.image.as_posix())
        if match is None or not match[1]:
            raise DataError(f"patients: '{pattern}' finds no patient in {pair.image.as_posix()}")
        found[pair.image] = match[1]
    return Patients(of=found, told=True)


def _of_folder(pair: Pair) -> str | None:
    parts = [match[1] for part in pair.image.parent.parts if (match := _TOLD.search(f"{part}/"))]
    return parts[-1] if parts else None


def _of_word(pair: Pair) -> str | None:
    match = _TOLD.search(pair.stem)
    return match[1] if match else None


def _of_number(pair: Pair) -> str | None:
    """`12_034` is image 34 of 12; a number alone, or behind a word that all have, tells nobody."""
    match = _LEADING.match(pair.stem)
    return match[1] if match else None
