"""Where a report comes from: its date, the recipe's commit, and hashes of what was measured."""

from __future__ import annotations

import hashlib
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from shared_fixtures import write_folder

from compress.cache import Cache
from compress.data.folder import Folder
from compress.pipeline.provenance import commit_of, dated, hashes, now
from compress.report.report import Report
from export.artifact import Artifact, Port

GIT = ("git", "-c", "user.name=x", "-c", "user.email=x@example.org")


def git(folder: Path, *words: str) -> str:
    done = subprocess.run([*GIT, *words], cwd=folder, capture_output=True, text=True, check=True)
    return done.stdout.strip()


def report(**more: Any) -> Report:
    plain: dict[str, Any] = {key: {} for key in ("recipe", "versions", "host", "cases", "data")}
    return Report(**{"name": "x", "seed": 7, **plain, "steps": [], "rows": [], "gates": [], **more})


def test_the_commit_is_that_of_the_repository_that_the_recipe_lies_in(tmp_path: Path) -> None:
    recipe = tmp_path / "recipes" / "mine.yaml"
    recipe.parent.mkdir()
    recipe.write_text("a: 1\n")
    git(tmp_path, "init", "-q")
    assert commit_of(recipe) is None, "there is no commit yet"
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "x")
    git(tmp_path, "tag", "-am", "x", "v1")
    commit = git(tmp_path, "rev-parse", "HEAD")
    assert commit_of(recipe) == commit
    recipe.write_text("a: 2\n")
    assert commit_of(recipe) == f"{commit}-dirty"


def test_without_a_repository_or_without_git_no_commit_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert commit_of(None) is None
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert commit_of(tmp_path / "mine.yaml") is None
    monkeypatch.setenv("PATH", "")
    assert commit_of(tmp_path / "mine.yaml") is None


def test_a_report_keeps_the_date_it_was_made_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = Cache(tmp_path)
    first = dated(report(), None, cache)
    monkeypatch.setattr("compress.pipeline.provenance.now", lambda: "2030-01-01T00:00:00+00:00")
    assert dated(report(), None, cache).made == first.made
    assert dated(report(seed=8), None, cache).made["date"] == "2030-01-01T00:00:00+00:00"
    assert now().endswith("+00:00")


def test_two_reports_of_one_seed_differ_in_what_made_them_alone(tmp_path: Path) -> None:
    one, two = (replace(report(), made={"date": date, "commit": None}).as_dict() for date in ("a", "b"))
    assert one != two
    assert {key: one[key] for key in one if key != "made"} == {key: two[key] for key in two if key != "made"}


def test_the_hash_of_the_data_is_of_its_bytes_and_roles_wherever_it_lies(tmp_path: Path) -> None:
    def of(root: Path) -> str:
        return Folder(root=root, calibration=0)(channels=1, classes=3).sha256()

    counts = {"train": 2, "test": 2}
    here, there = write_folder(tmp_path / "a", counts), write_folder(tmp_path / "b", counts)
    assert of(here) == of(there)
    table = there / "split.csv"
    table.write_text(table.read_text().replace("masks/train_000.png,train", "masks/train_000.png,val"))
    assert of(here) != of(there)
    other = write_folder(tmp_path / "c", counts)
    image = other / "images" / "train_000.png"
    image.write_bytes(image.read_bytes() + b"\0")
    assert of(other) not in (of(here), of(there))


def test_an_artifacts_hashes_are_of_each_of_its_files(tmp_path: Path) -> None:
    port = Port(name="x", shape=(1,), dtype="float")
    for name in ("net.xml", "net.bin"):
        (tmp_path / name).write_bytes(name.encode())
    artifact = Artifact(path=tmp_path / "net.xml", format="openvino", beside=("net.bin",), input=port, output=port)
    wanted = {name: hashlib.sha256(name.encode()).hexdigest() for name in ("net.xml", "net.bin")}
    assert hashes(artifact) == wanted == hashes(artifact.sealed())
