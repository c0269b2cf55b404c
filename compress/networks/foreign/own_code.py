"""A user's own file, run as Python: by itself, or as a member of the package that it is part of.

Files of two networks may bear the same names, and so may what they import: each gets its own.
"""

from __future__ import annotations

import ast
import importlib
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

from compress.networks.foreign.named import not_theirs

_modules: dict[tuple[str, Path], ModuleType] = {}
"""By hash and path: a class must stay itself when a network is built twice."""
_siblings: dict[Path, dict[str, ModuleType]] = {}
"""What each file imported from its own folder, by names that another file's imports may bear too."""


def run_file(file: Path, sha256: str) -> ModuleType:
    """The module that a file makes; run once in a process for each content of it. Call it `importing_siblings`."""
    key = (sha256, file)
    if key not in _modules:
        depth = _depth(file)
        _modules[key] = _member(file, depth) if depth else _alone(file, sha256)
    return _modules[key]


@contextmanager
def importing_siblings(file: Path) -> Iterator[None]:
    """Files beside the user's own can be imported, as when Python runs it; of a package, its members by their names."""
    root = file.parents[_depth(file)]
    folders = list(dict.fromkeys((str(root), str(file.parent))))
    for other, imported in _siblings.items():
        if other != root:
            _forget(imported)
    sys.modules.update(_siblings.get(root, {}))
    sys.path[:0] = folders
    try:
        yield
    finally:
        for folder in folders:
            if folder in sys.path:
                sys.path.remove(folder)
        _siblings.setdefault(root, {}).update(_from(root))


def _forget(imported: dict[str, ModuleType]) -> None:
    for name, module in imported.items():
        if sys.modules.get(name) is module:
            del sys.modules[name]


def _from(root: Path) -> dict[str, ModuleType]:
    # Of thousands of modules: text is compared, which takes a hundredth of what paths do.
    inside, libraries = f"{root}{os.sep}", tuple(f"{folder}{os.sep}" for folder in not_theirs())

    def is_sibling(module: ModuleType) -> bool:
        file = getattr(module, "__file__", None) or next(iter(getattr(module, "__path__", ())), None)
        if file is None or module.__name__.startswith(("__main__", _PREFIX)):
            return False
        return f"{file}{os.sep}".startswith(inside) and not str(file).startswith(libraries)

    return {name: module for name, module in list(sys.modules.items()) if is_sibling(module)}


_PREFIX = "segpress_python_"


def _alone(file: Path, sha256: str) -> ModuleType:
    module = ModuleType(f"{_PREFIX}{sha256[:12]}")
    module.__file__ = str(file)
    # dataclasses and typing look a class's module up by its name.
    sys.modules[module.__name__] = module
    try:
        exec(compile(file.read_bytes(), str(file), "exec"), module.__dict__)
    except BaseException:
        del sys.modules[module.__name__]
        raise
    return module


def _member(file: Path, depth: int) -> ModuleType:
    """The file as a member of its package; a package whose __init__ cannot be run here is passed through without it."""
    packages = list(file.parents[:depth])[::-1]
    names = [".".join(folder.name for folder in packages[: number + 1]) for number in range(depth)]
    name = names[-1] if file.stem == "__init__" else f"{names[-1]}.{file.stem}"
    importlib.invalidate_caches()
    held = _held(packages[0])
    try:
        try:
            return importlib.import_module(name)
        except ImportError:
            if all(package in sys.modules for package in names) or file.stem == "__init__":
                raise
        for package, folder in zip(names, packages, strict=True):
            if package not in sys.modules:
                sys.modules[package] = ModuleType(package)
                sys.modules[package].__path__ = [str(folder)]
        return importlib.import_module(name)
    finally:
        if held:
            _forget(_from(packages[0].parent))
            sys.modules.update(held)


def _held(package: Path) -> dict[str, ModuleType]:
    """Modules of another package of the same name, taken out of the way for as long as this one is imported."""
    there = sys.modules.get(package.name)
    if there is None or str(package) in [str(Path(path)) for path in getattr(there, "__path__", ())]:
        return {}
    held = {name: each for name, each in sys.modules.items() if name.split(".")[0] == package.name}
    _forget(held)
    return held


def _depth(file: Path) -> int:
    """How many of the folders around a file are packages: by their __init__.py, or by what the file imports."""
    depth = 0
    while (file.parents[depth] / "__init__.py").is_file():
        depth += 1
    wanted = max((_reach(file, each) for each in _imports(file)), default=0)
    deepest = min(max(depth, wanted), len(file.parents) - 1)
    return deepest if all(folder.name.isidentifier() for folder in file.parents[:deepest]) else 0


def _imports(file: Path) -> list[ast.AST]:
    try:
        return list(ast.walk(ast.parse(file.read_bytes())))
    except (SyntaxError, ValueError, OSError):
        return []


def _reach(file: Path, node: ast.AST) -> int:
    """How many folders up an import goes: `from ..parts` two; `from theirs.parts`, in a folder theirs, that far."""
    if isinstance(node, ast.ImportFrom) and node.level:
        return node.level
    names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
    names += [each.name for each in node.names] if isinstance(node, ast.Import) else []
    tops = {name.partition(".")[0] for name in names}
    up = [number for number, folder in enumerate(file.parents[:-1], start=1) if folder.name in tops]
    # A file or folder of that name beside it is nearer.
    near = any((file.parent / top).exists() or (file.parent / f"{top}.py").exists() for top in tops)
    installed = any(top in sys.modules or top in sys.stdlib_module_names for top in tops)
    return 0 if near or installed else min(up, default=0)
