"""A program that does nothing but load an artifact and run it, and prints the most memory that it held, in MB.

    python -m export.peak_memory openvino cpu 2 package.module:load '{"path": ...}'

The runtime's own libraries and Python count: the device holds them too.
"""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from export.artifact import artifact_of
from export.host import peak_mb
from export.profile import closed
from export.registry import find_device
from export.target import LocalTarget

if TYPE_CHECKING:
    from torch import nn

RUNS = 3


def main(word: str, device: str, threads: str, load: str, record: str) -> None:
    """Load, run and print."""
    given = json.loads(record)
    artifact = artifact_of(Path(given["path"]), given)
    shape = closed(artifact.input.shape)

    def module_of(path: Path) -> nn.Module:
        # Imported only for a runtime that runs modules: what it imports would count as the others' memory.
        module, _, name = load.partition(":")
        net: nn.Module = getattr(importlib.import_module(module), name)(path)
        return net

    target = LocalTarget(device=find_device(device), threads=int(threads), load=module_of)
    with target.open(word).open(artifact) as infer:
        for _ in range(RUNS):
            infer(np.zeros(shape, np.float32))
    print(peak_mb())


if __name__ == "__main__":
    main(*sys.argv[1:])
