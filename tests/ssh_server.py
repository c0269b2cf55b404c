"""A real OpenSSH server of this user's on the loopback, with a port, keys and an environment of its own."""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

SSHD = shutil.which("sshd") or shutil.which("sshd", path="/usr/sbin:/usr/local/sbin")
MISSING = "no OpenSSH server is installed (sshd)" if SSHD is None else "no OpenSSH client is installed (ssh-keygen)"
IS_THERE = SSHD is not None and shutil.which("ssh-keygen") is not None


@dataclass(kw_only=True)
class Server:
    """A host `tower` for those who take `ssh`'s options from its configuration."""

    folder: Path
    port: int = 0
    home: Path = Path()
    """The cache of what is sent there."""
    environment: Mapping[str, str] = field(default_factory=dict)
    lines: tuple[str, ...] = ()
    """More of the server's configuration."""
    process: subprocess.Popen[bytes] | None = None

    @property
    def ssh(self) -> str:
        """The client's command."""
        return f"ssh -F {self.folder / 'config'}"

    @property
    def known_hosts(self) -> Path:
        return self.folder / "known_hosts"

    @property
    def key(self) -> Path:
        return self.folder / "user_key"

    def start(self) -> None:
        """Listen; returns when it answers."""
        assert SSHD is not None
        with (self.folder / "sshd.log").open("ab") as log:
            self.process = subprocess.Popen([SSHD, "-D", "-e", "-f", str(self._configured())], stderr=log)
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.02)
        raise RuntimeError((self.folder / "sshd.log").read_text())

    def lets_in(self) -> bool:
        """Whether this account may come in at all: one that is locked may not, whatever its key."""
        return subprocess.run([*self.ssh.split(), "-o", "BatchMode=yes", "tower", "true"], check=False).returncode == 0

    def logins(self) -> int:
        """How often somebody was let in."""
        return (self.folder / "sshd.log").read_text().count("Accepted publickey")

    def last_words(self) -> str:
        """What the server said last."""
        return (self.folder / "sshd.log").read_text().strip().rpartition("\n")[2]

    def stop(self) -> None:
        """Leave nothing that listens."""
        if self.process is not None:
            self.process.terminate()
            self.process.wait()
            self.process = None

    def host_key(self, name: str = "host_key") -> Path:
        """A key of the server's, made where it is not there."""
        path = self.folder / name
        if not path.exists():
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True)
        return path

    def trusted(self, key: Path) -> None:
        """Make this key the one that is known."""
        public = key.with_name(f"{key.name}.pub").read_text().split()
        self.known_hosts.write_text(f"[127.0.0.1]:{self.port} {public[0]} {public[1]}\n")

    def write_client(self, user: str | None = None, key: Path | None = None) -> None:
        """The client's configuration."""
        (self.folder / "config").write_text(
            "Host tower\n"
            "  HostName 127.0.0.1\n"
            f"  Port {self.port}\n"
            f"  User {user or getpass.getuser()}\n"
            f"  IdentityFile {key or self.key}\n"
            "  IdentitiesOnly yes\n"
            "  IdentityAgent none\n"
            f"  UserKnownHostsFile {self.known_hosts}\n"
            "  GlobalKnownHostsFile none\n"
        )

    def _configured(self) -> Path:
        path = self.folder / "sshd_config"
        given = " ".join(f'"{name}={value}"' for name, value in self.environment.items())
        path.write_text(
            "\n".join(
                [
                    f"Port {self.port}",
                    "ListenAddress 127.0.0.1",
                    f"HostKey {self.host_key()}",
                    f"AuthorizedKeysFile {self.folder / 'authorized_keys'}",
                    "PidFile none",
                    "StrictModes no",
                    "UsePAM no",
                    "PasswordAuthentication no",
                    "PermitRootLogin prohibit-password",
                    "LoginGraceTime 20",
                    # The usual one takes three times as long as all else of a connection.
                    "KexAlgorithms curve25519-sha256",
                    f"SetEnv {given}",
                    *self.lines,
                    "",
                ]
            )
        )
        return path


@contextmanager
def served(folder: Path, environment: Mapping[str, str] | None = None, lines: tuple[str, ...] = ()) -> Iterator[Server]:
    """A server that runs as long as this is open; a Python there has ONNX Runtime alone where PYTHONPATH is kept."""
    if os.geteuid() == 0:
        # It separates privileges where it has any.
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    folder.mkdir(parents=True, exist_ok=True)
    cache = folder / "cache there"
    # Each runner imports the runtimes that it finds, to tell of them, and these take longest.
    few, home = folder / "few", folder / "home"
    few.mkdir()
    home.mkdir()
    for runtime in ("openvino", "tensorrt"):
        (few / f"{runtime}.py").write_text(f"raise ModuleNotFoundError(\"No module named '{runtime}'\")\n")
    server = Server(
        folder=folder,
        port=_free_port(),
        home=cache / "segpress",
        environment={
            # What this user's shell reads before each command says nothing here, and may take longer than the command.
            "HOME": str(home),
            "XDG_CACHE_HOME": str(cache),
            "PYTHONPATH": str(few),
            # Tests that run beside each other have servers of their own, and would wait for each other.
            "SEGPRESS_LOCKS": str(folder),
            **lesser_cpu(),
            **(environment or {}),
        },
        lines=lines,
    )
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(server.key)], check=True)
    (folder / "authorized_keys").write_text(server.key.with_suffix(".pub").read_text())
    server.trusted(server.host_key())
    server.write_client()
    server.start()
    try:
        if not server.lets_in():
            pytest.skip(f"an OpenSSH server lets this account in nowhere (is it locked?): {server.last_words()}")
        yield server
    finally:
        server.stop()


def lesser_cpu() -> dict[str, str]:
    """What makes a process run as on a lesser CPU (benchmarks/lesser_cpu.py), so that it is one there and here."""
    return {name: os.environ[name] for name in ("LD_PRELOAD", "LESSER_CPU") if "LESSER_CPU" in os.environ}


def _free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port: int = listening.getsockname()[1]
        return port
