"""Clocks of the CPU (cpufreq, kHz) and the GPU (devfreq, Hz), in MHz."""

from __future__ import annotations

from pathlib import Path

from export.remote.runner.card import card
from export.remote.runner.sysfs import ROOT, found, whole

NOTHING = "neither cpufreq nor a devfreq of a GPU tells a clock"
JETSON = "sys/devices/platform/17000000.gpu/devfreq/*"
GPUS = ("gpu", "ga10b", "gv11b", "gp10b", "v3d")
"""What the name of a GPU's devfreq has in it."""


def now(root: Path = ROOT, kind: str = "cpu") -> dict[str, float]:
    """The mean of the CPUs' clocks, and the GPU's; that of a card where one computes."""
    computes = card(kind, root)
    own = None if computes is None else computes.megahertz()
    return {**_told(root, "scaling_cur_freq", "cur_freq"), **({} if own is None else {"card": own})}


def most(root: Path = ROOT, kind: str = "cpu") -> dict[str, float]:
    """The highest that each may take as the machine is set."""
    computes = card(kind, root)
    own = None if computes is None else computes.most_megahertz()
    return {**_told(root, "scaling_max_freq", "max_freq"), **({} if own is None else {"card": own})}


def _told(root: Path, of_cpus: str, of_gpus: str) -> dict[str, float]:
    cpus = [whole(path) for path in found(root, f"sys/devices/system/cpu/cpu[0-9]*/cpufreq/{of_cpus}")]
    gpus = [whole(folder / of_gpus) for folder in _gpus(root)]
    known = {"cpu": [each / 1e3 for each in cpus if each], "gpu": [each / 1e6 for each in gpus if each]}
    return {name: sum(clocks) / len(clocks) for name, clocks in known.items() if clocks}


def _gpus(root: Path) -> list[Path]:
    every = found(root, "sys/class/devfreq/*")
    classed = [folder for folder in every if any(word in folder.name.lower() for word in GPUS)]
    # Some kernels of Jetsons show the device alone.
    return classed or found(root, JETSON) or found(root, JETSON.replace("platform/", "platform/*/"))
