"""What stands for everything in a checkpoint that is no tensor: settings, paths, dates, counters of a training program.

A pickle names what is to be called to make such a thing again. Nothing that it names is ever imported or called here:
each name stands for a class of its own that takes whatever it is given and keeps none of it. What is named by whoever
wants something run (eval, os.system, any function of Python's library that is no plain value) is refused.
"""

from __future__ import annotations

import _compat_pickle
import re
import sys
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from typing import Any

_VALUES = frozenset(
    (
        *("set", "frozenset", "slice", "range", "complex", "bytearray", "bytes", "object", "dict", "list", "tuple"),
        *("int", "float", "str", "bool", "copyreg._reconstructor", "_codecs.encode", "types.SimpleNamespace"),
        *("argparse.Namespace", "functools.partial", "decimal.Decimal", "fractions.Fraction", "uuid.UUID"),
        *("time.struct_time", "re._compile", "zoneinfo.ZoneInfo._unpickle", "string.Template"),
        *("logging.Logger", "logging.getLogger", "random.Random"),
        "getattr",
    )
)
"""Of Python's own library; what has no dot is a builtin."""
_MODULES = ("pathlib", "collections", "datetime", "enum", "ipaddress")
"""Of Python's own library, everything in them is a plain value."""


class Inert:
    """Takes whatever a pickle does to an object, and keeps nothing of it."""

    def __new__(cls, *_: Any, **__: Any) -> Any:
        return super().__new__(cls)

    def __init__(self, *_: Any, **__: Any) -> None: ...

    def __setstate__(self, state: Any) -> None: ...


class Mapped(Inert):
    """The same of something that is filled as mappings are: it becomes one, and tensors in it are found."""

    def __new__(cls, *_: Any, **__: Any) -> Any:
        # torch fills no other kind of mapping.
        return OrderedDict()


class WouldRun(Exception):
    """A harmless name is put to a use that runs something; the argument is the name."""


class Member(Inert):
    """Stands for getattr, by which Python up to 3.11.3 pickles the members of enumerations, and for that alone.

    Raises:
        WouldRun: if it is asked for an attribute of anything that has no stand-in.
    """

    def __new__(cls, *given: Any) -> Any:
        owner, name = given if len(given) == 2 else (None, None)
        inert = isinstance(owner, Inert) or (isinstance(owner, type) and issubclass(owner, Inert))
        if not inert or not isinstance(name, str):
            raise WouldRun("getattr")
        return super().__new__(cls)


def is_harmless(name: str) -> bool:
    """Whether a name in a pickle may be stood in for; "pathlib.PosixPath", a builtin without its module."""
    # Pickles of torch.save have the names that modules had in Python 2: subprocess.run is "commands.run".
    module, _, last = name.rpartition(".")
    module = _compat_pickle.IMPORT_MAPPING.get(module, module)
    module, last = _compat_pickle.NAME_MAPPING.get((module, last), (module, last))
    name = f"{module}.{last}".removeprefix("builtins.").removeprefix(".")
    top = name.partition(".")[0]
    if top == "torch":
        # A layer: the file is a whole network, whose tensors would be lost in what stands for it.
        return False
    if "." not in name or top in sys.stdlib_module_names or top.startswith("_"):
        return name in _VALUES or top in _MODULES or top == "__main__"
    return True


def unknown(refusal: str) -> tuple[str | None, bool]:
    """Which name torch refuses, of which nothing stands there yet; or which stands there and must be a mapping.

    torch's text goes on to advise loading the file all the same: only the name is taken from it.
    """
    found = re.search(r"GLOBAL ([\w.]+)", refusal)
    if found is not None:
        return found[1], False
    filled = re.search(rf"Can only SETITEMS? for .* got <class '{re.escape(__name__)}\.([\w.]+)'>", refusal)
    return (None, False) if filled is None else (filled[1], True)


def stand_ins(names: Mapping[str, bool]) -> Iterator[tuple[type[Inert], str]]:
    """What stands for these names, as torch.serialization.safe_globals takes it; True where it must be a mapping."""
    for name, mapped in names.items():
        # By its own name, which torch tells where it refuses what is done with it.
        kind = Mapped if mapped else Member if name == "getattr" else Inert
        yield type(name, (kind,), {}), name if "." in name else f"builtins.{name}"
