"""A run told to MLflow: what was done, the numbers of every row, the report, and what the last step built."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from compress.errors import MissingExtra, SurroundingsError
from compress.report.derived import compared, verdicts
from compress.report.derived.compared import Line
from compress.report.derived.recorded import Json
from export.errors import first_line

REPORT = ("report.json", "report.md", "report.html")
LONGEST = 500
"""Letters of a parameter, which is what the oldest servers take."""


def check_installed() -> None:
    """Whether MLflow is there.

    Raises:
        MissingExtra: if not, with how to install it.
    """
    try:
        import mlflow  # noqa: F401
    except ImportError:
        raise MissingExtra("mlflow", "mlflow") from None


def to_mlflow(report: Mapping[str, Any], folder: Path, experiment: str) -> None:
    """Tell a finished run to the server that MLFLOW_TRACKING_URI names.

    Args:
        report: `Report.as_dict()`, or report.json read back.
        folder: the run's.

    Raises:
        MissingExtra: if MLflow is not installed.
        SurroundingsError: if the server does not take it: what it says.
    """
    check_installed()
    import mlflow

    try:
        mlflow.set_experiment(experiment)
        with mlflow.start_run(run_name=str(report["name"])):
            mlflow.set_tags(_tags(report))
            mlflow.log_params(_params(report))
            mlflow.log_metrics(dict(_metrics(report)))
            for name in REPORT:
                mlflow.log_artifact(str(folder / name))
            for place in dict.fromkeys(_built(report, folder)):
                mlflow.log_artifacts(str(place), f"artifacts/{place.name}")
    except (mlflow.exceptions.MlflowException, OSError) as error:
        raise SurroundingsError(f"--mlflow: {mlflow.get_tracking_uri()}: {first_line(error)}") from None


def _tags(report: Json) -> dict[str, str]:
    made = report.get("made") or {}
    tags = {"verdict": verdicts.conclusion(report).word, "segpress": report["versions"].get("segpress")}
    tags |= {"recipe commit": made.get("commit"), "data sha256": (report.get("hashes") or {}).get("data")}
    return {name: str(value) for name, value in tags.items() if value}


def _params(report: Json) -> dict[str, str]:
    """What the recipe says, a parameter for each of its sections."""
    told: Json = {**report["recipe"], "seed": report["seed"]}
    return {name: str(value)[:LONGEST] for name, value in told.items()}


def _metrics(report: Json) -> Iterator[tuple[str, float]]:
    """The numbers of what was measured, under names such as 01-int8/onnxruntime/cpu/dice."""
    for line in compared.lines(report):
        # Of hosts and DLA cores (orin_nano@tower-7+dla0) no letter that a server refuses is left.
        device = line.device.replace("@", " at ").replace("+", " ")
        for name, value in _numbers(line):
            if value is not None:
                yield f"{line.step}/{line.backend}/{device}/{name}", value


def _numbers(line: Line) -> Iterator[tuple[str, float | None]]:
    yield "dice", line.dice
    yield "dice_drop", line.drop
    yield "dice_drop_upper", line.drop_upper
    yield "latency_p50_ms", line.p50_ms
    yield "size_mb", line.size_mb
    yield "peak_memory_mb", line.peak_memory_mb
    yield "speed_up", line.speed_up


def _built(report: Json, folder: Path) -> Iterator[Path]:
    """The folders of what the last step built."""
    for line in compared.last_step(report):
        if line.row.get("artifact"):
            place = (folder / line.row["artifact"]).parent
            if place.is_dir():
                yield place
