"""What a runner is asked of a device beside answers and times: what it is like, a watch, throttling, the power mode."""

from __future__ import annotations

import contextlib
from typing import Any, Callable, Dict, Tuple

from export.clock import Run
from export.errors import SegpressError
from export.host import conditions
from export.remote.runner import power_mode, throttling
from export.remote.runner.power_mode import PowerMode
from export.remote.runner.watching import Asked, watched

Said = Dict[str, Any]
Answer = Tuple[Said, bytes]


class Watcher:
    """Answers these requests, and keeps the power mode that was found."""

    def __init__(self, run: Callable[[Said], Run]) -> None:
        """`run` makes what a request names, an open artifact and its inputs, into inferences."""
        self._run = run
        self._mode = PowerMode()
        self.requests: dict[str, Callable[[Said, bytes], Answer]] = {
            "conditions": self._conditions,
            "watch": self._watch,
            "throttling": self._throttling,
            "power_mode": self._power_mode,
            "power_modes": self._power_modes,
        }

    def end(self) -> None:
        """Put the power mode back, if it was changed."""
        with contextlib.suppress(SegpressError):
            self._mode.put_back()

    def _conditions(self, said: Said, _: bytes) -> Answer:
        mode = power_mode.mode()[0]
        return {"conditions": {**conditions(), **({} if mode is None else {"power_mode": mode})}}, b""

    def _watch(self, said: Said, _: bytes) -> Answer:
        asked = Asked(soak_minutes=said["soak"], kind=said["kind"])
        return {**watched(self._run(said), asked), "handle": said["handle"]}, b""

    def _throttling(self, said: Said, _: bytes) -> Answer:
        return {"throttling": throttling.state(kind=said["kind"])}, b""

    def _power_mode(self, said: Said, _: bytes) -> Answer:
        if said["name"] is None:
            self._mode.put_back()
            return {"found": None}, b""
        return {"found": self._mode.set(said["name"])}, b""

    def _power_modes(self, said: Said, _: bytes) -> Answer:
        return {"modes": list(power_mode.modes())}, b""
