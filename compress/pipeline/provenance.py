"""Where a report comes from: when it was made, from which commit of the recipe's repository, and from which bytes."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from compress.cache import Cache, key_of
from compress.report.report import Report
from export.artifact import Artifact
from export.files import sha256

SECONDS = 10
"""A repository that takes longer to answer is not asked."""


def dated(report: Report, recipe: Path | None, cache: Cache) -> Report:
    """The report with its date and the recipe's commit; one that was made before keeps those it was made with."""
    made = cache.value("made", key_of(report.as_dict()), lambda: {"date": now(), "commit": commit_of(recipe)})
    return replace(report, made=made)


def now() -> str:
    """The date and time in UTC, to the second: 2026-11-29T21:43:05+00:00."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def commit_of(recipe: Path | None) -> str | None:
    """The commit that is checked out where the recipe lies, "-dirty" behind it where tracked files have changed since.

    None where there is no repository, no commit yet, or no git.
    """
    if recipe is None:
        return None
    # Tags are no commits: none is let through.
    words = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        done = subprocess.run(
            words,
            cwd=recipe.absolute().parent,
            env={**os.environ, "GIT_OPTIONAL_LOCKS": "0"},
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None if done.returncode == 0 else None


def hashes(artifact: Artifact) -> Mapping[str, str]:
    """The SHA-256 of each of an artifact's files, by name."""
    sealed: Mapping[str, str] | None = artifact.made.get("sha256")
    return sealed or {file.name: sha256(file) for file in artifact.files}
