"""What a search would stop at before its first trial, and can be seen in its data."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from compress.data.dataset.cases import Dataset
from compress.errors import DataError
from compress.search.loading import Searchable
from compress.search.objectives.score import Score


def foreseen(found: Searchable) -> list[str]:
    """The mistakes that `compress check` tells of.

    Raises:
        DataError: if there are no validation cases, or the data cannot be read.
    """
    data = found.first.dataset()
    refuse_no_validation(data)
    return list(faults_of_scores([each for _, each in found.settings.objectives if isinstance(each, Score)], data))


def refuse_no_validation(data: Dataset) -> None:
    """Stop where nothing can choose among trials.

    Raises:
        DataError: if there are no validation cases.
    """
    if not data.cases["val"]:
        raise DataError(
            f"{data.source}: there are no validation cases, and test cases choose nothing; give cases the split 'val', "
            "or set data val above 0"
        )


def faults_of_scores(scores: Sequence[Score], data: Dataset) -> Iterator[str]:
    """Scores of classes that the data has not."""
    known = data.class_names[1:]
    for each in scores:
        if each.class_name is not None and each.class_name not in known:
            yield f"search.objectives: no foreground class '{each.class_name}'; there are {', '.join(known)}"
