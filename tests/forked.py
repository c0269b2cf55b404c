"""Processes that are copies of this one, which has imported torch already: to import it takes longest of most."""

from __future__ import annotations

import os
import signal
import traceback
from collections.abc import Callable

import torch


def forked(work: Callable[[], object]) -> int:
    """The number of a process that does this; it has this one's threads no more, and so may open no runtime."""
    process = os.fork()
    if process:
        return process
    code = 1
    # Whatever another thread held when it was copied is held for good: nobody would wait for that.
    signal.alarm(300)
    torch.set_num_threads(1)
    try:
        work()
        code = 0
    except BaseException:  # noqa: BLE001  # Nobody is above it who would tell.
        traceback.print_exc()
    finally:
        os._exit(code)


def exit_code(process: int) -> int:
    """Its exit code, once it ends."""
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
