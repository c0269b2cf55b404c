"""The OpenSSH client: how a program is begun on another host, and what it means where that is refused."""

from __future__ import annotations

import os
import re
import shlex

from export.errors import SurroundingsError

COMMAND = "SEGPRESS_SSH"
"""Environment variable with the client and its first options, such as `ssh -F other_config`: of an option that is given
twice, `ssh` takes the first."""
OPTIONS = (
    # Nobody is there to answer a question; a host that is not known is an error, and never a guess.
    "BatchMode=yes",
    "StrictHostKeyChecking=yes",
    "ConnectTimeout=20",
    # A link that was cut without a word is noticed.
    "ServerAliveInterval=10",
    "ServerAliveCountMax=4",
    "ForwardAgent=no",
    "ForwardX11=no",
    "PermitLocalCommand=no",
    # What a user set for working there by hand, and what would end this or outlive it.
    "ClearAllForwardings=yes",
    "ControlMaster=no",
    # Without this, one that a user's configuration made is shared although none is made here.
    "ControlPath=none",
    "RemoteCommand=none",
    "LogLevel=ERROR",
)


def command(host: str, words: list[str]) -> list[str]:
    """The command of this host that runs these words there.

    Args:
        host: as `Reach.at`, which cannot begin with '-'.
    """
    options = [part for option in OPTIONS for part in ("-o", option)]
    return [*_client(), *options, "-T", "--", host, shlex.join(words)]


def _client() -> list[str]:
    given = os.environ.get(COMMAND) or "ssh"
    try:
        return shlex.split(given)
    except ValueError as error:
        raise SurroundingsError(f"{COMMAND}={given}: is no command of a shell ({error})") from None


def refused(host: str, python: str, code: int | None, said: str, printed: str = "") -> SurroundingsError:
    """Why a conversation did not begin.

    Args:
        code: the client's exit code, which is the program's there where there was a link.
        said: what the client or that program complained.
        printed: what came instead of its first word.
    """
    # What a shell or a library there complains of is no reason of the client's.
    for pattern, sentence in _REASONS if code == 255 else _REASONS_THERE:
        if re.search(pattern, said, re.IGNORECASE):
            return SurroundingsError(f"{host}: {sentence.format(host=host, python=python)}")
    told = _told(said) or _told(printed)
    if code == 255:
        return SurroundingsError(f"{host}: not reached{told}; try `ssh {host}`")
    if code in (126, 127):
        return SurroundingsError(
            f"{host}: there is no {python}{told}; name one that is there: python: or --python PATH"
        )
    if code is None or code < 0:
        return SurroundingsError(f"{host}: the connection ended{told}; the same command goes on from what is done")
    return SurroundingsError(
        f"{host}: {python} ended there with code {code} before its first word{told}; "
        f"`ssh {host} {shlex.quote(python)} -V` must print its version"
    )


def lost(host: str, code: int | None, said: str) -> SurroundingsError:
    """Why a conversation ended that had begun; see `refused`."""
    told = _told(said)
    if code is None or code < 0 or code == 255:
        return SurroundingsError(f"{host}: the connection ended{told}; the same command goes on from what is done")
    return SurroundingsError(
        f"{host}: what measures there ended with code {code}{told}; the same command goes on from what is done"
    )


def _told(said: str) -> str:
    """The last line that says what went wrong, in brackets; of others the last one."""
    lines = [" ".join(line.split()) for line in said.splitlines() if line.strip()]
    known = [line for line in lines if re.search(r"error\b|exception\b|fatal", line, re.IGNORECASE)]
    return f" ({(known or lines)[-1][:200]})" if lines else ""


_REASONS = (
    (
        r"REMOTE HOST IDENTIFICATION HAS CHANGED|host key for .* has changed",
        "its host key is another than the one that is known; if that is right, run `ssh-keygen -R {host}`, then "
        "`ssh {host}` once, and compare the new key's fingerprint",
    ),
    (
        r"Host key verification failed|No .* host key is known",
        "its host key is not known here; run `ssh {host}` once and compare the fingerprint before you accept it",
    ),
    (
        r"Permission denied",
        "it lets nobody in with these keys and this user; `ssh {host}` must ask for neither a password nor a key's "
        "passphrase (`ssh-add` remembers one)",
    ),
    (r"Could not resolve hostname", "no such host; `at` is a name as ssh knows it, from ~/.ssh/config or the network"),
    (r"Connection refused", "it refuses the connection; is an SSH server running there, on the port that ssh is told?"),
    (r"timed out|No route to host|Network is unreachable", "it does not answer; is it on, and in this network?"),
)
_REASONS_THERE = (
    (r"No module named .?numpy\b", "{python} there has no numpy; install it, or name another with python: PATH"),
    (
        r"password (has )?expired|password change required",
        "the user's password there has expired; run `ssh {host}` once and change it",
    ),
)
