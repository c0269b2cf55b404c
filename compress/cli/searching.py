"""The command that tries the choices of a recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from compress.cli.options import Cluster, DataRoot, Fresh, Out, RecipePath, console_of_output

commands = typer.Typer()


@commands.command()
def search(
    recipe: RecipePath,
    data: DataRoot = None,
    out: Out = Path("runs"),
    fresh: Fresh = False,
    workers: Annotated[int, typer.Option(min=1, help="Make so many trials at once, each in a process (Ray).")] = 1,
    cluster: Cluster = None,
) -> None:
    """Try the choices of a recipe, and write the best trade-offs as recipes. Exits 0 only if there are any."""
    from compress.cluster import Workers
    from compress.commands.search import search as search_recipe
    from compress.report.search_terminal import show
    from compress.search.loading import load

    found = load(recipe, data)
    folder = out / found.name
    console = console_of_output()

    def say(line: str) -> None:
        console.print(line, markup=False, style="dim")

    record = search_recipe(found, folder, fresh=fresh, say=say, workers=Workers(count=workers, address=cluster))
    show(record, console)
    console.print(f"Report: {folder / 'search.html'} (also search.json, front/)", markup=False)
    raise typer.Exit(record["exit_code"])
