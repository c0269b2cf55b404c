"""search.html: the front and every trial of a search, in one file that needs nothing beside it."""

from __future__ import annotations

import json
from dataclasses import dataclass

from compress.report.derived import numbers
from compress.report.derived.recorded import Json
from compress.report.drawing.front import front_plot
from compress.report.pages import page
from compress.report.search_tables import front_table, space_table, trial_table
from compress.report.tables import Table


@dataclass(frozen=True, kw_only=True)
class Ending:
    """How a search ended, in a word of the report's colours and a sentence."""

    word: str
    head: str
    sentence: str


def to_html(record: Json) -> str:
    """The page of a search.

    Args:
        record: what search.json holds.
    """
    return page("search.html.j2").render(
        record=record,
        ending=ending(record),
        facts=facts(record),
        front=front_table(record),
        trials=trial_table(record),
        space=space_table(record),
        versions=_pairs("Versions", record["versions"]),
        plot=front_plot(record),
        recipe=json.dumps(record["recipe"], indent=2, ensure_ascii=False),
    )


def ending(record: Json) -> Ending:
    """How it ended: with a front, without one within the limits, or without anything measured."""
    points, count = len(record["front"]), len(record["trials"])
    if points:
        many = f"{points} recipe{'s' * (points > 1)} on the front"
        return Ending(
            word="holds", head=many, sentence=f"Of {count} trials: {_states(record)}. It ended: {record['ended']}."
        )
    if record["exit_code"] == 1:
        sentence = f"None of {count} trials holds every limit of the objectives ({_limits(record)})."
        return Ending(word="fails", head="No front within the limits", sentence=sentence)
    why = next((trial["why"] for trial in record["trials"] if trial["why"]), record["ended"])
    return Ending(word="inconclusive", head="Nothing was measured", sentence=f"The first reason: {why}")


def facts(record: Json) -> list[str]:
    """What a reader should know besides."""
    looks, effort = record["looks"], record["effort"]
    spent = sum(trial["seconds"] for trial in record["trials"])
    return [
        f"Proposed by {effort['strategy']}, seed {effort['seed']}; trials took {numbers.lasted(spent)}.",
        f"Networks were scored {looks['validation']} times on {record['cases']['val']} validation cases, and never on "
        "test cases; passes that choose by validation cases looked at them besides.",
    ]


def _states(record: Json) -> str:
    states = [trial["state"] for trial in record["trials"]]
    words = {"finished": "measured", "stopped": "stopped before export", "refused": "refused"}
    return ", ".join(f"{states.count(state)} {word}" for state, word in words.items() if state in states)


def _limits(record: Json) -> str:
    signs = {"at_least": "at least", "at_most": "at most"}
    found = [
        f"{each['title']} {word} {each['options'][key]:g}"
        for each in record["objectives"]
        for key, word in signs.items()
        if key in each["options"]
    ]
    return ", ".join(found) or "a score above 0"


def _pairs(title: str, values: Json) -> Table:
    return Table(
        title=title, head=("what", "value"), align="ll", rows=[(key, str(value)) for key, value in values.items()]
    )
