"""The shared library of our kernels: compiled from our own source, and loaded only if it is what was compiled.

It lies in a folder of the user's own cache that is named by the hash of the source, the compiler and its flags; beside
it is the hash of the file itself. No recipe, no ONNX file and no sidecar can name another library.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import platform
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from export.errors import NotHere
from export.files import make_folder, sha256, write_bytes, write_json

SOURCES = ("signed_conv.cpp", "counting.inc", "runtime_api.h")
# Products and sums are rounded one by one, as a graph's Mul and Add are.
FLAGS = ("-std=c++17", "-O3", "-fPIC", "-shared", "-fvisibility=hidden", "-ffp-contract=off", "-pthread")
COMPILERS = ("c++", "g++", "clang++")
_HERE = Path(__file__).parent
_NAME = "signed_conv.so"


@dataclass(frozen=True, kw_only=True)
class Library:
    """A compiled library."""

    path: Path
    sha256: str
    compiler: str
    """As it names itself."""


def library() -> Library:
    """The library for this host, compiled on first need.

    Raises:
        NotHere: if there is no C++ compiler, or it refuses the source.
    """
    compiler = _compiler()
    version = _version(compiler)
    folder = make_folder(_cache() / _key(version))
    folder.chmod(0o700)
    path, record = folder / _NAME, folder / "library.json"
    if not _is_ours(path, record):
        _compile(compiler, path)
        write_json(record, {"sha256": sha256(path), "compiler": version, "flags": list(FLAGS)})
    return Library(path=path, sha256=sha256(path), compiler=version)


def _compiler() -> str:
    given = os.environ.get("CXX")
    for name in (given,) if given else COMPILERS:
        if (found := shutil.which(name)) is not None:
            return found
    wanted = f"CXX names {given}, which is not there" if given else f"none of {', '.join(COMPILERS)} is there"
    raise NotHere(f"no C++ compiler for the 1-bit kernel ({wanted}): the same network runs unpacked in onnxruntime")


@functools.cache
def _version(compiler: str) -> str:
    told = subprocess.run([compiler, "--version"], capture_output=True, text=True, check=False)
    return (told.stdout.splitlines() or [compiler])[0]


def _cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "segpress" / "kernels"


def _key(version: str) -> str:
    """What the file that is compiled depends on."""
    told = hashlib.sha256("\n".join((version, platform.machine(), *FLAGS)).encode())
    for source in SOURCES:
        told.update((_HERE / source).read_bytes())
    return told.hexdigest()[:32]


def _is_ours(path: Path, record: Path) -> bool:
    """Whether the file is the one that was compiled, and nobody else's."""
    if not (path.is_file() and record.is_file()) or path.is_symlink() or path.stat().st_uid != os.getuid():
        return False
    try:
        return bool(json.loads(record.read_text())["sha256"] == sha256(path))
    except (ValueError, KeyError, TypeError):
        return False


def _compile(compiler: str, path: Path) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        made = Path(scratch) / _NAME
        command = [compiler, *FLAGS, str(_HERE / SOURCES[0]), "-o", str(made)]
        told = subprocess.run(command, capture_output=True, text=True, check=False)
        if told.returncode or not made.is_file():
            reason = next((line for line in told.stderr.splitlines() if "error" in line), told.stderr[:200])
            raise NotHere(f"the 1-bit kernel does not compile with {compiler}: {reason.strip()}")
        write_bytes(path, made.read_bytes())


if __name__ == "__main__":
    here = library()
    print(f"{here.path} ({here.compiler})")
