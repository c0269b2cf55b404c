"""A device at a host, as whatever asks something of it needs it: what it says of itself, and what is sent there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from export.artifact import Artifact
from export.device import Device
from export.files import sha256
from export.remote.answers import Facts
from export.remote.conversation import Conversation, with_runner


@dataclass(frozen=True, kw_only=True)
class RemoteDevice:
    """A device, and the conversation with the runner on it."""

    device: Device
    given_threads: int | None = None
    """CPU threads of each runtime; None takes every CPU that may be used there."""

    @property
    def host(self) -> str:
        """Its name in the user's SSH configuration."""
        assert self.device.reach.at is not None
        return self.device.reach.at

    @property
    def conversation(self) -> Conversation:
        """Begun where there is none yet."""
        return with_runner(self.host, self.device.reach.python)

    @property
    def told(self) -> Facts:
        """What it says of itself."""
        return self.conversation.facts()

    @property
    def threads(self) -> int:
        """CPU threads of each runtime there."""
        return self.given_threads or self.told.cpus

    def opening(self, word: str, artifact: Artifact) -> dict[str, Any]:
        """What the runner is told to open, whose files are there then.

        Args:
            word: the runtime.

        Raises:
            SurroundingsError: if the link is lost.
        """
        files = {file.name: sha256(file) for file in artifact.files}
        self.conversation.send({files[file.name]: file.read_bytes for file in artifact.files})
        return {
            "runtime": word,
            "files": files,
            "file": artifact.path.name,
            "threads": self.threads,
            "kind": self.device.processor,
            "shape": list(artifact.input.shape),
        }
