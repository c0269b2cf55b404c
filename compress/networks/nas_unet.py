"""NAS-Unet (Weng et al. 2019, "NAS-Unet: Neural Architecture Search for Medical Image Segmentation", IEEE Access 7)."""

from collections.abc import Iterator, Sequence
from itertools import count
from typing import Annotated, ClassVar

from pydantic import BeforeValidator, ConfigDict, Field
from pydantic.dataclasses import dataclass
from torch import Tensor, nn

from compress.networks.blocks.nas_cell import Genotype, NasCell, genotypes, grouped, state_sizes


def _published(cell: object) -> object:
    """The genotype of this name; anything else as it is."""
    if isinstance(cell, str) and cell not in genotypes():
        raise ValueError(f"no genotype '{cell}'; one of {', '.join(genotypes())}, or its edges down and up")
    return genotypes()[cell] if isinstance(cell, str) else cell


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid"))
class NasUnet:
    """A U-Net of searched cells: a stem that keeps the size, one that halves it, then `depth` halvings more.

    The authors' for promise12 is the default one (485,746 parameters for two classes), for chaos
    `width: 64, depth: 6`, for ultrasound nerves `cell: v3, width: 48, depth: 6`.

    Their head builds a normalization that it does not use; it is built here too (`unused`), so that a
    network has their number of parameters, and no gradient ever reaches it.
    """

    classes: Annotated[int, Field(ge=1, le=255)]
    """Output channels, background included; 1 is a single sigmoid logit."""
    in_channels: Annotated[int, Field(ge=1)] = 1
    width: Annotated[int, Field(ge=1)] = 32
    """Channels of one state of a cell; the stems have four times as many."""
    depth: Annotated[int, Field(ge=2, le=8)] = 5
    """Cells that go down, one halving each; one more goes up."""
    cell: Annotated[Genotype, BeforeValidator(_published)] = Field(default_factory=lambda: genotypes()["v2"])
    """A published genotype by its name (compress/networks/blocks/nas_genotypes.yaml), or one of your own:
    `{down: [[down_conv, 0], [max_pool, 1]], up: [[conv, 0], [up_conv, 1]]}`."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0
    """Chance, in training, that a channel is left out before a convolution of a cell."""
    auxiliary: bool = False
    """In training, a second head of two convolutions on the same features."""
    dims: ClassVar[int] = 2

    def __call__(self) -> nn.Module:
        """A freshly initialised network: logits_BCHW = net(image_BCHW), any floating dtype."""
        return NasUnetModule(self)

    def check_size(self, size: tuple[int, ...]) -> str | None:
        """What is wrong with an input of this (height, width), and what would be right; None if nothing."""
        step = 2 ** (self.depth + 1)
        wanted = [next(side for side in _from(side, step) if self._fits(side)) for side in size]
        if wanted == list(size):
            return None
        return f"its cells halve and double some sizes only, multiples of {step} among them: pad to {_sides(wanted)}"

    def _fits(self, side: int) -> bool:
        genotype, sides = self.cell, [side, (side + 1) // 2]
        for _ in range(self.depth):
            made = set(state_sizes(genotype.down, (sides[-2] + 1) // 2, sides[-1]))
            if len(made) > 1 or 0 in made:
                return False
            sides.append(made.pop())
        below = sides.pop()
        for skip in reversed(sides):
            if set(state_sizes(genotype.up, skip, below)) != {skip}:
                return False
            below = skip
        return True


class NasUnetModule(nn.Module):
    """The network that `NasUnet` describes."""

    def __init__(self, shape: NasUnet) -> None:
        super().__init__()
        genotype, wide = shape.cell, 4 * shape.width
        self.stems = nn.ModuleList(
            nn.Sequential(nn.Conv2d(shape.in_channels, wide, kernel, stride, kernel // 2, bias=False), grouped(wide))
            for kernel, stride in ((1, 1), (3, 2))
        )
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        channels = [wide, wide]
        for _ in range(shape.depth):
            cell = NasCell(genotype.down, (channels[-2], channels[-1]), shape.width, down=True, dropout=shape.dropout)
            self.down.append(cell)
            channels.append(cell.channels)
        below = channels.pop()
        for skip in reversed(channels):
            cell = NasCell(genotype.up, (skip, below), shape.width, down=False, dropout=shape.dropout)
            self.up.append(cell)
            below = cell.channels
        self.head = nn.Conv2d(below, shape.classes, 1, bias=False)
        self.unused = grouped(shape.classes)
        self.auxiliary = _auxiliary(below, shape.classes) if shape.auxiliary else None

    def forward(self, x_BCHW: Tensor) -> Tensor | tuple[Tensor, ...]:
        states = [stem(x_BCHW) for stem in self.stems]
        for cell in self.down:
            states.append(cell(states[-2], states[-1]))
        x_BCHW = states.pop()
        for cell in self.up:
            x_BCHW = cell(states.pop(), x_BCHW)
        if self.training and self.auxiliary is not None:
            return self.head(x_BCHW), self.auxiliary(x_BCHW)
        return self.head(x_BCHW)


def _auxiliary(before: int, classes: int) -> nn.Sequential:
    width = before // 4
    return nn.Sequential(
        nn.Conv2d(before, width, 3, padding=1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.Dropout2d(0.1),
        nn.Conv2d(width, classes, 1),
    )


def _from(side: int, step: int) -> Iterator[int]:
    """This side, then every larger multiple of the step."""
    yield side
    yield from count((side // step + 1) * step, step)


def _sides(size: Sequence[int]) -> str:
    return "x".join(map(str, size))
