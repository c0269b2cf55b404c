"""A user's file is run by itself, or as a member of its package; files of the same names do not meet."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from compress.networks.foreign import named
from compress.networks.python import Python

NET = "from torch import nn\n{imports}\ndef build():\n    return nn.Conv2d(1, 2, WIDTH)\n"


@pytest.fixture(autouse=True)
def afresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A folder to be in, of which nothing has been named or imported."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(named.NAMED, "")
    modules, path = dict(sys.modules), list(sys.path)
    yield
    assert sys.path == path
    for name in set(sys.modules) - set(modules):
        del sys.modules[name]
    sys.modules.update(modules)


def written(files: dict[str, str]) -> None:
    for name, text in files.items():
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_text(text)


def width(path: str, **options: Any) -> int:
    """The kernel of the layer that a file builds."""
    net: nn.Module = Python(path=path, build="build", classes=2, **options).unwrapped()
    assert isinstance(net, nn.Conv2d)
    return net.kernel_size[0]


@pytest.mark.parametrize(
    ("path", "imports", "more"),
    [
        ("theirs/net.py", "from .parts import WIDTH", {"theirs/__init__.py": "", "theirs/parts.py": "WIDTH = 3"}),
        ("theirs/net.py", "from theirs.parts import WIDTH", {"theirs/__init__.py": "", "theirs/parts.py": "WIDTH = 3"}),
        ("theirs/net.py", "from parts import WIDTH", {"theirs/__init__.py": "", "theirs/parts.py": "WIDTH = 3"}),
        (
            "src/theirs/nets/net.py",
            "from ..parts import WIDTH",
            {"src/theirs/__init__.py": "", "src/theirs/nets/__init__.py": "", "src/theirs/parts.py": "WIDTH = 3"},
        ),
        ("spaces/net.py", "from .parts import WIDTH", {"spaces/parts.py": "WIDTH = 3"}),
        ("spaces/nets/net.py", "from spaces.parts import WIDTH", {"spaces/parts.py": "WIDTH = 3"}),
        (
            "theirs/net.py",
            "from .parts import WIDTH",
            {"theirs/__init__.py": "import no_such_package", "theirs/parts.py": "WIDTH = 3"},
        ),
        ("theirs/net.py", "from . import WIDTH", {"theirs/__init__.py": "WIDTH = 3"}),
        ("theirs/__init__.py", "from .parts import WIDTH", {"theirs/parts.py": "WIDTH = 3"}),
        ("json/net.py", "from .parts import WIDTH", {"json/__init__.py": "", "json/parts.py": "WIDTH = 3"}),
        ("alone/net.py", "from parts import WIDTH", {"alone/parts.py": "WIDTH = 3"}),
    ],
)
def test_a_file_is_run_as_a_member_of_its_package(path: str, imports: str, more: dict[str, str]) -> None:
    written({path: NET.format(imports=imports), **more})
    assert width(path) == 3
    assert width(path) == 3, "and once more from what is there"
    assert "dumps" in vars(sys.modules["json"])


@pytest.mark.parametrize(
    "imports", ["from .parts import WIDTH", "from theirs.parts import WIDTH", "from parts import WIDTH"]
)
def test_two_networks_of_the_same_names_do_not_meet(imports: str) -> None:
    for number in (1, 2):
        folder = f"{number}/theirs"
        parts = {f"{folder}/parts.py": f"WIDTH = {number}", f"{folder}/__init__.py": ""}
        written({f"{folder}/net.py": f"# {number}\n{NET.format(imports=imports)}", **parts})
    assert [width(f"{number}/theirs/net.py") for number in (1, 2, 1)] == [1, 2, 1]


def test_a_class_stays_itself_when_it_is_built_twice() -> None:
    text = "from torch import nn\nclass Net(nn.Conv2d):\n    def __init__(self):\n        super().__init__(1, 2, 1)\n"
    written({"theirs/net.py": text, "theirs/__init__.py": ""})
    network = Python(path="theirs/net.py", build="Net", classes=2)
    assert type(network.unwrapped()) is type(network.unwrapped())


@pytest.mark.parametrize(
    ("options", "imports"),
    [
        ({"path": "net.py"}, "from nowhere.at_all import WIDTH"),
        ({"path": "net.py"}, "from ................ import WIDTH"),
        ({"module": "no_such_package.net"}, ""),
    ],
)
def test_the_way_out_is_told(options: dict[str, str], imports: str) -> None:
    written({"net.py": NET.format(imports=imports)})
    with pytest.raises(ValueError, match="set PYTHONPATH to the folder that holds the package"):
        Python(build="build", classes=2, **options).unwrapped()  # type: ignore[arg-type]
