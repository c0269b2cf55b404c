"""The conversation: each request is answered by the function of its name, in order, until the host is gone."""

from __future__ import annotations

import fcntl
import importlib
import json
import math
import os
import queue
import subprocess
import sys
import threading
import time
import traceback
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO, Callable, Dict, Tuple

import numpy as np

from export.clock import Run, Turn, timed
from export.errors import BackendError, NotHere, SegpressError, SurroundingsError
from export.remote.runner.building import Group, built
from export.remote.runner.facts import facts
from export.remote.runner.store import Store
from export.remote.runner.watcher import Watcher
from export.remote.runner.wire import BEAT, PROTOCOL, SILENCE, Broken, Message, Voice, messages

PATIENCE = 5.0
"""Seconds for which one waits for another runner to end."""
Answer = Tuple[Dict[str, Any], bytes]
"""What is said, and the bytes behind it."""


def serve(stdin: BinaryIO, stdout: BinaryIO, nonce: str, folder: str, program: str) -> None:
    """Answer requests until there are no more; whatever was started ends with it.

    Args:
        folder: of this user's cache, where all that is sent lies.
        program: the file that this runs from.
    """
    voice = Voice(stdout, nonce)
    held = _lock(Path(folder) / "lock")
    if held is None:
        voice.say({"error": "surroundings", "says": "another run measures there now; wait until it has ended"})
        return
    runner = Runner(Path(folder), program)
    requests = Requests(stdin, nonce, runner.end)
    voice.say({"hello": PROTOCOL, "python": sys.version.split()[0]})
    while True:
        request = requests.next()
        beating = _Beating(voice)
        try:
            said, payload = runner.answer(request)
        except SegpressError as error:
            said, payload = {"error": _kind(error), "says": str(error)}, b""
        except MemoryError:
            said, payload = {"error": "surroundings", "says": "there is not enough memory"}, b""
        except Exception as error:  # noqa: BLE001  # Whatever a runtime raises is told, and the host decides.
            trace = traceback.format_exc()
            said, payload = {"error": "bug", "says": f"{type(error).__name__}: {error}", "trace": trace}, b""
        finally:
            beating.stop()
        voice.say({**said, "to": request.said.get("number")}, payload)


class Requests:
    """What the host asks, read as it comes, so that its end is noticed at once, whatever is being done."""

    def __init__(self, stdin: BinaryIO, nonce: str, end: Callable[[], None]) -> None:
        self._waiting: queue.Queue[Message] = queue.Queue()
        self._end = end
        self._heard = time.monotonic()
        threading.Thread(target=self._read, args=(stdin, nonce), daemon=True).start()
        threading.Thread(target=self._watch, daemon=True).start()

    def next(self) -> Message:
        """The next request; waits for it."""
        return self._waiting.get()

    def _read(self, stdin: BinaryIO, nonce: str) -> None:
        try:
            for message in messages(stdin, nonce):
                self._heard = time.monotonic()
                if message.said.get("do") != "nothing":
                    self._waiting.put(message)
        except (Broken, OSError, ValueError):
            pass
        self._leave()

    def _watch(self) -> None:
        """A link that was cut without a word leaves nothing to read, not even its end."""
        while time.monotonic() - self._heard < SILENCE:
            time.sleep(1)
        self._leave()

    def _leave(self) -> None:
        self._end()
        os._exit(0)


class Runner:
    """What is open on the device."""

    def __init__(self, folder: Path, program: str) -> None:
        self._store, self._program = Store(folder), program
        self._open: dict[int, Callable[[Any], Any]] = {}
        self._children: list[subprocess.Popen[bytes] | Group] = []
        self._watcher = Watcher(self._run)

    def answer(self, request: Message) -> Answer:
        """What one request is answered with.

        Raises:
            SegpressError: with what is told instead.
        """
        do = request.said.get("do")
        known = {
            "facts": self._facts,
            "missing": self._missing,
            "put": self._put,
            "open": self._opened,
            "close": self._close,
            "infer": self._infer,
            "time": self._time,
            "profile": self._profile,
            "peak_memory": self._peak_memory,
            "clean": self._clean,
            "build": self._build,
            "get": self._get,
            "executed": self._executed,
            **self._watcher.requests,
        }
        if do not in known:
            raise BackendError("the runner cannot do {!r}; it can do {}".format(do, ", ".join(known)))
        return known[do](request.said, request.payload)

    def end(self) -> None:
        """Stop whatever was started."""
        for child in self._children:
            child.kill()
        self._watcher.end()

    def _facts(self, said: dict[str, Any], _: bytes) -> Answer:
        return {"facts": facts()}, b""

    def _missing(self, said: dict[str, Any], _: bytes) -> Answer:
        return {"missing": self._store.missing(said["sha256"])}, b""

    def _put(self, said: dict[str, Any], payload: bytes) -> Answer:
        self._store.put(said["sha256"], payload)
        return {"kept": said["sha256"]}, b""

    def _opened(self, said: dict[str, Any], _: bytes) -> Answer:
        path = self._store.artifact(said["files"]) / said["file"]
        session = _session(said["runtime"])
        infer = session.opened(path, said["threads"], said["kind"], tuple(said["shape"]))
        number = max(self._open, default=0) + 1
        self._open[number] = infer
        return {"handle": number, "sha256": said["files"][said["file"]], "version": session.version()}, b""

    def _close(self, said: dict[str, Any], _: bytes) -> Answer:
        infer: Any = self._open.pop(said["handle"], None)
        if hasattr(infer, "close"):
            # What it holds on a GPU is given back at once.
            infer.close()
        if not self._open:
            self._store.forget_inputs()
        return {"closed": said["handle"]}, b""

    def _infer(self, said: dict[str, Any], _: bytes) -> Answer:
        logits = self._infers(said)(self._store.input(said["input"], said["shape"]))
        logits = np.ascontiguousarray(logits, dtype="<f4")
        answer = {"shape": list(logits.shape), "input": said["input"], "handle": said["handle"]}
        return answer, logits.tobytes()

    def _time(self, said: dict[str, Any], _: bytes) -> Answer:
        seconds = math.inf if said["seconds"] is None else said["seconds"]
        turn = Turn(first=said["first"], count=said["count"], untimed=said["untimed"], seconds=seconds)
        return {"ms": timed(self._run(said), turn), "handle": said["handle"]}, b""

    def _profile(self, said: dict[str, Any], _: bytes) -> Answer:
        path = self._store.artifact(said["files"]) / said["file"]
        session = _session(said["runtime"])
        if not hasattr(session, "profiled"):
            raise NotHere("{} does not tell the time of its layers".format(said["runtime"]))
        image = self._store.input(said["input"], said["input_shape"])
        return {"profile": asdict(session.profiled(path, said["threads"], said["kind"], image, said["runs"]))}, b""

    def _peak_memory(self, said: dict[str, Any], _: bytes) -> Answer:
        path = self._store.artifact(said["files"]) / said["file"]
        given = {key: said[key] for key in ("runtime", "threads", "kind", "shape")}
        command = [sys.executable, self._program, json.dumps({**given, "path": str(path)})]
        child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self._children.append(child)
        out, err = child.communicate()
        self._children.remove(child)
        if child.returncode != 0:
            lines = err.decode("utf-8", "replace").strip().splitlines() or [f"exit {child.returncode}"]
            raise SurroundingsError(f"the process that measures memory died ({lines[-1][:200]})")
        return {"peak_memory_mb": json.loads(out.decode("ascii"))}, b""

    def _build(self, said: dict[str, Any], _: bytes) -> Answer:
        path = self._store.artifact(said["files"]) / said["file"]
        session = _session(said["runtime"])
        if not hasattr(session, "built"):
            raise NotHere("{} builds nothing on a device".format(said["runtime"]))
        return built(said, path, self._store, self._program, self._children.append), b""

    def _get(self, said: dict[str, Any], _: bytes) -> Answer:
        return {"got": said["sha256"]}, self._store.content(said["sha256"])

    def _executed(self, said: dict[str, Any], _: bytes) -> Answer:
        path = self._store.artifact(said["files"]) / said["file"]
        session = _session(said["runtime"])
        if not hasattr(session, "executed"):
            raise NotHere("{} does not tell in what precision its layers run".format(said["runtime"]))
        return {"executed": session.executed(path, said["threads"], said["kind"], tuple(said["shape"]))}, b""

    def _clean(self, said: dict[str, Any], _: bytes) -> Answer:
        return {"freed": self._store.clean()}, b""

    def _run(self, said: dict[str, Any]) -> Run:
        infer = self._infers(said)
        images = [self._store.input(each, said["shape"]) for each in said["inputs"]]
        return lambda number: infer(images[number % len(images)])

    def _infers(self, said: dict[str, Any]) -> Callable[[Any], Any]:
        if said["handle"] not in self._open:
            raise BackendError("nothing is open under {}".format(said["handle"]))
        return self._open[said["handle"]]


class _Beating:
    """Signs of life while a request is being answered, however long that takes."""

    def __init__(self, voice: Voice) -> None:
        self._voice, self._done = voice, threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """No more, also none that is being said."""
        self._done.set()
        self._thread.join()

    def _beat(self) -> None:
        while not self._done.wait(BEAT):
            self._voice.say({"alive": True})


def _session(runtime: str) -> Any:
    """How artifacts of a runtime are opened.

    Raises:
        NotHere: if this Python does not have it.
    """
    try:
        return importlib.import_module("export.sessions." + runtime)
    except ImportError as error:
        python = f"{sys.executable} (Python {sys.version.split()[0]})"
        raise NotHere(f"{runtime} is not installed there for {python}: {error}") from None


def _kind(error: SegpressError) -> str:
    kinds = {NotHere: "here", SurroundingsError: "surroundings"}
    return next((kind for known, kind in kinds.items() if isinstance(error, known)), "backend")


def _lock(path: Path) -> Any:
    """A file that is locked as long as this process lives; None where another one has it."""
    file = path.open("w")
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return file
        except OSError:
            # One whose link was just cut is about to notice.
            if time.monotonic() > deadline:
                file.close()
                return None
            time.sleep(0.1)
