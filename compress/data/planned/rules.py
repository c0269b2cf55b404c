"""The rules of nnU-Net's post-processing, as a recipe's `postprocess` says them.

nnU-Net finds them on the cases that all folds held out (`nnUNetv2_determine_postprocessing`,
`nnUNetv2_find_best_configuration`), and writes them twice: postprocessing.pkl, which is a pickle and is never opened
here, and postprocessing.json.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from compress.data.planned.results import Results
from compress.errors import DataError

Step = dict[str, dict[str, Any]]
RULE = "remove_all_but_largest_component_from_segmentation"
"""nnU-Net's only one."""


def rules_beside(results: Results) -> Path | None:
    """The file of the rules that were found for this training's folds together; None where there is none."""
    found = sorted(results.path.glob("crossval_results_folds_*/postprocessing.json"))
    return found[-1] if found else None


def pickles_beside(results: Results) -> list[Path]:
    """The same rules as nnU-Net pickles them."""
    return sorted(results.path.glob("crossval_results_folds_*/postprocessing.pkl"))


def steps_of(path: Path, class_names: Sequence[str]) -> list[Step]:
    """The rules in their order, each one word and its options.

    Raises:
        DataError: if the file is damaged, or has a rule that is not nnU-Net's.
    """
    try:
        told: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        names, given = told["postprocessing_fns"], told["postprocessing_kwargs"]
        pairs = [(str(name), options["labels_or_regions"]) for name, options in zip(names, given, strict=True)]
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise DataError(f"{path}: no rules of nnU-Net's post-processing ({error})") from None
    other = next((name for name, _ in pairs if name != RULE), None)
    if other is not None:
        raise DataError(f"{path}: has the rule {other}, and {RULE} alone is known")
    return [_step(labels, class_names, path) for _, labels in pairs]


def _step(labels: Any, class_names: Sequence[str], path: Path) -> Step:
    each = labels if isinstance(labels, list) else [labels]
    if not all(isinstance(label, int) and 0 < label < len(class_names) for label in each):
        raise DataError(f"{path}: has a rule for {labels}, which are not classes 1 to {len(class_names) - 1}")
    names = [class_names[label] for label in each]
    if len(each) == 1:
        return {"largest_component": {"classes": names}}
    return {"largest_foreground": {} if len(each) == len(class_names) - 1 else {"classes": names}}
