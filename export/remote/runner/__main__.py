"""Load an artifact, run it and print, as JSON, the most memory (MB) that this process held: in a process of its own."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

from export.host import peak_mb

RUNS = 3


def main(given: str) -> None:
    """Of what runs nothing else."""
    import importlib

    asked = json.loads(given)
    session = importlib.import_module("export.sessions." + asked["runtime"])
    infer = session.opened(Path(asked["path"]), asked["threads"], asked["kind"], tuple(asked["shape"]))
    image = np.zeros([1 if axis == -1 else axis for axis in asked["shape"]], np.float32)
    for _ in range(RUNS):
        infer(image)
    print(json.dumps(peak_mb()))


if __name__ == "__main__":
    main(sys.argv[1])
