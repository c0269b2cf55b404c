"""What a pass is asked to come down to, and where a latency is measured: the options that such passes share."""

from __future__ import annotations

import dataclasses
from typing import Annotated, ClassVar, Literal, Self

from pydantic import ConfigDict, Field, model_validator
from pydantic.dataclasses import dataclass

from compress.storage.weights import load_net
from export.reach import PYTHON, word_of
from export.registry import find_backend, find_device, words
from export.target import Target, target_of

NEAR = 0.1
"""How far from the target a latency may land, as a share of it."""
Precision = Literal["float", "int8"]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Share = Annotated[float, Field(gt=0, lt=1)]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Runtime:
    """Where a latency is measured."""

    device: str
    backend: str
    threads: int | None
    """CPU threads; None takes every CPU this process may use."""
    python: str
    """Of a device elsewhere: the one there that has the runtime."""
    precision: Precision = "float"

    def __str__(self) -> str:
        return f"on {self.backend}, {self.device}{'' if self.precision == 'float' else f', in {self.precision}'}"

    def target(self) -> Target:
        """The device, with its threads."""
        return target_of(find_device(self.device, self.python), self.threads, load_net)


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class ToABudget:
    """A pass that makes a network as small or as fast as it is told: by one of `budgets`.

    Raises:
        ValueError: if not one of them is given, or a latency cannot be measured where the options say.
    """

    budgets: ClassVar[tuple[str, ...]] = ("macs", "params", "latency_ms", "latency")

    macs: Positive | None = None
    """Multiply-accumulates of one image that stay at most; up to 1 it is a share of what there was."""
    params: Positive | None = None
    """Instead: parameters that stay at most; up to 1 it is a share of what there was."""
    latency_ms: Positive | None = None
    """Instead: the median time of one image that the artifact of `backend` on `device` should take; met within 10 %."""
    latency: Share | None = None
    """Instead: that time as a share of what the network takes as it comes, which serves any processor."""
    device: str = "cpu"
    """Where that is measured, with its host where it is elsewhere: `orin_nano@tower-7`."""
    python: Annotated[str, Field(min_length=1)] = PYTHON
    """Of a device elsewhere: the one there that has the runtime."""
    backend: str = "onnxruntime"
    threads: Annotated[int, Field(ge=1)] | None = None
    """CPU threads under which a latency is measured; None takes every CPU that `device` has for it."""
    precision: Precision = "float"
    """What the artifact computes whose latency it is: `int8` where the recipe ends in it."""

    @model_validator(mode="after")
    def _is_one_budget(self) -> Self:
        given = [name for name in self.budgets if getattr(self, name) is not None]
        if len(given) != 1:
            said = f"{' and '.join(given)} are given" if given else "nothing is given"
            raise ValueError(f"{said}; give one of {', '.join(self.budgets[:-1])} or {self.budgets[-1]}")
        if word_of(self.device) not in words("export.devices"):
            raise ValueError(f"there is no device '{self.device}'; there are {', '.join(words('export.devices'))}")
        backends = find_device(self.device).backends
        if self.is_timed and self.backend not in backends:
            raise ValueError(f"backend '{self.backend}' does not run on {self.device}; {', '.join(backends)} do")
        if self.is_timed and self.precision == "int8" and find_backend(self.backend).rules is None:
            raise ValueError(f"precision int8: backend '{self.backend}' computes in float alone")
        return self

    @property
    def is_timed(self) -> bool:
        """Whether the budget is a latency."""
        return self.latency_ms is not None or self.latency is not None

    @property
    def runtime(self) -> Runtime:
        """Where a latency is measured."""
        return Runtime(
            device=self.device,
            backend=self.backend,
            threads=self.threads,
            python=self.python,
            precision=self.precision,
        )
