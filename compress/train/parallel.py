"""One training by several processes, each of which runs the network on its share of every batch.

Answers are put together before the loss is taken, so that it is that of the whole batch, whatever loss it is; batch
norms take their statistics over all shares; gradients are added up. What is trained so is what one process trains, but
for rounding. The first of the processes is the one that asked: it alone logs and writes.

Each has a GPU where there are some, else its share of the CPU's cores. All of them are on this host.

Legend: B batch, C channels, S one or more axes of pixels.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from compress.errors import PassError, SurroundingsError
from compress.train.fast_batch_norm import computed_by
from compress.train.sending import CannotBeSent, packed, unpacked
from export.host import usable_cpus

_Norm = nn.modules.batchnorm._BatchNorm
READY = b"ready\n"
"""What a process says when it has read what to do."""
CANNOT_READ = 3
"""The exit code of one that cannot."""


def rank() -> int:
    """Which of the processes this is; 0 is the one that logs and writes."""
    return dist.get_rank() if _joined() else 0


def size() -> int:
    """How many processes train together."""
    return dist.get_world_size() if _joined() else 1


def _joined() -> bool:
    # Some builds of torch for small devices come without it.
    return dist.is_available() and dist.is_initialized()


def device() -> int | list[int]:
    """What Fabric calls this process's device: one, or the one GPU that is its own."""
    return [rank()] if torch.cuda.is_available() else 1


# --- starting them ---


@dataclass(frozen=True, kw_only=True)
class _Member:
    """What a process is told of the others."""

    rank: int
    size: int
    meeting: Path
    """The file in which they find each other."""
    threads: int

    @contextmanager
    def joined(self) -> Iterator[None]:
        """While open, this process is one of them."""
        # They are all on this host; a host's own name may lead nowhere.
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
        had = torch.get_num_threads()
        torch.set_num_threads(self.threads)
        if torch.cuda.is_available():
            torch.cuda.set_device(self.rank)
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo",
            init_method=f"file://{self.meeting}",
            rank=self.rank,
            world_size=self.size,
        )
        try:
            yield
        finally:
            dist.destroy_process_group()
            torch.set_num_threads(had)


def by_many(count: int, work: Callable[..., Any], **given: Any) -> Any:
    """What `work(**given)` returns here, while `count - 1` other processes do the same.

    Raises:
        PassError: if there are fewer GPUs, or fewer cores, than processes; or another process cannot make what is given
            again, such as a network whose class is in a file that only this one has read.
        SurroundingsError: if one of the other processes ends too early.
    """
    if not dist.is_available():
        raise PassError(
            f"training: devices is {count}, but this torch was built without torch.distributed; leave it out"
        )
    there, what = _places()
    if count > there:
        raise PassError(f"training: devices is {count}, but this host has {there} {what}; give at most as many")
    with TemporaryDirectory() as folder, ExitStack() as stack:
        members = [
            _Member(rank=each, size=count, meeting=Path(folder) / "meeting", threads=max(1, usable_cpus() // count))
            for each in range(count)
        ]
        others = [
            stack.enter_context(_started(member, _packed(member, work, given), Path(folder) / f"{member.rank}"))
            for member in members[1:]
        ]
        for other in others:
            other.wait_for_it()
        try:
            with members[0].joined():
                return work(**given)
        except RuntimeError as error:
            for other in others:
                other.tell(error)
            raise


def _packed(member: _Member, work: Callable[..., Any], given: Mapping[str, Any]) -> bytes:
    """What it is and does."""
    # It tells nobody anything; and what this one tells may be known here alone.
    given = {**given, "log": _quiet} if "log" in given else given
    try:
        return packed((member, work, given))
    except CannotBeSent as error:
        raise _cannot_be_sent(member.size, str(error)) from None


def _cannot_be_sent(count: int, why: str) -> PassError:
    return PassError(
        f"training: devices is {count}, but what is trained cannot be made again in another process ({why}); leave "
        "devices out"
    )


def _places() -> tuple[int, str]:
    if torch.cuda.is_available():
        return torch.cuda.device_count(), "GPUs"
    return usable_cpus(), "CPU cores"


@dataclass(frozen=True, kw_only=True)
class _Other:
    """A process that was started, and where it says what went wrong."""

    member: _Member
    process: subprocess.Popen[bytes]
    said: Path

    def wait_for_it(self) -> None:
        """Wait until it has read what to do; one that never will would be waited for in vain by all the others."""
        assert self.process.stdout is not None
        if self.process.stdout.readline() != READY:
            code = self.process.wait()
            if code == CANNOT_READ:
                raise _cannot_be_sent(self.member.size, self._last_line())
            raise self._ended(code)

    def tell(self, error: Exception) -> None:
        """Raise what ended the process, if it ended by itself."""
        with suppress(subprocess.TimeoutExpired):
            raise self._ended(self.process.wait(timeout=5)) from error

    def _ended(self, code: int) -> SurroundingsError:
        why = self._last_line() if code > 0 else ""
        return SurroundingsError(
            f"training process {self.member.rank + 1} of {self.member.size} ended ({why or f'exit code {code}'}); the "
            "same command goes on after the last whole epoch"
        )

    def _last_line(self) -> str:
        lines = [line for line in self.said.read_text(errors="replace").splitlines() if line.strip()]
        return lines[-1] if lines else ""


@contextmanager
def _started(member: _Member, job: bytes, said: Path) -> Iterator[_Other]:
    with (
        said.open("wb") as errors,
        # In a group of its own: what Ctrl-C stops is this process, which then ends the others.
        subprocess.Popen(
            [sys.executable, "-m", "compress.train.parallel"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            process_group=0,
        ) as process,
    ):
        try:
            assert process.stdin is not None
            with suppress(BrokenPipeError):
                process.stdin.write(job)
                process.stdin.close()
            yield _Other(member=member, process=process, said=said)
            with suppress(subprocess.TimeoutExpired):
                process.wait(timeout=30)
        finally:
            process.kill()


def _quiet(_: str) -> None:
    """The log of all but the first."""


def main() -> None:
    """Be one of the processes: what to do comes from the one that started it."""
    try:
        member, work, given = unpacked(sys.stdin.buffer.read())
    except CannotBeSent as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(CANNOT_READ)
    os.write(sys.stdout.fileno(), READY)
    # Nobody reads what is printed from here on.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    with member.joined():
        work(**given)


# --- sharing a batch ---

_shares: list[int] = []
"""Of the batch that runs: how many of its cases each process has; none where each has all."""


def share(count: int) -> slice:
    """Which of so many cases are this process's; all of them, where there are too few for everyone to have one."""
    shares = _split(count)
    return slice(sum(shares[: rank()]), sum(shares[: rank() + 1])) if shares else slice(None)


def _split(count: int) -> list[int]:
    many = size()
    return [count // many + (each < count % many) for each in range(many)] if 1 < many <= count else []


@contextmanager
def shared(net: nn.Module) -> Iterator[None]:
    """While open, the network is called on whole batches, runs on its share of them, and answers for the whole."""
    if size() == 1:
        yield
        return

    def before(_: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...]:
        image, *others = given
        _shares[:] = _split(len(image))
        return image[share(len(image))], *others

    def after(_: nn.Module, __: Any, answer: Any) -> Any:
        return tree_map_only(Tensor, gathered, answer)

    handles = [net.register_forward_pre_hook(before), net.register_forward_hook(after)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def gathered(part: Tensor) -> Tensor:
    """What all processes have of a batch, in its order; `part` itself where each has all."""
    return _Gathered.apply(part, tuple(_shares)) if size() > 1 and _shares else part


def put_together(part: Tensor, count: int) -> Tensor:
    """The `count` cases of a batch, of which `part` is this process's share."""
    _shares[:] = _split(count)
    return gathered(part)


class _Gathered(torch.autograd.Function):
    """Every process takes the same loss of what is put together, so that each gives back its share of the slope."""

    @staticmethod
    def forward(ctx: Any, part: Tensor, shares: tuple[int, ...]) -> Tensor:
        ctx.first, ctx.count = sum(shares[: rank()]), len(part)
        # Collectives take pieces of one size.
        padded = torch.zeros((max(shares), *part.shape[1:]), dtype=part.dtype, device=part.device)
        padded[: len(part)] = part
        pieces = [torch.empty_like(padded) for _ in shares]
        # As bytes: gloo does not know every type of number.
        dist.all_gather([piece.view(torch.uint8) for piece in pieces], padded.view(torch.uint8))
        return torch.cat([piece[:count] for piece, count in zip(pieces, shares, strict=True)])

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, None]:
        return slope[ctx.first : ctx.first + ctx.count], None


class _Summed(torch.autograd.Function):
    @staticmethod
    def forward(_: Any, value: Tensor) -> Tensor:
        return summed(value)

    @staticmethod
    def backward(_: Any, slope: Tensor) -> Tensor:
        return summed(slope)


@torch.no_grad()
def summed(value: Tensor) -> Tensor:
    """The sum over all processes; without a gradient."""
    total = value.clone(memory_format=torch.contiguous_format)
    if size() > 1:
        dist.all_reduce(total)
    return total


@torch.no_grad()
def add_up_gradients(net: Iterable[nn.Parameter], beside: Iterable[nn.Parameter]) -> None:
    """Give each process the gradients of the whole batch.

    Args:
        net: parameters of the network, which each process ran on its share.
        beside: those of what comes after it, which each process ran on the whole.
    """
    if size() == 1:
        return
    _average(net, 1 if _shares else size())
    _average(beside, size())


def _average(parameters: Iterable[nn.Parameter], count: int) -> None:
    slopes = [parameter.grad for parameter in parameters if parameter.grad is not None]
    if not slopes:
        return
    flat = summed(torch.cat([slope.reshape(-1) for slope in slopes])) / count
    for slope, part in zip(slopes, flat.split([slope.numel() for slope in slopes]), strict=True):
        slope.copy_(part.view(slope.shape))


# --- batch norms ---


@contextmanager
def shared_batch_norms(net: nn.Module) -> Iterator[None]:
    """While open, the network's batch norms take their statistics over all shares of a batch.

    torch's own SyncBatchNorm takes GPUs alone.
    """
    with computed_by(_normalized, [module for module in net.modules() if isinstance(module, _Norm)]):
        yield


def _normalized(norm: _Norm, given_BCS: Tensor) -> Tensor:
    if not norm.training or not _shares:
        return type(norm).forward(norm, given_BCS)
    axes = [axis for axis in range(given_BCS.dim()) if axis != 1]
    wide = (1, -1, *[1] * (given_BCS.dim() - 2))
    values = given_BCS.float()
    count = float(summed(values.new_tensor(values.numel() / values.shape[1])))
    mean_C = _Summed.apply(values.sum(axes)) / count
    centred = values - mean_C.view(wide)
    variance_C = _Summed.apply(centred.square().sum(axes)) / count
    _remember(norm, mean_C, variance_C * (count / (count - 1)))
    normalized = centred * (variance_C + norm.eps).rsqrt().view(wide)
    if norm.affine:
        normalized = normalized * norm.weight.view(wide) + norm.bias.view(wide)
    return normalized.to(given_BCS.dtype)


@torch.no_grad()
def _remember(norm: _Norm, mean_C: Tensor, variance_C: Tensor) -> None:
    if norm.running_mean is None or norm.running_var is None or norm.num_batches_tracked is None:
        return
    norm.num_batches_tracked.add_(1)
    momentum = 1 / float(norm.num_batches_tracked) if norm.momentum is None else norm.momentum
    norm.running_mean.lerp_(mean_C, momentum)
    norm.running_var.lerp_(variance_C, momentum)


if __name__ == "__main__":
    main()
