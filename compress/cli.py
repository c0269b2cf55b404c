"""The command line: words in, exit code out.

0 every gate holds; 1 a gate fails; 2 the recipe or the input is wrong; 3 nothing fails, but
something is inconclusive or was not measured; 4 the surroundings failed; 130 stopped by Ctrl-C.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Compress a trained segmentation network, build it for its device, and prove what it cost.",
)

RecipePath = Annotated[Path, typer.Argument(help="The recipe, a YAML file.", show_default=False)]
DataRoot = Annotated[Path | None, typer.Option("--data", help="Use this data folder instead of the recipe's.")]
Out = Annotated[Path, typer.Option(help="Where the run's folder is made.")]
Fresh = Annotated[bool, typer.Option("--fresh", help="Start over; forget what is kept.")]


@app.command()
def run(recipe: RecipePath, data: DataRoot = None, out: Out = Path("runs"), fresh: Fresh = False) -> None:
    """Compress, build, measure and judge. Exits 0 only if every gate holds."""
    from rich.console import Console

    from compress.recipe import load
    from compress.report.terminal import show
    from compress.run import run as run_recipe

    loaded = load(recipe, data)
    folder = out / loaded.name
    # A pipe has no width of its own, and 80 columns break the tables.
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 110)
    report = run_recipe(loaded, folder, fresh=fresh, say=lambda line: console.print(line, markup=False, style="dim"))
    show(report.as_dict(), console)
    console.print(f"Report: {folder / 'report.html'} (also report.md, report.json)", markup=False)
    raise typer.Exit(report.exit_code)


@app.command()
def train(recipe: RecipePath, data: DataRoot = None, out: Out = Path("runs"), fresh: Fresh = False) -> None:
    """Train the recipe's network; writes net.safetensors and net.json into the run's folder."""
    from compress.recipe import load
    from compress.train.start import train as train_recipe

    loaded = load(recipe, data)
    weights = train_recipe(loaded, out / loaded.name, fresh=fresh, say=typer.echo)
    typer.echo(f"Weights: {weights}")


@app.command()
def check(recipe: RecipePath, data: DataRoot = None) -> None:
    """Check a recipe without running it."""
    from compress.recipe import load

    loaded = load(recipe, data)
    steps = " -> ".join(word for word, _ in loaded.passes) or "no pass"
    typer.echo(f"{recipe}: good ({steps}; {len(loaded.gates)} gates; on {', '.join(loaded.devices)})")


@app.command()
def schema() -> None:
    """Print the JSON schema of recipes, for editors that complete YAML."""
    import json

    from compress.recipe import schema as recipe_schema

    typer.echo(json.dumps(recipe_schema(), indent=2))


def main() -> None:
    """The console script."""
    from compress.errors import SegpressError
    from export.files import cannot_write

    try:
        app()
    except SegpressError as error:
        sys.exit(_refuse(str(error), error.exit_code))
    except OSError as error:
        if error.errno is None:
            raise
        told = cannot_write(Path(error.filename or "a file"), error)
        sys.exit(_refuse(str(told), told.exit_code))
    except KeyboardInterrupt:
        sys.exit(_refuse("stopped; the same command goes on from the last finished step", 130))


def _refuse(text: str, code: int) -> int:
    sys.stderr.write(f"compress: {text}\n")
    return code
