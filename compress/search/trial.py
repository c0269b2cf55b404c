"""What became of one recipe of a search."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal

from compress.search.objectives.judging.objective import Measured, Place

State = Literal["finished", "stopped", "refused"]


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A recipe, and what was measured of it on validation cases."""

    number: int
    """From 1."""
    state: State
    """finished: measured. stopped: its network in torch was too far below others, or a limit. refused: a pass or a
    runtime does not take it."""
    why: str | None = None
    """Why it was stopped or refused."""
    chosen: Mapping[str, int | float] = field(default_factory=dict)
    values: Mapping[str, Any] = field(default_factory=dict)
    """What was chosen, by the name of the decision."""
    steps: Sequence[Mapping[str, Any]] = ()
    """Its passes: `step`, `seconds` that it took when it was done, `shared` whether an earlier trial had done it."""
    params: int | None = None
    macs: int | None = None
    bits: int = 32
    """Of a weight, behind its last pass."""
    stored_bytes: int | None = None
    """Of the file of the last network that was scored in torch."""
    torch_scores: Sequence[float] = ()
    """Of the last network that was scored in torch, one for each objective `score`."""
    looks: Sequence[str] = ()
    """What was scored on the validation cases, by name; what an earlier trial scored has the same name."""
    measured: Mapping[Place, Measured] = field(default_factory=dict)
    seconds: float = 0.0
    """What it took, without what an earlier trial had done."""

    def as_dict(self) -> dict[str, Any]:
        """The form that JSON holds."""
        places = [{**asdict(at), **asdict(found)} for at, found in self.measured.items()]
        return {**{name: getattr(self, name) for name in _PLAIN}, "measured": places}

    @staticmethod
    def from_dict(read: Mapping[str, Any]) -> Trial:
        """The inverse of `as_dict`."""
        measured = {}
        for each in read["measured"]:
            rest = {key: value for key, value in each.items() if key not in ("backend", "device")}
            measured[Place(backend=each["backend"], device=each["device"])] = Measured(**rest)
        return Trial(**{name: read[name] for name in _PLAIN}, measured=measured)


_PLAIN = tuple(each.name for each in fields(Trial) if each.name != "measured")
