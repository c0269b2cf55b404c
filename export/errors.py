"""The root of every error meant for a person, and the ones raised below ONNX.

    SegpressError                    one sentence: where, what is wrong, what would be right
    ├── ExportError                  the network does not leave torch, or leaves it changed
    ├── BackendError                 a runtime refuses to build or to open an artifact
    │   └── MissingExtra             ... because its package is not installed
    ├── NotHere                      this host lacks what a measurement needs (a driver, a device)
    └── SurroundingsError            disk full, device unreachable: nothing the recipe could mend

`compress/errors.py` adds the branches above this floor and draws the whole tree.
"""

REFUSALS = (RuntimeError, ValueError, TypeError, AttributeError, LookupError, AssertionError)
"""What torch, or a network's own Python, raises where it does not take what it is given: there is no common class."""


class SegpressError(ValueError):
    """An error whose text is for a person; its subclass decides the exit code of the command line."""

    exit_code = 2


class ExportError(SegpressError):
    """The network could not be written as ONNX, or the ONNX file does not compute what torch computes."""


class BackendError(SegpressError):
    """A runtime refused to build or open an artifact; the text names the node and the runtime's reason."""


class MissingExtra(BackendError):
    """An optional package is not installed; the text says how to install it."""

    def __init__(self, package: str, extra: str) -> None:
        self.package, self.extra = package, extra
        super().__init__(f"{package} is not installed: pip install 'segpress[{extra}]'")

    def __reduce__(self) -> tuple:
        """From a process of a cluster it comes as it was made."""
        return type(self), (self.package, self.extra)


class NotHere(SegpressError):
    """What is asked for exists, but not on this host; a row with this reason says "not measured"."""

    exit_code = 3


class SurroundingsError(SegpressError):
    """The host failed (disk full, device unreachable); running again may work."""

    exit_code = 4


def first_line(error: BaseException, most: int = 200) -> str:
    """What an error says, in one line of at most so many characters; its type where it says nothing."""
    lines = (line.strip() for line in str(error).splitlines())
    return next((line for line in lines if line), type(error).__name__)[:most].rstrip(".")
