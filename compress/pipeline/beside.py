"""Processes that work beside a run, on what it leaves of the CPUs."""

from __future__ import annotations

import os
import subprocess
from contextlib import suppress
from typing import Any


def give_way(process: subprocess.Popen[Any]) -> None:
    """Have a process that was just started run only where no other would, on systems that have such a line for CPUs.

    Two threads of torch that compute a layer wait for one another: where one is kept off its CPU for a few
    milliseconds, at layer after layer, the network takes several times as long.
    """
    if hasattr(os, "SCHED_IDLE"):
        # One that has ended already, or may not give way, does as it does.
        with suppress(OSError):
            os.sched_setscheduler(process.pid, os.SCHED_IDLE, os.sched_param(0))
