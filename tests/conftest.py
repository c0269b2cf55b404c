"""Where tests run, what they share (tests/shared_fixtures.py) is a plugin."""

from __future__ import annotations

import ctypes
import os
import sys
from typing import Any

import pytest

OF_LIBRARIES = [f"tests/test_{name}.py" for name in ("blocks", "blocks_trained", "doors", "lowrank", "networks")]
"""Files that need timm or TensorLy, which take a second or two to import; MONAI is needed by all that train."""


def pytest_addoption(pluginmanager: pytest.PytestPluginManager) -> None:
    """No test reads what is logged; to catch it makes hundreds of loggers forget what they know six times a test."""
    pluginmanager.unregister(name="logging")


def pytest_configure(config: pytest.Config) -> None:
    """The process that hands tests out to others (`pytest -n`) runs none, and need not import torch."""
    if hasattr(config, "workerinput"):
        on_a_processor_of_its_own(config.workerinput["workerid"])
        keep_what_is_freed()
    if hasattr(config, "workerinput") or config.getoption("dist", "no") == "no":
        config.pluginmanager.import_plugin("shared_fixtures")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Have few workers do all that needs one of these libraries in one of them; many would wait for it at the end."""
    if config.getoption("dist") != "loadfile" or not 1 < len(config.getoption("tx")) <= 4:
        return None
    from xdist.scheduler import LoadFileScheduling

    class ByLibraries(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file: str = super()._split_scope(nodeid)
            return OF_LIBRARIES[0] if file in OF_LIBRARIES else file

    return ByLibraries(config, log)


def on_a_processor_of_its_own(worker: str) -> None:
    """Keep a worker of pytest-xdist, and what it starts, on one processor.

    A library takes a thread for each processor that its process may use, and threads that wait for one another spin:
    of workers that share their processors, each would spend them on waiting for the others. NumPy and torch count
    processors when they are imported, which is after this.
    """
    if hasattr(os, "sched_setaffinity"):
        processors = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {processors[int(worker.removeprefix("gw")) % len(processors)]})


def keep_what_is_freed() -> None:
    """Have C's allocator keep memory for the next test, which else is given back and asked for again page by page."""
    allocator = ctypes.CDLL(None) if sys.platform == "linux" else None
    if hasattr(allocator, "mallopt"):
        trim_threshold, mmap_threshold = -1, -3
        allocator.mallopt(trim_threshold, 2**30)
        allocator.mallopt(mmap_threshold, 2**25)
