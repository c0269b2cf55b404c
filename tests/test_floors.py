"""Imports point down, lazy ones included; and one vendor is one file."""

from __future__ import annotations

import ast
import fnmatch
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# From the top down, a room a line: a module may import from its own room and from those below. A room is a folder, or a
# file that lies loose in `compress` or `export`.
FLOORS = (
    "compress.__main__",
    "compress.cli",
    "compress.exits",
    "compress.commands",
    "compress.pipeline",
    "compress.recipe",
    "compress.report",
    "compress.gates",
    "compress.gates.judging",
    "compress.passes",
    "compress.editing.pruning",
    "compress.editing",
    "compress.train",
    "compress.storage",
    "compress.networks",
    "compress.networks.foreign",
    "compress.networks.blocks",
    "compress.contracts",
    "compress.task",
    "compress.cache",
    "compress.postprocess",
    "compress.postprocess.applying",
    "compress.data",
    "compress.data.dataset",
    "compress.measure",
    "compress.progress",
    "compress.errors",
    "compress",
    # Below here is ONNX and what runs it.
    "export.backends",
    "export.deviation",
    "export.to_onnx",
    "export.quantization",
    "export.rewrites",
    "export.layers",
    "export.capture",
    "export.functional",
    "export.graph",
    "export.modules",
    "export.artifact",
    "export.registry",
    "export.devices",
    "export.device",
    "export.instruction_set",
    "export.files",
    "export.errors",
    "export",
)

# Imports that point up, each with its reason.
UPWARD: dict[tuple[str, str], str] = {}

# Vendors whose objects never leave their file.
VENDORS = {
    "onnxruntime": "export/backends/onnxruntime.py",
    "openvino": "export/backends/openvino.py",
    "tensorrt*": "export/backends/tensorrt.py",
    "nncf": None,
    "torch_pruning": "compress/passes/prune.py",
    "tensorly": "compress/passes/lowrank.py",
    "segmentation_models_pytorch": "compress/networks/smp.py",
    "nibabel": "compress/data/nifti.py",
    "timm": "compress/networks/foreign/timm_encoder.py",
    "torchvision": "compress/networks/foreign/torchvision_import.py",
    "nni": None,
}


@dataclass(frozen=True, kw_only=True)
class Import:
    """One import, wherever in its file it stands."""

    by: str
    what: str
    lazy: bool
    """Done when something is called, or only for the type checker."""
    line: int


def files() -> list[Path]:
    return sorted(path for package in ("compress", "export") for path in (ROOT / package).rglob("*.py"))


def module(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


@cache
def modules() -> frozenset[str]:
    return frozenset(map(module, files()))


@cache
def imports() -> tuple[Import, ...]:
    return tuple(found for path in files() for found in imports_of(path.read_text(encoding="utf-8"), module(path)))


def imports_of(source: str, by: str) -> Iterator[Import]:
    tree = ast.parse(source)
    eager = {id(node) for node in tree.body}
    for node in ast.walk(tree):
        for what in named_by(node):
            yield Import(by=by, what=what, lazy=id(node) not in eager, line=getattr(node, "lineno", 0))


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
        if called in ("import_module", "__import__", "find_spec", "named", "words"):
            return [text.rstrip(".") for text in [first_text(node.args[0])] if text]
    return []


def first_text(node: ast.expr) -> str:
    """A string, or what an f-string begins with."""
    if isinstance(node, ast.JoinedStr) and node.values:
        node = node.values[0]
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""


def room(name: str) -> str:
    """The room of a module: its longest prefix in FLOORS."""
    while name not in FLOORS:
        name, dot, _ = name.rpartition(".")
        assert dot, "a module outside compress and export"
    return name


def floor(name: str) -> int:
    return FLOORS.index(room(name))


def ours(name: str) -> bool:
    return name.partition(".")[0] in ("compress", "export")


def test_every_folder_and_every_loose_file_has_a_floor_of_its_own_and_every_floor_is_there() -> None:
    folders = {module(path.parent) for path in files()}
    loose = {name for name in modules() if name.count(".") == 1}
    assert folders | loose == set(FLOORS) and len(FLOORS) == len(set(FLOORS))


def test_only_nouns_that_everybody_needs_lie_loose() -> None:
    assert len([path for path in (ROOT / "compress").glob("*.py") if not path.stem.startswith("__")]) <= 8


def test_imports_point_down() -> None:
    upward = [
        f"{each.by}:{each.line} imports {each.what}"
        for each in imports()
        if ours(each.what) and floor(each.what) < floor(each.by) and (each.by, each.what) not in UPWARD
    ]
    assert not upward, "\n".join(upward)


def test_every_exception_is_still_needed() -> None:
    there = {(each.by, each.what) for each in imports()}
    assert set(UPWARD) <= there
    assert all(floor(what) < floor(by) for by, what in UPWARD)


def test_export_never_imports_compress() -> None:
    assert not [each for each in imports() if each.by.startswith("export") and each.what.split(".")[0] == "compress"]


def test_errors_stand_on_errors_alone() -> None:
    assert {each.what for each in imports() if each.by == "compress.errors"} == {"export.errors"}
    assert {each.what for each in imports() if each.by == "export.errors"} == set()


def test_no_module_needs_itself_to_be_imported() -> None:
    graph: dict[str, set[str]] = {name: set() for name in modules()}
    for each in imports():
        if not each.lazy and each.what in graph:
            graph[each.by].add(each.what)
    TopologicalSorter(graph).prepare()


@pytest.mark.parametrize(("vendor", "place"), VENDORS.items())
def test_one_vendor_is_one_file(vendor: str, place: str | None) -> None:
    users = {each.by for each in imports() if fnmatch.fnmatch(each.what.split(".")[0], vendor)}
    assert users <= ({module(ROOT / place)} if place else set())


@pytest.mark.parametrize("vendor", [vendor for vendor, place in VENDORS.items() if place and vendor != "onnxruntime"])
def test_a_vendor_that_may_be_missing_is_imported_only_when_it_is_used(vendor: str) -> None:
    assert not [each for each in imports() if fnmatch.fnmatch(each.what.split(".")[0], vendor) and not each.lazy]


def test_no_import_escapes_the_search() -> None:
    source = (
        "import compress.commands.run\n"
        "from compress.report import html\n"
        "if TYPE_CHECKING:\n    from compress import progress\n"
        "def use(word):\n"
        "    from compress.errors import DataError\n"
        "    importlib.import_module(f'compress.passes.{word}')\n"
        "    named('compress.networks', word)\n"
        "    importlib.import_module('tensorrt')\n"
    )
    found = {each.what: each.lazy for each in imports_of(source, "x")}
    assert found == {
        "compress.commands.run": False,
        "compress.report.html": False,
        "compress.progress": True,
        "compress.errors": True,
        "compress.passes": True,
        "compress.networks": True,
        "tensorrt": True,
    }
