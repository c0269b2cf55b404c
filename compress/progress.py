"""Progress on long work: a bar on a terminal, nothing in a log file."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

Item = TypeVar("Item")
Step = Callable[[], None]


def bar(items: Iterable[Item], what: str, total: int) -> Iterator[Item]:
    """The items, with a bar while they are used up."""
    with steps(what, total) as step:
        for item in items:
            yield item
            step()


@contextmanager
def steps(what: str, total: int | None, done: int = 0) -> Iterator[Step]:
    """A bar that moves by one each time the function it gives is called; None has no known end."""
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(what, total=total, completed=done)
        yield lambda: progress.advance(task)
