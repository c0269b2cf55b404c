"""What is wrong with a host, its keys, its Python or its disk is told in one sentence."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
import ssh_server
from over_ssh import python_with, target
from shared_fixtures import write_recipe
from ssh_server import Server
from zoo import written

from compress.errors import NotHere, RecipeError, SegpressError, SurroundingsError
from compress.recipe import load
from export.artifact import Artifact
from export.errors import BackendError
from export.remote.target import RemoteTarget

pytestmark = pytest.mark.skipif(not ssh_server.IS_THERE, reason=ssh_server.MISSING)


def refusal(remote: RemoteTarget, kind: type[SegpressError] = SurroundingsError, code: int = 4) -> str:
    with pytest.raises(kind) as told:
        remote.open("onnxruntime")
    assert told.value.exit_code == code and "\n" not in str(told.value)
    return str(told.value)


def test_an_unknown_host_key_is_told_with_what_to_run(tower: Server) -> None:
    tower.known_hosts.write_text("")
    try:
        assert "its host key is not known here; run `ssh tower` once" in refusal(target())
    finally:
        tower.trusted(tower.host_key())


def test_a_changed_host_key_is_told_with_what_to_run(tower: Server) -> None:
    tower.trusted(tower.host_key("other_key"))
    try:
        assert "run `ssh-keygen -R tower`" in refusal(target())
    finally:
        tower.trusted(tower.host_key())


@pytest.mark.parametrize("wrong", ["key", "user", "no key", "passphrase"])
def test_a_user_or_a_key_that_is_not_let_in_is_told(tower: Server, tmp_path: Path, wrong: str) -> None:
    changes: dict[str, Any] = {
        "key": {"key": tower.host_key("stranger")},
        "user": {"user": "nobody-of-this-name"},
        "no key": {"key": tmp_path / "no-key-was-made"},
        "passphrase": {"key": tmp_path / "locked"},
    }
    made = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "a passphrase", "-f", str(tmp_path / "locked")]
    subprocess.run(made, check=True)
    let_in = (tower.folder / "authorized_keys").read_text()
    (tower.folder / "authorized_keys").write_text(let_in + (tmp_path / "locked.pub").read_text())
    tower.write_client(**changes[wrong])
    try:
        told = refusal(target())
        assert "lets nobody in with these keys and this user" in told and "`ssh-add` remembers one" in told
    finally:
        tower.write_client()
        (tower.folder / "authorized_keys").write_text(let_in)


@pytest.mark.parametrize("host", ["-oProxyCommand=touch x", "-v", "", "a b", "a;b", "$(x)", "here", "ssh://a"])
def test_a_host_that_ssh_would_take_for_an_option_is_a_mistake_of_the_recipe(
    recipe: dict[str, Any], tmp_path: Path, host: str
) -> None:
    wrong = {**recipe, "devices": [{"cpu": {"at": host}}]}
    with pytest.raises(RecipeError, match=r"devices\[0\] \(cpu\): at: "):
        load(write_recipe(tmp_path, wrong))


def test_a_host_that_is_not_there_is_told(tower: Server) -> None:
    assert "no such host" in refusal(target(at="nowhere.invalid"))


def test_a_server_that_is_off_is_told(tower: Server) -> None:
    tower.stop()
    try:
        assert "refuses the connection" in refusal(target())
    finally:
        tower.start()


def test_no_python_there_is_told(tower: Server) -> None:
    assert "there is no /opt/no/python3" in refusal(target("/opt/no/python3"))


def old_python() -> str | None:
    """A Python that is too old, where there is one."""
    found = sorted(Path.home().glob(".pyenv/versions/3.[67].*/bin/python"))
    return str(found[0]) if found else None


def test_a_python_that_says_it_is_too_old_is_told(tower: Server, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.version_info = (3, 7, 17, 'final', 0)\n")
    older = python_with(tmp_path / "older", f"export PYTHONPATH={shlex.quote(str(tmp_path))}:$PYTHONPATH")
    assert "is Python 3.7; 3.8 or newer is needed" in refusal(target(older))


@pytest.mark.skipif(old_python() is None, reason="no Python older than 3.8 is installed")
def test_a_python_that_is_too_old_is_told(tower: Server) -> None:
    """What begins there is understood by such a Python itself."""
    assert "3.8 or newer is needed" in refusal(target(str(old_python())))


def test_a_python_without_numpy_is_told(tower: Server, tmp_path: Path) -> None:
    bare = python_with(tmp_path / "bare", f"export PYTHONPATH={shlex.quote(str(tmp_path))}:$PYTHONPATH")
    (tmp_path / "numpy.py").write_text("raise ModuleNotFoundError(\"No module named 'numpy'\")\n")
    assert "there has no numpy; install it" in refusal(target(bare))


def test_a_runtime_that_is_not_installed_is_not_measured(tower: Server, tmp_path: Path) -> None:
    bare = python_with(tmp_path / "bare", f"export PYTHONPATH={shlex.quote(str(tmp_path))}")
    (tmp_path / "onnxruntime.py").write_text("raise ModuleNotFoundError(\"No module named 'onnxruntime'\")\n")
    told = refusal(target(bare), NotHere, 3)
    assert "has no onnxruntime; it has openvino" in told


def test_a_disk_that_is_full_there_is_told_and_leaves_no_half_file(
    tower: Server, artifact: Artifact, tmp_path: Path
) -> None:
    # As a full disk does, a limit on files ends a write in its middle.
    small = python_with(tmp_path / "small", f"export XDG_CACHE_HOME={shlex.quote(str(tmp_path))}; ulimit -f 100")
    with (
        pytest.raises(SurroundingsError, match=r"tower: [^ ]*: cannot be written"),
        target(small).open("onnxruntime").open(artifact),
    ):
        pass
    assert not list(tmp_path.rglob("*.partial"))


@pytest.mark.parametrize("home", ["a file", "read-only"])
def test_a_home_that_cannot_be_written_is_told(tower: Server, tmp_path: Path, home: str) -> None:
    (tmp_path / "file").write_text("")
    # Root writes into any folder but those that the kernel alone fills.
    cache = {"a file": tmp_path / "file", "read-only": Path("/sys/kernel")}[home]
    locked = python_with(tmp_path / "locked", f"export XDG_CACHE_HOME={shlex.quote(str(cache))}")
    assert "cannot be written" in refusal(target(locked))


def test_what_the_runtime_refuses_there_is_told_with_its_reason(tower: Server, tmp_path: Path) -> None:
    broken = written("unet of one class", tmp_path / "net.onnx")
    broken.path.write_bytes(b"no onnx")
    with (
        pytest.raises(BackendError, match=r"ONNX Runtime .* refuses net\.onnx"),
        target().open("onnxruntime").open(broken.sealed()),
    ):
        pass
