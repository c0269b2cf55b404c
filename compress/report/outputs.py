"""Files that are asked for beside a report: JUnit XML, a job's summary, points of a benchmark, a PDF."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compress.errors import SegpressError
from export.files import make_folder, write_bytes


@dataclass(frozen=True, kw_only=True)
class Outputs:
    """The files to write; None is not written."""

    junit: Path | None = None
    summary: Path | None = None
    """What is there already stays: GitHub gives all steps of a job one file ($GITHUB_STEP_SUMMARY)."""
    benchmark_json: Path | None = None
    pdf: Path | None = None
    page: Path | None = None
    """HTML of what else there is to show, of two runs."""
    mlflow: str | None = None
    """The experiment that MLflow is told of."""

    def begin(self) -> None:
        """Look whether they can be written, before hours are spent on what they will say; and remove what an earlier
        command left there, which nobody shall take for this one's verdict should it end without any.

        Raises:
            SegpressError: naming the option and its file; or what is not here of what prints a PDF, or tells MLflow.
        """
        options = {
            "--junit": self.junit,
            "--summary": self.summary,
            "--benchmark-json": self.benchmark_json,
            "--pdf": self.pdf,
            "--page": self.page,
        }
        for option, path in options.items():
            fault = None if path is None else _fault(path)
            if fault:
                raise SegpressError(f"{option}: {path}: {fault}")
        if self.mlflow is not None:
            from compress.report.mlflow import check_installed

            check_installed()
        if self.pdf is not None:
            from compress.report.pdf import browser

            browser()
        for path in (self.junit, self.benchmark_json, self.pdf, self.page):
            if path is not None:
                path.unlink(missing_ok=True)

    def write(
        self, report: Mapping[str, Any], notes: tuple[str, ...] = (), folder: Path | None = None, html: str = ""
    ) -> None:
        """Write each that is asked for, whole or not at all.

        Args:
            report: `Report.as_dict()`, or report.json read back.
            notes: for the summary.
            folder: the run's, for the PDF and MLflow.
            html: the page.
        """
        if self.page is not None:
            _write(self.page, html.encode())
        if self.pdf is not None and folder is not None:
            from compress.report.pdf import to_pdf

            _write(self.pdf, to_pdf(folder / "report.html"))
        if self.junit is not None:
            from compress.report.junit import to_junit

            _write(self.junit, to_junit(report).encode())
        if self.benchmark_json is not None:
            from compress.report.benchmark_json import to_benchmark_json

            _write(self.benchmark_json, to_benchmark_json(report).encode())
        if self.summary is not None:
            from compress.report.job_summary import to_summary

            before = self.summary.read_bytes() if self.summary.is_file() else b""
            gap = b"\n" if before and not before.endswith(b"\n\n") else b""
            _write(self.summary, before + gap + to_summary(report, notes).encode())
        if self.mlflow is not None and folder is not None:
            from compress.report.mlflow import to_mlflow

            to_mlflow(report, folder, self.mlflow)


def _write(path: Path, data: bytes) -> None:
    place = path.resolve()
    make_folder(place.parent)
    write_bytes(place, data)


def _fault(path: Path) -> str | None:
    """Why a file cannot be written; None if it can."""
    if path.is_dir():
        return "is a folder; give a file"
    if path.exists() and not path.is_file():
        return "is no ordinary file; give another"
    # Those that are not there yet are made.
    there = next(folder for folder in path.resolve().parents if folder.exists())
    if not there.is_dir():
        return f"{there} is a file, where a folder must be"
    return None if os.access(there, os.W_OK) else f"the folder {there} cannot be written (no permission)"
