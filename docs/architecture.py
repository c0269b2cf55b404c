"""Draws docs/architecture.md from the code itself: which room imports which, lazy imports too.

    python -m docs.architecture

A room is a folder of `compress` or `export`, or a file that lies loose in one of them. A room's floor is one above the
highest room that it imports. tests/test_floors.py holds the code to the order of its rooms.
"""

from __future__ import annotations

import ast
import io
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).parent.parent
HERE = Path(__file__).parent
PACKAGES = ("compress", "export")
# Functions whose first argument names a module or a folder of them.
NAMING = ("import_module", "__import__", "find_spec", "named", "words")

Arrows = Mapping[str, frozenset[str]]
"""Of each room, the rooms that it imports."""


@dataclass(frozen=True, kw_only=True)
class Import:
    """One import, wherever in its file it stands."""

    by: str
    what: str
    lazy: bool
    """Done when something is called, or only for the type checker."""
    line: int
    by_word: bool = False
    """Of a folder, one of whose files is asked for by its word."""


def files() -> list[Path]:
    """Every source file of the two packages."""
    return sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))


def module(path: Path) -> str:
    """The module that a file is."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


@cache
def modules() -> frozenset[str]:
    """Every module of the two packages."""
    return frozenset(map(module, files()))


@cache
def imports() -> tuple[Import, ...]:
    """Every import in the two packages."""
    return tuple(each for path in files() for each in imports_of(path.read_text(encoding="utf-8"), module(path)))


def imports_of(source: str, by: str) -> Iterator[Import]:
    """The imports of a module, from its source."""
    tree = ast.parse(source)
    eager = {id(node) for node in tree.body}
    for node in ast.walk(tree):
        for what in named_by(node):
            yield Import(
                by=by,
                what=what,
                lazy=id(node) not in eager,
                line=getattr(node, "lineno", 0),
                by_word=isinstance(node, ast.Call),
            )


def named_by(node: ast.AST) -> list[str]:
    """The modules that a statement or a call imports; `named("compress.passes", word)` imports from that folder."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        assert node.level == 0 and node.module is not None, "imports are absolute here"
        inside = [f"{node.module}.{alias.name}" for alias in node.names]
        return [name if name in modules() else node.module for name in inside]
    if isinstance(node, ast.Call) and node.args:
        called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        if called in NAMING:
            return [text.rstrip(".") for text in [first_text(node.args[0])] if text]
    return []


def first_text(node: ast.expr) -> str:
    """A string, or what an f-string begins with."""
    if isinstance(node, ast.JoinedStr) and node.values:
        node = node.values[0]
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""


def room_of(name: str) -> str:
    """The room that a module is in."""
    return ".".join(name.split(".")[:2])


def arrows() -> Arrows:
    """Which room imports which."""
    found: dict[str, set[str]] = {room_of(name): set() for name in modules() if "." in name}
    for each in imports():
        by, what = room_of(each.by), room_of(each.what)
        if by in found and what in found and by != what:
            found[by].add(what)
    return {room: frozenset(whats) for room, whats in found.items()}


def arrows_between_files() -> Arrows:
    """Which module imports which, wherever in its file the import stands, or only for the type checker.

    Who asks for a file of a folder by its word imports all of them.
    """
    found: dict[str, set[str]] = {name: set() for name in modules()}
    for each in imports():
        inside = {name for name in modules() if name.rpartition(".")[0] == each.what and each.by_word}
        found[each.by] |= ({each.what} & modules() | inside) - {each.by}
    return {name: frozenset(whats) for name, whats in found.items()}


def circles(drawn: Arrows) -> list[str]:
    """Rooms, or modules, that import each other in a loop: one such loop, its first again at its end."""
    try:
        TopologicalSorter(drawn).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def floors(drawn: Arrows) -> dict[str, int]:
    """The floor of each room, 1 for those that import no other."""
    found: dict[str, int] = {}
    for room in TopologicalSorter(drawn).static_order():
        found[room] = 1 + max((found[below] for below in drawn[room]), default=0)
    return found


def lines_in(room: str) -> int:
    """Lines of source in a room."""
    return sum(len(path.read_text(encoding="utf-8").splitlines()) for path in files() if room_of(module(path)) == room)


def page() -> str:
    """The Markdown page, without the picture that it shows."""
    drawn = arrows()
    on = floors(drawn)
    total = sum(map(len, drawn.values()))
    rows = [_row(room, drawn[room], on) for room in _from_the_top(drawn, on)]
    return "\n".join(
        [
            "# The rooms, and which imports which",
            "",
            "`python -m docs.architecture` draws this page from the code. A room is a folder of `compress` or `export`"
            ", or a file that lies loose there; its floor is one above the highest room it imports, wherever in a "
            "file the import stands. tests/test_floors.py fails on an import that points up.",
            "",
            f"{len(drawn)} rooms on {max(on.values())} floors, {total} arrows, none of them up, "
            f"{len(circles(drawn)) or 'no'} circle.",
            "",
            "![Rooms by floor](architecture.svg)",
            "",
            "| floor | room | lines | imports |",
            "|--:|---|--:|---|",
            *rows,
            "",
        ]
    )


def _row(room: str, below: frozenset[str], on: Mapping[str, int]) -> str:
    named = ", ".join(f"`{_path(other)}`" for other in _from_the_top(below, on))
    return f"| {on[room]} | `{_path(room)}` | {lines_in(room)} | {named} |"


def _from_the_top(rooms: Iterable[str], on: Mapping[str, int]) -> list[str]:
    return sorted(rooms, key=lambda room: (-on[room], room))


def _path(room: str) -> str:
    return room.replace(".", "/")


def picture() -> bytes:
    """The drawing (SVG): a floor a line, rooms as wide as their lines of source, arrows that skip no room dark."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "architecture"
    import matplotlib.pyplot as plt
    from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

    drawn = arrows()
    on = floors(drawn)
    top = max(on.values())
    figure, axes = plt.subplots(figsize=(13, 1.0 * top))
    at: dict[str, tuple[float, float, float]] = {}
    for floor in range(1, top + 1):
        rooms = sorted((room for room in drawn if on[room] == floor), key=lambda room: (room.partition(".")[0], room))
        widths = [max(0.9, 0.11 * len(_title(room))) + lines_in(room) / 9000 for room in rooms]
        left = (12 - sum(widths) - 0.25 * (len(rooms) - 1)) / 2
        for room, width in zip(rooms, widths, strict=True):
            at[room] = (left + width / 2, float(floor), width)
            left += width + 0.25
    for room, below in drawn.items():
        near = {each for each in below if not any(each in _reached(drawn, other) for other in below - {each})}
        for other in sorted(below):
            x, y, _ = at[room]
            to_x, to_y, _ = at[other]
            axes.add_patch(
                FancyArrowPatch(
                    (x, y - 0.2),
                    (to_x, to_y + 0.2),
                    arrowstyle="-|>",
                    mutation_scale=7,
                    linewidth=1.0 if other in near else 0.5,
                    color="#3b5b92" if other in near else "#c9d1dd",
                    connectionstyle=f"arc3,rad={0.06 if to_x >= x else -0.06}",
                    zorder=2 if other in near else 1,
                )
            )
    for room, (x, y, width) in at.items():
        colour = "#eaf2e3" if room.startswith("export") else "#e8eef7"
        axes.add_patch(
            FancyBboxPatch(
                (x - width / 2, y - 0.2), width, 0.4, boxstyle="round,pad=0.02", fc=colour, ec="#44546a", zorder=3
            )
        )
        axes.text(x, y, _title(room), ha="center", va="center", fontsize=8, zorder=4)
    axes.set_xlim(-0.5, 12.5)
    axes.set_ylim(0.4, top + 0.6)
    axes.axis("off")
    file = io.BytesIO()
    figure.savefig(file, format="svg", bbox_inches="tight", metadata={"Date": None})
    plt.close(figure)
    return file.getvalue()


def _title(room: str) -> str:
    package, _, name = room.partition(".")
    return name if package == "compress" else f"export/{name}"


def _reached(drawn: Arrows, room: str) -> set[str]:
    """Every room that one imports, by whatever way."""
    found: set[str] = set()
    waiting = [room]
    while waiting:
        for below in drawn[waiting.pop()] - found:
            found.add(below)
            waiting.append(below)
    return found


if __name__ == "__main__":
    (HERE / "architecture.svg").write_bytes(picture())
    (HERE / "architecture.md").write_text(page(), encoding="utf-8")
