"""A user's own file: a class or a function of it that gives an `nn.Module`.

The file is run as Python, because a recipe names it. A saved network's description holds the file's name and
its SHA-256, never its code and no path of a machine; it is loaded again, from whatever folder, where a file of this
name and this hash has been named by the user: in a recipe, or in the environment variable SEGPRESS_CODE (files and
modules, separated as in PATH). A description alone never makes anything run.
"""

import difflib
import hashlib
import importlib
import importlib.util
import inspect
import json
import traceback
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import field
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass
from torch import nn

from compress.errors import RecipeError, WeightsError
from compress.networks.foreign.adapter import adapted
from compress.networks.foreign.checks import check_repeatable, fault_of
from compress.networks.foreign.head import Head
from compress.networks.foreign.hidden import uncovered
from compress.networks.foreign.named import NAMED, add, entries
from compress.networks.foreign.own_code import importing_siblings, run_file
from compress.networks.foreign.probe import reading_of
from export.errors import first_line

_PATH = "set PYTHONPATH to the folder that holds the package"
_ON_PATH = f"name it by module: (package.file) and {_PATH}"


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class Python:
    """What `build` in a file, or in an installed module, gives when it is called with `args`.

    Give `path` or `module`. Names in a checkpoint are those of the module that it gives.
    """

    path: str | None = None
    """The file, relative to the recipe; other files beside it can be imported by it. Stored as its name alone."""
    module: str | None = None
    """Instead, an installed module: `my_package.networks`."""
    build: str
    """A class or a function in it: `UNet`, `make_net`, `Networks.small`."""
    args: dict[str, Any] = field(default_factory=dict)
    """What it is called with."""
    classes: Annotated[int, Field(ge=1, le=255)]
    """Output channels of what it gives, background included; 1 is a single sigmoid logit."""
    in_channels: Annotated[int, Field(ge=1)] = 3
    dims: Literal[2, 3] = 2
    """2 for images, 3 for volumes."""
    input: tuple[int, ...] | None = None
    """The size it takes, if it takes only one: [224, 224]."""
    head: Head = Head()
    sha256: str | None = None
    """Of the file as it was; found when left out. A file that has changed since is refused."""

    def __post_init__(self) -> None:
        """The file is looked for once, here: what is kept of it is its name and its hash."""
        if (self.path is None) == (self.module is None):
            raise ValueError("give path, a file of yours, or module, an installed module, and not both")
        if self.input is not None and len(self.input) != self.dims:
            raise ValueError(f"input: {list(self.input)} has not {self.dims} sides")
        try:
            json.dumps(self.args)
        except TypeError:
            raise ValueError("args: takes numbers, words, lists and mappings, which a description can keep") from None
        if self.sha256 is None:
            file, digest = named_file(self.path, self.module)
            # Frozen for others: a description that named this machine's folders would be of use nowhere else.
            object.__setattr__(self, "path", None if self.path is None else file.name)
            object.__setattr__(self, "sha256", digest)

    def __call__(self) -> nn.Module:
        """What the file gives, answering with logits_BKHW."""
        return adapted(self)

    def check(self) -> None:
        """Run the file and ask the network, once, or twice where it draws random numbers.

        Raises:
            RecipeError: if it cannot be run, gives no network, or one whose answer cannot be read.
        """
        reading_of(self)
        check_repeatable(self)

    def check_size(self, size: tuple[int, ...]) -> str | None:
        """What is wrong with an input of this size, and what would be right; None if nothing."""
        return fault_of(self, size)

    def unwrapped(self) -> nn.Module:
        """What the file gives."""
        assert self.sha256 is not None
        file = described_file(self.path, self.module, self.sha256)
        with importing_siblings(file) if self.module is None else nullcontext(), _told(file):
            module = _run(file, self.module, self.sha256)
            make = _in(module, self.build, file)
            _check_arguments(make, self.args, self.build, file)
            net = make(**self.args)
        if not isinstance(net, nn.Module):
            raise RecipeError(str(file), [f"{self.build} gave a {type(net).__name__}, not an nn.Module"])
        return uncovered(net, str(file))


def named_file(path: str | None, module: str | None) -> tuple[Path, str]:
    """Where a file or module that the user names is, and its hash; from now on it may be run in this process.

    Raises:
        RecipeError: if it is not there.
    """
    file = _file_of(path, module).absolute()
    try:
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
    except OSError as error:
        raise RecipeError(str(file), [f"cannot be read ({error.strerror})"]) from None
    entry = str(file) if module is None else module
    add(entry)
    return file, digest


def described_file(path: str | None, module: str | None, sha256: str) -> Path:
    """Where a described file is, among those that the user has named.

    Raises:
        WeightsError: if the user has named no such file, or it has changed.
    """
    name = module or str(path)
    changed = None
    for entry in reversed(entries()):
        if entry == module or (path is not None and Path(entry).name == path):
            file = _file_of(None if module else entry, module)
            if file.is_file() and hashlib.sha256(file.read_bytes()).hexdigest() == sha256:
                return file
            changed = file
    if changed is not None:
        raise WeightsError(
            f"{changed}: the file has changed since the network was described (SHA-256 {sha256[:12]}): give it as it "
            "was, run again with --fresh, or, where only weights are loaded, remove the .json beside them"
        )
    raise WeightsError(
        f"the network is built by {name} (SHA-256 {sha256[:12]}), which runs only where you name it: use a recipe with "
        f"network: {{python: ...}}, or set {NAMED} to {'the module' if module else 'the path of the file'}"
    )


def check_described(description: Any) -> None:
    """Whether everything that a description read from a file would run has been named by the user.

    Raises:
        WeightsError: if not.
    """
    if isinstance(description, Mapping):
        options = description.get("python")
        if isinstance(options, Mapping) and "build" in options:
            path, module, sha256 = (options.get(key) for key in ("path", "module", "sha256"))
            if not isinstance(sha256, str) or (path is not None and Path(str(path)).name != path):
                raise WeightsError("the network is built by a file that is not told by its name and its SHA-256")
            described_file(path, module, sha256)
    inside = description.values() if isinstance(description, Mapping) else description
    if isinstance(description, Mapping | list):
        for each in inside:
            check_described(each)


def _file_of(path: str | None, module: str | None) -> Path:
    if module is None:
        file = Path(str(path))
        if not file.is_file():
            raise RecipeError(str(file), ["no such file; path is looked for beside the recipe, then where we are"])
        return file
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError, AttributeError) as error:
        raise RecipeError(
            f"module {module}", [f"cannot be found: {first_line(error)}; where it is yours, {_PATH}"]
        ) from None
    if spec is None or spec.origin is None or not Path(spec.origin).is_file():
        raise RecipeError(
            f"module {module}",
            [f"is not installed here, or is no Python file; path takes a file, and where it is yours, {_PATH}"],
        )
    return Path(spec.origin)


def _run(file: Path, name: str | None, sha256: str) -> ModuleType:
    """The module that the file makes, or the one of this name."""
    return run_file(file, sha256) if name is None else importlib.import_module(name)


def _in(module: ModuleType, name: str, file: Path) -> Any:
    value: Any = module
    for part in name.split("."):
        if not hasattr(value, part):
            own = [key for key, each in vars(module).items() if _is_choice(each, module)]
            near = difflib.get_close_matches(name, own, n=1, cutoff=0.5)
            hint = f"did you mean '{near[0]}'?" if near else f"there are {', '.join(own) or 'none'}"
            raise RecipeError(str(file), [f"has no class or function '{name}'; {hint}"])
        value = getattr(value, part)
    if not callable(value) or isinstance(value, nn.Module):
        raise RecipeError(
            str(file), [f"'{name}' is a {type(value).__name__}, not a class or function that gives a network"]
        )
    return value


def _is_choice(value: Any, module: ModuleType) -> bool:
    return getattr(value, "__module__", None) == module.__name__ and (
        inspect.isfunction(value) or inspect.isclass(value)
    )


def _check_arguments(make: Any, args: Mapping[str, Any], name: str, file: Path) -> None:
    try:
        signature = inspect.signature(make)
    except (ValueError, TypeError):
        # Built in C: it says itself what it takes.
        return
    try:
        signature.bind(**args)
    except TypeError as error:
        takes = ", ".join(signature.parameters) or "nothing"
        raise RecipeError(str(file), [f"{name}: {first_line(error)}; it takes {takes}: correct args"]) from None


class _told:  # noqa: N801  read as a sentence: with _told(file)
    """Whatever a user's code raises becomes one sentence with the line of their file."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __enter__(self) -> None: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: Any) -> None:
        if error is None or isinstance(error, RecipeError | WeightsError | KeyboardInterrupt):
            return
        if isinstance(error, SyntaxError) and error.filename == str(self.file):
            raise RecipeError(str(self.file), [f"line {error.lineno}: not Python: {error.msg}"]) from None
        if isinstance(error, ModuleNotFoundError):
            what = f"needs the package {error.name}, which is not installed here; where it is yours, {_ON_PATH}"
        elif isinstance(error, ImportError):
            what = f"{type(error).__name__}: {first_line(error)}; where it is part of a package, {_ON_PATH}"
        elif isinstance(error, SystemExit):
            what = "ends the program: put what it does when run as a script under if __name__ == '__main__'"
        else:
            what = f"{type(error).__name__}: {first_line(error)}"
        raise RecipeError(str(self.file), [f"{_line(self.file, trace)}{what}"]) from error


def _line(file: Path, trace: Any) -> str:
    frames: Sequence[traceback.FrameSummary] = traceback.extract_tb(trace)
    # By its name: a file of the same content that was run before, elsewhere, is not run again.
    lines = [frame.lineno for frame in frames if Path(frame.filename).name == file.name]
    return f"line {lines[-1]}: " if lines else ""
