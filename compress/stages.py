"""The network after each step, saved as it is made, and loaded only when something needs it."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cached_property
from pathlib import Path

from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from compress.kept import Kept, key_of
from compress.passes.word import Pass
from compress.task import Task
from compress.weights import Description, load_net, save_net
from export.files import make_folder, sha256
from export.quantized import Quantized

Log = Callable[[str], None]


class Stage:
    """One step's network: `baseline`, `01-int8`, ..."""

    def __init__(self, *, name: str, key: str, path: Path, params: int, macs: int) -> None:
        self.name, self.key, self.path = name, key, path
        self.params, self.macs = params, macs

    @cached_property
    def net(self) -> nn.Module:
        """The network, loaded from its description and weights; nothing else of the run is needed."""
        return load_net(self.path)


def baseline(task: Task, key: str, kept: Kept, log: Log) -> Stage:
    """The network as it came, saved like every other step."""
    return _stage("baseline", key, lambda: task.net, task, kept, log)


def after(step: Pass, word: str, number: int, before: Stage, task: Task, kept: Kept, log: Log) -> Stage:
    """The network after one more pass."""
    key = key_of(before.key, word, step)

    def make() -> nn.Module:
        begun = time.perf_counter()
        net = step(before.net, task)
        log(f"{number:02d}-{word}: done in {time.perf_counter() - begun:.1f} s")
        return net

    return _stage(f"{number:02d}-{word}", key, make, task, kept, log)


def _stage(name: str, key: str, make: Callable[[], nn.Module], task: Task, kept: Kept, log: Log) -> Stage:
    path = kept.folder / "steps" / name / "net.safetensors"

    def work() -> dict[str, object]:
        net = make()
        make_folder(path.parent)
        save_net(
            net,
            Description(
                network=net.description,  # type: ignore[arg-type]
                classes=task.data.class_names,
                normalization=task.data.normalization,
                size=task.data.fit.size,
            ),
            path,
        )
        return {"params": parameters(net), "macs": macs(net, task), "sha256": sha256(path)}

    record = kept.value(name, key, work)
    if not path.is_file() or sha256(path) != record["sha256"]:
        log(f"{name}: the kept network is gone or was changed; making it again")
        record = kept.value(name, key_of(key, "again", time.time_ns()), work)
    return Stage(name=name, key=key, path=path, params=record["params"], macs=record["macs"])


def parameters(net: nn.Module) -> int:
    """The number of weights, biases and norm parameters."""
    return sum(parameter.numel() for parameter in net.parameters())


def macs(net: nn.Module, task: Task) -> int:
    """Multiply-accumulates for one image; integers count like floats."""
    counted = net.graph if isinstance(net, Quantized) else net
    with FlopCounterMode(display=False) as counter:
        counted(task.example)
    return counter.get_total_flops() // 2
