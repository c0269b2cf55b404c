"""One training by several processes: the same network as by one, and a clear word where one of them is lost."""

from __future__ import annotations

import copy
import io
import math
import os
import runpy
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import IO

import numpy as np
import pytest
import torch
from forked import exit_code, forked
from over_ssh import script
from shared_fixtures import tiny_task
from torch import Tensor, nn

from compress.errors import PassError, SurroundingsError
from compress.passes.distill import Distill
from compress.task import Task
from compress.train import loop, parallel, sending


@pytest.fixture
def task(tmp_path: Path, folder: Path, weights: Path, monkeypatch: pytest.MonkeyPatch) -> Task:
    """Seven train cases in batches of three: shares of two and one, and at the end of an epoch of one and one."""
    monkeypatch.setattr(parallel, "_places", lambda: (3, "CPU cores"))
    # In 16 bits the order of additions is seen.
    monkeypatch.setattr(loop, "precision", lambda *_: "32-true")
    task = tiny_task(tmp_path, folder, weights, "distill")
    cases = {**task.data.cases, "train": task.data.cases["train"][:7], "val": task.data.cases["val"][:3]}
    # A run's own notes are known to its process alone.
    return replace(task, data=replace(task.data, cases=cases, batch=3), note=lambda _: None)


def trained(task: Task, devices: int, **options: object) -> Mapping[str, Tensor]:
    """The weights after two epochs with every part of the loss, on views that are kept."""
    parts = {"channels": 1.0, "pairwise": 1.0, "attention": 1.0, "features": 1.0}
    distill = Distill(epochs=2, rate=3e-3, views=1, average=0.0, devices=devices, **parts | options)  # type: ignore[arg-type]
    return distill(damaged(task), task).state_dict()


@torch.no_grad()
def damaged(task: Task) -> nn.Module:
    """The network with noise on its weights, so that training makes it better."""
    net = copy.deepcopy(task.net)
    torch.manual_seed(0)
    for parameter in net.parameters():
        parameter.add_(0.2 * torch.randn_like(parameter))
    for name, parameter in net.named_parameters():
        # Before a batch norm a bias has no slope but what rounding leaves, and Adam makes whole steps of that.
        parameter.requires_grad_(not name.endswith((".0.bias", ".3.bias")))
    return net


def apart(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> float:
    return max((one[name].double() - other[name].double()).abs().max().item() for name in one)


class Forked:
    """A process that was started with pipes, as a copy of this one."""

    def __init__(self, command: Sequence[str], stderr: IO[bytes], **_: object) -> None:
        assert command == [sys.executable, "-m", "compress.train.parallel"]
        (reads, given), (heard, says) = os.pipe(), os.pipe()

        def work() -> None:
            os.close(given)
            os.dup2(says, 1)
            os.dup2(stderr.fileno(), 2)
            sys.stdin, sys.stdout = (os.fdopen(number, mode) for number, mode in ((reads, "r"), (1, "w")))
            parallel.main()

        self.process = forked(work)
        os.close(reads)
        os.close(says)
        self.stdin, self.stdout = os.fdopen(given, "wb"), os.fdopen(heard, "rb")

    def __enter__(self) -> Forked:
        return self

    def __exit__(self, *_: object) -> None:
        self.stdout.close()

    def wait(self, timeout: float = 0) -> int:
        """Its exit code."""
        return exit_code(self.process)

    def kill(self) -> None:
        """It was waited for."""


def test_two_processes_train_what_one_trains(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    alone = trained(task, 1)
    # The next test starts one as it is started.
    monkeypatch.setattr(parallel.subprocess, "Popen", Forked)
    assert apart(alone, damaged(task).state_dict()) > 1e-2
    assert apart(alone, trained(task, 2)) < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize(
    "options", [{}, {"pairwise": 0.0, "attention": 0.0, "features": 0.0}], ids=["inside", "logits"]
)
def test_three_do_too_where_a_batch_has_fewer_cases(task: Task, options: Mapping[str, object]) -> None:
    assert apart(trained(task, 1, **options), trained(task, 3, **options)) < 1e-4


def test_where_one_of_them_ends_it_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "_places", lambda: (2, "CPU cores"))
    script = tmp_path / "work.py"
    script.write_text(
        "import os, torch\n"
        "from compress.train import parallel\n"
        "if parallel.rank() == 1:\n"
        "    os.kill(os.getpid(), 9)\n"
        "parallel.summed(torch.ones(1))\n"
    )
    with pytest.raises(
        SurroundingsError, match=r"training process 2 of 2 ended \(exit code -9\); the same command goes"
    ):
        parallel.by_many(2, partial(runpy.run_path, str(script)))
    assert parallel.size() == 1


def said_by_another(packed: bytes, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    """What a process says that cannot read what to do, and ends with the code for that; here without a process."""
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(packed)))
    with pytest.raises(SystemExit) as ended:
        parallel.main()
    assert ended.value.code == parallel.CANNOT_READ
    return capsys.readouterr().err


def test_what_another_process_cannot_make_again_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(parallel, "_places", lambda: (2, "CPU cores"))
    read_here = ModuleType("read_only_here")
    exec("class Net: pass", vars(read_here))
    member = parallel._Member(rank=1, size=2, meeting=Path("meeting"), threads=1)
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "read_only_here", read_here)
        packed = parallel._packed(member, print, {"net": read_here.Net()})
    said = said_by_another(packed, monkeypatch, capsys)
    with monkeypatch.context() as patch:
        # It says so at once: the real one imports torch before.
        quick = script(
            tmp_path / "python", f"cat > /dev/null; echo {shlex.quote(said)} >&2; exit {parallel.CANNOT_READ}"
        )
        patch.setattr(sys, "executable", quick)
        why = r"cannot be made again in another process \(.*read_only_here.*\); leave devices out"
        with pytest.raises(PassError, match=why):
            parallel.by_many(2, print, net=nn.Identity())
    with pytest.raises(PassError, match="cannot be made again in another process"):
        parallel.by_many(2, print, net=lambda: None)
    # As `binary` does while it recovers.
    computed = nn.utils.parametrize.register_parametrization(nn.Linear(1, 1), "weight", nn.Identity())
    with pytest.raises(PassError, match=r"made again in another process .*parametrized"):
        parallel.by_many(2, print, net=computed)
    assert parallel.size() == 1


class NeedsTorchvision:
    """As networks of smp and torchvision do, where torchvision's compiled operators do not fit this torch."""

    def __reduce__(self) -> tuple[object, ...]:
        return imported_behind_torchvision, ()


def imported_behind_torchvision() -> None:
    raise RuntimeError("\n".join(order))


order: list[str] = []


@pytest.mark.parametrize("used", [True, False])
def test_another_process_has_torchvision_before_it_reads_what_needs_it(
    used: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """And whatever goes wrong as it reads is told as that: the same command would never go on."""
    order[:] = ["read"]
    monkeypatch.setattr(sending, "torchvision", lambda: order.insert(0, "torchvision"))
    monkeypatch.setattr(sys, "modules", {**sys.modules, "torchvision": sys} if used else dict(sys.modules))
    if not used:
        sys.modules.pop("torchvision", None)
    member = parallel._Member(rank=1, size=2, meeting=Path("meeting"), threads=1)
    packed = parallel._packed(member, print, {"net": NeedsTorchvision()})
    assert said_by_another(packed, monkeypatch, capsys) == f"RuntimeError: {'torchvision' if used else 'read'}\n"


def test_a_class_that_no_case_has_is_left_out_of_the_mean_without_a_warning() -> None:
    nothing = math.nan
    assert loop._mean_of_classes(np.array([[0.5, nothing, 0.0], [nothing, nothing, 0.5]])) == 0.375
    assert math.isnan(loop._mean_of_classes(np.full((2, 3), nothing)))


def test_more_processes_than_places_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "_places", lambda: (2, "GPUs"))
    with pytest.raises(PassError, match="devices is 3, but this host has 2 GPUs; give at most as many"):
        parallel.by_many(3, print)
