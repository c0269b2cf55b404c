"""The command line: words in, exit code out.

0 every gate holds; 1 a gate fails; 2 the recipe or the input is wrong; 3 nothing fails, but
something is inconclusive or was not measured; 4 the surroundings failed, or something that nobody foresaw; 130 stopped
by Ctrl-C, 143 by SIGTERM.
"""

from __future__ import annotations

import contextlib
import gc
import io
import os
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import typer

from compress.cli.beginning import commands as of_beginning
from compress.cli.finished_runs import commands as of_finished_runs
from compress.cli.options import (
    Benchmark,
    Cluster,
    DataRoot,
    Fresh,
    Junit,
    Mlflow,
    Out,
    Pdf,
    RecipePath,
    Summary,
    console_of_output,
    size_of,
)
from compress.cli.searching import commands as of_searches

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"segpress {version('segpress')}")
        raise typer.Exit


Version = Annotated[
    bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.", show_default=False)
]
Host = Annotated[str, typer.Argument(help="A host as ssh knows it, such as one of ~/.ssh/config.", show_default=False)]
Python = Annotated[str, typer.Option(help="The Python there that has the runtimes.")]

app.add_typer(of_beginning)
app.add_typer(of_searches)
app.add_typer(of_finished_runs)
device_commands = typer.Typer(no_args_is_help=True, rich_markup_mode=None)
app.add_typer(device_commands, name="device", help="A device that is reached over SSH, by itself.")


@app.callback()
def compress(asked: Version = False) -> None:
    """Compress a trained segmentation network, build it for its device, and prove what it cost."""


@app.command()
def run(
    recipe: RecipePath,
    data: DataRoot = None,
    out: Out = Path("runs"),
    fresh: Fresh = False,
    junit: Junit = None,
    summary: Summary = None,
    benchmark_json: Benchmark = None,
    pdf: Pdf = None,
    mlflow: Mlflow = None,
    workers: Annotated[int, typer.Option(min=1, help="Train blocks in so many processes at once (Ray).")] = 1,
    cluster: Cluster = None,
) -> None:
    """Compress, build, measure and judge. Exits 0 only if every gate holds."""
    from compress.cluster import Workers
    from compress.commands.run import run as run_recipe
    from compress.recipe import load
    from compress.report.outputs import Outputs
    from compress.report.terminal import show

    outputs = Outputs(junit=junit, summary=summary, benchmark_json=benchmark_json, pdf=pdf, mlflow=mlflow)
    outputs.begin()
    loaded = load(recipe, data)
    folder = out / loaded.name
    console = console_of_output()

    def say(line: str) -> None:
        console.print(line, markup=False, style="dim")

    at_once = Workers(count=workers, address=cluster)
    report = run_recipe(loaded, folder, fresh=fresh, say=say, workers=at_once)
    show(report.as_dict(), console)
    outputs.write(report.as_dict(), folder=folder)
    console.print(f"Report: {folder / 'report.html'} (also report.md, report.json)", markup=False)
    raise typer.Exit(report.exit_code)


@app.command()
def train(recipe: RecipePath, data: DataRoot = None, out: Out = Path("runs"), fresh: Fresh = False) -> None:
    """Train the recipe's network; writes net.safetensors and net.json into the run's folder."""
    from compress.commands.train import train as train_recipe
    from compress.recipe import load

    loaded = load(recipe, data)
    weights = train_recipe(loaded, out / loaded.name, fresh=fresh, say=typer.echo)
    typer.echo(f"Weights: {weights}")


@app.command()
def check(
    recipe: RecipePath,
    data: DataRoot = None,
    quick: Annotated[bool, typer.Option("--quick", help="Look at the recipe alone, at no file that it names.")] = False,
) -> None:
    """Look, in seconds, at all that can be seen before a run: recipe, weights, data, baseline, devices, gates."""
    from compress.errors import RecipeError
    from compress.recipe import read
    from compress.search.loading import has_choices
    from compress.search.loading import load as load_search

    space = load_search(recipe, data) if has_choices(recipe) else None
    loaded, mistakes = read(recipe, data) if space is None else (space.first, [])
    warnings: list[str] = []
    if space is not None and loaded is not None and loaded.weights is None and loaded.train is not None:
        typer.echo("its networks are trained by the search, so nothing was looked at but the recipe")
        quick = True
    if loaded is not None and not quick:
        from compress.commands.check import check as look
        from compress.search.foreseen import foreseen

        found = look(loaded, say=lambda line: typer.echo(f"{line} ...", err=True))
        if space is not None and not found.mistakes:
            found.mistakes += found.tried(lambda: foreseen(space)) or []
        mistakes, warnings = [*mistakes, *found.mistakes], found.warnings
        for line in (*found.facts, *(f"warning: {warning}" for warning in warnings)):
            typer.echo(line)
    if mistakes or loaded is None:
        raise RecipeError(str(recipe), mistakes)
    steps = " -> ".join(word for word, _ in loaded.passes) or "no pass" if space is None else space.in_words()
    but = f", but for {len(warnings)} warning{'s' * (len(warnings) > 1)}" if warnings else ""
    devices = ", ".join(device.name for device in loaded.devices)
    gates = f"{len(loaded.gates)} gate{'s' * (len(loaded.gates) != 1)}"
    typer.echo(f"{recipe}: good ({steps}; {gates}; on {devices}){but}")


@app.command()
def inspect(
    model: Annotated[Path, typer.Argument(help="A recipe, a saved network (.safetensors), or an ONNX file.")],
    size: Annotated[
        str | None, typer.Option(help="Input height and width, such as 256x256; of volumes depth first.")
    ] = None,
    backend: Annotated[
        str, typer.Option(help="The runtime that is timed, such as onnxruntime or openvino.")
    ] = "onnxruntime",
    device: Annotated[
        str, typer.Option(help="Where it runs: a device, with its host where it is elsewhere: orin_nano@tower-7.")
    ] = "cpu",
    python: Python = "python3",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
    sensitivity: Annotated[
        bool, typer.Option("--sensitivity", help="Of a recipe: also what half of each pruning group costs in Dice.")
    ] = False,
    data: DataRoot = None,
    out: Out = Path("runs"),
) -> None:
    """Show the layers of a network: where the MACs are, and where the time goes."""
    import json

    from compress.commands.inspect import Where, surprises
    from compress.commands.inspect import inspect as inspect_model
    from compress.errors import SegpressError
    from compress.report.inspection import show

    if sensitivity and model.suffix not in (".yaml", ".yml"):
        raise SegpressError(f"{model}: --sensitivity needs a recipe, whose validation cases it measures on")
    found = inspect_model(model, Where(backend=backend, device=device, python=python, size=size_of(size)))
    drops = _half_drops(model, data, out) if sensitivity else None
    record = found.as_dict() | ({} if drops is None else {"half_pruned_drop": drops})
    if as_json:
        typer.echo(json.dumps(record, indent=2))
    else:
        show(record, surprises(found), drops, console_of_output())


def _half_drops(model: Path, data: Path | None, out: Path) -> dict[str, float | None]:
    from compress.commands.sensitivity import Questions
    from compress.commands.sensitivity import sensitivity as measured
    from compress.recipe import load

    loaded = load(model, data)
    # Said on the error stream, since the other may be read by a program.
    found = measured(
        loaded, out / loaded.name, Questions(ratios=(0.5,), int8=False), lambda line: typer.echo(line, err=True)
    )
    return {one["layers"][0]: one["drop"] for one in found["prune"]}


@app.command()
def sensitivity(
    recipe: RecipePath,
    data: DataRoot = None,
    out: Out = Path("runs"),
    cases: Annotated[int | None, typer.Option(min=1, help="Use so many validation cases; all by default.")] = None,
    ratios: Annotated[str, typer.Option(help="Shares of channels to take out.")] = "0.25,0.5,0.75",
) -> None:
    """Measure what pruning and 8-bit integers cost, layer by layer, on validation cases."""
    from compress.commands.sensitivity import Questions, write
    from compress.commands.sensitivity import sensitivity as measured
    from compress.recipe import load
    from compress.report.sensitivity import show

    loaded = load(recipe, data)
    folder = out / loaded.name
    console = console_of_output()
    found = measured(
        loaded, folder, Questions(ratios=_ratios(ratios), cases=cases), lambda line: console.print(line, markup=False)
    )
    write(found, folder)
    show(found, console)
    console.print(f"Written: {folder / 'sensitivity.json'} (also sensitivity.svg, sensitivity.png)", markup=False)


def _ratios(text: str) -> tuple[float, ...]:
    from compress.errors import SegpressError

    try:
        ratios = tuple(float(part) for part in text.split(","))
    except ValueError:
        ratios = ()
    if not ratios or not all(0 < ratio < 1 for ratio in ratios):
        raise SegpressError(f"--ratios: '{text}' is not a list of shares between 0 and 1, such as 0.25,0.5")
    return ratios


@device_commands.command()
def facts(host: Host, python: Python = "python3") -> None:
    """Print what a device says of itself: board, system, processor, memory, Python and runtimes."""
    import json

    from compress.commands.device import facts as told
    from compress.commands.device import lacks

    found = told(host, python)
    typer.echo(json.dumps(found, indent=2))
    if fault := lacks(host, found):
        typer.echo(f"compress: {fault}", err=True)


@device_commands.command()
def clean(host: Host, python: Python = "python3") -> None:
    """Remove all that runs have sent to a device; what is kept here stays."""
    from compress.commands.device import clean as cleaned

    typer.echo(f"{host}: {cleaned(host, python) / 1e6:.1f} MB removed")


@app.command()
def schema() -> None:
    """Print the JSON schema of recipes, for editors that complete YAML."""
    import json

    from compress.search.json_schema import schema as recipe_schema

    typer.echo(json.dumps(recipe_schema(), indent=2))


def main() -> None:
    """The console script: every way out of it is an exit code, and where something is wrong a sentence."""
    _settle_waiting()
    code = _code(sys.argv[1:])
    # Python would look through everything that torch left behind for cycles before it ends: a second, for nothing.
    gc.freeze()
    sys.exit(code)


def _settle_waiting() -> None:
    """Whether torch's OpenMP threads sleep behind every operator; read once, when torch is imported.

    They spin for a millisecond otherwise. Where nobody else wants the CPUs that spares waking them, and a small network
    trains up to twice as fast; where another process does, the same network takes up to ten times as long.
    """
    from export.host import is_shared, usable_cpus

    if is_shared(usable_cpus()):
        os.environ.setdefault("OMP_WAIT_POLICY", "passive")


def _code(words: list[str]) -> int:
    from compress.exits import stoppable, told

    try:
        with stoppable():
            _speaking()
            code = _command(words)
            if sys.stdout is not None:
                sys.stdout.flush()
            return code
    except BaseException as error:  # noqa: BLE001  the one place where everything ends that nothing else took
        text, code = told(error, words[0] if words else "")
        return _refuse(text, code)


def _command(words: list[str]) -> int:
    """Not `app()`, which makes exit codes of its own of Ctrl-C, a closed pipe and a full disk."""
    command = typer.main.get_command(app)
    # What typer raises over words it cannot read; typer names only one of its kinds.
    usage: Any = typer.BadParameter.__bases__[0]
    try:
        with command.make_context("compress", words) as context:
            command.invoke(context)
    except typer.Exit as done:
        return done.exit_code
    except usage as error:
        error.show()
        return int(error.exit_code)
    return 0


def _speaking() -> None:
    """What a terminal has no letters for is written as numbers; it ends nothing."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def _refuse(text: str, code: int) -> int:
    with contextlib.suppress(OSError):
        if sys.stderr is not None:
            sys.stderr.write(f"compress: {text}\n")
            sys.stderr.flush()
    _let_go()
    return code


def _let_go() -> None:
    """Python would try once more to print what nobody takes, say so, and exit with a code of its own."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
