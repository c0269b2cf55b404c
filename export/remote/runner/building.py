"""An engine built in a process of its own: what ends that, such as a board without memory, leaves the runner as it was.

A builder that holds Python's lock would keep the runner from giving signs of life, too.
"""

from __future__ import annotations

import importlib
import json
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any, Callable, Sequence

from export.engines.wanted import Wanted
from export.errors import BackendError, NotHere, SegpressError, SurroundingsError
from export.remote.runner.children import Ended
from export.remote.runner.store import SCRATCH, Store


def built(
    said: dict[str, Any], path: Path, store: Store, program: str, ran: Callable[[Sequence[str]], Ended]
) -> dict[str, Any]:
    """What is answered: the contents of the engine and of the log, both kept here, and how it was made.

    Args:
        said: the request.
        program: the file that the runner runs from.
        ran: runs a process, and ends it with the runner.

    Raises:
        BackendError: naming the node that is refused, and the reason.
        NotHere: if what it needs is not here.
        SurroundingsError: if the process was killed.
    """
    with tempfile.TemporaryDirectory(prefix=SCRATCH, dir=str(store.folder)) as scratch:
        asked = {"runtime": said["runtime"], "wanted": said["wanted"], "path": str(path), "folder": scratch}
        command = [sys.executable, program, json.dumps({**asked, "caches": str(store.folder / "timing")})]
        code, _, complaint = ran(command)
        told = Path(scratch) / "told.json"
        if code != 0 or not told.is_file():
            raise _died(code, complaint.decode("utf-8", "replace"), path)
        answer: dict[str, Any] = json.loads(told.read_text(encoding="utf-8"))
        if "error" in answer:
            raise (NotHere if answer["error"] == "here" else BackendError)(answer["says"])
        engine, log = ((Path(scratch) / name).read_bytes() for name in ("engine", "log"))
        return {"artifact": store.keep(engine), "log": store.keep(log), "made": answer["made"]}


def build(asked: dict[str, Any]) -> None:
    """Build it and leave what came of it in the folder: in that process of its own."""
    session = importlib.import_module("export.sessions." + asked["runtime"])
    folder = Path(asked["folder"])
    try:
        found = session.built(Path(asked["path"]), Wanted(**asked["wanted"]), Path(asked["caches"]))
        (folder / "engine").write_bytes(found.engine)
        (folder / "log").write_text("".join(f"{line}\n" for line in found.log), encoding="utf-8", errors="replace")
        told = {"made": found.made}
    except SegpressError as error:
        told = {"error": "here" if isinstance(error, NotHere) else "backend", "says": str(error)}
    (folder / "told.json").write_text(json.dumps(told), encoding="utf-8")


def _died(code: int, complaint: str, path: Path) -> SurroundingsError:
    if code == -signal.SIGKILL:
        return SurroundingsError(
            f"the process that built the engine of {path.name} was killed, most likely for want of memory; "
            "end what else runs there, or add swap space"
        )
    last = (complaint.strip().splitlines() or [f"exit {code}"])[-1]
    return SurroundingsError(f"the process that built the engine of {path.name} died ({last[:200]})")
