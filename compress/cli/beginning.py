"""The commands that a person begins with: init, doctor."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

commands = typer.Typer()


@commands.command()
def init(
    weights: Annotated[
        Path,
        typer.Argument(
            help="The trained network: a checkpoint, an ONNX file, or nnU-Net's results folder.", show_default=False
        ),
    ],
    data: Annotated[Path, typer.Argument(help="The folder of images and masks.", show_default=False)],
    out: Annotated[Path, typer.Option(help="The recipe to write; split.csv lies beside it.")] = Path("recipe.yaml"),
    network: Annotated[
        str | None, typer.Option(help="The network, where its tensors do not tell: 'smp: {arch: Unet, classes: 1}'.")
    ] = None,
    size: Annotated[str | None, typer.Option(help="Height and width of its input, such as 256x256.")] = None,
    normalization: Annotated[
        str | None, typer.Option(help="imagenet, unit (0..1), or means and deviations of pixels in 0..1: 0.4,0.2.")
    ] = None,
    window: Annotated[
        str | None, typer.Option(help="The values of gray images that become black and white: --window=-160,240.")
    ] = None,
    masks: Annotated[
        str | None, typer.Option(help="The class of each stored value: '0: background, 255: polyp'.")
    ] = None,
    classes: Annotated[str | None, typer.Option(help="The names of the classes, background first.")] = None,
    patients: Annotated[
        str | None, typer.Option(help="A regular expression whose group in an image's path is the patient, or none.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the split, and of the recipe.")] = 7,
    force: Annotated[bool, typer.Option("--force", help="Write over what is there.")] = False,
) -> None:
    """Write a recipe for a trained network and a folder of images: what can be seen is found out, the rest is asked."""
    from compress.cli.options import size_of
    from compress.commands.init import Answers
    from compress.commands.init import init as begun

    sides = size_of(size, axes=(2,))
    answers = Answers(
        network=network,
        size=None if sides is None else (sides[0], sides[1]),
        normalization=normalization,
        window=window,
        masks=masks,
        classes=None if classes is None else tuple(name.strip() for name in classes.split(",")),
        patients=patients,
        seed=seed,
        force=force,
    )
    written = begun(weights, data, out, answers, _ask, typer.echo)
    typer.echo(f"Written: {', '.join(map(str, written))}")
    told = shlex.quote(str(out))
    typer.echo(f"Next: compress check {told}; compress run {told}")


def _ask(question: str, proposed: str, flag: str) -> str:
    """The answer of a person at a terminal; without one the flag is asked for."""
    from compress.errors import SegpressError

    if sys.stdin is None or not sys.stdin.isatty():
        raise SegpressError(f"{question}: say so with {flag}")
    return str(typer.prompt(question, default=proposed))


@commands.command()
def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of lines.")] = False,
) -> None:
    """Say what this machine is, what each runtime can do here, and how to install what is missing."""
    import json

    from compress.commands.doctor import doctor as looked
    from compress.report.checkup import lines

    found = looked().as_dict()
    typer.echo(json.dumps(found, indent=2) if as_json else "\n".join(lines(found)))
