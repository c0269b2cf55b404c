"""Compress a trained segmentation network, build it for its device, and prove what it cost.

From Python: `compress.wrap(net, images, classes=[...])`, and passes by name, `compress.Int8(calibrate=8)`
(docs/python.md).
"""

from __future__ import annotations

from typing import Any

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """What Python users need, imported when it is asked for: importing torch takes seconds."""
    from importlib import import_module

    if name in ("wrap", "Wrapped", "Measured"):
        return getattr(import_module("compress.wrapping"), name)
    found = _passes().get(name.lower()) if name[:1].isupper() else None
    if found is None:
        raise AttributeError(f"module 'compress' has no attribute '{name}'")
    return getattr(import_module(f"compress.passes.{found}"), name)


def __dir__() -> list[str]:
    return [*globals(), "wrap", "Wrapped", "Measured"]


def _passes() -> dict[str, str]:
    """The files of passes, by the names of their classes in small letters."""
    from pathlib import Path

    return {path.stem.replace("_", ""): path.stem for path in (Path(__file__).parent / "passes").glob("[a-z]*.py")}
