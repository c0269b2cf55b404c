"""In a process of its own, print as JSON the most memory (MB) that an artifact takes, or build an engine."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from pathlib import Path

import numpy as np

from export.host import peak_mb
from export.profile import closed

RUNS = 3


def main(given: str) -> None:
    """Measure, or build; nothing else is loaded first, since it would count as memory."""
    import importlib

    _end_with_parent()
    asked = json.loads(given)
    if "wanted" in asked:
        from export.remote.runner.building import build

        build(asked)
        return
    session = importlib.import_module("export.sessions." + asked["runtime"])
    infer = session.opened(Path(asked["path"]), asked["threads"], asked["kind"], tuple(asked["shape"]))
    image = np.zeros(closed(asked["shape"]), np.float32)
    for _ in range(RUNS):
        infer(image)
    print(json.dumps(peak_mb()))


def _end_with_parent() -> None:
    """End this process and what it starts when the runner does, however that ended: its end of a pipe is gone."""
    if os.environ.pop("SEGPRESS_WATCHES", None) is None:
        return

    def watch() -> None:
        while os.read(0, 1):
            pass
        os.killpg(0, signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()


if __name__ == "__main__":
    main(sys.argv[1])
