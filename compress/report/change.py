"""The artifacts of two runs side by side, as a table."""

from __future__ import annotations

from collections.abc import Sequence

from compress.gates.judging.drop_record import drop_between
from compress.gates.judging.two_runs import Pair
from compress.gates.judging.two_sessions import ratio_of
from compress.measure.row import Row
from compress.report.derived.drops import Span, between
from compress.report.derived.numbers import NOTHING, amount, fixed, number, times
from compress.report.derived.recorded import ratio
from compress.report.tables import Table


def change_table(pairs: Sequence[Pair]) -> Table:
    """One row for each artifact that both runs have: before, after, and the difference."""
    head = ("step", "on", "Dice", "drop", "p50 (ms)", "times as long", "size (MB)", "times as large")
    note = (
        "Drop: mean paired drop in Dice [one-sided 95 % limits], + is worse. The runs' times were not taken in turns."
    )
    return Table(title="Before and after", head=head, align="llrrrrrr", rows=[_row(pair) for pair in pairs], note=note)


def _row(pair: Pair) -> tuple[str, ...]:
    was, now = pair.before, pair.after
    found = ratio_of(was, now)
    longer = NOTHING if found is None else f"{found.value:.3g} [{found.lower:.3g}, {found.upper:.3g}]"
    step = now.step if was.step == now.step else f"{was.step} → {now.step}"
    p50 = [number((row.latency_ms or {}).get("p50")) for row in (was, now)]
    return (
        step,
        f"{now.backend} ({now.device})",
        _both(*(fixed(number((row.scores or {}).get("dice"))) for row in (was, now))),
        between(_lost(was, now)),
        _both(*map(amount, p50)),
        longer,
        _both(amount(was.size_mb), amount(now.size_mb)),
        times(ratio(now.size_mb, was.size_mb)).removesuffix("×"),
    )


def _both(was: str, now: str) -> str:
    return was if was == now else f"{was} → {now}"


def _lost(was: Row, now: Row) -> Span | None:
    drop = (drop_between(was, now) or {}).get("mean") or {}
    mean = number(drop.get("drop"))
    return None if mean is None else Span(mean=mean, lower=number(drop.get("lower")), upper=number(drop.get("upper")))
