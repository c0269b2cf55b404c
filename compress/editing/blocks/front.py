"""What each of several budgets would lose, from the same trained blocks: as sentences, a table and a plot."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from export.files import make_folder, write_bytes


@dataclass(frozen=True, kw_only=True)
class Point:
    """One budget, met."""

    asked: float
    """As a recipe has it."""
    share: float
    """What the network costs, of what it cost as it came."""
    cost: str
    """The same in words."""
    dice: float
    """On validation cases, before any recovery."""
    lost: float
    """Of the overlap with the trained network's probabilities."""


@dataclass(frozen=True, kw_only=True)
class Front:
    """The points of one search, the dearest first."""

    word: str
    """The budget's name in a recipe."""
    points: Sequence[Point]
    began: float
    """The validation Dice of the network as it came."""

    def told(self) -> Iterator[str]:
        """A sentence for each point, with the line of a recipe that gives it: what was trained is kept."""
        for each in self.points:
            yield (
                f"blocks: front: `{self.word}: {each.asked:g}`, the other options as they are, gives {each.cost} "
                f"({each.share:.1%}) and, before recovery, validation Dice {each.dice:.4f} ({self.began:.4f} as it "
                f"came; overlap lost {each.lost:.4f})"
            )

    def write(self, folder: Path, name: str) -> str:
        """A table and a plot in a folder; where, in a sentence."""
        rows = [f"{each.asked:g},{each.share:.4f},{each.dice:.4f},{each.lost:.4f}" for each in self.points]
        table = "\n".join([f"{self.word},share of the cost,validation Dice,overlap lost", *rows, ""])
        write_bytes(make_folder(folder) / f"{name}.csv", table.encode())
        self._draw(folder / f"{name}.svg")
        return f"blocks: front: {folder / name}.csv and .svg have all {len(self.points)} points"

    def _draw(self, path: Path) -> None:
        # Only here: importing it takes time and memory.
        from matplotlib.figure import Figure

        figure = Figure(figsize=(5.2, 3.6), layout="constrained")
        axes = figure.subplots()
        axes.axhline(self.began, color="#8b95a5", lw=1, label="as it came")
        axes.plot([each.share for each in self.points], [each.dice for each in self.points], "o-", color="#0072b2")
        for each in self.points:
            axes.annotate(f"{each.asked:g}", (each.share, each.dice), textcoords="offset points", xytext=(4, 4))
        axes.set(xlabel=f"cost ({self.word}), of what it was", ylabel="validation Dice before recovery")
        axes.grid(alpha=0.3)
        axes.legend(frameon=False)
        figure.savefig(path, format="svg", metadata={"Date": None})
