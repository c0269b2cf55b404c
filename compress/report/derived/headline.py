"""The sentences of a report that are read first."""

from __future__ import annotations

from collections.abc import Sequence

from compress.measure.skill import LITTLE, REASONS, THRESHOLD
from compress.report.derived import applied, heat, uncovered
from compress.report.derived.compared import Line, baseline, last_step
from compress.report.derived.executed import executed_sentences
from compress.report.derived.numbers import fixed, number, signed
from compress.report.derived.recorded import Json, class_score, reference_in_words, scores_of
from compress.report.derived.slower import slower_sentences


def made(report: Json) -> str:
    """When the report was made, with which version, and from which commit of the recipe's repository."""
    told, version = report.get("made") or {}, report["versions"].get("segpress")
    date = str(told.get("date") or "")
    parts = (
        date and f"{date[:10]} {date[11:16]} UTC",
        version and f"segpress {version}",
        told.get("commit") and f"recipe at commit {_short_commit(told['commit'])}",
    )
    return " · ".join(part for part in parts if part)


def about(report: Json) -> list[tuple[str, list[str]]]:
    """What the recipe says that the network is for and not for: titles, each with its sentences."""
    told: Json = report["recipe"].get("about") or {}
    parts = [
        ("Intended use", [told.get("intended_use")]),
        ("Limits", list(told.get("limits") or ())),
        ("Contact", [told.get("contact")]),
    ]
    return [(title, sentences) for title, given in parts if (sentences := [str(each) for each in given if each])]


def _short_commit(commit: str) -> str:
    """Its first twelve digits, and that the working tree has changed since."""
    number, _, dirty = commit.partition("-")
    return f"{number[:12]}{' with uncommitted changes' if dirty else ''}"


def summary(report: Json) -> list[str]:
    """The few sentences to read first: the baseline, what was lost, where it holds, and what did not pay."""
    return [
        baseline_sentence(report),
        *applied.sentences(report),
        *drop_sentences(report),
        *processor_sentences(report),
        *executed_sentences(report),
        *uncovered.sentences(report),
        *slower_sentences(report),
        *heat.sentences(report),
    ]


def baseline_sentence(report: Json) -> str:
    """The Dice that everything else is compared with."""
    found = baseline(report)
    if found is None or found.dice is None:
        return _without_torch(report)
    cases = report["cases"].get("test")
    over = "" if cases is None else f" over {cases} test cases"
    return f"{found.title}: mean foreground Dice {fixed(found.dice)}{over}.{_of_little_skill(report, found.dice)}"


def _without_torch(report: Json) -> str:
    """What is known of the baseline where torch did not score it."""
    said = "The baseline's mean foreground Dice was not measured under torch"
    rows = [row for row in report["rows"] if row["step"] == "baseline" and scores_of(row)]
    on = [f"{fixed(class_score(row, None, 'dice'))} on {row['backend']} ({row['device']})" for row in rows]
    return f"{said}; it is {', '.join(on)}. Drops are from {reference_in_words(rows)}." if on else f"{said}."


def _of_little_skill(report: Json, dice: float) -> str:
    """A warning behind the baseline's Dice where that is low."""
    if dice >= LITTLE:
        return ""
    at_half = report["data"].get("logits") == 1 and not applied.has_threshold(report)
    one = f"; {THRESHOLD}" if at_half else ""
    return f" Under {LITTLE} a baseline has little skill, and its drop says little: {REASONS}{one}."


def drop_text(line: Line) -> str:
    """The drop of a line with its upper limit, where it has one."""
    upper = "" if line.drop_upper is None else f", upper limit {signed(line.drop_upper)}"
    return f"drop {signed(line.drop)}{upper}"


def drop_sentences(report: Json) -> list[str]:
    """For each artifact of the last step: its Dice drop from the baseline, of the mean and of every class."""
    found = []
    for line in last_step(report):
        drops: Json = line.row.get("dice_drop") or {}
        texts = [f"{name} {_drop_text(drop)}" for name, drop in drops.items() if number(drop["drop"]) is not None]
        if texts:
            found.append(f"Dice drop of {line.title}: {'; '.join(texts)}.")
    return found


def _drop_text(drop: Json) -> str:
    upper = number(drop["upper"])
    limit = "no upper limit" if upper is None else f"upper limit {upper:.4f}"
    return f"{float(drop['drop']):+.4f} ({limit}, {drop['n']} cases)"


def processor_sentences(report: Json) -> list[str]:
    """For each artifact of the last step: on which processors its answer holds."""
    found = []
    for line in last_step(report):
        told: Json = line.row.get("processors") or {}
        if told and told["differs_on"]:
            found.append(f"{line.title} may answer otherwise on {_listed(told['differs_on'])}: {expected_text(told)}.")
        elif told:
            found.append(f"{line.title} answers alike on {_listed(told['same_on'])} ({told['why']}).")
    return found


def expected_text(told: Json) -> str:
    """What is known of the processors on which an artifact may answer otherwise."""
    expected: Json | None = told.get("expected")
    if expected is None:
        return told["why"]
    return (
        f"emulated on {expected['cases']} test cases, mean Dice {expected['dice_there']:.4f} there and "
        f"{expected['dice_here']:.4f} here ({told['why']})"
    )


def _listed(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
