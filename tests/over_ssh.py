"""Targets reached over SSH: what is there, what is asked of it, and a runner that lies."""

from __future__ import annotations

import shlex
import stat
import sys
import time
from pathlib import Path

import numpy as np

from export.artifact import Artifact
from export.reach import Reach
from export.registry import find_device
from export.remote.target import RemoteTarget


def target(python: str = sys.executable, at: str = "tower", threads: int = 1) -> RemoteTarget:
    device = find_device("cpu").reached(Reach(at=at, python=python))
    return RemoteTarget(device=device, given_threads=threads)


def images(artifact: Artifact, count: int = 3) -> list[np.ndarray]:
    rng = np.random.default_rng(7)
    return [rng.normal(size=artifact.input.shape).astype(np.float32) for _ in range(count)]


def is_running(process: int) -> bool:
    """Whether it does something still; one that has ended and is not collected does not."""
    try:
        return "Z" not in Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False


def ends(process: int, seconds: float = 10) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and is_running(process):
        time.sleep(0.05)
    return not is_running(process)


def script(path: Path, text: str) -> str:
    """A program of this text."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


def python_with(path: Path, before: str) -> str:
    """This Python, after some words to the shell."""
    return script(path, f'{before}\nexec {shlex.quote(sys.executable)} "$@"')


LIAR = """
import json, struct, sys
source = eval(sys.stdin.buffer.readline())
given = eval(source.rpartition("begin(")[2].rstrip()[:-1])
nonce = given["nonce"]
def say(said, payload=b"", nonce=nonce):
    if payload:
        said = {**said, "bytes": len(payload)}
    sys.stdout.buffer.write(json.dumps({**said, "nonce": nonce}).encode() + b"\\n" + payload)
    sys.stdout.buffer.flush()
FACTS = {"cpu": "liar", "cpus": 1, "threads": 1, "os": "Linux", "machine": "x86_64", "isa": [], "board": None,
         "hostname": "liar", "boot_id": None, "flags": [], "memory_mb": 1, "python": "3.8.0", "executable": "python3",
         "runtimes": {"onnxruntime": "1"}, "l4t": None, "process": 1}
say({"wants": 0})
say({"hello": 1, "python": "3.8.0", "machine": "liar"})
for line in sys.stdin.buffer:
    asked = json.loads(line)
    sys.stdin.buffer.read(asked.get("bytes", 0))
    to = {"to": asked.get("number")}
    do = asked["do"]
    if do == "facts":
        say({"facts": FACTS, **to})
    elif do == "missing":
        say({"missing": [], **to})
    elif do == "open":
        say({"handle": 1, "sha256": asked["files"][asked["file"]], "version": "1", **to})
    elif do == "close":
        say({"closed": 1, **to})
    elif do in ("infer", "choose", "time"):
        right = {"handle": 1, "input": asked.get("input"), "shape": [1, 1, 2, 2], "packed": False, **to}
        floats = struct.pack("<4f", 1, 2, 3, 4)
        LIE
"""
