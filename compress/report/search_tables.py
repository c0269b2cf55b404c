"""What search.json holds as tables, for its page and the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from compress.report.derived import numbers
from compress.report.derived.chosen import chosen_in_words, in_words, titles, value_in_words
from compress.report.derived.numbers import NOTHING
from compress.report.derived.recorded import Json
from compress.report.tables import Table

COLUMNS = 7
"""Decisions that have a column each; where there are more, what was chosen is told in one."""


def front_table(record: Json) -> Table:
    """A row for each point of the front, the best of the first objective first; above them the uncompressed network."""
    trials = {trial["number"]: trial for trial in record["trials"]}
    names, numbered = decisions(record), [each["title"] for each in record["objectives"]]
    head = ("point", "trial", *numbered, *names)
    first = ("uncompressed", NOTHING, *_values(record, record["reference"]), *[NOTHING] * len(names))
    rows = [
        (f"{index:02d}", str(point["trial"]), *_values(record, point), *_chosen(record, trials[point["trial"]]))
        for index, point in enumerate(record["front"], start=1)
    ]
    note = (
        "No other trial is as good in everything and better in something. Scores are of the built artifacts on "
        f"{record['cases']['val']} validation cases, by which these were chosen: a score on test cases is lower as a "
        f"rule, and `compress run` tells it.{_on_times(record)}"
    )
    align = "ll" + "r" * len(numbered) + "l" * len(names)
    return Table(title="The front", head=head, align=align, rows=[first, *rows], note=note)


def trial_table(record: Json) -> Table:
    """A row for each trial, in their order."""
    names, on_front = decisions(record), {point["trial"] for point in record["front"]}
    numbered = [each["title"] for each in record["objectives"]]
    head = ("trial", *names, "outcome", *numbered, "in torch", "took", "shared", "why")
    rows = [
        (
            str(trial["number"]),
            *_chosen(record, trial),
            "on the front" if trial["number"] in on_front else trial["state"],
            *_values(record, trial),
            ", ".join(map(numbers.fixed, trial["torch_scores"])) or NOTHING,
            numbers.lasted(trial["seconds"]),
            _shared(trial["steps"]),
            trial["why"] or NOTHING,
        )
        for trial in record["trials"]
    ]
    note = f"{record['rule']} Shared: steps that an earlier trial had done, of all of its steps."
    align = "r" + "l" * len(names) + "l" + "r" * len(numbered) + "rrrl"
    return Table(title="Every trial", head=head, align=align, rows=rows, note=note)


def space_table(record: Json) -> Table:
    """What was left open, and what it might be."""
    rows = [(each["name"], _domain(each)) for each in record["space"]]
    count = "more than 10,000, or endlessly many" if record["recipes"] is None else f"{record['recipes']:,}"
    return Table(
        title="What was chosen from", head=("decision", "values"), align="ll", rows=rows, note=f"Recipes: {count}."
    )


def decisions(record: Json) -> list[str]:
    """The columns of what was chosen."""
    return ["chosen"] if len(record["space"]) > COLUMNS else list(titles(record["space"]).values())


def _values(record: Json, one: Json) -> list[str]:
    given: Sequence[float | None] = one["objectives"] or [None] * len(record["objectives"])
    return [value_in_words(each["objective"], value) for each, value in zip(record["objectives"], given, strict=True)]


def _chosen(record: Json, trial: Json) -> list[str]:
    values, space = trial["values"], record["space"]
    if len(space) > COLUMNS:
        return [chosen_in_words(space, values)]
    among = {each["name"]: each.get("choices", ()) for each in space}
    return [in_words(values[name], others) if name in values else NOTHING for name, others in among.items()]


def _shared(steps: Sequence[Json]) -> str:
    return f"{sum(step['shared'] for step in steps)} of {len(steps)}" if steps else NOTHING


def _domain(decision: Json) -> str:
    if "choices" in decision:
        return "; ".join(in_words(value) for value in decision["choices"])
    steps = f", in steps of {decision['step']:g}" if decision["step"] else ""
    return f"{decision['low']:g} to {decision['high']:g}{steps}{', by its logarithm' if decision['log'] else ''}"


def _on_times(record: Json) -> str:
    if not any(each["objective"] == "latency_ms" for each in record["objectives"]):
        return ""
    return " Latencies were taken in one session at the end, in turns with one another and the uncompressed network."
