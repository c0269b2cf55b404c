"""What is known before anything is built: where artifacts will be, and on what they will be judged."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from export.floor import Floor


@dataclass(frozen=True, kw_only=True)
class Spot:
    """A runtime on a device, and why nothing can be said of it here."""

    device: str
    backend: str
    unbuilt: str | None
    """Why no artifact is built; None if one is."""
    unmeasured: str | None
    """Why it is not measured; None if it is."""
    unreached: bool = False
    """Whether that is because its host is not reached, without which no run begins."""
    takes_integers: bool
    """Whether the runtime takes what the last step is in, where that is integers or 16 bits."""
    floor: Floor | None = None
    """The time that the network as it comes cannot beat there; None where nothing is known of that."""
    surely: bool = False
    """Whether the last step cannot beat it either: no pass takes operations away."""

    @property
    def title(self) -> str:
        return f"{self.backend} on {self.device}"


@dataclass(frozen=True, kw_only=True)
class Scene:
    """What gates will meet."""

    devices: Sequence[str]
    """Those of the recipe."""
    spots: Sequence[Spot]
    """Every runtime of every device: the baseline is built for each."""
    integers: bool
    """Whether the last step is in integers or 16 bits."""
    last_step: str
    """The step that is judged, such as 01-int8."""
    samples: int
    """Timed runs of each artifact."""
    classes: Sequence[str] | None
    """Foreground classes; None where the data could not be read."""
    tests: int | None
    """Independent test cases; None where the data could not be read."""

    @property
    def judged(self) -> list[Spot]:
        """Where the last step has an artifact: torch, say, only simulates integers and 16 bits."""
        return [spot for spot in self.spots if spot.takes_integers or not self.integers]
