"""The runner as one file: what a device needs of this package, zipped so that the same source makes the same bytes."""

from __future__ import annotations

import hashlib
import io
import zipfile
from functools import cache
from pathlib import Path

import export

ROOT = Path(export.__file__).parent
SHIPPED = (
    "__init__.py",
    "choice.py",
    "clock.py",
    "engines",
    "errors.py",
    "host.py",
    "instruction_set.py",
    "profile.py",
    "sessions",
    "remote/__init__.py",
    "remote/runner",
)
"""Files and folders of `export` that a device needs; they take Python 3.8."""
MAIN = "from sys import argv\n\nfrom export.remote.runner.__main__ import main\n\nmain(argv[1])\n"


@cache
def runner() -> bytes:
    """The program, a zip file that Python runs."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in {"__main__.py": MAIN.encode(), **_sources()}.items():
            # A time of its own would give the same source another hash tomorrow.
            archive.writestr(zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0)), text, zipfile.ZIP_DEFLATED)
    return stream.getvalue()


@cache
def runner_sha256() -> str:
    return hashlib.sha256(runner()).hexdigest()


def bootstrap(nonce: str, run: str, wait: float) -> bytes:
    """The first line that is sent: the source that takes the runner where it is not there yet, as a Python text.

    Args:
        nonce: of the conversation.
        run: what tells one run of this host from every other.
        wait: seconds for which another run that measures there is waited for.
    """
    given = {"nonce": nonce, "run": run, "wait": wait, "sha256": runner_sha256(), "size": len(runner())}
    source = (ROOT / "remote" / "runner" / "bootstrap.py").read_text(encoding="utf-8")
    return f"{source}\nbegin({given!r})\n".__repr__().encode("ascii") + b"\n"


def shipped() -> list[Path]:
    """Every file of it."""
    places = [ROOT / name for name in SHIPPED]
    return sorted(file for place in places for file in ([place] if place.is_file() else place.rglob("*.py")))


def _sources() -> dict[str, bytes]:
    return {str(Path("export") / file.relative_to(ROOT)): file.read_bytes() for file in shipped()}
