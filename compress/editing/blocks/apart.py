"""Blocks that learn in other processes, some groups of them at once (compress/cluster.py)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from torch import Tensor, nn

from compress.cluster import ALONE, Workers, opened
from compress.editing.blocks.candidates import Candidate
from compress.editing.blocks.learning import Lessons
from compress.errors import PassError
from compress.train.sending import CannotBeSent, packed, unpacked

if TYPE_CHECKING:
    from compress.task import Task


@dataclass(frozen=True, kw_only=True)
class Order:
    """What another process is told to train."""

    net: nn.Module
    task: Task
    steps: int
    blocks: Sequence[Candidate]

    def packed(self) -> bytes:
        """As it is sent.

        Raises:
            PassError: if it cannot be.
        """
        try:
            return packed(self)
        except CannotBeSent as error:
            raise _refused(error) from None


def _refused(why: CannotBeSent) -> PassError:
    return PassError(
        f"blocks: what is trained cannot be made again in another process ({why}); leave --workers and --cluster out"
    )


@dataclass(frozen=True, kw_only=True)
class Learned:
    """What a block has learned."""

    error: float
    state: Mapping[str, Tensor]


def learned(sent: bytes) -> list[Learned]:
    """In the other process: train the blocks of an order.

    Raises:
        PassError: if the order cannot be read there.
    """
    try:
        order = unpacked(sent)
    except CannotBeSent as error:
        raise _refused(error) from None
    with TemporaryDirectory() as scratch:
        lessons = Lessons(net=order.net, task=order.task, steps=order.steps, folder=Path(scratch))
        errors = lessons.learned(order.blocks, lambda: None)
    return [
        Learned(error=error, state=each.block.state_dict()) for each, error in zip(order.blocks, errors, strict=True)
    ]


def errors_of(
    groups: Sequence[Sequence[Candidate]], lessons: Lessons, workers: Workers, step: Callable[[], None]
) -> Iterator[list[float]]:
    """Train groups of blocks in place, here or in other processes at once; the error of each block, group by group.

    What a process that died was training is trained here.

    Args:
        step: called for each block that learns after it was fitted and after each of its steps.

    Raises:
        PassError: if what is trained cannot be made again in another process.
        MissingExtra: if Ray is needed and not installed.
        SurroundingsError: if the cluster cannot be worked with (compress/cluster.py).
    """
    if workers.are_one or len(groups) < 2:
        yield from (lessons.learned(some, step) for some in groups)
        return
    # What keeps files here, or tells a person, is not theirs.
    task = dataclasses.replace(lessons.task, note=print, folder=None, views=None, kept=None, workers=ALONE)
    orders = [Order(net=lessons.net, task=task, steps=lessons.steps, blocks=some).packed() for some in groups]
    with opened(workers, lessons.task.note) as processes:
        for some, answers in zip(groups, processes.each(learned, orders), strict=True):
            if answers is None:
                yield lessons.learned(some, step)
                continue
            for each, answer in zip(some, answers, strict=True):
                each.block.load_state_dict(answer.state)
            for _ in range((1 + lessons.steps) * sum(each.learns for each in some)):
                step()
            yield [answer.error for answer in answers]
