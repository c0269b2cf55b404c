"""The first lines that run on a device: is this Python new enough, is the runner there, and then the runner itself.

The source of this file is sent as text to a Python of any version 3, and `begin` is called with what follows it.
"""

import hashlib
import json
import os
import sys
import warnings
from pathlib import Path

OLDEST = (3, 8)


def begin(given):  # type: ignore[no-untyped-def]  # Not every version 3 knows annotations as they are written now.
    """Say hello, take the runner if it is not here yet, and hand over to it."""
    # What a library prints must not stand between messages.
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)

    def say(**said):  # type: ignore[no-untyped-def]
        said["nonce"] = given["nonce"]
        out.write(json.dumps(said).encode("ascii") + b"\n")
        out.flush()

    # Of those who write libraries, not of those who measure: as errors they would end an import.
    os.environ.pop("PYTHONWARNINGS", None)
    warnings.simplefilter("ignore")
    if sys.version_info < OLDEST:
        version = "{}.{}".format(*sys.version_info[:2])
        say(error="here", says="{} is Python {}; 3.8 or newer is needed".format(sys.executable, version))
        return
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "segpress"
    path = folder / "runner-{}.pyz".format(given["sha256"][:16])
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not (path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == given["sha256"]):
            say(wants=given["size"])
            data = sys.stdin.buffer.read(given["size"])
            if hashlib.sha256(data).hexdigest() != given["sha256"]:
                say(error="surroundings", says="the runner arrived damaged")
                return
            _write(path, data)
        else:
            say(wants=0)
    except OSError as error:
        reason = os.strerror(error.errno or 0)
        say(error="surroundings", says="{}: cannot be written ({})".format(folder, reason))
        return
    sys.path.insert(0, str(path))
    from export.remote.runner.serve import serve

    serve(sys.stdin.buffer, out, given, str(folder), str(path))


def _write(path, data):  # type: ignore[no-untyped-def]
    beside = path.with_name("{}.{}.partial".format(path.name, os.getpid()))
    try:
        beside.write_bytes(data)
        beside.replace(path)
    finally:
        if beside.exists():
            beside.unlink()
