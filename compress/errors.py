"""Every error meant for a person. Anything else that escapes is our own bug.

SegpressError                    exit 2 unless said otherwise
├── RecipeError                  the recipe: a word, an option or a value
├── DataError                    the images, the masks or their split
├── WeightsError                 a checkpoint: missing, damaged, unsafe, or of another network
├── PassError                    a pass that cannot do what it was asked, with the reason
├── ExportError                  the network does not leave torch, or leaves it changed
├── BackendError                 a runtime refuses an artifact
│   └── MissingExtra             ... because its package is not installed
├── NotHere                      exit 3: this host lacks what the measurement needs
└── SurroundingsError            exit 4: disk full, device unreachable
"""

from export.errors import BackendError, ExportError, MissingExtra, NotHere, SegpressError, SurroundingsError

__all__ = [
    "TRACED",
    "BackendError",
    "DataError",
    "ExportError",
    "MissingExtra",
    "NotHere",
    "PassError",
    "RecipeError",
    "SegpressError",
    "SurroundingsError",
    "WeightsError",
]


TRACED = "its trace is in "
"""What the note on an error says whose trace is in a file already."""


class RecipeError(SegpressError):
    """The recipe is wrong; all of its mistakes are listed together, each with its place."""

    def __init__(self, source: str, mistakes: list[str]) -> None:
        self.source, self.mistakes = source, mistakes
        if len(mistakes) == 1:
            super().__init__(f"{source}: {mistakes[0]}")
        else:
            super().__init__(f"{source}: {len(mistakes)} mistakes\n" + "\n".join(f"  {m}" for m in mistakes))

    def __reduce__(self) -> tuple:
        """From a process of a cluster it comes as it was made."""
        return type(self), (self.source, self.mistakes)


class DataError(SegpressError):
    """An image, a mask or the split is wrong; the text names the file."""


class WeightsError(SegpressError):
    """A checkpoint is missing, damaged, unsafe to load, or belongs to another network."""


class PassError(SegpressError):
    """A pass cannot do what the recipe asks of it on this network."""
