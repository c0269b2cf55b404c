"""What devices tell beside times: power, heat, throttling; and the power mode that a recipe sets them to meanwhile."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compress import progress
from compress.pipeline.build import Build
from export.artifact import Infer
from export.remote.runner.throttling import slowed_by
from export.target import Target


@contextlib.contextmanager
def power_modes(builds: Sequence[Build]) -> Iterator[None]:
    """Every device in the power mode that the recipe names, and put back from it.

    Raises:
        SurroundingsError: if one cannot be set.
    """
    with contextlib.ExitStack() as stack:
        for target in _targets(builds).values():
            stack.enter_context(target.watcher.in_power_mode())
        yield


def throttling(builds: Sequence[Build]) -> dict[str, dict[str, Any]]:
    """How often each device was slowed down so far, by its name."""
    return {name: target.watcher.throttling() for name, target in _targets(builds).items()}


def throttled(builds: Sequence[Build], before: Mapping[str, Any]) -> dict[str, list[str] | None]:
    """By what each build's device was slowed down since then, by the build's name; None where it does not tell."""
    by = {name: slowed_by(before[name], now, {}) for name, now in throttling(builds).items()}
    return {each.name: by[each.deployment.device.name] for each in builds}


def watched(
    builds: Sequence[Build],
    infers: Mapping[str, Infer],
    images: Sequence[NDArray[np.float32]],
    log: Callable[[str], None],
) -> dict[str, dict[str, Any]]:
    """What is seen while an artifact of the last step, or of the baseline, runs for some seconds; by its name."""
    last = builds[-1].stage.name
    found = {}
    for each in builds:
        if each.stage.name in ("baseline", last):
            with progress.at_work(f"watching {each.name}"):
                watcher = each.deployment.target.watcher
                found[each.name] = watcher.watch(infers[each.name], images, soak=each.stage.name == last)
    seen = [name for name, watch in found.items() if "why" not in watch]
    if seen:
        log(f"watched power and heat of {len(seen)} artifact{'s' * (len(seen) > 1)}")
    return found


def _targets(builds: Sequence[Build]) -> dict[str, Target]:
    """Every device once, by its name."""
    return {each.deployment.device.name: each.deployment.target for each in builds}
