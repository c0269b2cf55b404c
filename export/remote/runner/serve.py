"""The conversation: each request is answered by the function of its name, in order, until the host is gone."""

from __future__ import annotations

import contextlib
import importlib
import json
import math
import os
import queue
import signal
import sys
import threading
import time
import traceback
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO, Callable, Dict, Sequence, Tuple

import numpy as np

from export.choice import finite, labels_from_logits
from export.clock import Run, Turn, timed
from export.errors import BackendError, NotHere, SegpressError, SurroundingsError
from export.remote.runner.building import built
from export.remote.runner.children import Children
from export.remote.runner.facts import facts, machine
from export.remote.runner.lock import Lock, of_machine
from export.remote.runner.packing import packed, unpacked
from export.remote.runner.store import Store, clean
from export.remote.runner.watcher import Watcher
from export.remote.runner.wire import BEAT, PROTOCOL, SILENCE, Broken, Message, Voice, messages

Answer = Tuple[Dict[str, Any], bytes]
"""What is said, and the bytes behind it."""


def serve(stdin: BinaryIO, stdout: BinaryIO, given: dict[str, Any], folder: str, program: str) -> None:
    """Answer requests until there are no more; whatever was started ends with it.

    Args:
        given: the nonce of the conversation, and the run that it belongs to.
        folder: of this user's cache, where all that is sent lies.
        program: the file that this runs from.
    """
    voice = Voice(stdout, given["nonce"])
    runner, locks = Runner(Path(folder), program), (Lock(Path(folder), given["run"]), of_machine(given["run"]))
    requests = Requests(stdin, given["nonce"], runner.end, locks)
    threading.Thread(target=_beat, args=(voice, requests.leave), daemon=True).start()
    taken = (lock.taken(given["wait"], lambda reason: voice.say({"waits": reason})) for lock in locks)
    refusal = next(filter(None, taken), None)
    if refusal is None and not Path(program).is_file():
        refusal = "what was sent there was just removed; the same command sends it again"
    if refusal is not None:
        voice.say({"error": "surroundings", "says": refusal})
        # Python would wait for the thread that reads.
        requests.leave()
    runner.tidy()
    voice.say({"hello": PROTOCOL, "python": sys.version.split()[0], "machine": machine()})
    while True:
        request = requests.next()
        said, payload = _answered(runner, request)
        try:
            voice.say({**said, "to": request.said.get("number")}, payload)
        except OSError:
            requests.leave()


def _answered(runner: Runner, request: Message) -> Answer:
    """What the runner answers, or why it does not."""
    try:
        return runner.answer(request)
    except SegpressError as error:
        return {"error": _kind(error), "says": str(error)}, b""
    except MemoryError:
        return {"error": "surroundings", "says": "there is not enough memory"}, b""
    except (Exception, SystemExit) as error:  # noqa: BLE001  # Whatever a runtime raises is told, and the host decides.
        says = f"{type(error).__name__}: {error}"
        return {"error": "bug", "says": says, "trace": traceback.format_exc()}, b""


def _beat(voice: Voice, leave: Callable[[], None]) -> None:
    """Signs of life, whatever is being done and however long that takes."""
    while True:
        time.sleep(BEAT)
        try:
            voice.say({"alive": True})
        except (OSError, ValueError):
            leave()


class Requests:
    """What the host asks, read as it comes, so that its end is noticed at once, whatever is being done."""

    def __init__(self, stdin: BinaryIO, nonce: str, end: Callable[[], None], locks: Sequence[Lock]) -> None:
        self._waiting: queue.Queue[Message] = queue.Queue()
        self._end, self._locks = end, locks
        self._heard = time.monotonic()
        threading.Thread(target=self._read, args=(stdin, nonce), daemon=True).start()
        threading.Thread(target=self._watch, daemon=True).start()

    def next(self) -> Message:
        """The next request; waits for it."""
        return self._waiting.get()

    def leave(self) -> None:
        """End, and with it all that was started, also by a library that forked."""
        try:
            self._end()
        finally:
            with contextlib.suppress(OSError):
                if os.getpgrp() == os.getsid(0):
                    # A session of our own, as an SSH server makes one for every command.
                    os.killpg(0, signal.SIGKILL)
            os._exit(0)

    def _read(self, stdin: BinaryIO, nonce: str) -> None:
        try:
            for message in messages(stdin, nonce, heard=self._hear):
                if message.said.get("do") != "nothing":
                    self._waiting.put(message)
        except (Broken, OSError, ValueError):
            pass
        self.leave()

    def _hear(self) -> None:
        self._heard = time.monotonic()

    def _watch(self) -> None:
        """A link that was cut without a word leaves nothing to read, not even its end."""
        late = 0
        # Twice, since a library that kept Python's lock for a minute kept it from whoever reads, too.
        while late < 2:
            time.sleep(1)
            silent = time.monotonic() - self._heard
            late = late + 1 if silent > SILENCE else 0
            for lock in self._locks:
                lock.keep(is_heard=silent < BEAT + 1.5)
        self.leave()


class Runner:
    """What is open on the device."""

    def __init__(self, folder: Path, program: str) -> None:
        self._store, self._program = Store(folder), program
        self._open: dict[int, Callable[[Any], Any]] = {}
        self._children = Children()
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
            "choose": self._choose,
            "time": self._time,
            "profile": self._profile,
            "peak_memory": self._peak_memory,
            "clean": self._clean,
            "build": self._build,
            "get": self._get,
            "executed": self._executed,
            "fallback": self._fallback,
            **self._watcher.requests,
        }
        if do not in known:
            raise BackendError("the runner cannot do {!r}; it can do {}".format(do, ", ".join(known)))
        return known[do](request.said, request.payload)

    def tidy(self) -> None:
        """Remove what one that was killed left."""
        self._store.tidy()

    def end(self) -> None:
        """Stop whatever was started."""
        self._children.end()
        self._watcher.end()

    def _facts(self, said: dict[str, Any], _: bytes) -> Answer:
        return {"facts": facts()}, b""

    def _missing(self, said: dict[str, Any], _: bytes) -> Answer:
        return {"missing": self._store.missing(said["sha256"])}, b""

    def _put(self, said: dict[str, Any], payload: bytes) -> Answer:
        try:
            data = unpacked(payload, said["size"]) if said["packed"] else payload
        except ValueError as error:
            raise SurroundingsError(f"what was sent arrived damaged ({error})") from None
        self._store.put(said["sha256"], data)
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
        return _answer(said, np.ascontiguousarray(self._logits(said), dtype="<f4"))

    def _choose(self, said: dict[str, Any], _: bytes) -> Answer:
        return _answer(said, labels_from_logits(finite(self._logits(said))))

    def _logits(self, said: dict[str, Any]) -> np.ndarray:
        return np.asarray(self._infers(said)(self._store.input(said["input"], said["shape"])))

    def _time(self, said: dict[str, Any], _: bytes) -> Answer:
        seconds = math.inf if said["seconds"] is None else said["seconds"]
        turn = Turn(first=said["first"], count=said["count"], untimed=said["untimed"], seconds=seconds)
        return {"ms": timed(self._run(said), turn), "handle": said["handle"]}, b""

    def _profile(self, said: dict[str, Any], _: bytes) -> Answer:
        path, profiled = self._asked(said, "profiled", "does not tell the time of its layers")
        image = self._store.input(said["input"], said["input_shape"])
        return {"profile": asdict(profiled(path, said["threads"], said["kind"], image, said["runs"]))}, b""

    def _peak_memory(self, said: dict[str, Any], _: bytes) -> Answer:
        path = self._store.artifact(said["files"]) / said["file"]
        given = {key: said[key] for key in ("runtime", "threads", "kind", "shape")}
        command = [sys.executable, self._program, json.dumps({**given, "path": str(path)})]
        code, out, err = self._children.ran(command)
        if code != 0:
            lines = err.decode("utf-8", "replace").strip().splitlines() or [f"exit {code}"]
            raise SurroundingsError(f"the process that measures memory died ({lines[-1][:200]})")
        return {"peak_memory_mb": json.loads(out.decode("ascii"))}, b""

    def _build(self, said: dict[str, Any], _: bytes) -> Answer:
        path, _function = self._asked(said, "built", "builds nothing on a device")
        return built(said, path, self._store, self._program, self._children.ran), b""

    def _get(self, said: dict[str, Any], _: bytes) -> Answer:
        return {"got": said["sha256"]}, self._store.content(said["sha256"])

    def _executed(self, said: dict[str, Any], _: bytes) -> Answer:
        path, executed = self._asked(said, "executed", "does not tell in what precision its layers run")
        return {"executed": executed(path, said["threads"], said["kind"], tuple(said["shape"]))}, b""

    def _fallback(self, said: dict[str, Any], _: bytes) -> Answer:
        path, fallback = self._asked(said, "fallback", "leaves nothing to another processor")
        return {"fallback": fallback(path, said["threads"], said["kind"], tuple(said["shape"]))}, b""

    def _asked(self, said: dict[str, Any], name: str, otherwise: str) -> tuple[Path, Callable[..., Any]]:
        """The artifact's file, and this function of its runtime.

        Raises:
            NotHere: if the runtime has none, which is what `otherwise` says of it.
        """
        path = self._store.artifact(said["files"]) / said["file"]
        function = getattr(_session(said["runtime"]), name, None)
        if function is None:
            raise NotHere("{} {}".format(said["runtime"], otherwise))
        return path, function

    def _clean(self, said: dict[str, Any], _: bytes) -> Answer:
        return {"freed": clean(self._store.folder)}, b""

    def _run(self, said: dict[str, Any]) -> Run:
        infer = self._infers(said)
        self._store.hold(said["inputs"])
        images = [self._store.input(each, shape) for each, shape in zip(said["inputs"], said["shapes"])]
        return lambda number: infer(images[number % len(images)])

    def _infers(self, said: dict[str, Any]) -> Callable[[Any], Any]:
        if said["handle"] not in self._open:
            raise BackendError("nothing is open under {}".format(said["handle"]))
        return self._open[said["handle"]]


def _answer(said: dict[str, Any], answer: np.ndarray) -> Answer:
    """What is said of an answer to an input, and its bytes."""
    payload, is_packed = packed(answer.tobytes(), answer.itemsize)
    told = {"shape": list(answer.shape), "input": said["input"], "handle": said["handle"], "packed": is_packed}
    return told, payload


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
