"""A recipe's YAML: safe, its keys words of which none is given twice, each fault with its line."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from compress.errors import RecipeError

KEYS = (
    "name",
    "seed",
    "network",
    "data",
    "passes",
    "compare",
    "postprocess",
    "opset",
    "dynamic",
    "devices",
    "gates",
    "scoring",
    "latency",
    "train",
    "about",
)


def read_yaml(path: Path) -> dict[str, Any]:
    read = read_any(path, "recipe")
    if not isinstance(read, dict):
        raise RecipeError(str(path), [f"a recipe is a list of keys ({', '.join(KEYS[:5])}, ...), each with its value"])
    return read


def read_any(path: Path, what: str) -> Any:
    """Whatever a YAML file holds; `what` it is missed as where it is not there.

    Raises:
        RecipeError: if it cannot be read, or is not YAML: where, and why.
    """
    try:
        return yaml.load(path.read_text(encoding="utf-8"), Loader=Loader)
    except FileNotFoundError:
        raise RecipeError(str(path), [f"no such {what}"]) from None
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(str(path), [f"cannot be read ({error})"]) from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        # A date such as 2024-13-01 is a ValueError.
        raise RecipeError(str(path), [f"not YAML: {_yaml_fault(error)}"]) from None


def _yaml_fault(error: Exception) -> str:
    mark = getattr(error, "problem_mark", None)
    if not isinstance(error, yaml.MarkedYAMLError) or mark is None:
        return " ".join(str(error).split())
    return f"line {mark.line + 1}: {', '.join(part for part in (error.context, error.problem) if part)}"


class Loader(yaml.SafeLoader):
    """Safe YAML whose keys are words, none given twice, and that reads 3e-4 as the number it is."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys: list[Any] = []
        node.value = [(self._as_text(key_node), value) for key_node, value in node.value]
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                fault = "a recipe repeats what it needs: '<<' is not taken"
                raise yaml.constructor.ConstructorError(None, None, fault, key_node.start_mark)
            key = self.construct_object(key_node, deep=True)
            if key in keys:
                raise yaml.constructor.ConstructorError(None, None, f"'{key}' is given twice", key_node.start_mark)
            keys.append(key)
        return {str(key): value for key, value in super().construct_mapping(node, deep).items()}

    def _as_text(self, key: yaml.Node) -> yaml.Node:
        """A key that is a list, such as the colour [255, 0, 0], as its text; Python's keys cannot be lists."""
        if not isinstance(key, yaml.SequenceNode):
            return key
        text = str(self.construct_object(key, deep=True))
        return yaml.ScalarNode("tag:yaml.org,2002:str", text, key.start_mark, key.end_mark)


# YAML 1.1 wants a dot in a float's mantissa and a sign in its exponent; people write 3e-4.
Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?\d+(?:\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
)
