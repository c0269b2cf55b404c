"""Where tests run, what they share (tests/shared_fixtures.py) is a plugin."""

from __future__ import annotations

import pytest


def pytest_addoption(pluginmanager: pytest.PytestPluginManager) -> None:
    """No test reads what is logged; to catch it makes hundreds of loggers forget what they know six times a test."""
    pluginmanager.unregister(name="logging")


def pytest_configure(config: pytest.Config) -> None:
    """The process that hands tests out to others (`pytest -n`) runs none, and need not import torch."""
    if hasattr(config, "workerinput") or config.getoption("dist", "no") == "no":
        config.pluginmanager.import_plugin("shared_fixtures")
