"""The report on paper: its page, printed by the Chromium that is here."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory

from compress.errors import SegpressError, SurroundingsError
from export.errors import first_line

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
FLAGS = ("--headless", "--disable-gpu", "--disable-dev-shm-usage", "--no-pdf-header-footer", "--no-first-run")
PATIENCE_S = 120.0


def browser() -> str:
    """The program that prints.

    Raises:
        SegpressError: if there is none.
    """
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        raise SegpressError(
            f"--pdf: a Chromium prints it, and none is here (looked for {', '.join(BROWSERS)}); install one, or print "
            "report.html from any browser"
        )
    return found


def to_pdf(page: Path) -> bytes:
    """The PDF of a report's page, on A4.

    Raises:
        SegpressError: if there is no Chromium.
        SurroundingsError: if it does not print: what it says.
    """
    with TemporaryDirectory() as scratch:
        pdf = Path(scratch) / "report.pdf"
        # Root has no sandbox of Chromium's; the page is ours, and has neither scripts nor anything from elsewhere.
        as_root = ("--no-sandbox",) if hasattr(os, "geteuid") and os.geteuid() == 0 else ()
        places = (f"--user-data-dir={scratch}/profile", f"--print-to-pdf={pdf}", page.resolve().as_uri())
        command = (browser(), *FLAGS, *as_root, *places)
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
        except subprocess.TimeoutExpired:
            raise SurroundingsError(f"--pdf: {command[0]} did not print {page} in {PATIENCE_S:.0f} s") from None
        if done.returncode != 0 or not pdf.is_file():
            why = first_line(RuntimeError(done.stderr.strip() or f"exit code {done.returncode}"))
            raise SurroundingsError(f"--pdf: {command[0]} did not print {page} ({why})")
        return pdf.read_bytes()
