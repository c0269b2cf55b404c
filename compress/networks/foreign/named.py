"""The files and modules of their own that a user has named: what may run here, and whose code an error came from."""

import importlib.util
import os
import sysconfig
import traceback
from collections.abc import Iterator
from pathlib import Path

NAMED = "SEGPRESS_CODE"
"""Names the files and modules that the user has named; child processes inherit it."""


def entries() -> list[str]:
    """What the user has named, files by their paths and modules by their names."""
    return [entry for entry in os.environ.get(NAMED, "").split(os.pathsep) if entry]


def add(entry: str) -> None:
    """From now on this file or module may run in this process and in those that it starts."""
    # The one named last is looked at first, where two bear the same name.
    os.environ[NAMED] = os.pathsep.join([*(each for each in entries() if each != entry), entry])


def line_of(error: BaseException) -> str | None:
    """Where in the user's own code an error was raised, or last passed through: "net.py, line 12"; None if nowhere."""
    roots = list(_roots())
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        file = Path(frame.filename)
        if any(_is_of(file, root) for root in roots):
            return f"{file}, line {frame.lineno}"
    return None


def _roots() -> Iterator[Path]:
    """Each file that was named, and the folder beside which its own imports lie; of a module, its package's."""
    for entry in entries():
        path = Path(entry)
        if path.is_file():
            yield path
            yield path.parent
            continue
        try:
            spec = importlib.util.find_spec(entry.partition(".")[0])
        except (ImportError, ValueError, AttributeError):
            continue
        if spec is not None and spec.origin is not None:
            yield Path(spec.origin)
            yield from map(Path, spec.submodule_search_locations or ())


def _is_of(file: Path, root: Path) -> bool:
    if file == root:
        return True
    return file.is_relative_to(root) and not any(
        file.is_relative_to(folder) and not root.is_relative_to(folder) for folder in not_theirs()
    )


def not_theirs() -> Iterator[Path]:
    """Where libraries and we ourselves are, which may lie in a folder of the user's."""
    yield from (Path(sysconfig.get_path(name)) for name in ("stdlib", "purelib", "platlib"))
    ours = Path(__file__).parents[3]
    yield from (ours / "compress", ours / "export")
