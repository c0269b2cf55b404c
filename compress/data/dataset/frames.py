"""Networks that see an image cropped and resampled, and the ways back to the image as it is in its file.

Legend: K classes, H and W height and width of the original image, h and w those of what the network sees (of volumes,
depth before them).
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol, runtime_checkable

from numpy.typing import NDArray

from compress.data.dataset.restore import Logits
from compress.data.dataset.tiles import Size

Mask = NDArray  # of uint8, as compress/data/dataset/cases.py has it


class Frame(Protocol):
    """Where one network's image lies in the original one."""

    @property
    def size(self) -> Size:
        """Of what the network sees."""
        ...

    def mask(self, mask_HW: Mask) -> Mask:
        """Class indices of the original image, as the network sees it (hw)."""
        ...

    def logits(self, logits_Khw: Logits) -> Logits:
        """Logits at the resolution of the original image, of the part that was not cropped away."""
        ...

    def placed(self, labels: Mask) -> Mask:
        """Labels of that part, with background around them (HW)."""
        ...

    def seen(self, pixels_Chw: Logits) -> Logits:
        """What the network sees as it may be looked at: 0..1."""
        ...


@runtime_checkable
class Framed(Protocol):
    """A reader of such images."""

    def frame(self, path: Path) -> Frame:
        """Where what the network sees of a file lies in it."""
        ...

    def files(self, path: Path) -> tuple[Path, ...]:
        """The files of all channels."""
        ...


def looked_at(pixels_CHW: Logits, frame: Frame | None) -> Logits:
    """What a network sees as it may be looked at: 0..1."""
    return pixels_CHW if frame is None else frame.seen(pixels_CHW)
