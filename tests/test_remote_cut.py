"""What is killed, cut or interrupted is told, and the next question goes on."""

from __future__ import annotations

import os
import shlex
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import pytest
import ssh_server
from over_ssh import images, python_with, target
from ssh_server import Server

from compress.errors import SurroundingsError
from export.artifact import Artifact
from export.clock import Turn
from export.remote.conversation import close_all
from export.remote.target import RemoteTarget

pytestmark = pytest.mark.skipif(not ssh_server.IS_THERE, reason=ssh_server.MISSING)


def test_a_runner_that_is_killed_is_told_and_the_next_question_begins_another(
    tower: Server, artifact: Artifact
) -> None:
    remote = target()
    with remote.open("onnxruntime").open(artifact) as infer:
        os.kill(remote._told.process, 9)
        with pytest.raises(SurroundingsError, match="tower: "):
            infer(images(artifact)[0])
        assert infer(images(artifact)[0]).ndim == 4


@contextmanager
def cut_after(server: Server, most: int) -> Iterator[Callable[[], int]]:
    """`tower` by way of a proxy that is gone after so many bytes of both directions; tells how many passed."""
    passed, ends_at = [0], threading.Event()
    sockets: list[socket.socket] = []
    listening = socket.create_server(("127.0.0.1", 0))

    def forward(source: socket.socket, to: socket.socket) -> None:
        try:
            while not ends_at.is_set() and (data := source.recv(4096)):
                passed[0] += len(data)
                if passed[0] > most:
                    break
                to.sendall(data)
        except OSError:
            pass
        for each in (source, to):
            # Closing alone would wait for the other thread, which waits for words.
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def accept() -> None:
        while True:
            try:
                client, _ = listening.accept()
            except OSError:
                return
            behind = socket.create_connection(("127.0.0.1", server.port))
            sockets.extend((client, behind))
            for pair in ((client, behind), (behind, client)):
                threading.Thread(target=forward, args=pair, daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    config = server.folder / "config"
    was = config.read_text()
    config.write_text(
        was.replace(
            f"Port {server.port}", f"Port {listening.getsockname()[1]}\n  HostKeyAlias [127.0.0.1]:{server.port}"
        )
    )
    try:
        yield lambda: passed[0]
    finally:
        ends_at.set()
        config.write_text(was)
        listening.close()
        for each in sockets:
            each.close()


def asked(remote: RemoteTarget, artifact: Artifact) -> list[np.ndarray]:
    """What a measurement is made of, from its first word to its last."""
    with remote.open("onnxruntime").open(artifact) as infer:
        logits = [infer(each) for each in images(artifact)]
        remote.time(infer, images(artifact), Turn(first=0, count=3))
        remote.conditions()
    return logits


def test_a_link_that_is_cut_anywhere_is_told_and_the_same_goes_on_from_there(
    tower: Server, artifact: Artifact, tmp_path: Path
) -> None:
    def fresh(name: str) -> str:
        cache = shlex.quote(str(tmp_path / f"cache {name}"))
        return python_with(tmp_path / name, f"export XDG_CACHE_HOME={cache}")

    with cut_after(tower, 1 << 40) as passed:
        right = asked(target(fresh("whole")), artifact)
        close_all()
        whole = passed()
    for tenth in range(10):
        python = fresh(f"cut{tenth}")
        with cut_after(tower, whole * (2 * tenth + 1) // 20):
            with pytest.raises(SurroundingsError, match="tower: ") as told:
                asked(target(python), artifact)
            assert "\n" not in str(told.value)
        close_all()
        assert not list((tmp_path / f"cache cut{tenth}").rglob("*.partial"))
    again = asked(target(python), artifact)
    assert all(np.array_equal(one, other) for one, other in zip(right, again, strict=True))


def test_what_is_interrupted_leaves_no_answer_to_be_taken_for_another(
    tower: Server, artifact: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    remote, given = target(), images(artifact)
    with remote.open("onnxruntime").open(artifact) as infer:
        right = infer(given[0])
        monkeypatch.setattr(
            type(remote._conversation.begun), "_next", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt)
        )
        with pytest.raises(KeyboardInterrupt):
            infer(given[1])
        monkeypatch.undo()
        monkeypatch.setenv("SEGPRESS_SSH", tower.ssh)
        assert remote._conversation.begun is None
        assert np.array_equal(infer(given[0]), right)


@pytest.mark.parametrize(("wanted", "logins"), [(False, 1), (True, 0)])
def test_a_connection_of_the_user_s_own_is_shared_only_where_that_is_asked_for(
    tower: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wanted: bool, logins: int
) -> None:
    path, config = tmp_path / "master", tower.folder / "config"
    was = config.read_text()
    config.write_text(f"{was}  ControlMaster auto\n  ControlPath {path}\n  ControlPersist 60\n")
    try:
        subprocess.run([*tower.ssh.split(), "tower", "true"], check=True, timeout=20)
        if wanted:
            monkeypatch.setenv("SEGPRESS_SSH", f"{tower.ssh} -o ControlPath={path}")
        before = tower.logins()
        target().facts()
        assert tower.logins() - before == logins
    finally:
        close_all()
        subprocess.run([*tower.ssh.split(), "-O", "exit", "tower"], check=True, capture_output=True, timeout=20)
        config.write_text(was)
