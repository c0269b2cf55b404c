"""However a command ends: one sentence, the right exit code, the trace in a file that is named, and no traceback."""

from __future__ import annotations

import errno
import re
import signal
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import pytest

from compress.cache import claimed
from compress.cli import main
from compress.errors import PassError
from compress.exits import BEGINS_AGAIN, GOES_ON, STOPPED
from compress.networks.foreign import named


def ended(*words: str) -> int:
    """The exit code of a command in this process."""
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as how:
        patch.setattr(sys, "argv", ["compress", *words])
        main()
    assert isinstance(how.value.code, int)
    return how.value.code


def raising(error: BaseException) -> Any:
    """A function that raises this error, whatever it is called with."""

    def fails(*_: Any, **__: Any) -> None:
        raise error

    return fails


@pytest.fixture(autouse=True)
def traces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where traces go when there is no run's folder."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv(named.NAMED, "")
    return tmp_path


@pytest.mark.parametrize("command", ["run", "check", "train", "sensitivity"])
@pytest.mark.parametrize(
    ("error", "code", "told"),
    [
        (RuntimeError("odd\nand more"), 4, "unexpected RuntimeError: odd; please report it: its trace is in"),
        (KeyError("a"), 4, "unexpected KeyError: 'a'"),
        (AssertionError(), 4, "unexpected AssertionError;"),
        (RecursionError("too deep"), 4, "unexpected RecursionError: too deep"),
        (MemoryError(), 4, "there is not enough memory (MemoryError)"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), 4, "there is not enough memory"),
        (SystemExit(0), 4, "unexpected end of the program (0)"),
        (SystemExit(1), 4, "unexpected end of the program (1)"),
        (UserWarning("beware"), 4, "unexpected UserWarning: beware"),
        (EOFError(), 4, "unexpected EOFError"),
        (FileNotFoundError(errno.ENOENT, "none", "x"), 4, "unexpected FileNotFoundError"),
        (OSError(errno.ENOSPC, "full", "x"), 4, "x: could not be written (No space left on device)"),
        (PermissionError(errno.EACCES, "no", "x"), 2, "x: cannot be written (Permission denied)"),
        (BrokenPipeError(errno.EPIPE, "pipe"), 4, "nobody reads what is printed any more"),
        (KeyboardInterrupt(), 130, STOPPED),
        (PassError("int8: no"), 2, "int8: no"),
    ],
)
def test_every_error_is_one_sentence_with_its_exit_code(
    command: str, error: BaseException, code: int, told: str, monkeypatch: Any, capsys: Any
) -> None:
    monkeypatch.setattr("compress.recipe.loading.read_yaml", raising(error))
    assert ended(command, "recipe.yaml") == code
    out, err = capsys.readouterr()
    assert not out
    told = told if command in GOES_ON else told.replace(STOPPED, BEGINS_AGAIN)
    assert err.startswith(f"compress: {told}") and err.count("\n") == 1
    trace = re.search(r"its trace is in (\S+)", err)
    assert bool(trace) == ("report it" in err or "memory" in err)
    if trace:
        assert "Traceback" in Path(trace[1]).read_text()


@pytest.mark.parametrize("words", [("inspect", "x.onnx"), ("schema",)])
def test_inspect_and_schema_do_so_too(words: tuple[str, ...], monkeypatch: Any, capsys: Any) -> None:
    monkeypatch.setattr("compress.commands.inspect.inspect", raising(RuntimeError("odd")))
    monkeypatch.setattr("compress.search.json_schema.schema", raising(RuntimeError("odd")))
    assert ended(*words) == 4
    assert capsys.readouterr().err.startswith("compress: unexpected RuntimeError: odd")


@pytest.mark.parametrize("words", [(), ("chek",), ("check",), ("check", "--no"), ("inspect", "x", "--size")])
def test_words_that_cannot_be_read_exit_2(words: tuple[str, ...], capsys: Any) -> None:
    assert ended(*words) == 2
    out, err = capsys.readouterr()
    assert ("Usage" in out + err or err.startswith("Error:")) and "Traceback" not in err


def test_the_version_is_told(capsys: Any) -> None:
    assert ended("--version") == 0
    assert re.fullmatch(r"segpress \d+\.\d+\.\d+\S*\n", capsys.readouterr().out)


def terminated(*_: Any) -> None:
    """What Python does with SIGTERM: it calls the handler that is set."""
    handler = signal.getsignal(signal.SIGTERM)
    assert callable(handler), "SIGTERM would end the process at once"
    handler(signal.SIGTERM, None)


def test_sigterm_stops_as_ctrl_c_does(monkeypatch: Any, capsys: Any) -> None:
    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr("compress.recipe.loading.read_yaml", terminated)
    assert ended("run", "recipe.yaml") == 128 + signal.SIGTERM
    assert capsys.readouterr().err == f"compress: {STOPPED}\n"
    assert signal.getsignal(signal.SIGTERM) is before


def test_in_a_runs_folder_the_trace_is_in_its_log(tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    def load(*_: Any) -> None:
        with claimed(tmp_path / "run", fresh=False):
            raise ZeroDivisionError("nothing")

    monkeypatch.setattr("compress.recipe.loading.read_yaml", load)
    assert ended("run", "recipe.yaml") == 4
    assert str(tmp_path / "run" / "log.txt") in capsys.readouterr().err
    assert "ZeroDivisionError: nothing" in (tmp_path / "run" / "log.txt").read_text()


@pytest.mark.parametrize(
    "text", ["1 / 0", "raise SystemExit(0)", "raise MemoryError", "import warnings\nwarnings.warn('x')"]
)
def test_an_error_in_a_users_own_code_is_theirs_with_its_line(
    text: str, tmp_path: Path, monkeypatch: Any, capsys: Any
) -> None:
    file = tmp_path / "net.py"
    file.write_text(f"\n{text}\n")
    named.add(str(file))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        monkeypatch.setattr(
            "compress.recipe.loading.read_yaml", lambda *_: exec(compile(file.read_text(), str(file), "exec"), {})
        )
        assert ended("run", "recipe.yaml") == 2
    err = capsys.readouterr().err
    assert err.startswith(f"compress: {file}, line {1 + len(text.splitlines())}: ") and "in your own code" in err


def test_a_library_in_a_users_folder_is_not_their_code(tmp_path: Path, monkeypatch: Any) -> None:
    library = tmp_path / "venv" / "library.py"
    library.parent.mkdir()
    (tmp_path / "net.py").write_text("")
    named.add(str(tmp_path / "net.py"))
    monkeypatch.setattr(named, "not_theirs", lambda: iter([library.parent]))
    try:
        exec(compile("1 / 0", str(library), "exec"), {})
    except ZeroDivisionError as error:
        assert named.line_of(error) is None
