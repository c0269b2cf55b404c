"""The cases of somebody's folder, each with a role: by its split.csv, by names, or drawn."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from compress.data.dataset.cases import Case, Role
from compress.data.dataset.drawn import Shares, as_csv, draw, roles_by_name
from compress.data.dataset.pairs import find_pairs, without_mask
from compress.data.dataset.patients import patients_of
from compress.data.dataset.split import of_rows, read_split, with_calibration
from compress.errors import DataError

CALIBRATION = 32
NOBODY = "none"
"""What stands for a pattern where each image is another patient's."""


@dataclass(frozen=True, kw_only=True)
class Cases:
    """A folder's cases."""

    by_role: Mapping[Role, Sequence[Case]]
    table: str | None
    """The text of the split.csv to write; None where the folder has its own."""
    how: str
    """How roles are known, in a sentence."""
    odd: Sequence[str] = ()
    """What a person should know besides."""

    def seen(self) -> list[Case]:
        """Those to try a network on: of the test, then of the others that were perhaps not trained on."""
        return [case for role in ("test", "val", "calibration", "train") for case in self.by_role[role]]

    def calibration(self, root: Path) -> int:
        """How many train cases can be set aside for ranges."""
        if self.by_role["calibration"]:
            return min(CALIBRATION, len(self.by_role["calibration"]))
        for count in range(min(CALIBRATION, max(1, len(self.by_role["train"]) // 3)), 0, -1):
            try:
                with_calibration(self.by_role, count, root)
            except DataError:
                continue
            return count
        raise DataError(f"{root}: too few train cases to set one aside for calibration; add some")


def cases_in(root: Path, patients: str | None, seed: int) -> Cases:
    """The cases of a folder.

    Args:
        patients: a regular expression whose group is the patient, or `NOBODY`; None looks for the usual names.

    Raises:
        DataError: if there are no images with masks, or too few.
    """
    if (root / "split.csv").is_file():
        return Cases(by_role=_complete(read_split(root), root), table=None, how="by the split.csv in it")
    pairs = find_pairs(root)
    found = None if patients == NOBODY else patients_of(pairs, patients)
    of = None if found is None else found.of
    rows = roles_by_name(pairs, of)
    how = "roles by names of folders or files"
    if rows is None:
        rows, how = draw(pairs, Shares(seed=seed), of), f"70 % train, 15 % val, 15 % test, drawn with seed {seed}"
    if found is None:
        how += "; names tell no patients, so each image counts as its own (--patients '^(.*)_' says how, if they do)"
    else:
        one = next(iter(found.of.items()))
        sure = "" if found.told else "likely "
        how += (
            f"; {found.count} {sure}patients by names (in {one[0].name}: '{one[1]}'; --patients none if they are not)"
        )
    alone = without_mask(root, pairs)
    odd = [f"{len(alone)} files have no partner and are left out ({alone[0]}, ...)"] if alone else []
    counts = Counter(row.role for row in rows)
    if counts["test"] < 30:
        odd.append(f"{counts['test']} test cases are few: a gate on a drop needs 30 to hold")
    return Cases(by_role=of_rows(root, rows), table=as_csv(rows), how=how, odd=odd)


def _complete(by_role: Mapping[Role, Sequence[Case]], root: Path) -> Mapping[Role, Sequence[Case]]:
    """The cases, with some to score on and some to take ranges from."""
    needs: tuple[tuple[tuple[Role, ...], str], ...] = (
        (("test",), "a run is scored on"),
        (("train", "calibration"), "int8 takes its ranges from"),
    )
    for roles, what in needs:
        if not any(by_role[role] for role in roles):
            raise DataError(f"{root / 'split.csv'}: no case is for {' or '.join(roles)}, which {what}; name some")
    return by_role
