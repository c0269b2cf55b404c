"""An option that no recipe, benchmark, example or test uses goes: here it is seen who uses which."""

from __future__ import annotations

import ast
import dataclasses
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from docs.architecture import ROOT
from export.registry import named, words

FOLDERS = ("passes", "gates", "data", "postprocess", "networks")
WORDS = [(folder, word) for folder in FOLDERS for word in words(f"compress.{folder}")]
# Options that mean the same under every word of their folder, where one use stands for all; of networks, those that
# every network has, and those of the doors to others' networks.
SHARED = {"passes": (), "networks": ("classes", "in_channels", "dims", "input", "head", "sha256")}
# Of a file of fixed batch: written into a description, never by hand.
FOUND = {"onnx": {"batch"}}
# A step that stands in a text: `prune: {ratio: 0.5, keep: [head]}`.
STEP, OPTION = re.compile(r"(\w+): \{([^{}]*)\}"), re.compile(r"(\w+):")
Uses = Iterator[tuple[str, str]]


@pytest.mark.parametrize(("folder", "word"), WORDS)
def test_every_option_is_used(folder: str, word: str) -> None:
    kind = named(f"compress.{folder}", word)
    shared = {option for other in words(f"compress.{folder}") for option in used(folder, other) & shared_in(folder)}
    unused = options_of(kind) - used(folder, word) - shared - FOUND.get(word, set())
    assert not unused, (
        f"no recipe, benchmark, example or test uses these options of {word}: {', '.join(sorted(unused))}"
    )


def test_what_nobody_uses_is_seen() -> None:
    source = """
Prune(ratio=0.5)
recipe["passes"] = [{"int8": {"calibrate": 8}}]
run("gates: [size_mb: {at_most: 4}]")
Other(ratio=0.5, macs=1)
"""
    uses = set(in_python(ast.parse(source), Path("tests/test_other.py")))
    assert {("Prune", "ratio"), ("int8", "calibrate"), ("size_mb", "at_most"), ("other", "macs")} <= uses
    assert ("Prune", "macs") not in uses and ("prune", "macs") not in uses
    assert set(in_yaml([{"toy": True, "options": {"width": 4}}], Path("unet.yaml"))) >= {("unet", "width")}


def options_of(kind: Any) -> set[str]:
    return {field.name for field in dataclasses.fields(kind) if field.init}


def shared_in(folder: str) -> set[str]:
    if folder in SHARED:
        return set(SHARED[folder])
    return {option for word in words(f"compress.{folder}") for option in options_of(named(f"compress.{folder}", word))}


def used(folder: str, word: str) -> set[str]:
    names = (word, named(f"compress.{folder}", word).__name__)
    # "class" is a keyword of Python: the field that has this option is called class_name.
    return {"class_name" if option == "class" else option for name, option in all_uses() if name in names}


@cache
def all_uses() -> frozenset[tuple[str, str]]:
    """(word or class, option), wherever an option is given."""
    found = set[tuple[str, str]]()
    for folder in ("recipes", "benchmarks", "examples", "tests"):
        for path in (ROOT / folder).rglob("*.yaml"):
            found |= set(in_yaml(yaml.safe_load(path.read_text(encoding="utf-8")), path))
        for path in (ROOT / folder).rglob("*.py"):
            found |= set(in_python(ast.parse(path.read_text(encoding="utf-8")), path))
    return frozenset(found)


def in_yaml(node: Any, path: Path) -> Uses:
    if isinstance(node, list):
        for one in node:
            yield from in_yaml(one, path)
    elif isinstance(node, dict):
        for word, options in node.items():
            # tests/networks has a file for each network, in which its word is not repeated.
            yield path.stem, str(word)
            yield from ((str(word), str(option)) for option in (options if isinstance(options, dict) else ()))
            yield from in_yaml(options, path)


def in_python(tree: ast.AST, path: Path) -> Uses:
    """Of what is not named where it is given, tests/test_<word>.py says the word."""
    subject = path.stem.removeprefix("test_")
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Name(id=name) | ast.Attribute(attr=name), keywords=given):
                yield from ((who, each.arg) for each in given if each.arg for who in (name, subject))
            case ast.Dict(keys=keys, values=values):
                for word, options in zip(keys, values, strict=True):
                    if isinstance(word, ast.Constant):
                        yield subject, str(word.value)
                        yield from ((str(word.value), option) for option in keys_of(options))
            case ast.Constant(value=str(text)):
                yield from ((word, option) for word, given in STEP.findall(text) for option in OPTION.findall(given))


def keys_of(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Dict):
        yield from (str(key.value) for key in node.keys if isinstance(key, ast.Constant))
