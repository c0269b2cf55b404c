"""The commands that look at finished runs again, and measure nothing: gate, compare, verify, predict."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from compress.cli.options import Benchmark, Junit, RunFolder, Summary, console_of_output

commands = typer.Typer()


@commands.command()
def gate(
    run: RunFolder,
    gates: Annotated[
        Path | None, typer.Option("--gates", help="Judge by the gates in this YAML file instead of the recipe's.")
    ] = None,
    junit: Junit = None,
    summary: Summary = None,
    benchmark_json: Benchmark = None,
) -> None:
    """Judge a finished run again, by its own gates or by others; nothing is measured."""
    from compress.commands.gate import gate as judged
    from compress.report.outputs import Outputs
    from compress.report.terminal import show_gates, show_notes

    outputs = Outputs(junit=junit, summary=summary, benchmark_json=benchmark_json)
    outputs.begin()
    found = judged(run, gates)
    console = console_of_output()
    show_notes(found.notes, console)
    show_gates(found.record, console)
    outputs.write(found.record, found.notes)
    raise typer.Exit(found.exit_code)


@commands.command()
def compare(
    main: RunFolder,
    change: RunFolder,
    drop: Annotated[
        str | None, typer.Option(help="Mean Dice that each class may lose, or off.", show_default="0.005")
    ] = None,
    slower: Annotated[
        str | None, typer.Option(help="Times longer that an inference may take, or off.", show_default="1.1")
    ] = None,
    larger: Annotated[
        str | None, typer.Option(help="Times larger that a file may be, or off.", show_default="1.05")
    ] = None,
    gates: Annotated[
        Path | None,
        typer.Option("--gates", help="Judge by the gates in this YAML file; of the limits above, only by those given."),
    ] = None,
    every_step: Annotated[
        bool, typer.Option("--every-step", help="Compare every step, not the last one alone.")
    ] = False,
    junit: Junit = None,
    summary: Summary = None,
    benchmark_json: Benchmark = None,
    page: Annotated[Path | None, typer.Option("--page", help="Also write an HTML page of the two there.")] = None,
) -> None:
    """Judge what a change cost, from the run of the main branch and that of the change; nothing is measured."""
    from compress.commands.compare import DEFAULTS, NOTHING, limits
    from compress.commands.compare import compare as compared
    from compress.report.outputs import Outputs
    from compress.report.terminal import show_gates, show_notes, show_table

    outputs = Outputs(junit=junit, summary=summary, benchmark_json=benchmark_json, page=page)
    outputs.begin()
    allowed = limits({"drop": drop, "slower": slower, "larger": larger}, DEFAULTS if gates is None else NOTHING)
    found = compared(main, change, allowed, gates, every_step=every_step)
    console = console_of_output()
    show_table(found.table, console)
    console.print()
    show_notes(found.notes, console)
    show_gates(found.record, console)
    html = ""
    if page is not None:
        from compress.report.change_page import to_html

        html = to_html(found.record, found.table, found.notes, found.pairs)
    outputs.write(found.record, found.notes, html=html)
    raise typer.Exit(found.exit_code)


@commands.command()
def pack(
    run: RunFolder,
    kind: Annotated[str, typer.Option("--for", help="Whom it is for: python, triton, cpp.")],
    out: Annotated[
        Path | None, typer.Option(help="The folder to write; by the run's name beside it if left out.")
    ] = None,
    step: Annotated[str | None, typer.Option(help="A step of the run, such as 01-int8; the last if left out.")] = None,
    backend: Annotated[str | None, typer.Option(help="The runtime that it runs on.")] = None,
    images: Annotated[
        list[Path] | None, typer.Option("--image", help="A file to prove it on (give several); made up if left out.")
    ] = None,
    licence: Annotated[str, typer.Option(help="The licence of the weights.")] = "not stated",
) -> None:
    """Pack an artifact of a finished run with all that comes before and after it, and prove its masks."""
    from compress.commands.pack import pack as packed

    to = run.with_name(f"{run.name}-{kind}") if out is None else out
    done = packed(run, kind, to, step=step, backend=backend, images=images or (), licence=licence, say=typer.echo)
    typer.echo(f"{done.same:.4%} of the pixels of {done.images} images have the class that the run gives them")
    typer.echo(f"Pack: {done.folder}: {done.use}")


@commands.command()
def verify(run: RunFolder) -> None:
    """Look whether a finished run is as it was left: every file by its hash, every number from what is kept."""
    from compress.commands.verify import verify as verified

    for line in verified(run):
        typer.echo(line)


@commands.command()
def predict(
    run: RunFolder,
    images: Annotated[list[Path], typer.Argument(help="Images, or folders of them.", show_default=False)],
    step: Annotated[str | None, typer.Option(help="The step, such as 01-int8; the last by default.")] = None,
    backend: Annotated[str, typer.Option(help="The runtime whose artifact answers.")] = "onnxruntime",
    device: Annotated[str, typer.Option(help="The device that it was built for.")] = "cpu",
    out: Annotated[Path, typer.Option(help="Where masks/ and overlays/ are written.")] = Path("predictions"),
    force: Annotated[bool, typer.Option("--force", help="Write over what is there.")] = False,
) -> None:
    """Write masks and overlays of images, by an artifact of a finished run as that was scored."""
    from compress.commands.predict import Which
    from compress.commands.predict import predict as predicted

    which = Which(step=step, backend=backend, device=device)
    count = predicted(run, images, which, out, force=force, say=typer.echo)
    typer.echo(f"Written: {count} masks and overlays, {out / 'masks'} and {out / 'overlays'}")
