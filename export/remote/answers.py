"""What a runner may answer: whatever else comes is told, and is never taken for a measurement."""

from __future__ import annotations

from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from export.errors import SurroundingsError

Milliseconds = Annotated[float, Field(gt=0, lt=1e7, allow_inf_nan=False)]
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
Side = Annotated[int, Field(ge=1, le=1 << 20)]
Text = Annotated[str, Field(max_length=500)]
Long = Annotated[str, Field(max_length=50_000)]
"""A name that a runtime puts together from those of many layers."""
Count = Annotated[int, Field(ge=0, lt=1 << 30)]
Layers = dict[Text, Count]
"""How many layers of each precision."""
Known = TypeVar("Known", bound="_Answer")


class _Answer(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class Hello(_Answer):
    """The first word of a runner."""

    hello: int
    python: Text
    machine: Text
    """What is another text on another machine, and after a restart."""


class Facts(_Answer):
    """What a device says of itself."""

    cpu: Text
    cpus: Annotated[int, Field(ge=1, le=4096)]
    threads: Annotated[int, Field(ge=1, le=4096)]
    os: Text
    machine: Text
    isa: list[Text]
    board: Text | None
    hostname: Text
    boot_id: Text | None
    flags: list[Text]
    memory_mb: Annotated[int, Field(ge=1)] | None
    python: Text
    executable: Text
    runtimes: dict[Text, Text]
    broken: dict[Text, Text] = {}
    """Why a runtime cannot be used that is installed there."""
    l4t: Text | None
    process: Annotated[int, Field(ge=1)]

    @property
    def identity(self) -> tuple[object, ...]:
        """What tells one machine, and what is installed on it, from another that is reached by the same name."""
        return tuple(self._identity().items())

    def changed(self, now: Facts) -> list[str]:
        """What is not as it was, in words."""
        was, new = self._identity(), now._identity()
        return [f"{name} {was[name]}, now {new[name]}" for name in was if was[name] != new[name]]

    def _identity(self) -> dict[str, object]:
        names = ("hostname", "board", "cpu", "cpus", "machine", "memory_mb", "l4t", "python")
        told = {name: getattr(self, name) for name in names}
        return {**told, "flags": sorted(self.flags), "runtimes": sorted(self.runtimes.items())}


class ToldFacts(_Answer):
    facts: Facts


class Conditions(_Answer):
    conditions: dict[Text, float | Text | None]


class Missing(_Answer):
    missing: list[Sha256]


class Kept(_Answer):
    kept: Sha256


class Opened(_Answer):
    """An artifact, ready to run."""

    handle: Annotated[int, Field(ge=1)]
    sha256: Sha256
    version: Text


class Closed(_Answer):
    closed: int


class Inferred(_Answer):
    """Logits, whose bytes are behind the line: 32-bit floats, the least significant byte first."""

    handle: int
    input: Sha256
    shape: Annotated[list[Side], Field(min_length=1, max_length=6)]
    packed: bool
    """Whether they are smaller than they are (export/remote/runner/packing.py)."""


class Chosen(Inferred):
    """Labels, chosen there: a byte each, behind the line."""


class Times(_Answer):
    """The timed inferences of a turn."""

    handle: int
    ms: list[Milliseconds]


class NodeTime(_Answer):
    names: list[Text]
    kind: Text
    microseconds: Annotated[float, Field(ge=0, lt=1e10, allow_inf_nan=False)]
    precision: Text


class ProfileTimes(_Answer):
    nodes: list[NodeTime]
    whole_us: Annotated[float, Field(ge=0, lt=1e10, allow_inf_nan=False)]


class Profiled(_Answer):
    profile: ProfileTimes


class PeakMemory(_Answer):
    peak_memory_mb: Annotated[int, Field(ge=1, le=10_000_000)]


class Executed(_Answer):
    """How many layers run in each precision."""

    executed: Layers


class Fallback(_Answer):
    """What a DLA core, or a provider of ONNX Runtime, did not take."""

    layers: Count
    names: list[Long]
    on_dla: Count | None = None
    taken: Count | None = None
    why: list[Text]


class FallbackThere(_Answer):
    fallback: Fallback


class TrtexecTimes(_Answer):
    """What trtexec itself measured."""

    latency_ms: Milliseconds | None = None
    compute_ms: Milliseconds | None = None
    n: Count | None = None
    warnings: list[Text] = []
    slowest_layers: dict[Long, Annotated[float, Field(ge=0, lt=1e7, allow_inf_nan=False)]] = {}
    not_timed: Text | None = None


class Made(_Answer):
    """How an engine was made."""

    tensorrt: Text | None = None
    tensorrt_rtx: Text | None = None
    flags: dict[Text, bool | int | str | list[str] | dict[str, list[int]] | None]
    built_by: Text
    command: list[Text] | None = None
    executed: Layers | None = None
    trtexec: TrtexecTimes | None = None
    fallback: Fallback | None = None


class BuiltThere(_Answer):
    """What a runtime built on the device, by its content; it is got with another request."""

    artifact: Sha256
    log: Sha256
    made: Made


class Got(_Answer):
    """A content, whose bytes are behind the line."""

    got: Sha256


Seconds = Annotated[float, Field(gt=0, lt=1e6, allow_inf_nan=False)]
Watts = Annotated[float, Field(ge=-1, lt=1e5, allow_inf_nan=False)]
"""A sensor at rest can tell a little less than nothing."""
Millijoules = Annotated[float, Field(ge=0, lt=1e9, allow_inf_nan=False)]
Above = Annotated[float, Field(gt=-1e9, lt=1e9, allow_inf_nan=False)]
"""Millijoules above those of an idle machine; noise can be below."""
Celsius = Annotated[float, Field(ge=-60, le=200, allow_inf_nan=False)]
Megahertz = Annotated[float, Field(ge=0, lt=1e5, allow_inf_nan=False)]
Counter = Annotated[int, Field(ge=-1, lt=1 << 63)]


class Drawn(_Answer):
    """The power of a rail."""

    mean_w: Watts
    max_w: Watts | None
    idle_w: Watts | None
    """Of the machine at rest, just before."""


class DrawnInAll(Drawn):
    """The power of the whole, and what that is."""

    of: Annotated[list[Text], Field(min_length=1)]
    what: Text


class Warmth(_Answer):
    begin: Celsius
    end: Celsius
    max: Celsius


class Clocked(_Answer):
    min: Megahertz
    mean: Megahertz
    most: Megahertz | None
    """That it may take as the machine is set."""


class Soaked(_Answer):
    """What running until a machine is warm made of its times."""

    minutes: Seconds
    settled: bool | None
    warm_p50_ms: Milliseconds
    warm_p99_ms: Milliseconds
    cold_p50_ms: Milliseconds
    slowest_minute: Annotated[int, Field(ge=1)]
    slowest_p50_ms: Milliseconds
    begin_c: Celsius | None
    end_c: Celsius | None


class Watch(_Answer):
    """What was seen while an artifact ran (export/remote/runner/watching.py); what is not known is null, and why."""

    seconds: Seconds
    inferences: Annotated[int, Field(ge=1)]
    rails: dict[Text, Drawn]
    unread: dict[Text, Text]
    total: DrawnInAll | None
    energy_mj: Millijoules | None
    energy_above_idle_mj: Above | None
    temperatures_c: dict[Text, Warmth]
    hottest: Text | None
    clocks_mhz: dict[Text, Clocked]
    throttled: bool | None
    throttled_by: list[Text]
    power_mode: Text | None
    soak: Soaked | None
    unknown: dict[Text, Text]


class Watched(_Answer):
    """A watch, or why there is none."""

    watched: Watch | None
    why: Text | None


class WatchedThere(Watched):
    handle: int


class State(_Answer):
    counters: dict[Text, Counter]
    flags: dict[Text, Counter]


class Throttling(_Answer):
    throttling: State


class PowerModeFound(_Answer):
    """The mode that the device was in before a recipe's; None when that is put back."""

    found: Text | None


class PowerModes(_Answer):
    """Those that a device can be set to."""

    modes: list[Text]


class Cleaned(_Answer):
    freed: Annotated[int, Field(ge=0)]


def seen(told: Watched) -> dict[str, Any]:
    """A watch for a report; where there is none, why."""
    return {"why": told.why} if told.watched is None else told.watched.model_dump()


def read(kind: type[Known], said: dict[str, Any], host: str) -> Known:
    """An answer of the kind that was asked for.

    Raises:
        SurroundingsError: if it is none.
    """
    try:
        return kind.model_validate(said)
    except ValidationError as error:
        fault = error.errors()[0]
        where = ".".join(map(str, fault["loc"]))
        raise SurroundingsError(f"{host}: answered what cannot be ({where}: {fault['msg']})") from None
