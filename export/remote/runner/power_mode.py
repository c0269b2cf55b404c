"""The power mode of a Jetson: asked by `nvpmodel -q`, and set only where a recipe says so."""

from __future__ import annotations

import os
import re
from pathlib import Path

from export.errors import SurroundingsError
from export.remote.runner.sysfs import ROOT, program, ran

NOTHING = "there is no nvpmodel on this machine"


def mode(root: Path = ROOT) -> tuple[str | None, str | None]:
    """The name of the mode that it is in, and why that is not known, one of both."""
    nvpmodel = program(root, "nvpmodel")
    if nvpmodel is None:
        return None, NOTHING
    good, said = ran([str(nvpmodel), "-q"])
    match = re.search(r"^NV Power Mode:\s*(\S+)", said, re.MULTILINE)
    if match is None:
        return None, f"nvpmodel -q {'says' if good else 'fails:'} {_last(said)}"
    return match.group(1), None


def modes(root: Path = ROOT) -> dict[str, int]:
    """The number of each mode by its name; empty where nvpmodel does not list them."""
    nvpmodel = program(root, "nvpmodel")
    if nvpmodel is None:
        return {}
    said = ran([str(nvpmodel), "-p", "--verbose"])[1]
    return {name: int(number) for number, name in re.findall(r"POWER_MODEL:?\s+ID=(\d+)\s+NAME=(\S+)", said)}


class PowerMode:
    """The mode as it was found, so that it is put back."""

    def __init__(self, root: Path = ROOT) -> None:
        self._root = root
        self._found: str | None = None

    def set(self, name: str) -> str:
        """Set the mode of this name; returns the one that was found.

        Raises:
            SurroundingsError: if there is no such mode, or setting it is refused: in one sentence, with what to do.
        """
        was, why = mode(self._root)
        if was is None:
            raise SurroundingsError(f"power_mode: {why}")
        if was != name:
            self._set(name)
            if self._found is None:
                self._found = was
        return self._found or was

    def put_back(self) -> None:
        """Set what was found, if it was changed."""
        if self._found is not None:
            found, self._found = self._found, None
            self._set(found)

    def _set(self, name: str) -> None:
        known = modes(self._root)
        if name not in known:
            listed = ", ".join(known) or "none that nvpmodel lists"
            raise SurroundingsError(f"power_mode: there is no mode '{name}'; there are {listed}")
        nvpmodel, sudo = program(self._root, "nvpmodel"), program(self._root, "sudo")
        as_root = [str(sudo), "-n"] if sudo is not None and (os.geteuid() != 0 or self._root != ROOT) else []
        good, said = ran([*as_root, str(nvpmodel), "-m", str(known[name])])
        # It asks before it restarts the machine, and takes silence for no.
        if not good or mode(self._root)[0] != name:
            raise SurroundingsError(
                f"power_mode: {name} was not set ({_last(said)}); set it by hand (sudo nvpmodel -m {known[name]}), or "
                f"let this user do it without a password (in sudoers: NOPASSWD: {nvpmodel})"
            )


def _last(said: str) -> str:
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return lines[-1][:120] if lines else "nothing was said"
