"""What watches a device, here or there: power, heat, throttling, and the power mode that it is in meanwhile."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from export.artifact import Infer
from export.reach import Reach
from export.remote import answers
from export.remote.conversation import Conversation
from export.remote.runner.power_mode import PowerMode, mode, modes
from export.remote.runner.throttling import state
from export.remote.runner.watching import Asked, watched

Images = Sequence[NDArray[np.float32]]
"""BCHW each; inputs are taken from them in order, over and over."""


class Watcher(Protocol):
    """What a device tells beside times."""

    def watch(self, infer: Infer, images: Images, *, soak: bool) -> dict[str, Any]:
        """What power, heat and clocks are like while an artifact runs on the device for some seconds.

        Args:
            infer: opened by a backend of this device's target.
            soak: whether it runs until the device is warm before, where `Reach.soak` says so.

        Returns:
            `answers.Watch` as a dict; {"why": ...} alone where the device tells neither power nor temperature.
        """
        ...

    def throttling(self) -> dict[str, Any]:
        """How often the device was slowed down so far (`state` in export/remote/runner/throttling.py)."""
        ...

    def power_mode(self) -> str | None:
        """The power mode that the device is in; None where no `nvpmodel` tells one."""
        ...

    def power_modes(self) -> list[str]:
        """Every power mode that the device can be set to, by name; empty where nothing lists them."""
        ...

    def in_power_mode(self) -> AbstractContextManager[None]:
        """The device in the power mode that `Reach.power_mode` names, and put back from it at the end.

        Raises:
            SurroundingsError: if there is no such mode, or setting it is refused, with what to do.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class WatcherHere:
    """Of a device of this host."""

    kind: str
    """The device's: what computes."""
    reach: Reach

    def watch(self, infer: Infer, images: Images, *, soak: bool) -> dict[str, Any]:
        """See `Watcher`."""
        asked = Asked(soak_minutes=self.reach.soak if soak else None, kind=self.kind)
        told = watched(lambda number: infer(images[number % len(images)]), asked)
        return answers.seen(answers.Watched.model_validate(told))

    def throttling(self) -> dict[str, Any]:
        """See `Watcher`."""
        return state(kind=self.kind)

    def power_mode(self) -> str | None:
        """See `Watcher`."""
        return mode()[0]

    def power_modes(self) -> list[str]:
        """See `Watcher`."""
        return list(modes())

    @contextmanager
    def in_power_mode(self) -> Iterator[None]:
        """See `Watcher`."""
        found = PowerMode()
        try:
            if self.reach.power_mode is not None:
                found.set(self.reach.power_mode)
            yield
        finally:
            found.put_back()


class _Watched(Protocol):
    """What was opened on a device that is elsewhere."""

    def watch(self, images: Images, soak: float | None) -> dict[str, Any]: ...


@dataclass(frozen=True, kw_only=True)
class WatcherThere:
    """Of a device that is reached over SSH."""

    kind: str
    reach: Reach
    conversation: Conversation

    def watch(self, infer: Infer, images: Images, *, soak: bool) -> dict[str, Any]:
        """See `Watcher`."""
        return cast(_Watched, infer).watch(images, self.reach.soak if soak else None)

    def throttling(self) -> dict[str, Any]:
        """See `Watcher`."""
        request = {"do": "throttling", "kind": self.kind}
        return self.conversation.ask(answers.Throttling, request)[0].throttling.model_dump()

    def power_mode(self) -> str | None:
        """See `Watcher`."""
        told = self.conversation.ask(answers.Conditions, {"do": "conditions"})[0].conditions.get("power_mode")
        return None if told is None else str(told)

    def power_modes(self) -> list[str]:
        """See `Watcher`."""
        return self.conversation.ask(answers.PowerModes, {"do": "power_modes"})[0].modes

    @contextmanager
    def in_power_mode(self) -> Iterator[None]:
        """See `Watcher`; should the link be lost, the runner there puts it back."""
        if self.reach.power_mode is None:
            yield
            return
        self._set(self.reach.power_mode)
        whole = False
        try:
            yield
            whole = True
        finally:
            if not whole:
                # The runner there ends with the conversation, and puts it back.
                self.conversation.close()
        self._set(None)

    def _set(self, name: str | None) -> None:
        self.conversation.ask(answers.PowerModeFound, {"do": "power_mode", "name": name})
