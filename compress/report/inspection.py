"""An inspection as people read it on the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from compress.report.derived.numbers import NOTHING, amount, large, signed

Json = Mapping[str, Any]


def show(found: Json, surprises: Sequence[str], drops: Mapping[str, float | None] | None, console: Console) -> None:
    """Print an inspection.

    Args:
        found: `Inspection.as_dict()`.
        surprises: sentences on where the time is not where the MACs are.
        drops: what half of each pruning group costs, by the group's first layer; None where nobody asked.
    """
    size = "x".join(map(str, found["input"]))
    title = f"{found['model']}: input {size}, {found['backend']} on {found['device']}, {found['threads']} threads"
    console.print(Text(title, "bold"))
    console.print(_layers(found))
    console.print()
    for sentence in (
        *_sums(found),
        *_on_other_cpus(found),
        *_floors(found),
        *(f"{one}." for one in surprises),
        *(f"Note: {note}." for note in found["notes"]),
    ):
        console.print(Text(sentence))
    if found["groups"]:
        console.print()
        console.print(_groups(found["groups"], drops))


def _layers(found: Json) -> Table:
    table = Table(header_style="bold", box=None, pad_edge=False)
    for head in ("layer", "kind", "output"):
        table.add_column(head, overflow="fold")
    for head in ("params", "bits", "MACs", "of MACs", "ms", "of time"):
        table.add_column(head, justify="right", no_wrap=True)
    macs, whole = found["total"]["macs"], found["whole_us"]
    slowest = sorted((layer["microseconds"] for layer in found["layers"]), reverse=True)[:3]
    for layer in found["layers"]:
        share = None if layer["macs"] is None or not macs else layer["macs"] / macs
        cells = (
            *(layer["name"], layer["kind"], "x".join(map(str, layer["shape"])) if layer["shape"] else NOTHING),
            *(large(layer["params"]) if layer["params"] else NOTHING, str(layer["bits"] or NOTHING)),
            *(
                NOTHING if layer["macs"] is None else large(layer["macs"]) if layer["macs"] else NOTHING,
                _percent(share),
            ),
            *(amount(layer["microseconds"] / 1000), _percent(layer["microseconds"] / whole)),
        )
        style = "bold" if layer["microseconds"] in slowest else ""
        table.add_row(*(Text(cell, style) for cell in cells))
    outside = found["outside_us"]
    more = ("outside layers", ", ".join(sorted(found["own"])), *[""] * 5)
    table.add_row(*map(Text, (*more, amount(outside / 1000), _percent(outside / whole))), style="dim")
    return table


def _percent(share: float | None) -> str:
    return NOTHING if not share else f"{share:.1%}"


def _sums(found: Json) -> list[str]:
    sums, whole = found["total"], found["whole_us"] / 1000
    own = [f"{kind} {amount(spent / 1000)} ms" for kind, spent in found["own"].items()]
    unknown = sum(layer["macs"] is None for layer in found["layers"])
    return [
        f"{len(found['layers'])} layers, {large(sums['params'])} parameters, {large(sums['macs'])} MACs"
        + (f" ({unknown} layers of unknown shape not counted)" if unknown else "")
        + ".",
        f"Latency {amount(found['latency_ms'])} ms (median); under the profiler {amount(whole)} ms, of which layers "
        f"take {amount(sums['microseconds'] / 1000)} ms and {amount(found['outside_us'] / 1000)} ms lie outside layers"
        + (f" (of these {', '.join(own)})" if own else "")
        + ".",
    ]


def _on_other_cpus(found: Json) -> list[str]:
    """Whether integer layers answer alike on every CPU, and which do not."""
    sums = found["pair_sums"]
    if sums is None:
        return []
    if not sums["unsafe"]:
        return [
            f"Its {sums['layers']} integer layers answer alike on every CPU: no sum of two products leaves 16 bits."
        ]
    named = ", ".join(f"{layer} ({channels} channels)" for layer, channels in sums["unsafe"].items())
    return [
        f"Without VNNI, {len(sums['unsafe'])} of its {sums['layers']} integer layers can be cut off at 16 bits and "
        f"answer otherwise: {named}."
    ]


def _floors(found: Json) -> list[str]:
    """What cannot be beaten on devices whose peaks are published."""
    floors = [f"{device} {amount(floor['ms'])} ms" for device, floor in found["floors"].items()]
    if not floors:
        return []
    return [f"No kernel can be faster than this, a bound and no prediction: {', '.join(floors)} (docs/devices.md)."]


def _groups(groups: Sequence[Json], drops: Mapping[str, float | None] | None) -> Table:
    title = Text("Pruning groups: layers whose channels go together", "bold")
    table = Table(title=title, title_justify="left", header_style="bold", box=None, pad_edge=False)
    table.add_column("channels", justify="right")
    table.add_column("layers", overflow="fold")
    if drops is not None:
        table.add_column("Dice lost without half of them", justify="right")
    table.add_column("prunable", overflow="fold")
    for group in groups:
        cells = [str(group["channels"]), ", ".join(group["layers"])]
        if drops is not None:
            cells.append(signed(drops.get(group["layers"][0])))
        table.add_row(*map(Text, (*cells, "yes" if group["prunable"] else f"no: {group['reason']}")))
    return table
